"""The classes of transformers that export and import know: what each needs, what it may have, and what its config.json
says beside the shape."""

from __future__ import annotations

from typing import Any

from davinci.config import Model
from davinci.model import layout_weights
from davinci.model.layout import FREE_HEADS, GEGLU, Layout


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


_OUTPUT = (".self_attn.o_proj",)
_ANY_EXPERTS = {"a bias of experts", "weights of experts that do not sum to 1"}
LAYOUTS = (
    Layout("llama", "LlamaForCausalLM", set(), {FREE_HEADS, "RoPE scaling"}, _biases),
    Layout(
        "llama",
        "LlamaForCausalLM",
        {"subspace attention"},
        {FREE_HEADS, "RoPE scaling"},
        _biases,
        layout_weights.subspace,
    ),
    Layout(
        "qwen2",
        "Qwen2ForCausalLM",
        {"biases"},
        {FREE_HEADS, "a window", "RoPE scaling"},
        _qwen_window,
        splits_as_qwen2=True,
        not_in_vllm={FREE_HEADS, GEGLU},
    ),
    Layout(
        "seed_oss",
        "SeedOssForCausalLM",
        set(),
        {FREE_HEADS, "biases", "RoPE scaling"},
        lambda model: {**_biases(model), "attention_out_bias": False, "residual_dropout": 0.0},
        not_in_vllm=set(),
    ),
    Layout(
        "deepseek_v3",
        "DeepseekV3ForCausalLM",
        {"latent attention"},
        {FREE_HEADS},
        _latent,
        layout_weights.latent,
        layout_weights.of_latent,
        ties=False,
    ),
    Layout(
        "deepseek_v3",
        "DeepseekV3ForCausalLM",
        {"latent attention", "experts", "shared experts", "sigmoid scores of experts"},
        {FREE_HEADS, *_ANY_EXPERTS},
        # vLLM asks for the last three; transformers 5 has no others.
        lambda model: {
            **_latent(model), **_sigmoid_experts(model),
            "scoring_func": "sigmoid", "topk_method": "noaux_tc", "moe_layer_freq": 1,
        },
        layout_weights.deepseek,
        layout_weights.of_deepseek,
        ties=False,
    ),
    Layout("mistral", "MistralForCausalLM", {"a window"}, {FREE_HEADS, "RoPE scaling"}, _window),
    Layout(
        "qwen3",
        "Qwen3ForCausalLM",
        {"QK-norm"},
        {FREE_HEADS, "biases", "a window", "RoPE scaling"},
        lambda model: {**_qwen_window(model), "attention_bias": model.has_biases},
        zeros=_OUTPUT,
        splits_as_qwen2=True,
    ),
    Layout(
        "smollm3",
        "SmolLM3ForCausalLM",
        {"no positions"},
        {FREE_HEADS, "biases", "a window"},
        _smollm3,
        zeros=_OUTPUT,
        not_in_vllm=set(),
    ),
    Layout(
        "smollm3",
        "SmolLM3ForCausalLM",
        {"a window"},
        {FREE_HEADS, "biases"},
        _smollm3,
        zeros=_OUTPUT,
        not_in_vllm=set(),
    ),
    Layout(
        "arcee", "ArceeForCausalLM", {"a perceptron without gate"}, {FREE_HEADS, "biases"}, _biases, zeros=_OUTPUT
    ),
    Layout(
        "nemotron",
        "NemotronForCausalLM",
        {"layernorm", "a perceptron without gate"},
        {FREE_HEADS, "biases", "partial RoPE"},
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
        {FREE_HEADS, "biases"},
        lambda model: {"attention_bias": model.has_biases, "clip_qkv": None},
        zeros=_OUTPUT,
        not_in_vllm=set(),
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
        {FREE_HEADS, "biases"},
        lambda model: {**_partial_rope(model), "attention_bias": model.has_biases},
        layout_weights.glm,
        layout_weights.of_glm,
        not_in_vllm=set(),
    ),
    Layout(
        "glm4_moe",
        "Glm4MoeForCausalLM",
        {"QK-norm"},
        {FREE_HEADS, "biases", "partial RoPE"},
        _glm4_moe,
        not_in_vllm={"QK-norm", GEGLU},
        ties=False,
    ),
    Layout(
        "glm4",
        "Glm4ForCausalLM",
        {"sandwich-norm"},
        {FREE_HEADS, "biases", "partial RoPE"},
        lambda model: {**_partial_rope(model), "attention_bias": model.has_biases},
        layout_weights.glm4,
        layout_weights.of_glm4,
    ),
    Layout(
        "mixtral",
        "MixtralForCausalLM",
        {"experts"},
        {FREE_HEADS, "a window"},
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
        {FREE_HEADS, "biases", "a window", "RoPE scaling", "weights of experts that do not sum to 1"},
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
        {FREE_HEADS, "biases", "shared experts", "a bias of experts"},
        _softmax_experts,
        layout_weights.ernie,
        layout_weights.of_ernie,
        (*_OUTPUT, "lm_head", *(f".mlp.shared_experts.{part}_proj" for part in ("gate", "up", "down"))),
    ),
    Layout(
        "glm4_moe",
        "Glm4MoeForCausalLM",
        {"experts", "shared experts", "sigmoid scores of experts"},
        {FREE_HEADS, "biases", "QK-norm", "partial RoPE", *_ANY_EXPERTS},
        _glm4_moe,
        layout_weights.biased_experts,
        layout_weights.of_experts,
        ties=False,
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
