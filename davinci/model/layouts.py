"""Which class of transformers computes what a decoder computes, and how that class names things.

Where several could, the plainest is taken. A combination of variants that no class has is refused, naming what stands
in the way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from davinci.config import Model
from davinci.errors import UserError

QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ACTIVATIONS = {"swiglu": "silu", "geglu": "gelu_pytorch_tanh", "relu2": "relu2", "gelu": "gelu_pytorch_tanh"}
Weights = dict[str, Tensor]


def _as_they_are(weights: Mapping[str, Tensor], model: Model) -> Weights:
    return dict(weights)


@dataclass(frozen=True)
class Layout:
    """A class of transformers.

    Attributes:
        model_type, architecture: as ``config.json`` has them.
        has: variants that it can express beside Qwen2's plain block without biases, by the names of `_variants`.
        settings: what its configuration says beside the shape.
        weights: a decoder's weights by this class's names.
        decoders: the way back: this class's weights by a decoder's names.
        splits_as_qwen2: transformers gives it Qwen2's own splitting of text, whatever tokenizer.json says.
        needs: variants without which this form of the class is not meant, beside those of `_REQUIRED`.
    """

    model_type: str
    architecture: str
    has: frozenset[str]
    settings: Callable[[Model], dict[str, Any]] = lambda model: {}
    weights: Callable[[Mapping[str, Tensor], Model], Weights] = field(default=_as_they_are)
    decoders: Callable[[Mapping[str, Tensor], Model], Weights] = field(default=_as_they_are)
    splits_as_qwen2: bool = False
    needs: frozenset[str] = frozenset()


def layout_of(model: Model, tokenizer: Tokenizer) -> Layout:
    """The layout in which transformers computes the same from the same text.

    Raises:
        UserError: there is none for this combination of variants.
    """
    wanted = _variants(model)
    is_qwen2s = splits_as_qwen2(tokenizer)
    fitting = [one for one in LAYOUTS if one.needs | _REQUIRED.get(one.model_type, frozenset()) <= wanted <= one.has]
    possible = [one for one in LAYOUTS if is_qwen2s or not one.splits_as_qwen2]
    if found := next((one for one in fitting if one in possible), None):
        return found
    if fitting:
        raise UserError(
            f"model {model.name}: {fitting[0].architecture} computes the same, but transformers gives it Qwen2's "
            "splitting of text, and this tokenizer splits otherwise"
        )
    nearest = min((one for one in possible if one.needs <= wanted), key=lambda one: len(wanted - one.has))
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


def _variants(model: Model) -> frozenset[str]:
    """What of a model is not Qwen2's plain block without biases."""
    found = {
        "linear attention": "linear" in model.layer_mixers,
        "state-space mixers": "ssm" in model.layer_mixers,
        "latent attention": model.is_latent,
        # transformers' norms of the narrow vectors have 1e-6, whatever the model's eps.
        "latent attention with an eps other than 1e-6": model.is_latent and model.norm_eps != 1e-6,
        "biases": model.has_biases,
        "QK-norm": model.qk_norm.kind == "rms",
        "a window": model.window.tokens is not None,
        "no positions": model.rotary_dim == 0,
        "RoPE scaling": model.positions.scaling is not None,
        "partial RoPE": 0 < model.positions.rotary < 1,
        model.norm.kind: model.norm.kind != "rmsnorm",
        "nonparametric with an eps other than 1e-5": model.norm.kind == "nonparametric" and model.norm_eps != 1e-5,
        f"{model.placement.kind}-norm": model.placement.kind != "pre",
        "subspace attention": model.attention.kind == "subspace",
        "CRATE's sparsifying step": model.mlp.kind == "ista",
        "a KAN perceptron": model.mlp.kind == "kan",
        "a perceptron without gate": model.mlp.kind in ("relu2", "gelu"),
        "experts": model.experts.count > 0,
        "shared experts": model.experts.count > 0 and model.experts.shared > 0,
        "weights of experts that do not sum to 1": model.experts.count > 0 and not model.experts.renormalise,
        "sigmoid scores of experts": model.experts.count > 0 and model.experts.scores == "sigmoid",
        "a bias of experts": model.experts.count > 0 and model.experts.bias_rate > 0,
        _FREE_HEADS: model.head_dim * model.attention_heads != model.hidden_size,
    }
    return frozenset(name for name, is_there in found.items() if is_there)


def _window(model: Model) -> dict[str, Any]:
    return {"sliding_window": model.window.tokens}


def _qwen_window(model: Model) -> dict[str, Any]:
    if model.window.tokens is None:
        return {"use_sliding_window": False}
    return {"use_sliding_window": True, "sliding_window": model.window.tokens, "max_window_layers": 0}


def _no_biases(model: Model) -> dict[str, Any]:
    return {"attention_bias": False, "mlp_bias": False}


