"""What of a shape nothing reads: two models that differ in it alone are one."""

from __future__ import annotations

from typing import Any

from davinci.config.model import Attention, Experts, Model, Positions, QKNorm, Window


def without_idle(model: Model) -> Model:
    """The model with every field that changes nothing it computes at one value, to compare it by."""
    idle: dict[str, Any] = {}
    mixers = set(model.layer_mixers)
    if "attention" not in mixers:
        idle |= {"qk_norm": QKNorm(), "window": Window(), "kv_heads": 1, "qkv_bias": False}
    if mixers == {"ssm"}:
        idle |= {"attention": Attention(), "positions": Positions(), "rope_theta": 1.0}
    if model.attention.kind != "grouped":
        idle["kv_heads"] = 1
    if not model.has_biases:
        idle["qkv_bias"] = False
    if not model.positions.rotary:
        idle |= {"positions": Positions(rotary=0.0), "rope_theta": 1.0}
    if isinstance(model.window.tokens, int) and model.window.tokens >= model.max_position_embeddings:
        idle["window"] = Window()
    if not model.mlp.has_width or (model.experts.count and model.experts.width):
        idle["mlp_intermediate_size"] = 1
    if not model.experts.count:
        idle["experts"] = Experts()
    return model.model_copy(update=idle)
