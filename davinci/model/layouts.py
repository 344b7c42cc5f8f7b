"""Which class of transformers computes what a decoder computes, and how that class names things.

Where several could, the plainest is taken. A combination of variants that no class has is refused, naming what stands
in the way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from davinci.config import Model
from davinci.errors import UserError
from davinci.model import layout_weights
from davinci.model.layout_weights import Weights

QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ACTIVATIONS = {"swiglu": "silu", "geglu": "gelu_pytorch_tanh", "relu2": "relu2", "gelu": "gelu_pytorch_tanh"}


@dataclass(frozen=True)
class Layout:
    """A class of transformers.

    Attributes:
        model_type, architecture: as ``config.json`` has them.
        needs: variants without which this form of the class is not meant, beside Qwen2's plain block without biases, by
            the names of `variants_of`.
        may: others that it can express.
        settings: what its configuration says beside the shape.
        weights: a decoder's weights by this class's names, but for `zeros`.
        decoders: the way back.
        zeros: linear maps that have biases where those of queries, keys and values have, and here never: theirs are 0.
        splits_as_qwen2: transformers gives it Qwen2's own splitting of text, whatever tokenizer.json says.
    """

    model_type: str
    architecture: str
    needs: AbstractSet[str]
    may: AbstractSet[str]
    settings: Callable[[Model], dict[str, Any]] = lambda model: {}
    weights: Callable[[Mapping[str, Tensor], Model], Weights] = field(default=layout_weights.as_they_are)
    decoders: Callable[[Mapping[str, Tensor], Model], Weights] = field(default=layout_weights.as_they_are)
    zeros: tuple[str, ...] = ()
    splits_as_qwen2: bool = False

    def theirs(self, weights: Mapping[str, Tensor], model: Model) -> Weights:
        """A decoder's weights as the class's files have them."""
        found = self.weights(weights, model)
        if "biases" in variants_of(model):
            for name, one in list(found.items()):
                if name.endswith(tuple(f"{part}.weight" for part in self.zeros)):
                    found[name.removesuffix("weight") + "bias"] = one.new_zeros(len(one))
            if "lm_head" in self.zeros:  # where it is the embedding it has no weight of its own
                embedding = found["model.embed_tokens.weight"]
                found["lm_head.bias"] = embedding.new_zeros(len(embedding))
        return found

    def ours(self, weights: Mapping[str, Tensor], model: Model) -> Weights:
        """The way back."""
        return self.decoders({name: one for name, one in weights.items() if not self.is_zero(name)}, model)

    def is_zero(self, name: str) -> bool:
        """Whether a tensor of the class has to be 0 everywhere."""
        return name.endswith(tuple(f"{part}.bias" for part in self.zeros))

    @property
    def has(self) -> AbstractSet[str]:
        """Every variant that it can express."""
        return self.needs | self.may


def layout_of(model: Model, tokenizer: Tokenizer) -> Layout:
    """The layout in which transformers computes the same from the same text.

    Raises:
        UserError: there is none for this combination of variants.
    """
    wanted = variants_of(model)
    is_qwen2s = splits_as_qwen2(tokenizer)
    fitting = [one for one in LAYOUTS if one.needs <= wanted <= one.has]
    possible = [one for one in LAYOUTS if is_qwen2s or not one.splits_as_qwen2]
    if found := next((one for one in fitting if one in possible), None):
        return found
    if fitting:
        raise UserError(
            f"model {model.name}: {fitting[0].architecture} computes the same, but transformers gives it Qwen2's "
            "splitting of text, and this tokenizer splits otherwise"
        )
    # The last of those that lack as little: the more special ones come later.
    nearest = min((one for one in reversed(possible) if one.needs <= wanted), key=lambda one: len(wanted - one.has))
    raise UserError(
        f"model {model.name}: no class of transformers has {', '.join(sorted(wanted))} together; "
        f"{nearest.architecture} comes nearest and lacks {', '.join(sorted(wanted - nearest.has))}"
    )


def splits_as_qwen2(tokenizer: Tokenizer) -> bool:
    """Whether text is normalised and split as transformers' Qwen2Tokenizer does (its `PRETOKENIZE_REGEX`)."""
    written = json.loads(tokenizer.to_str())
    steps = (written["pre_tokenizer"] or {}).get("pretokenizers", [])
    patterns = [step["pattern"].get("Regex") for step in steps if step["type"] == "Split"]
    return (written["normalizer"] or {}).get("type") == "NFC" and patterns == [QWEN2_SPLIT]


