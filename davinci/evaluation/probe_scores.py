"""Probe items scored by a model in memory: one pass over padded batches of rows of like length.

A choice's score is its log-probability after the context (nats, summed over its tokens); the choice with the highest
is the model's answer. Whatever tokens of a row are the beginning of another's are read there, so that choices of one
token, of which a good item has four, cost one row.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from davinci.evaluation.probe_items import Item
from davinci.model.decoder import Decoder

# Tokens of a forward pass, padding included.
BATCH_TOKENS = {"cpu": 2048, "cuda": 65536}
# Targets whose logits are alive at once.
CHUNK = 512


class Ranks(Protocol):
    """The processes that score together, as `training.distributed.Ranks` describes them."""

    @property
    def rank(self) -> int: ...
    @property
    def world(self) -> int: ...
    def interleave(self, mine: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]: ...


@dataclass(frozen=True)
class _Batch:
    """`tokens` int64[B, T], padded at the right; targets in row-major order: their `row` and `place` in it, `target`
    and the `choice` (of all items) they belong to, all int64[N]."""

    tokens: torch.Tensor
    row: torch.Tensor
    place: torch.Tensor
    target: torch.Tensor
    choice: npt.NDArray[np.int64]


class ProbeSet:
    """Items, encoded and cut into batches once.

    Args:
        items: in the order of the file.
        tokenizer: what the model was trained with.
        longest: tokens that the model can read; longer contexts lose their beginning.
        device: of the model.
        end_of_text: the tokenizer's token that ends a text, and stands for an empty context.
    """

    def __init__(
        self, items: Sequence[Item], tokenizer: Tokenizer, longest: int, device: str = "cpu", end_of_text: int = 0
    ) -> None:
        self._items = items
        self._first = np.cumsum([0, *(len(item.choices) for item in items)])
        self._right = np.array([first + item.answer for first, item in zip(self._first, items, strict=False)])
        encoded = _encoded(items, tokenizer, longest, end_of_text)
        self._batches = _batches(encoded, BATCH_TOKENS[device], torch.device(device))
        self.tokens = sum(batch.tokens.numel() for batch in self._batches)

    @torch.inference_mode()
    def score(self, model: Decoder, ranks: Ranks) -> list[dict[str, Any]]:
        """A row a capability, sorted by it: capability, items, chance, accuracy, margin (mean log-probability of the
        right choice above the best wrong one, nats), nats (mean of the right choice), items_per_second (of the pass).

        The same bits, but for the speed, for any number of ranks; every rank takes part in as many forward passes.
        """
        started = time.perf_counter()
        widest, count = max(len(batch.choice) for batch in self._batches), len(self._batches)
        mine = range(ranks.rank, count, ranks.world)
        losses = np.zeros((widest, len(mine)))
        for turn in range(-(-count // ranks.world)):
            index = ranks.rank + turn * ranks.world
            batch = self._batches[index % count]
            found = _losses(model, batch)
            if index < count:
                losses[: len(found), turn] = found
        losses = ranks.interleave(losses, count)
        scores = np.zeros(self._first[-1])
        for index, batch in enumerate(self._batches):
            np.subtract.at(scores, batch.choice, losses[: len(batch.choice), index])
        return self._rows(scores, len(self._items) / (time.perf_counter() - started))

    def _rows(self, scores: npt.NDArray[np.float64], speed: float) -> list[dict[str, Any]]:
        others = scores.copy()
        others[self._right] = -np.inf
        best = np.maximum.reduceat(others, self._first[:-1])
        margin = scores[self._right] - best
        by_capability: dict[str, list[int]] = {}
        for index, item in enumerate(self._items):
            by_capability.setdefault(item.capability, []).append(index)
        return [
            {
                "capability": capability,
                "items": len(indices),
                "chance": round(float(np.mean([1 / len(self._items[index].choices) for index in indices])), 6),
                # A tie is no answer: a model that says nothing is not right.
                "accuracy": float((margin[indices] > 0).mean()),
                "margin": float(margin[indices].mean()),
                "nats": float(-scores[self._right[indices]].mean()),
                "capabilities": len(by_capability),
                "items_per_second": round(speed, 1),
            }
            for capability, indices in sorted(by_capability.items())
        ]


def _encoded(
    items: Sequence[Item], tokenizer: Tokenizer, longest: int, end_of_text: int
) -> list[tuple[tuple[int, ...], int]]:
    """Tokens of context and choice, and how many of them belong to the choice, of every choice of every item.

    Both are encoded together; where the tokenizer joins the end of one with the start of the other, what differs from
    the context alone belongs to the choice.
    """
    contexts = [
        one.ids for one in tokenizer.encode_batch_fast([item.context for item in items], add_special_tokens=False)
    ]
    texts = [item.context + choice for item in items for choice in item.choices]
    wholes = iter(tokenizer.encode_batch_fast(texts, add_special_tokens=False))
    found = []
    for item, context in zip(items, contexts, strict=True):
        for _ in item.choices:
            whole = next(wholes).ids
            same = next((at for at, (a, b) in enumerate(zip(context, whole, strict=False)) if a != b), len(context))
            targets = len(whole) - min(same, len(whole) - 1)
            tokens = [end_of_text, *whole] if targets == len(whole) else whole
            found.append((tuple(tokens[-longest - 1 :]), min(targets, longest)))
    return found


def _batches(choices: Sequence[tuple[tuple[int, ...], int]], size: int, device: torch.device) -> list[_Batch]:
    """Batches of at most `size` tokens, longest rows first; where a row begins a longer one, it is read there."""
    rows: list[tuple[int, ...]] = []
    for inputs in sorted({tokens[:-1] for tokens, _ in choices}, reverse=True):
        if not rows or rows[-1][: len(inputs)] != inputs:
            rows.append(inputs)
    holder: dict[tuple[int, ...], int] = {}
    for index, row in enumerate(rows):
        for end in range(1, len(row) + 1):
            holder.setdefault(row[:end], index)
    asked: dict[int, list[tuple[int, int, int]]] = {}
    for choice, (tokens, count) in enumerate(choices):
        inputs = tokens[:-1]
        for place in range(len(inputs) - count, len(inputs)):
            asked.setdefault(holder[inputs], []).append((place, tokens[place + 1], choice))
    order = sorted(range(len(rows)), key=lambda index: (-len(rows[index]), rows[index]))
    batches, begin = [], 0
    while begin < len(order):
        width = len(rows[order[begin]])
        part = order[begin : begin + max(1, size // width)]
        padded = np.zeros((len(part), width), dtype=np.int64)
        for line, index in enumerate(part):
            padded[line, : len(rows[index])] = rows[index]
        wanted = np.array([(line, *one) for line, index in enumerate(part) for one in asked[index]], dtype=np.int64)
        lines, places, targets = (torch.from_numpy(column.copy()).to(device) for column in wanted.T[:3])
        batches.append(_Batch(torch.from_numpy(padded).to(device), lines, places, targets, wanted[:, 3]))
        begin += len(part)
    return batches


def _losses(model: Decoder, batch: _Batch) -> npt.NDArray[np.float64]:
    """Loss of each target of a batch in nats, float64[N]."""
    hidden = model.hidden(batch.tokens)[batch.row, batch.place]
    parts = [
        torch.log_softmax(model.logits(some), dim=-1).gather(1, wanted[:, None])[:, 0]
        for some, wanted in zip(hidden.split(CHUNK), batch.target.split(CHUNK), strict=True)
    ]
    losses: npt.NDArray[np.float64] = -torch.cat(parts).double().cpu().numpy()
    return losses
