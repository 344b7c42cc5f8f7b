"""Schedules as piecewise functions of the token count.

Everything that changes during training (learning rate, global batch size, mixture, mask, sequence length) is a function
of the tokens seen since initialisation, never of the step, the world size or the micro-batch. Planning compares these
functions symbolically; training evaluates them. Plain Python: no torch, no numpy.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """One stretch of a learning-rate schedule, for token counts t in [begin, end).

    `kind` is ``constant`` (value `start`), or says how it goes from `start` at `begin` to `stop` at `end`, with
    f = (t - begin) / (end - begin): ``linear``; ``cosine`` as in SGDR (arXiv 1608.03983, eq. 5, without restarts);
    ``exponential``, start (stop / start)^f; ``inverse``, where 1 / rate is linear (arXiv 2410.05192, WSD-S); ``sqrt``,
    start + (stop - start) sqrt(f) (arXiv 2405.18392, eq. 1). ``inverse_sqrt`` is start sqrt(T / (T + t - begin)) with
    T = `timescale`, whatever its end. `begin`, `end` and `timescale` are tokens.
    """

    kind: str
    begin: int
    end: int
    start: float
    stop: float
    timescale: int = 0

    @classmethod
    def inverse_sqrt(cls, begin: int, end: int, start: float, timescale: int) -> Piece:
        """The piece of kind ``inverse_sqrt``, with the `stop` that follows."""
        stop = start * math.sqrt(timescale / (timescale + end - begin))
        return cls("inverse_sqrt", begin, end, start, stop, timescale)

    def at(self, tokens: int) -> float:
        """Learning rate at `tokens` (tokens seen before the step)."""
        if self.kind == "constant":
            return self.start
        if self.kind == "inverse_sqrt":
            return self.start * math.sqrt(self.timescale / (self.timescale + tokens - self.begin))
        fraction = (tokens - self.begin) / (self.end - self.begin)
        if self.kind == "linear":
            return self.start + (self.stop - self.start) * fraction
        if self.kind == "exponential":
            return self.start * math.pow(self.stop / self.start, fraction)
        if self.kind == "inverse":
            return 1.0 / ((1.0 - fraction) / self.start + fraction / self.stop)
        if self.kind == "sqrt":
            return self.start + (self.stop - self.start) * math.sqrt(fraction)
        return self.stop + (self.start - self.stop) * 0.5 * (1.0 + math.cos(math.pi * fraction))


def value_at(pieces: Sequence[Piece], tokens: int) -> float:
    """Learning rate at `tokens`; past the last piece its final value holds."""
    index = bisect_right([piece.begin for piece in pieces], tokens) - 1
    piece = pieces[index]
    return piece.at(min(tokens, piece.end))


@dataclass(frozen=True)
class StepGrid:
    """The optimiser steps of one stage, in closed form.

    Args:
        tokens: token budget of the stage; the stage ends with the last whole step within it.
        sequence_length: tokens a sequence.
        batch_sizes: ``(from_tokens, sequences)`` sorted by `from_tokens` (stage-relative, the first 0): the global
            batch size, in sequences, of every step that starts at or after `from_tokens`.
    """

    tokens: int
    sequence_length: int
    batch_sizes: tuple[tuple[int, int], ...]

    def _segments(self) -> list[tuple[int, int, int, int]]:
        """``(first step, first token, sequences, steps)`` of each stretch of constant batch size."""
        segments = []
        step, position, over = 0, 0, False
        for index, (_, sequences) in enumerate(self.batch_sizes):
            per_step = sequences * self.sequence_length
            fitting = 0 if over else (self.tokens - position) // per_step
            steps = fitting
            if index + 1 < len(self.batch_sizes):
                until_next = -(-(self.batch_sizes[index + 1][0] - position) // per_step)
                steps = min(fitting, max(0, until_next))
                over = over or fitting < until_next
            segments.append((step, position, sequences, steps))
            step, position = step + steps, position + steps * per_step
        return segments

    @property
    def steps(self) -> int:
        """Number of whole steps in the stage."""
        first, _, _, steps = self._segments()[-1]
        return first + steps

    @property
    def tokens_used(self) -> int:
        """Tokens of the whole steps, at most `tokens`."""
        return self.tokens_at(self.steps)

    def _locate(self, step: int) -> tuple[int, int, int, int]:
        segments = self._segments()
        index = bisect_right([segment[0] for segment in segments], step) - 1
        return segments[index]

    def tokens_at(self, step: int) -> int:
        """Stage-relative tokens seen before `step` (0 <= step <= steps)."""
        first, position, sequences, _ = self._locate(step)
        return position + (step - first) * sequences * self.sequence_length

    def batch_at(self, step: int) -> int:
        """Global batch size in sequences of `step` (0 <= step < steps)."""
        return self._locate(step)[2]

    def batches(self, steps: range) -> list[tuple[int, int]]:
        """``(sequences, steps)`` of each stretch of constant batch size within `steps`."""
        found = []
        for first, _, sequences, count in self._segments():
            inside = min(steps.stop, first + count) - max(steps.start, first)
            if inside > 0:
                found.append((sequences, inside))
        return found

    def step_at(self, tokens: int) -> int:
        """The number of whole steps done once at most `tokens` (stage-relative) are seen."""
        done = 0
        for first, position, sequences, steps in self._segments():
            if tokens >= position:
                done = first + min(steps, (tokens - position) // (sequences * self.sequence_length))
        return done