def variants_of(model: Model) -> frozenset[str]:
    """What of a model is not Qwen2's plain block without biases."""
    experts, mixers = model.experts, set(model.layer_mixers)
    attends, is_latent = mixers != {"ssm"}, mixers != {"ssm"} and model.is_latent
    found = {
        "linear attention": "linear" in mixers,
        "state-space mixers": "ssm" in mixers,
        "latent attention": is_latent,
        # transformers' norms of the narrow vectors have 1e-6, whatever the model's eps.
        "latent attention with an eps other than 1e-6": is_latent and model.norm_eps != 1e-6,
        "biases": attends and model.has_biases,
        "QK-norm": attends and model.qk_norm.kind == "rms",
        "a window": attends and model.window.tokens is not None,
        "no positions": attends and model.rotary_dim == 0,
        "RoPE scaling": attends and model.positions.scaling is not None,
        "partial RoPE": attends and 0 < model.positions.rotary < 1,
        "subspace attention": attends and model.attention.kind == "subspace",
        model.norm.kind: model.norm.kind != "rmsnorm",
        "nonparametric with an eps other than 1e-5": model.norm.kind == "nonparametric" and model.norm_eps != 1e-5,
        f"{model.placement.kind}-norm": model.placement.kind != "pre",
        "CRATE's sparsifying step": model.mlp.kind == "ista",
        "a KAN perceptron": model.mlp.kind == "kan",
        "a perceptron without gate": model.mlp.kind in ("relu2", "gelu"),
        # transformers' mixers have the perceptron's activation, ours SiLU.
        "GeGLU beside state-space mixers": "ssm" in mixers and model.mlp.kind == "geglu",
        # transformers tabulates angles of half a head even where none is turned.
        "heads of an odd width without positions": model.head_dim % 2 == 1 and not (attends and model.rotary_dim),
        _FREE_HEADS: model.head_dim * model.attention_heads != model.hidden_size,
    }
    if experts.count:
        found |= {
            "experts": True,
            "shared experts": experts.shared > 0,
            "weights of experts that do not sum to 1": not experts.renormalise,
            "sigmoid scores of experts": experts.scores == "sigmoid",
            # transformers looks at the best two of a group.
            "sigmoid scores of one expert": experts.scores == "sigmoid" and experts.count == 1,
            "a bias of experts": experts.bias_rate > 0,
        }
    return frozenset(name for name, is_there in found.items() if is_there)


def _window(model: Model) -> dict[str, Any]:
    return {"sliding_window": model.window.tokens}


def _qwen_window(model: Model) -> dict[str, Any]:
    if model.window.tokens is None:
        return {"use_sliding_window": False}
    return {"use_sliding_window": True, "sliding_window": model.window.tokens, "max_window_layers": 0}


def _biases(model: Model) -> dict[str, Any]:
    return {"attention_bias": model.has_biases, "mlp_bias": False}


def _smollm3(model: Model) -> dict[str, Any]:
    """Positions in all layers or in none, and so are windows."""
    window = model.window.tokens
    kind = "full_attention" if window is None else "sliding_attention"
    return {
        **_biases(model), "no_rope_layers": [int(model.rotary_dim > 0)] * model.layers,
        "use_sliding_window": window is not None, "sliding_window": window, "layer_types": [kind] * model.layers,
    }  # fmt: skip


def _glm4_moe(model: Model) -> dict[str, Any]:
    experts = _sigmoid_experts(model) if model.experts.count else {"first_k_dense_replace": model.layers}
    return {
        **experts, **_partial_rope(model), "attention_bias": model.has_biases,
        "use_qk_norm": model.qk_norm.kind == "rms", "num_nextn_predict_layers": 0,
    }  # fmt: skip


