"""Stages and their order. Budgets and places inside a stage count tokens from its start."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from davinci.config.base import Frozen, NotNegative, Positive, PositiveFloat
from davinci.config.pool import Depth, Mixture
from davinci.schedules import Piece, StepGrid


class BatchStep(Frozen):
    """From `from_tokens` (stage-relative) on, a step takes `sequences` sequences."""

    from_tokens: NotNegative
    sequences: Positive


class LearningRate(Frozen):
    """A stage's learning rate over its own tokens.

    ``constant``: `start` throughout. ``warmup_constant``: linear from 0 to `start` over `warmup_tokens`, then constant.
    ``cosine`` and ``linear``: after the warmup, from `start` to `stop` at the end of the stage. ``wsd`` (warmup,
    stable, decay; MiniCPM, arXiv 2404.06395, section 4.2): constant after the warmup, then linear to `stop` over the
    last `decay_tokens`.
    """

    shape: Literal["constant", "warmup_constant", "cosine", "linear", "wsd"]
    start: PositiveFloat
    stop: PositiveFloat | None = None
    warmup_tokens: NotNegative = 0
    decay_tokens: NotNegative = 0

    @model_validator(mode="after")
    def _complete(self) -> Self:
        decays = self.shape in ("cosine", "linear", "wsd")
        if decays and self.stop is None:
            raise ValueError(f"shape {self.shape} needs stop, the learning rate at the end of the stage")
        if not decays and self.stop not in (None, self.start):
            raise ValueError(f"shape {self.shape} takes no stop; it stays at start")
        if self.shape == "constant" and self.warmup_tokens:
            raise ValueError("shape constant takes no warmup_tokens; use warmup_constant")
        if (self.shape == "wsd") != bool(self.decay_tokens):
            raise ValueError("decay_tokens, the length of the decay, belongs to shape wsd, and wsd needs it")
        return self


class Stage(Frozen):
    """One stretch of training. Budgets and `from_tokens` count tokens seen, from the start of the stage."""

    tokens: Positive
    depth: Depth = Depth()
    sequence_length: Positive
    batch_size: Annotated[tuple[BatchStep, ...], Field(min_length=1)]
    lr: LearningRate
    mixture: Mixture
    mask_questions: bool
    optimizer_state: Literal["carry", "reset"]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        starts = [step.from_tokens for step in self.batch_size]
        if starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError(f"batch_size must start at from_tokens 0 and rise, got {starts}")
        if self.lr.warmup_tokens + self.lr.decay_tokens > self.tokens:
            spent = "lr.warmup_tokens" + (" + lr.decay_tokens" if self.lr.decay_tokens else "")
            raise ValueError(
                f"{spent} {self.lr.warmup_tokens + self.lr.decay_tokens} exceeds the stage's {self.tokens} tokens"
            )
        if self.grid.steps == 0:
            raise ValueError(f"tokens {self.tokens} do not hold one step of {self.batch_size[0].sequences} sequences")
        return self

    @property
    def grid(self) -> StepGrid:
        """The stage's optimiser steps."""
        steps = tuple((step.from_tokens, step.sequences) for step in self.batch_size)
        return StepGrid(self.tokens, self.sequence_length, steps)

    @property
    def smallest_batch(self) -> int:
        """Sequences of the smallest step: as many ranks can share the stage."""
        used = self.grid.tokens_used
        return min(step.sequences for step in self.batch_size if step.from_tokens < used)

    def lr_pieces(self, begin: int = 0) -> tuple[Piece, ...]:
        """The learning rate as pieces over tokens, shifted to start at `begin`."""
        lr = self.lr
        warm, end = begin + lr.warmup_tokens, begin + self.tokens
        decay = end - lr.decay_tokens if lr.shape == "wsd" else warm if lr.shape in ("cosine", "linear") else end
        pieces = []
        if begin < warm:
            pieces.append(Piece("linear", begin, warm, 0.0, lr.start))
        if warm < decay:
            pieces.append(Piece("constant", warm, decay, lr.start, lr.start))
        if decay < end:
            stop = lr.start if lr.stop is None else lr.stop
            kind = "constant" if stop == lr.start else "cosine" if lr.shape == "cosine" else "linear"
            pieces.append(Piece(kind, decay, end, lr.start, stop))
        return tuple(pieces)


class Curriculum(Frozen):
    """The ordered stages of a run."""

    name: str
    stages: Annotated[dict[str, Stage], Field(min_length=1)]
