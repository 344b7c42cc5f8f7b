"""What each class of transformers says of a model in words of its own: what it takes where its ``config.json`` says
nothing, and which variants of a decoder its settings are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Config = Mapping[str, Any]

# What a class takes where its config.json does not say, if that is not what is taken here (transformers 5).
TAKEN: dict[str, dict[str, Any]] = {
    "qwen2": {"num_key_value_heads": 32, "sliding_window": 4096, "max_window_layers": 28},
    "qwen3": {"num_key_value_heads": 32, "head_dim": 128, "sliding_window": 4096, "max_window_layers": 28},
    "seed_oss": {"num_key_value_heads": 8, "head_dim": 128},
    "mistral": {"num_key_value_heads": 8, "sliding_window": 4096},
    "smollm3": {"num_key_value_heads": 4, "tie_word_embeddings": True, "rope_theta": 2e6},
    "stablelm": {"num_key_value_heads": 32},
    "mixtral": {
        "num_key_value_heads": 8, "rope_theta": 1e6, "num_local_experts": 8, "num_experts_per_tok": 2,
        "router_aux_loss_coef": 0.001,
    },
    "deepseek_v3": {
        "num_key_value_heads": 128, "rope_interleave": True, "q_lora_rank": 1536, "kv_lora_rank": 512,
        "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "first_k_dense_replace": 3,
        "n_routed_experts": 256, "num_experts_per_tok": 8, "n_shared_experts": 1, "moe_intermediate_size": 2048,
        "n_group": 8, "topk_group": 4, "norm_topk_prob": True, "routed_scaling_factor": 2.5,
    },
    "qwen3_moe": {
        "num_key_value_heads": 4, "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768,
        "norm_topk_prob": False, "sliding_window": 4096, "router_aux_loss_coef": 0.001,
    },
    "ernie4_5_moe": {
        "num_key_value_heads": 4, "tie_word_embeddings": True, "rope_theta": 5e5, "moe_num_experts": 64, "moe_k": 6,
        "moe_num_shared_experts": 2, "moe_intermediate_size": 1536, "moe_layer_start_index": 1,
        "router_aux_loss_coef": 0.001,
    },
    "glm4_moe": {
        "num_key_value_heads": 8, "n_routed_experts": 128, "num_experts_per_tok": 8, "n_shared_experts": 1,
        "moe_intermediate_size": 1408, "first_k_dense_replace": 1, "norm_topk_prob": True, "n_group": 1,
        "topk_group": 1, "routed_scaling_factor": 1.0,
    },
    "glm": {"num_key_value_heads": 2, "head_dim": 128, "attention_bias": True},
    "glm4": {"num_key_value_heads": 2, "head_dim": 128, "attention_bias": True},
    "granitemoehybrid": {
        "attention_multiplier": 1.0, "mamba_n_heads": 128, "mamba_d_state": 256, "mamba_d_conv": 4, "mamba_expand": 2,
        "num_local_experts": 8, "num_experts_per_tok": 2, "shared_intermediate_size": 1024,
        "router_aux_loss_coef": 0.001,
    },
}  # fmt: skip
# Where a class has the eps of its norms, and what holds where it does not say.
EPS = {
    "stablelm": ("layer_norm_eps", 1e-5),
    "nemotron": ("norm_eps", 1e-5),
    "olmo": ("eps", 1e-5),
    "mixtral": ("rms_norm_eps", 1e-5),
    "arcee": ("rms_norm_eps", 1e-5),
    "ernie4_5_moe": ("rms_norm_eps", 1e-5),
    "glm4_moe": ("rms_norm_eps", 1e-5),
    "glm": ("rms_norm_eps", 1.5625e-7),
    "glm4": ("rms_norm_eps", 1.5625e-7),
}
# The share of a head's features that it turns.
TURNED = {"nemotron": 0.5, "stablelm": 0.25, "smollm3": 0.0, "glm": 0.5, "glm4": 0.5, "glm4_moe": 0.5}
# Where a class says that queries, keys and values have biases, if not in attention_bias.
_BIASED = {"stablelm": "use_qkv_bias", "ernie4_5_moe": "use_bias", "qwen2": ""}
# Of Granite's layers, by either of its names.
MIXERS = {"linear_attention": "ssm", "mamba": "ssm", "full_attention": "attention", "attention": "attention"}
# With which DeepSeek-V3 was trained (arXiv 2412.19437, section 4.2); of others' biases it is taken too.
_BIAS_RATE, _BALANCE = 1e-3, 1e-4


def variants(kind: str, config: Config, has_experts: bool) -> dict[str, Any]:
    """The fields of a shape that are variants, of a class and what its ``config.json`` says, as `config_keys.read`
    gives it."""
    found: dict[str, Any] = {}
    if kind in ("mistral", "mixtral") or config.get("use_sliding_window"):
        found["window"] = {"tokens": config.get("sliding_window")}
    found["qkv_bias"] = bool(config.get(_BIASED.get(kind, "attention_bias"), kind in ("qwen2", "seed_oss")))
    if kind in _VARIANTS:
        found |= _VARIANTS[kind](config)
    if has_experts:
        found["experts"] = _EXPERTS[kind](config)
    return found


def _layernorm(config: Config) -> dict[str, Any]:
    return {"norm": {"kind": "layernorm"}}


def _latent(config: Config) -> dict[str, Any]:
    ranks = {"kv_rank": config["kv_lora_rank"], "query_rank": config["q_lora_rank"]}
    return {
        "head_dim": config["v_head_dim"],
        "attention": {"kind": "latent", "rope_dim": config["qk_rope_head_dim"], **ranks},
    }


def _granite(config: Config) -> dict[str, Any]:
    layers = config.get("layer_types") or ["linear_attention"] * config["num_hidden_layers"]
    mixers = tuple(MIXERS[one] for one in layers)
    period = next(one for one in range(1, len(mixers) + 1) if (mixers[:one] * len(mixers))[: len(mixers)] == mixers)
    states = {"state": config["mamba_d_state"], "expand": config["mamba_expand"], "convolution": config["mamba_d_conv"]}
    width = config["intermediate_size" if config["num_local_experts"] else "shared_intermediate_size"]
    chosen = config["num_experts_per_tok"] + _shared_of_granite(config) if config["num_local_experts"] else 1
    return {
        "mixers": {"pattern": mixers[:period], **(states if "ssm" in mixers else {})},
        "positions": {"rotary": 1.0 if config.get("position_embedding_type") == "rope" else 0.0},
        "mlp_intermediate_size": width * chosen,
    }


def _shared_of_granite(config: Config) -> int:
    return int(config["shared_intermediate_size"] // max(1, config["intermediate_size"]))


_VARIANTS: dict[str, Callable[[Config], dict[str, Any]]] = {
    "smollm3": lambda config: {
        "positions": {"rotary": float(config["no_rope_layers"] == [1] * config["num_hidden_layers"])}
    },
    "stablelm": _layernorm,
    "nemotron": _layernorm,
    "olmo": lambda config: {"norm": {"kind": "nonparametric"}},
    "qwen3": lambda config: {"qk_norm": {"kind": "rms"}},
    "qwen3_moe": lambda config: {"qk_norm": {"kind": "rms"}},
    "deepseek_v3": _latent,
    "mixtral": lambda config: {"mlp_intermediate_size": config["intermediate_size"] * config["num_experts_per_tok"]},
    "glm4_moe": lambda config: {"qk_norm": {"kind": "rms" if config.get("use_qk_norm") else "none"}},
    "glm4": lambda config: {"placement": {"kind": "sandwich"}},
    "granitemoehybrid": _granite,
}


def _sigmoid_experts(config: Config) -> dict[str, Any]:
    return {
        "count": config["n_routed_experts"], "chosen": config["num_experts_per_tok"],
        "shared": config["n_shared_experts"], "width": config["moe_intermediate_size"],
        "renormalise": config["norm_topk_prob"], "scores": "sigmoid", "balance": _BALANCE, "bias_rate": _BIAS_RATE,
    }  # fmt: skip


_EXPERTS: dict[str, Callable[[Config], dict[str, Any]]] = {
    "deepseek_v3": _sigmoid_experts,
    "glm4_moe": _sigmoid_experts,
    "mixtral": lambda config: {
        "count": config["num_local_experts"],
        "chosen": config["num_experts_per_tok"],
        "width": config["intermediate_size"],
        "balance": config["router_aux_loss_coef"],
    },
    "qwen3_moe": lambda config: {
        "count": config["num_experts"],
        "chosen": config["num_experts_per_tok"],
        "width": config["moe_intermediate_size"],
        "renormalise": config["norm_topk_prob"],
        "balance": config["router_aux_loss_coef"],
    },
    "ernie4_5_moe": lambda config: {
        "count": config["moe_num_experts"],
        "chosen": config["moe_k"],
        "shared": config["moe_num_shared_experts"],
        "width": config["moe_intermediate_size"],
        "balance": config["router_aux_loss_coef"],
        "bias_rate": _BIAS_RATE,
    },
    "granitemoehybrid": lambda config: {
        "count": config["num_local_experts"],
        "chosen": config["num_experts_per_tok"],
        "shared": _shared_of_granite(config),
        "width": config["intermediate_size"],
        "balance": config["router_aux_loss_coef"],
    },
}
