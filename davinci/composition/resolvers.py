"""The interpolations that scale a curriculum written in the paper's numbers."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

# The keys each interpolation reads besides its arguments.
READS = {
    "tokens": ("scale.tokens_per_trillion",),
    "sequences": ("scale.sequences_per_1024",),
    "length": ("scale.sequence_length",),
    "oc.env": (),
}


def register() -> None:
    """Register ``${tokens:x}`` (x trillion of the paper's tokens), ``${sequences:n}`` (its batch of n sequences) and
    ``${length:f}`` (the fraction f of the scale's sequence length)."""
    OmegaConf.register_new_resolver("tokens", _tokens, replace=True)
    OmegaConf.register_new_resolver("sequences", _sequences, replace=True)
    OmegaConf.register_new_resolver("length", _length, replace=True)


def _tokens(trillions: float, *, _root_: Any) -> int:
    return max(1, round(trillions * _root_.scale.tokens_per_trillion))


def _sequences(paper_sequences: int, *, _root_: Any) -> int:
    return max(1, round(paper_sequences * _root_.scale.sequences_per_1024 / 1024))


def _length(fraction: float, *, _root_: Any) -> int:
    return max(1, round(fraction * _root_.scale.sequence_length))
