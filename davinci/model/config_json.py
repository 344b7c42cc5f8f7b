"""What a ``config.json`` that transformers wrote says of a model, as a shape; whatever is not computed here is refused
by its name, be it known or not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from davinci.config import Model, parse
from davinci.errors import UserError, nearest
from davinci.model.export import hf_config
from davinci.model.hf_classes import EPS, TAKEN, TURNED, variants
from davinci.model.layouts import LAYOUTS, Layout, of_class

# What config.json may say otherwise: it changes nothing that is computed from the weights.
_FREE = frozenset({
    "architectures", "bos_token_id", "eos_token_id", "pad_token_id", "use_cache", "torch_dtype", "attention_dropout",
    "hidden_dropout", "residual_dropout", "router_aux_loss_coef", "router_jitter_noise", "output_router_logits",
    "rope_theta", "rope_parameters", "partial_rotary_factor", "head_dim", "max_window_layers", "first_k_dense_replace",
    "intermediate_size", "rms_norm_eps", "sliding_window", "experts_implementation", "layer_types",
    "num_nextn_predict_layers", "position_embedding_type", "num_experts_per_tok",
})  # fmt: skip
# What it may say beside what an export says: read elsewhere in this module, or what is written about a model, its
# training and its texts. Whatever else is there, and is not null, false, 0 or empty, is refused.
_READ = frozenset({
    "rope_scaling", "model_type", "mamba_chunk_size", "time_step_limit", "scoring_func", "topk_method",
    "moe_layer_freq", "qk_head_dim", "no_rope_layer_interval",
})  # fmt: skip
_MAY_BE_NULL = frozenset({"num_key_value_heads", "head_dim", "q_lora_rank", "sliding_window"})
_SAID = frozenset({
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


def described(config: Any, name: str, where: Path) -> tuple[Layout, Model]:
    """The class of transformers that a config.json is of, and the shape of a decoder that computes the same.

    Args:
        config: what stands in it.
        name: of the shape.
        where: the file, for messages.

    Raises:
        UserError: of another class, or with a setting that is not computed here.
    """
    layout = _layout(config, where)
    return layout, _model(config, layout, name, where)


def _layout(config: Any, where: Path) -> Layout:
    said = config.get("architectures") if isinstance(config, dict) else None
    known = {one.architecture for one in LAYOUTS}
    if not isinstance(said, list) or len(said) != 1 or said[0] not in known:
        name = str(said[0]) if isinstance(said, list) and said else "none"
        raise UserError(f"{where}: architectures: {name} is not read here{nearest(name, known)}")
    # Of DeepSeek-V3 and Granite; others have one form.
    layers, dense = config.get("num_hidden_layers"), config.get("first_k_dense_replace", 3)
    is_sparse = type(layers) is int and type(dense) is int and dense < layers
    return of_class(said[0], bool(config.get("num_local_experts", 8)) if "Granite" in said[0] else is_sparse)


def _model(said: dict[str, Any], layout: Layout, name: str, where: Path) -> Model:
    kind = layout.model_type
    config = TAKEN.get(kind, {}) | said
    rope = _rope(config, where)
    layers, heads = config.get("num_hidden_layers"), config.get("num_attention_heads")
    lacking = [key for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                               "vocab_size") if type(config.get(key)) is not int]  # fmt: skip
    if lacking or not layers or not heads:
        raise UserError(f"{where}: {(lacking or ['num_attention_heads'])[0]}: a whole number is needed")
    if config.get("moe_layer_end_index") == -1:  # Ernie 4.5's word for the last
        config["moe_layer_end_index"] = layers - 1
    if kind == "qwen3_moe" and "num_local_experts" in config:  # transformers 5's name
        config["num_experts"] = config.pop("num_local_experts")
    for key, taken in TAKEN.get(kind, {}).items():
        if type(taken) is int and type(config[key]) is not int and not (config[key] is None and key in _MAY_BE_NULL):
            raise UserError(f"{where}: {key}: {_shown(config[key])}: a whole number is needed")
    gated = kind not in ("arcee", "nemotron")
    acts = (
        {"silu": "swiglu", "gelu_pytorch_tanh": "geglu"} if gated else {"relu2": "relu2", "gelu_pytorch_tanh": "gelu"}
    )
    act = config.get("hidden_act", "silu" if gated else "relu2")
    if act not in acts:
        raise UserError(f"{where}: hidden_act: {act} is not computed here in {layout.architecture}{nearest(act, acts)}")
    eps_key, eps = EPS.get(kind, ("rms_norm_eps", 1e-6))
    values: dict[str, Any] = {
        "name": name, "layers": layers, "hidden_size": config["hidden_size"], "attention_heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or config["hidden_size"] // heads,
        "mlp_intermediate_size": config["intermediate_size"], "vocab_size": config["vocab_size"],
        "max_position_embeddings": config.get("max_position_embeddings", 2048),
        "rope_theta": float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
        "norm_eps": config.get(eps_key, eps), "tie_embeddings": bool(config.get("tie_word_embeddings", False)),
        "qkv_bias": False, "initializer_range": config.get("initializer_range", 0.02), "precision": "float32",
        "mlp": {"kind": acts[act]}, "positions": _positions(rope, config, layout, where),
    }  # fmt: skip
    values |= variants(kind, config, "experts" in layout.has)
    model = parse(Model, values, lambda key: str(where))
    _require_computed(config, hf_config(model, model.vocab_size, layout, 0), layout, model, where)
    return model


def _rope(config: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """What is said of RoPE, by transformers 5 in one place and by earlier ones in two."""
    found: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        said = config.get(key) or {}
        if not isinstance(said, dict):
            raise UserError(f"{where}: {key}: {_shown(said)} is no mapping; null is accepted")
        found |= said
    return found


def _positions(rope: Mapping[str, Any], config: Mapping[str, Any], layout: Layout, where: Path) -> dict[str, Any]:
    turned = rope.get("rope_type", rope.get("type", "default"))
    can_be_slow = "RoPE scaling" in layout.has
    if turned != "default" and not (turned == "llama3" and can_be_slow):
        accepted = "default or llama3 is" if can_be_slow else "default is"
        raise UserError(
            f"{where}: rope_type: {turned} is not computed here in {layout.architecture}; {accepted} accepted"
        )
    default = TURNED.get(layout.model_type, 1.0)
    share = default if default == 0 else rope.get("partial_rotary_factor", config.get("partial_rotary_factor", default))
    if default == 1 and share != 1:
        raise UserError(
            f"{where}: partial_rotary_factor: {share} is not computed here in {layout.architecture}; 1 is accepted"
        )
    keys = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    scaling = {key: rope[key] for key in keys if key in rope} if turned == "llama3" else None
    return {"rotary": float(share), "scaling": scaling}


def _require_computed(config: dict[str, Any], ours: dict[str, Any], layout: Layout, model: Model, where: Path) -> None:
    """Raise UserError where config.json says what a decoder of `model` does not do."""
    for key in ours.keys() - _FREE:
        if key in config and not _same(config[key], ours[key]):
            raise UserError(f"{where}: {key}: {_shown(config[key])} is not computed here in {layout.architecture}; "
                            f"{_shown(ours[key])} is accepted")  # fmt: skip
    dense = config.get("first_k_dense_replace", 0)
    if model.experts.count and dense:
        raise UserError(
            f"{where}: first_k_dense_replace: {dense} is not computed here; 0, or the number of layers, is accepted: "
            "experts in all of them or in none"
        )
    if model.is_latent and model.norm_eps != 1e-6:
        raise UserError(
            f"{where}: rms_norm_eps: {model.norm_eps:g} is not computed here in {layout.architecture}, whose norms of "
            "narrow vectors have 1e-6; 1e-06 is accepted"
        )
    fixed = {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "moe_layer_freq": 1, "qk_head_dim": model.key_dim}
    limits = config.get("time_step_limit")
    if limits is not None and limits not in ([0, math.inf], [0, {"__float__": "Infinity"}]):
        raise UserError(f"{where}: time_step_limit: {_shown(limits)} is not computed here; null is accepted")
    for key, only in fixed.items():
        if config.get(key, only) != only:
            raise UserError(f"{where}: {key}: {config[key]} is not computed here; {only} is accepted")
    eps_key, _ = EPS.get(layout.model_type, ("rms_norm_eps", 0))
    known = ours.keys() | _FREE | _READ | _SAID | TAKEN.get(layout.model_type, {}).keys() | {eps_key}
    for key in sorted(config.keys() - known):
        if config[key]:
            raise UserError(
                f"{where}: {key}: {_shown(config[key])} is nothing that is computed here; take it out if no output of "
                "the model depends on it"
            )
    kinds = set(() if model.is_recurrent else config.get("layer_types") or ())
    wanted = "full_attention" if model.window.tokens is None else "sliding_attention"
    if kinds - {wanted} or (config.get("use_sliding_window") and config.get("max_window_layers", 0)):
        raise UserError(f"{where}: layer_types: {wanted} in every layer is accepted, not windows in some")


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other)
    return bool(one == other)