def _stablelm(model: Model) -> dict[str, Any]:
    return {
        **_partial_rope(model), "layer_norm_eps": model.norm_eps, "use_qkv_bias": model.has_biases,
        "qk_layernorm": False, "use_parallel_residual": False, "hidden_dropout": 0.0,
    }  # fmt: skip


def _partial_rope(model: Model) -> dict[str, Any]:
    factor = model.positions.rotary
    return {
        "partial_rotary_factor": factor,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_theta, "partial_rotary_factor": factor},
    }


def _latent(model: Model) -> dict[str, Any]:
    return {
        "attention_bias": False, "rope_interleave": True, "first_k_dense_replace": model.layers,
        "q_lora_rank": model.attention.query_rank, "kv_lora_rank": model.latent_rank,
        "qk_nope_head_dim": model.head_dim, "qk_rope_head_dim": model.latent_rope_dim, "v_head_dim": model.head_dim,
        "head_dim": model.latent_rope_dim,
    }  # fmt: skip


def _sigmoid_experts(model: Model) -> dict[str, Any]:
    """One group of experts, whose weights are multiplied by 1."""
    experts = model.experts
    return {
        "first_k_dense_replace": 0, "n_routed_experts": experts.count, "num_experts_per_tok": experts.chosen,
        "n_shared_experts": experts.shared, "moe_intermediate_size": model.expert_width, "n_group": 1, "topk_group": 1,
        "norm_topk_prob": experts.renormalise, "routed_scaling_factor": 1.0, **_experts_of_any_width(model),
    }  # fmt: skip


def _softmax_experts(model: Model) -> dict[str, Any]:
    """Of Ernie 4.5, in every layer."""
    experts = model.experts
    return {
        "use_bias": model.has_biases, "moe_layer_start_index": 0, "moe_layer_end_index": model.layers - 1,
        "moe_layer_interval": 1, "moe_num_experts": experts.count, "moe_k": experts.chosen,
        "moe_num_shared_experts": experts.shared, "moe_intermediate_size": model.expert_width, "moe_norm_min": 1e-12,
        **_balanced(model),
    }  # fmt: skip


def _granite(model: Model) -> dict[str, Any]:
    """Nothing is multiplied; layers of experts have a shared one, others nothing else."""
    mixers, experts, attends = model.mixers, model.experts, "attention" in model.layer_mixers
    return {
        "embedding_multiplier": 1.0, "logits_scaling": 1.0, "residual_multiplier": 1.0,
        "attention_bias": attends and model.has_biases,
        "attention_multiplier": model.head_dim**-0.5,
        "position_embedding_type": "rope" if attends and model.rotary_dim else "nope",
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_theta},
        "layer_types": ["mamba" if mixer == "ssm" else mixer for mixer in model.layer_mixers],
        "mamba_n_heads": model.state_heads, "mamba_d_head": model.head_dim, "mamba_expand": mixers.expand,
        "mamba_d_state": mixers.state, "mamba_d_conv": mixers.convolution, "mamba_n_groups": 1,
        "mamba_conv_bias": True, "mamba_proj_bias": False,
        # transformers 5 asks a cache how long it is, which one of states alone does not know.
        "use_cache": attends,
        "num_local_experts": experts.count, "num_experts_per_tok": experts.chosen if experts.count else 0,
        "intermediate_size": model.expert_width if experts.count else model.mlp_intermediate_size,
        "shared_intermediate_size": experts.shared * model.expert_width or model.mlp_intermediate_size,
        **_balanced(model),
    }  # fmt: skip


def _balanced(model: Model) -> dict[str, Any]:
    """How experts were balanced, and how they are multiplied."""
    balance = {"router_aux_loss_coef": model.experts.balance, "output_router_logits": False}
    return balance | _experts_of_any_width(model)


