"""The interpolations that scale a curriculum written in the paper's numbers."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

from davinci.accounting import ladder
from davinci.errors import UserError, nearest

# The keys each interpolation reads besides its arguments.
READS = {
    "tokens": ("scale.tokens_per_trillion",),
    "sequences": ("scale.sequences_per_1024",),
    "length": ("scale.sequence_length",),
    "ladder": ("scale.parameters", "scale.tokens_per_parameter", "scale.flops", "pool.vocab_size"),
    "oc.env": (),
}


def register() -> None:
    """Register ``${tokens:x}`` (x trillion of the paper's tokens), ``${sequences:n}`` (its batch of n sequences),
    ``${length:f}`` (the fraction f of the scale's sequence length) and ``${ladder:key}`` (what follows from
    ``scale.parameters``)."""
    OmegaConf.register_new_resolver("tokens", _tokens, replace=True)
    OmegaConf.register_new_resolver("sequences", _sequences, replace=True)
    OmegaConf.register_new_resolver("length", _length, replace=True)
    OmegaConf.register_new_resolver("ladder", _ladder, replace=True)


def _tokens(trillions: float, *, _root_: Any) -> int:
    return max(1, round(trillions * _root_.scale.tokens_per_trillion))


def _sequences(paper_sequences: int, *, _root_: Any) -> int:
    return max(1, round(paper_sequences * _root_.scale.sequences_per_1024 / 1024))


def _length(fraction: float, *, _root_: Any) -> int:
    return max(1, round(fraction * _root_.scale.sequence_length))


def _ladder(key: str, *, _root_: Any) -> float | int:
    scale = _root_.scale
    if scale.get("parameters") is None:
        raise UserError("model=ladder: needs scale.parameters; choose scale=ladder")
    try:
        target = float(scale.parameters)
    except (TypeError, ValueError):
        raise UserError(f"scale.parameters: a number of parameters is needed (got {scale.parameters!r})") from None
    found = ladder.derived(target, _root_.pool.vocab_size, scale.tokens_per_parameter, scale.flops)
    if key not in found:
        raise UserError(f"${{ladder:{key}}}: no such key" + nearest(key, found))
    return found[key]
