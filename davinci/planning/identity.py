"""An id names a state of training: the hash of the canonical history from initialisation up to a token count.

The history is written as pieces over tokens (learning rate, batch size, sequence length, mixture, mask, data seed)
plus what holds throughout (model, optimizer, tokenizer, initialisation seed). Neighbouring pieces that say the same are
joined, so an id does not depend on how training was cut into stages, nor on anything after the token count. Placement
(store, cluster, tracking, evaluation, labels) never enters.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from davinci.config import Frozen, Model, Optimizer, SourceUse, Stage

SCHEME = 1
# Bumped by hand when the same history no longer gives the same weights (a golden trace changed).
NUMERICS = 1


@dataclass(frozen=True)
class StageSpan:
    """A stage placed on the token axis of a run: `begin` and `end` since initialisation."""

    name: str
    stage: Stage
    begin: int
    end: int
    sources: dict[str, SourceUse]
    data_seed: int


@dataclass(frozen=True)
class History:
    """Everything the weights of a run are a function of."""

    model: Model
    optimizer: Optimizer
    vocab_size: int
    tokenizer_digest: str | None
    initialisation_seed: int
    spans: tuple[StageSpan, ...]


def state_id(history: History, tokens: int) -> str:
    """Readable id of the state after `tokens` tokens, such as ``1.83M-v1-4c541560ab12``."""
    digest = hashlib.sha256(encode(canonical(history, tokens)).encode()).hexdigest()
    return f"{human_tokens(tokens)}-v{SCHEME}-{digest[:12]}"


def canonical(history: History, tokens: int) -> dict[str, Any]:
    """The history up to `tokens` as plain data; equal data means equal training."""
    spans = [span for span in history.spans if span.begin < tokens]
    return {
        "scheme": SCHEME,
        "numerics": NUMERICS,
        "tokens": tokens,
        "model": _plain(history.model, omit=("name", "vocab_size")),
        "vocab_size": history.vocab_size,
        "tokenizer": history.tokenizer_digest,
        "optimizer": _plain(history.optimizer),
        "initialisation_seed": history.initialisation_seed,
        "lr": _learning_rate(spans, tokens),
        "batch_size": _joined(
            (span.begin + step.from_tokens, step.sequences)
            for span in spans
            for step in span.stage.batch_size
            if span.begin + step.from_tokens < min(tokens, span.end)
        ),
        "sequence_length": _joined((span.begin, span.stage.sequence_length) for span in spans),
        "mask_questions": _joined((span.begin, span.stage.mask_questions) for span in spans),
        "data_seed": _joined((span.begin, span.data_seed) for span in spans),
        "mixture": _joined((span.begin, mixture_key(span.sources)) for span in spans),
        "optimizer_resets": [span.begin for span in spans if span.begin and span.stage.optimizer_state == "reset"],
    }


def mixture_key(sources: dict[str, SourceUse]) -> list[list[Any]]:
    """A mixture as sorted ``[source, depth, digest, weight]`` rows."""
    return [[name, use.depth, use.digest, use.weight] for name, use in sorted(sources.items())]


def encode(value: Any) -> str:
    """Canonical JSON of plain data.

    Raises:
        TypeError: for anything but dicts with string keys, lists, strings, integers, floats, booleans and None, so that
            a callable or an object's default repr can never enter an id.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def human_tokens(tokens: int) -> str:
    """Three significant digits and a unit: ``1.83M``; below a thousand the number itself."""
    if tokens < 1000:
        return str(tokens)
    value, unit = tokens / 1e3, "k"
    for name, size in (("T", 1e12), ("B", 1e9), ("M", 1e6)):
        if tokens >= size:
            value, unit = tokens / size, name
            break
    digits = max(0, 2 - len(str(int(value))) + 1)
    return f"{value:.{digits}f}{unit}"


def _plain(value: Frozen, omit: Sequence[str] = ()) -> dict[str, Any]:
    """A model's fields; those at a neutral default are left out, so that a new one leaves old ids alone."""
    return value.model_dump(mode="json", exclude=set(omit), exclude_defaults=True)


def _joined(pieces: Iterable[tuple[int, Any]]) -> list[list[Any]]:
    """``[[begin, value], …]`` with neighbours of equal value joined."""
    joined: list[list[Any]] = []
    for begin, value in pieces:
        if not joined or joined[-1][1] != value:
            joined.append([begin, value])
    return joined


def _learning_rate(spans: Sequence[StageSpan], tokens: int) -> list[list[Any]]:
    """LR pieces that begin before `tokens`; a constant is open-ended, a slope keeps the end it was drawn to."""
    pieces: list[list[Any]] = []
    for span in spans:
        for piece in span.stage.lr_pieces(span.begin):
            if piece.begin >= min(tokens, span.end):
                continue
            if piece.kind == "constant":
                if not pieces or pieces[-1][1:] != ["constant", piece.start]:
                    pieces.append([piece.begin, "constant", piece.start])
            else:
                pieces.append([piece.begin, piece.kind, piece.end, piece.start, piece.stop])
    return pieces
