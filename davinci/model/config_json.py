"""What a ``config.json`` that transformers wrote says of a model, as a shape; whatever is not computed here is refused
by its name, be it known or not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from davinci.config import Model, parse
from davinci.errors import UserError, nearest
from davinci.model.config_keys import FREE, READ, SAID, read, shown, source
from davinci.model.export import hf_config
from davinci.model.hf_classes import EPS, TAKEN, TURNED, variants
from davinci.model.layout import Layout, variants_of
from davinci.model.layout_choice import of_class
from davinci.model.layout_table import LAYOUTS

_SCALING = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
_NUMBERS_OF_ROPE = frozenset({"rope_theta", "partial_rotary_factor", *_SCALING})


def class_of(config: Any, where: Path) -> Layout:
    """The class of transformers that a config.json is of; `where` is the file, for messages. Raises UserError."""
    said = config.get("architectures") if isinstance(config, dict) else None
    known = {one.architecture for one in LAYOUTS}
    name = ", ".join(map(str, said)) if isinstance(said, list) and said else "none"
    if name not in known:
        raise UserError(f"{where}: architectures: {name} is not read here{nearest(name, known)}")
    # Of DeepSeek-V3, GLM-4.5 and Granite; others have one form.
    taken = TAKEN.get(of_class(name, False).model_type, {}).get("first_k_dense_replace")
    layers, dense = config.get("num_hidden_layers"), config.get("first_k_dense_replace", taken)
    is_sparse = type(layers) is int and type(dense) is int and dense < layers
    return of_class(name, bool(config.get("num_local_experts", 8)) if "Granite" in name else is_sparse)


def described(said: dict[str, Any], layout: Layout, name: str, where: Path) -> Model:
    """The shape of a decoder that computes the same.

    Args:
        said: what stands in a config.json.
        layout: its class.
        name: of the shape.
        where: the file, for messages.

    Raises:
        UserError: with a setting that is not computed here.
    """
    kind, has_experts = layout.model_type, "experts" in layout.has
    config = read(said, kind, has_experts, where)
    rope = _rope(config, where)
    gated = kind not in ("arcee", "nemotron")
    acts = (
        {"silu": "swiglu", "gelu_pytorch_tanh": "geglu"} if gated else {"relu2": "relu2", "gelu_pytorch_tanh": "gelu"}
    )
    act = str(config.get("hidden_act", "silu" if gated else "relu2"))
    if act not in acts:
        raise UserError(f"{where}: hidden_act: {act} is not computed here in {layout.architecture}{nearest(act, acts)}")
    heads, theta = config["num_attention_heads"], rope.get("rope_theta", config.get("rope_theta"))
    eps_key, eps = EPS.get(kind, ("rms_norm_eps", 1e-6))
    values: dict[str, Any] = {
        "name": name, "layers": config["num_hidden_layers"], "hidden_size": config["hidden_size"],
        "attention_heads": heads, "kv_heads": config["num_key_value_heads"],
        "head_dim": config.get("head_dim") or config["hidden_size"] // heads,
        "mlp_intermediate_size": config["intermediate_size"], "vocab_size": config["vocab_size"],
        "max_position_embeddings": config.get("max_position_embeddings", 2048),
        "rope_theta": 10000.0 if theta is None else float(theta),
        "norm_eps": config.get(eps_key, eps), "tie_embeddings": bool(config.get("tie_word_embeddings", False)),
        "initializer_range": config.get("initializer_range", 0.02), "precision": "float32",
        "mlp": {"kind": acts[act]}, "positions": _positions(rope, config, layout, where),
    }  # fmt: skip
    values |= variants(kind, config, has_experts)
    model = parse(Model, values, lambda field: f"{where}{source(field, config)}")
    _require_computed(config, hf_config(model, model.vocab_size, layout, 0), layout, model, where)
    if more := variants_of(model) - layout.has:
        raise UserError(f"{where}: {', '.join(sorted(more))}: not computed here as {layout.architecture} does")
    return model


def _rope(config: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """What is said of RoPE, by transformers 5 in one place and by earlier ones in two; the older one counts first."""
    key = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    found = config.get(key) or {}
    if not isinstance(found, dict):
        raise UserError(f"{where}: {key}: {shown(found)} is no mapping; null is accepted")
    for one in sorted(found.keys() - {"rope_type", "type", *_NUMBERS_OF_ROPE}):
        if found[one]:
            raise UserError(f"{where}: {key}.{one}: {shown(found[one])} is nothing that is computed here")
    for one in _NUMBERS_OF_ROPE & found.keys():
        if type(found[one]) not in (int, float):
            raise UserError(f"{where}: {key}.{one}: a number is needed, not {shown(repr(found[one]))}")
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
    scaling = {key: rope[key] for key in _SCALING if key in rope} if turned == "llama3" else None
    return {"rotary": float(share), "scaling": scaling}


def _require_computed(config: dict[str, Any], ours: dict[str, Any], layout: Layout, model: Model, where: Path) -> None:
    """Raise UserError where config.json says what a decoder of `model` does not do."""
    architecture = layout.architecture
    # What says something of layers that there are none of.
    idle = {key for key in ours if key.startswith("mamba_")} if "ssm" not in model.layer_mixers else set()
    idle |= {"attention_multiplier"} if "attention" not in model.layer_mixers else set()
    idle |= {"num_experts_per_tok"} if not model.experts.count else set()
    for key in sorted(ours.keys() - FREE - idle):
        if key in config and not _same(config[key], ours[key]):
            raise UserError(f"{where}: {key}: {shown(config[key])} is not computed here in {architecture}; "
                            f"{shown(ours[key])} is accepted")  # fmt: skip
    dense = config.get("first_k_dense_replace", 0)
    if model.experts.count and dense:
        raise UserError(
            f"{where}: first_k_dense_replace: {dense} is not computed here; 0, or the number of layers, is accepted: "
            "experts in all of them or in none"
        )
    if model.is_latent and model.norm_eps != 1e-6:
        raise UserError(
            f"{where}: rms_norm_eps: {model.norm_eps:g} is not computed here in {architecture}, whose norms of "
            "narrow vectors have 1e-6; 1e-06 is accepted"
        )
    limits = config.get("time_step_limit")
    if limits is not None and limits not in ([0, math.inf], [0, {"__float__": "Infinity"}]):
        raise UserError(f"{where}: time_step_limit: {shown(limits)} is not computed here; null is accepted")
    fixed = {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "moe_layer_freq": 1, "qk_head_dim": model.key_dim}
    for key, only in fixed.items():
        if config.get(key, only) != only:
            raise UserError(f"{where}: {key}: {shown(config[key])} is not computed here; {only} is accepted")
    eps_key, _ = EPS.get(layout.model_type, ("rms_norm_eps", 0))
    known = ours.keys() | FREE | READ | SAID | TAKEN.get(layout.model_type, {}).keys() | {eps_key}
    for key in sorted(config.keys() - known):
        if config[key]:
            raise UserError(
                f"{where}: {key}: {shown(config[key])} is nothing that is computed here; take it out if no output of "
                "the model depends on it"
            )
    if layout.model_type == "granitemoehybrid":  # its layer_types are its mixers
        return
    wanted = "full_attention" if model.window.tokens is None else "sliding_attention"
    kinds = config.get("layer_types")
    # Without names, windows of Qwen2 and Qwen3 begin at a layer.
    begins = layout.model_type in ("qwen2", "qwen3") and config["max_window_layers"]
    some = set(kinds) - {wanted} if kinds else config.get("use_sliding_window") and begins
    if some:
        raise UserError(f"{where}: layer_types: {wanted} in every layer is accepted, not windows in some")


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other)
    return bool(one == other) or (one is None and not other)
