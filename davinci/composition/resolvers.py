"""The interpolations that scale a curriculum written in the paper's numbers."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

# The keys each interpolation reads besides its arguments.
READS = {"tokens": ("scale.tokens_per_trillion",), "sequences": ("scale.sequences_per_1024",), "oc.env": ()}


def register() -> None:
    """Register ``${tokens:x}`` (x trillion of the paper's tokens) and ``${sequences:n}`` (its batch of n sequences)."""
    OmegaConf.register_new_resolver("tokens", _tokens, replace=True)
    OmegaConf.register_new_resolver("sequences", _sequences, replace=True)


def _tokens(trillions: float, *, _root_: Any) -> int:
    return max(1, round(trillions * _root_.scale.tokens_per_trillion))


def _sequences(paper_sequences: int, *, _root_: Any) -> int:
    return max(1, round(paper_sequences * _root_.scale.sequences_per_1024 / 1024))