def _partial_rope(model: Model) -> dict[str, Any]:
    factor = model.positions.rotary
    return {
        "partial_rotary_factor": factor,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_theta, "partial_rotary_factor": factor},
    }


def _latent(model: Model) -> dict[str, Any]:
    return {
        "attention_bias": False, "rope_interleave": False, "first_k_dense_replace": model.layers,
        "q_lora_rank": model.attention.query_rank, "kv_lora_rank": model.latent_rank,
        "qk_nope_head_dim": model.head_dim, "qk_rope_head_dim": model.latent_rope_dim, "v_head_dim": model.head_dim,
        "head_dim": model.latent_rope_dim,
    }  # fmt: skip


def _latent_experts(model: Model) -> dict[str, Any]:
    """One group of experts, whose weights are multiplied by 1."""
    experts = model.experts
    return _latent(model) | {
        "first_k_dense_replace": 0, "n_routed_experts": experts.count, "num_experts_per_tok": experts.chosen,
        "n_shared_experts": experts.shared, "moe_intermediate_size": model.expert_width, "n_group": 1, "topk_group": 1,
        "norm_topk_prob": experts.renormalise, "routed_scaling_factor": 1.0, **_experts_of_any_width(model),
    }  # fmt: skip


def _experts_of_any_width(model: Model) -> dict[str, Any]:
    """transformers multiplies all experts at once where rows are whole 16 bytes, also in bfloat16; others in a loop."""
    is_whole = model.hidden_size % 8 == 0 and model.expert_width % 8 == 0
    return {} if is_whole else {"experts_implementation": "eager"}


def _one_by_one(weights: Mapping[str, Tensor], place: str, gate: str, up: str, down: str) -> Weights:
    """Experts each under a name of their own, as their files have them, in the block's `place`; all else unchanged."""
    found: Weights = {}
    for name, one in weights.items():
        block, _, part = name.partition(".mlp.")
        if part == "gate_up_proj":
            for number, both in enumerate(one):
                for matrix, half in zip((gate, up), both.chunk(2), strict=True):
                    found[f"{block}.{place}.experts.{number}.{matrix}.weight"] = half.contiguous()
        elif part == "down_proj":
            for number, matrix_down in enumerate(one):
                found[f"{block}.{place}.experts.{number}.{down}.weight"] = matrix_down.contiguous()
        else:
            found[name] = one
    return found


def _deepseek(weights: Mapping[str, Tensor], model: Model) -> Weights:
    """DeepseekV3's files have a bias of the router, which is 0 where none was kept."""
    found = _one_by_one(weights, "mlp", "gate_proj", "up_proj", "down_proj")
    for name, one in weights.items():
        if name.endswith(".mlp.gate.weight"):
            bias = name.removesuffix("weight") + "e_score_correction_bias"
            found.setdefault(bias, one.new_zeros(len(one)))
    return found


def _of_deepseek(weights: Mapping[str, Tensor], model: Model) -> Weights:
    return _stacked(weights, model, "mlp", "gate_proj", "up_proj", "down_proj")


def _nemotron(weights: Mapping[str, Tensor], model: Model) -> Weights:
    """Nemotron's norms keep their gain less 1."""
    is_gain = ("norm.weight", "layernorm.weight")
    return {name: one - 1 if name.endswith(is_gain) else one for name, one in weights.items()}


def _of_nemotron(weights: Mapping[str, Tensor], model: Model) -> Weights:
    is_gain = ("norm.weight", "layernorm.weight")
    return {name: one + 1 if name.endswith(is_gain) else one for name, one in weights.items()}


def _mixtral(weights: Mapping[str, Tensor], model: Model) -> Weights:
    """In Mixtral's files w1 is the gate, w3 what it is multiplied with, w2 the output."""
    found = _one_by_one(weights, "block_sparse_moe", "w1", "w3", "w2")
    return {name.replace(".mlp.", ".block_sparse_moe."): one for name, one in found.items()}


def _of_mixtral(weights: Mapping[str, Tensor], model: Model) -> Weights:
    found = _stacked(weights, model, "block_sparse_moe", "w1", "w3", "w2")
    return {name.replace(".block_sparse_moe.", ".mlp."): one for name, one in found.items()}


def _stacked(weights: Mapping[str, Tensor], model: Model, place: str, gate: str, up: str, down: str) -> Weights:
    """The way back from `_one_by_one`."""
    found = {name: one for name, one in weights.items() if f".{place}.experts." not in name}
    for layer in range(model.layers):
        block = f"model.layers.{layer}"

        def each(part: str, block: str = block) -> list[Tensor]:
            names = (f"{block}.{place}.experts.{one}.{part}.weight" for one in range(model.experts.count))
            return [weights[name] for name in names]

        both = [torch.cat(pair) for pair in zip(each(gate), each(up), strict=True)]
        found[f"{block}.mlp.gate_up_proj"], found[f"{block}.mlp.down_proj"] = torch.stack(both), torch.stack(each(down))
    return found


