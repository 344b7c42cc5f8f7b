"""The interpolations that scale a curriculum written in the paper's numbers."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

from davinci.accounting import ladder
from davinci.config.base import MOST_TOKENS, MOST_WORDS
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
    return _scaled("tokens", trillions, _root_, "tokens_per_trillion")


def _sequences(paper_sequences: int, *, _root_: Any) -> int:
    return _scaled("sequences", paper_sequences, _root_, "sequences_per_1024", 1024)


def _length(fraction: float, *, _root_: Any) -> int:
    return _scaled("length", fraction, _root_, "sequence_length")


def _scaled(name: str, count: Any, root: Any, key: str, per: int = 1) -> int:
    if not _is_number(count) or not abs(count) <= MOST_TOKENS:
        raise UserError(f"${{{name}:{count}}}: a number is accepted")
    return max(1, round(count * _number_of(root, f"scale.{key}", 1, MOST_TOKENS) / per))


def _ladder(key: str, *, _root_: Any) -> float | int:
    scale = _root_.scale
    if scale.get("parameters") is None:
        raise UserError("model=ladder: needs scale.parameters; choose scale=ladder")
    if not _is_number(scale.parameters):
        _number_of(_root_, "scale.parameters", ladder.SMALLEST, ladder.LARGEST)
    vocab_size = _number_of(_root_, "pool.vocab_size", 1, MOST_WORDS)
    if scale.flops is None:
        _number_of(_root_, "scale.tokens_per_parameter", ladder.FEWEST_TOKENS, ladder.MOST_TOKENS)
    elif not _is_number(scale.flops) or scale.flops <= 0:
        raise UserError(f"scale.flops: a number of FLOPs above 0, or null, is accepted (got {scale.flops!r})")
    found = ladder.derived(scale.parameters, vocab_size, scale.tokens_per_parameter, scale.flops)
    if key not in found:
        raise UserError(f"${{ladder:{key}}}: no such key" + nearest(key, found))
    return found[key]


def _number_of(root: Any, key: str, least: int, most: int) -> Any:
    """The number at `key`; a UserError gives the bounds of what is accepted."""
    value = OmegaConf.select(root, key)
    if not _is_number(value) or not least <= value <= most:
        raise UserError(f"{key}: a number from {least:,} to {most:,} is accepted (got {value!r})")
    return value


def _is_number(value: Any) -> bool:
    """Whether it is one that arithmetic knows; integers too large for a float are none."""
    is_finite = isinstance(value, float) or (isinstance(value, int) and value.bit_length() < 1000)
    return is_finite and not isinstance(value, bool) and value == value
