"""The keys of a ``config.json``: which there are, other names of theirs, and the types that are taken."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from davinci.errors import UserError
from davinci.model.hf_classes import EPS, MIXERS, TAKEN

# What config.json may say otherwise than an export does: it is read, and the shape that is made of it compared, or it
# changes nothing that is computed from the weights.
FREE = frozenset({
    "architectures", "bos_token_id", "eos_token_id", "pad_token_id", "use_cache", "torch_dtype", "attention_dropout",
    "hidden_dropout", "residual_dropout", "router_aux_loss_coef", "router_jitter_noise", "output_router_logits",
    "rope_theta", "rope_parameters", "partial_rotary_factor", "head_dim", "max_window_layers", "first_k_dense_replace",
    "intermediate_size", "rms_norm_eps", "sliding_window", "experts_implementation", "layer_types",
    "num_nextn_predict_layers", "position_embedding_type",
})  # fmt: skip
# What it may say beside what an export says: read where the shape is made, or what is written about a model, its
# training and its texts. Whatever else is there, and is not null, false, 0 or empty, is refused.
READ = frozenset({
    "rope_scaling", "model_type", "mamba_chunk_size", "time_step_limit", "scoring_func", "topk_method",
    "moe_layer_freq", "qk_head_dim", "no_rope_layer_interval",
})  # fmt: skip
SAID = frozenset({
    "_attn_implementation", "_attn_implementation_autoset", "_model_name_or_path", "_name_or_path",
    "attn_implementation", "aux_loss_alpha", "bad_words_ids", "chunk_size_feed_forward", "classifier_dropout",
    "decoder_start_token_id", "diversity_penalty", "do_sample", "dtype", "early_stopping", "embd_pdrop",
    "ep_size", "finetuning_task", "id2label", "is_llama_config", "label2id", "length_penalty", "max_length",
    "min_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams",
    "num_return_sequences", "output_attentions", "output_hidden_states", "prefix", "pretraining_tp",
    "problem_type", "repetition_penalty", "resid_pdrop", "return_dict", "return_dict_in_generate", "sep_token_id",
    "seq_aux", "task_specific_params", "temperature", "tokenizer_class", "top_k", "top_p", "torchscript",
    "transformers.js_config", "transformers_version", "typical_p", "unk_token_id",
})  # fmt: skip
_CHOSEN = ("num_experts_per_tok", "moe_k")
_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
_WHOLE = frozenset({
    *_SIZES, "num_key_value_heads", "head_dim", "max_position_embeddings", "sliding_window", "max_window_layers",
    "no_rope_layer_interval", *(key for taken in TAKEN.values() for key, value in taken.items() if type(value) is int),
})  # fmt: skip
_NUMBERS = frozenset({
    "rope_theta", "partial_rotary_factor", "initializer_range", "attention_multiplier", "router_aux_loss_coef",
    "rms_norm_eps", *(key for key, _ in EPS.values()),
})  # fmt: skip
_TRUTHS = frozenset({
    "attention_bias", "mlp_bias", "norm_topk_prob", "tie_word_embeddings", "use_bias", "use_qk_norm", "use_qkv_bias",
    "use_sliding_window",
})  # fmt: skip
_MAY_BE_NULL = frozenset({"num_key_value_heads", "head_dim", "q_lora_rank", "sliding_window", "rope_theta"})
# Other names by which transformers knows them (its ``attribute_map``).
_ALIASES = {
    "qwen3_moe": {"num_local_experts": "num_experts"},
    "ernie4_5_moe": {"num_experts": "moe_num_experts", "num_experts_per_tok": "moe_k"},
    "mixtral": {"num_experts": "num_local_experts"},
    "deepseek_v3": {"num_local_experts": "n_routed_experts", "num_mtp_layers": "num_nextn_predict_layers"},
    "granitemoehybrid": {"layers_block_type": "layer_types"},
    "glm4_moe": {"num_local_experts": "n_routed_experts", "num_mtp_layers": "num_nextn_predict_layers"},
}

# Where what a field of a shape says comes from, the first of them that is there.
_SOURCES = {
    "layers": ("num_hidden_layers",), "attention_heads": ("num_attention_heads",), "kv_heads": ("num_key_value_heads",),
    "mlp_intermediate_size": ("intermediate_size",), "tie_embeddings": ("tie_word_embeddings",),
    "norm_eps": ("rms_norm_eps", *sorted({key for key, _ in EPS.values()})), "qkv_bias": ("attention_bias",),
    "window": ("sliding_window",), "positions.rotary": ("partial_rotary_factor", "rope_parameters", "rope_scaling"),
    "positions": ("rope_scaling", "rope_parameters"), "mixers": ("layer_types",),
    "attention.kv_rank": ("kv_lora_rank",), "attention.query_rank": ("q_lora_rank",),
    "attention.rope_dim": ("qk_rope_head_dim",), "rope_dim": ("qk_rope_head_dim",), "head_dim": ("v_head_dim",),
    "experts.count": ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"),
    "experts.chosen": _CHOSEN, "experts.shared": ("n_shared_experts", "moe_num_shared_experts"),
    "experts.width": ("moe_intermediate_size", "intermediate_size"), "experts.balance": ("router_aux_loss_coef",),
    "mixers.state": ("mamba_d_state",), "mixers.expand": ("mamba_expand",), "mixers.convolution": ("mamba_d_conv",),
}  # fmt: skip


def source(field: str, config: Mapping[str, Any]) -> str:
    """``: key`` of what in `config` the dotted `field` of a shape comes from, where it has another name there."""
    while field not in _SOURCES and "." in field:
        field = field.rpartition(".")[0]
    return next((f": {key}" for key in _SOURCES.get(field, ()) if key in config), "")


def read(said: Mapping[str, Any], kind: str, has_experts: bool, where: Path) -> dict[str, Any]:
    """What a ``config.json`` of the class `kind` says, with what the class takes where it does not, each key by one
    name and of its type.

    Raises:
        UserError: a size is missing, or something is of another type.
    """
    config = {**TAKEN.get(kind, {}), **said}
    for alias, key in _ALIASES.get(kind, {}).items():
        if alias in config:
            config[key] = config.pop(alias)
    for key in _SIZES:
        if type(config.get(key)) is not int or config[key] < 1:
            raise UserError(f"{where}: {key}: a whole number above 0 is needed, not {shown(repr(config.get(key)))}")
    for key, value in config.items():
        # A class whose layers have no experts may say anything of them.
        is_idle = not has_experts and key in TAKEN.get(kind, {}) and ("expert" in key or "moe" in key)
        if (value is None and key in _MAY_BE_NULL) or is_idle:
            continue
        if key in _WHOLE and type(value) is not int:
            raise UserError(f"{where}: {key}: a whole number is needed, not {shown(repr(value))}")
        if key in _CHOSEN and value < 1:
            raise UserError(f"{where}: {key}: a whole number above 0 is needed, not {value}")
        if key in _TRUTHS and value is not None and type(value) is not bool:
            raise UserError(f"{where}: {key}: true or false is needed, not {shown(repr(value))}")
        if key in _NUMBERS and type(value) not in (int, float):
            raise UserError(f"{where}: {key}: a number is needed, not {shown(repr(value))}")
    config["num_key_value_heads"] = config.get("num_key_value_heads") or config["num_attention_heads"]
    layers = config["num_hidden_layers"]
    if config.get("moe_layer_end_index") == -1:  # Ernie 4.5's word for the last
        config["moe_layer_end_index"] = layers - 1
    if config.get("mamba_d_head") == "auto":
        config["mamba_d_head"] = config["mamba_expand"] * config["hidden_size"] // max(1, config["mamba_n_heads"])
    if kind == "smollm3":
        _layers_of_smollm3(config, where)
    kinds = config.get("layer_types")
    if kinds is not None and not (isinstance(kinds, list) and len(kinds) == layers and {*map(type, kinds)} == {str}):
        raise UserError(f"{where}: layer_types: a name for each of {layers} layers is needed, not {shown(repr(kinds))}")
    if kind == "granitemoehybrid" and (unknown := set(kinds or ()) - MIXERS.keys()):
        raise UserError(f"{where}: layer_types: {min(unknown)} is no kind of layer that is computed here")
    return config


def _layers_of_smollm3(config: dict[str, Any], where: Path) -> None:
    """Each fourth layer has no RoPE where nothing is said, and layers without it alone have windows."""
    every = config.get("no_rope_layer_interval") or 4
    turned = config.get("no_rope_layers")
    if turned is None:
        turned = [int(layer % every != 0) for layer in range(1, config["num_hidden_layers"] + 1)]
    if not isinstance(turned, list):
        raise UserError(f"{where}: no_rope_layers: 0 or 1 for each layer is needed, not {shown(repr(turned))}")
    config["no_rope_layers"] = turned
    if config.get("layer_types") is None and config.get("use_sliding_window") and config.get("sliding_window"):
        config["layer_types"] = ["full_attention" if one else "sliding_attention" for one in turned]


def shown(value: Any) -> str:
    """A value as messages have it, not too long."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."