_FREE_HEADS = "heads other than hidden_size / attention_heads wide"
# Variants without which a class is not meant.
_REQUIRED = {
    "qwen2": frozenset({"biases"}),
    "seed_oss": frozenset({"biases"}),
    "deepseek_v3": frozenset({"latent attention"}),
    "mistral": frozenset({"a window"}),
    "qwen3": frozenset({"QK-norm"}),
    "smollm3": frozenset({"no positions"}),
    "arcee": frozenset({"a perceptron without gate"}),
    "nemotron": frozenset({"layernorm", "a perceptron without gate"}),
    "stablelm": frozenset({"layernorm"}),
    "olmo": frozenset({"nonparametric"}),
    "mixtral": frozenset({"experts"}),
}
LAYOUTS = (
    Layout("llama", "LlamaForCausalLM", frozenset({_FREE_HEADS, "RoPE scaling"}), _no_biases),
    Layout(
        "qwen2",
        "Qwen2ForCausalLM",
        frozenset({_FREE_HEADS, "biases", "a window", "RoPE scaling"}),
        _qwen_window,
        splits_as_qwen2=True,
    ),
    Layout(
        "seed_oss",
        "SeedOssForCausalLM",
        frozenset({_FREE_HEADS, "biases", "RoPE scaling"}),
        lambda model: {
            "attention_bias": True, "attention_out_bias": False, "mlp_bias": False, "residual_dropout": 0.0
        },
    ),
    Layout(
        "deepseek_v3",
        "DeepseekV3ForCausalLM",
        frozenset({_FREE_HEADS, "latent attention"}),
        _latent,
    ),
    Layout(
        "deepseek_v3",
        "DeepseekV3ForCausalLM",
        frozenset({
            _FREE_HEADS, "latent attention", "experts", "shared experts", "sigmoid scores of experts",
            "a bias of experts", "weights of experts that do not sum to 1",
        }),
        _latent_experts,
        _deepseek,
        _of_deepseek,
        needs=frozenset({"shared experts", "sigmoid scores of experts"}),
    ),
    Layout("mistral", "MistralForCausalLM", frozenset({_FREE_HEADS, "a window", "RoPE scaling"}), _window),
    Layout(
        "qwen3",
        "Qwen3ForCausalLM",
        frozenset({_FREE_HEADS, "QK-norm", "a window", "RoPE scaling"}),
        _qwen_window,
        splits_as_qwen2=True,
    ),
    Layout(
        "smollm3",
        "SmolLM3ForCausalLM",
        frozenset({_FREE_HEADS, "no positions"}),
        lambda model: {**_no_biases(model), "no_rope_layers": [0] * model.layers, "use_sliding_window": False},
    ),
    Layout("arcee", "ArceeForCausalLM", frozenset({_FREE_HEADS, "a perceptron without gate"}), _no_biases),
    Layout(
        "nemotron",
        "NemotronForCausalLM",
        frozenset({_FREE_HEADS, "layernorm", "a perceptron without gate", "partial RoPE"}),
        lambda model: {**_no_biases(model), **_partial_rope(model), "norm_eps": model.norm_eps},
        _nemotron,
        _of_nemotron,
    ),
    Layout(
        "stablelm",
        "StableLmForCausalLM",
        frozenset({"layernorm", "biases", "partial RoPE"}),
        lambda model: {
            **_partial_rope(model), "layer_norm_eps": model.norm_eps, "use_qkv_bias": model.qkv_bias,
            "qk_layernorm": False, "use_parallel_residual": False, "hidden_dropout": 0.0,
        },
    ),
    Layout(
        "olmo",
        "OlmoForCausalLM",
        frozenset({_FREE_HEADS, "nonparametric"}),
        lambda model: {"attention_bias": False, "clip_qkv": None},
    ),
    Layout(
        "mixtral",
        "MixtralForCausalLM",
        frozenset({_FREE_HEADS, "experts", "a window"}),
        lambda model: {
            **_window(model), "num_local_experts": model.experts.count, "num_experts_per_tok": model.experts.chosen,
            "intermediate_size": model.expert_width, "router_aux_loss_coef": model.experts.balance,
            "output_router_logits": False, "router_jitter_noise": 0.0, **_experts_of_any_width(model),
        },
        _mixtral,
        _of_mixtral,
    ),
)  # fmt: skip


def of_class(architecture: str, has_experts: bool) -> Layout:
    """The layout of a class; of two forms the one with experts where there are some."""
    forms = [one for one in LAYOUTS if one.architecture == architecture]
    return next((one for one in forms if ("experts" in one.has) == has_experts), forms[0])


def hf_activation(model: Model) -> str:
    """The perceptron's activation by transformers' name."""
    return _ACTIVATIONS[model.mlp.kind]