def _experts_of_any_width(model: Model) -> dict[str, Any]:
    """transformers multiplies all experts at once where rows are whole 16 bytes, also in bfloat16; others in a loop."""
    is_whole = model.hidden_size % 8 == 0 and model.expert_width % 8 == 0
    return {} if is_whole else {"experts_implementation": "eager"}


_FREE_HEADS = "heads other than hidden_size / attention_heads wide"
_OUTPUT = (".self_attn.o_proj",)
_ANY_EXPERTS = {"a bias of experts", "weights of experts that do not sum to 1"}
LAYOUTS = (
    Layout("llama", "LlamaForCausalLM", set(), {_FREE_HEADS, "RoPE scaling"}, _biases),
    Layout(
        "llama",
        "LlamaForCausalLM",
        {"subspace attention"},
        {_FREE_HEADS, "RoPE scaling"},
        _biases,
        layout_weights.subspace,
    ),
    Layout(
        "qwen2",
        "Qwen2ForCausalLM",
        {"biases"},
        {_FREE_HEADS, "a window", "RoPE scaling"},
        _qwen_window,
        splits_as_qwen2=True,
    ),
    Layout(
        "seed_oss",
        "SeedOssForCausalLM",
        {"biases"},
        {_FREE_HEADS, "RoPE scaling"},
        lambda model: {
            "attention_bias": True, "attention_out_bias": False, "mlp_bias": False, "residual_dropout": 0.0
        },
    ),
    Layout(
        "deepseek_v3",
        "DeepseekV3ForCausalLM",
        {"latent attention"},
        {_FREE_HEADS},
        _latent,
        layout_weights.latent,
        layout_weights.of_latent,
    ),
    Layout(
        "deepseek_v3",
        "DeepseekV3ForCausalLM",
        {"latent attention", "experts", "shared experts", "sigmoid scores of experts"},
        {_FREE_HEADS, *_ANY_EXPERTS},
        # vLLM asks for the last three; transformers 5 has no others.
        lambda model: {
            **_latent(model), **_sigmoid_experts(model),
            "scoring_func": "sigmoid", "topk_method": "noaux_tc", "moe_layer_freq": 1,
        },
        layout_weights.deepseek,
        layout_weights.of_deepseek,
    ),
    Layout("mistral", "MistralForCausalLM", {"a window"}, {_FREE_HEADS, "RoPE scaling"}, _window),
    Layout(
        "qwen3",
        "Qwen3ForCausalLM",
        {"QK-norm"},
        {_FREE_HEADS, "biases", "a window", "RoPE scaling"},
        lambda model: {**_qwen_window(model), "attention_bias": model.has_biases},
        zeros=_OUTPUT,
        splits_as_qwen2=True,
    ),
    Layout(
        "smollm3",
        "SmolLM3ForCausalLM",
        {"no positions"},
        {_FREE_HEADS, "biases", "a window"},
        _smollm3,
        zeros=_OUTPUT,
    ),
    Layout("smollm3", "SmolLM3ForCausalLM", {"a window", "biases"}, {_FREE_HEADS}, _smollm3, zeros=_OUTPUT),
    Layout(
        "arcee", "ArceeForCausalLM", {"a perceptron without gate"}, {_FREE_HEADS, "biases"}, _biases, zeros=_OUTPUT
    ),
    Layout(
        "nemotron",
        "NemotronForCausalLM",
        {"layernorm", "a perceptron without gate"},
        {_FREE_HEADS, "biases", "partial RoPE"},
        lambda model: {**_biases(model), **_partial_rope(model), "norm_eps": model.norm_eps},
        layout_weights.nemotron,
        layout_weights.of_nemotron,
        _OUTPUT,
    ),
    Layout("stablelm", "StableLmForCausalLM", {"layernorm"}, {"biases", "partial RoPE"}, _stablelm),
    Layout(
        "olmo",
        "OlmoForCausalLM",
        {"nonparametric"},
        {_FREE_HEADS, "biases"},
        lambda model: {"attention_bias": model.has_biases, "clip_qkv": None},
        zeros=_OUTPUT,
    ),
    Layout(
        "stablelm",
        "StableLmForCausalLM",
        {"nonparametric"},
        {"nonparametric with an eps other than 1e-5", "biases", "partial RoPE"},
        _stablelm,
        layout_weights.unit_gains,
    ),
    Layout(
        "glm",
        "GlmForCausalLM",
        {"partial RoPE"},
        {_FREE_HEADS, "biases"},
        lambda model: {**_partial_rope(model), "attention_bias": model.has_biases},
        layout_weights.glm,
        layout_weights.of_glm,
    ),
    Layout(
        "glm4_moe",
        "Glm4MoeForCausalLM",
        {"QK-norm"},
        {_FREE_HEADS, "biases", "partial RoPE"},
        _glm4_moe,
    ),
    Layout(
        "glm4",
        "Glm4ForCausalLM",
        {"sandwich-norm"},
        {_FREE_HEADS, "biases", "partial RoPE"},
        lambda model: {**_partial_rope(model), "attention_bias": model.has_biases},
        layout_weights.glm4,
        layout_weights.of_glm4,
    ),
    Layout(
        "mixtral",
        "MixtralForCausalLM",
        {"experts"},
        {_FREE_HEADS, "a window"},
        lambda model: {
            **_window(model), "num_local_experts": model.experts.count, "num_experts_per_tok": model.experts.chosen,
            "intermediate_size": model.expert_width, "router_jitter_noise": 0.0, **_balanced(model),
        },
        layout_weights.mixtral,
        layout_weights.of_mixtral,
    ),
    Layout(
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        {"experts", "QK-norm"},
        {_FREE_HEADS, "biases", "a window", "RoPE scaling", "weights of experts that do not sum to 1"},
        lambda model: {
            **_qwen_window(model), "attention_bias": model.has_biases, "num_experts": model.experts.count,
            "num_experts_per_tok": model.experts.chosen, "moe_intermediate_size": model.expert_width,
            "norm_topk_prob": model.experts.renormalise, "decoder_sparse_step": 1, "mlp_only_layers": [],
            **_balanced(model),
        },
        layout_weights.experts,
        layout_weights.of_experts,
        _OUTPUT,
        splits_as_qwen2=True,
    ),
    Layout(
        "ernie4_5_moe",
        "Ernie4_5_MoeForCausalLM",
        {"experts"},
        {_FREE_HEADS, "biases", "shared experts", "a bias of experts"},
        _softmax_experts,
        layout_weights.ernie,
        layout_weights.of_ernie,
        (*_OUTPUT, "lm_head", *(f".mlp.shared_experts.{part}_proj" for part in ("gate", "up", "down"))),
    ),
    Layout(
        "glm4_moe",
        "Glm4MoeForCausalLM",
        {"experts", "shared experts", "sigmoid scores of experts"},
        {_FREE_HEADS, "biases", "QK-norm", "partial RoPE", *_ANY_EXPERTS},
        _glm4_moe,
        layout_weights.biased_experts,
        layout_weights.of_experts,
    ),
    Layout(
        "granitemoehybrid",
        "GraniteMoeHybridForCausalLM",
        {"state-space mixers"},
        {"no positions", "biases"},
        _granite,
        layout_weights.granite,
        layout_weights.of_granite,
        _OUTPUT,
    ),
    Layout(
        "granitemoehybrid",
        "GraniteMoeHybridForCausalLM",
        {"state-space mixers", "experts", "shared experts"},
        {"no positions", "biases"},
        _granite,
        layout_weights.granite,
        layout_weights.of_granite,
        _OUTPUT,
    ),
)  # fmt: skip


def of_class(architecture: str, has_experts: bool) -> Layout:
    """The layout of a class; of two forms the one with experts where there are some."""
    forms = [one for one in LAYOUTS if one.architecture == architecture]
    return next((one for one in forms if ("experts" in one.has) == has_experts), forms[0])


def hf_activation(model: Model) -> str:
    """The perceptron's activation by transformers' name."""
    return _ACTIVATIONS[model.mlp.kind]
