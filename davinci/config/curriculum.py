"""Stages and their order. Budgets and places inside a stage count tokens from its start."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from davinci.config.adaptive import Adapt, Until
from davinci.config.base import Frozen, NotNegative, Positive, PositiveFloat, Tokens
from davinci.config.learning_rate import LearningRate
from davinci.config.pool import Depth, Mixture
from davinci.schedules import Piece, StepGrid

# Learning rates that do not depend on where the stage ends.
ENDLESS = ("constant", "warmup_constant")


class BatchStep(Frozen):
    """From `from_tokens` (stage-relative) on, a step takes `sequences` sequences."""

    from_tokens: NotNegative
    sequences: Positive


class MixtureStep(Frozen):
    """From the first step at or after `from_tokens` (stage-relative) on, the stage reads `mixture`."""

    from_tokens: Positive
    mixture: Mixture


class Averages(Frozen):
    """An average of the weights, kept beside them and updated after every step.

    ``ema``: of weight 2^(-a / `half_life_tokens`) for the state a tokens ago, starting from the weights where it
    begins; the decay of a step follows from its tokens, so that the batch size does not matter. ``polyak``: the mean of
    the states since it began, each weighed by the tokens of the step that led to it (Polyak and Juditsky 1992, SIAM J.
    Control Optim. 30:838; Llama 3 averages its annealing so, arXiv 2407.21783, section 3.4.3). `state` carries the
    average of the stage before, if it kept one, or begins anew where the stage does.
    """

    kind: Literal["ema", "polyak"]
    half_life_tokens: Positive | None = None
    state: Literal["carry", "reset"] = "carry"

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.kind == "ema") != (self.half_life_tokens is not None):
            raise ValueError("half_life_tokens belongs to kind ema, and ema needs it")
        return self


class Stage(Frozen):
    """One stretch of training. Budgets and `from_tokens` count tokens seen, from the start of the stage.

    Sequences are cut from documents laid end to end. With `attention: packed` a token attends to all before it in its
    sequence, with `documents` only to those of its own document, which begins with the end-of-text token before it:
    what is predicted after that token is predicted from it alone. Positions are not restarted, since rotary attention
    depends on their differences; what is in the loss is the same.

    `rope_theta` is the base of the rotary positions, null the model's own. `averages` are kept of the weights. What a
    stage does not carry over from the one before it resets where it begins: AdamW's moments (`optimizer_state`), how
    far each source was read (`data_cursors`; reset reads them from their beginning again, in the same order), the
    average (`averages.state`), the learning rate (`lr.start`).
    `mixtures` replace `mixture` later in the stage. `until` may end the stage before its `tokens`, and `adapt` moves
    its mixture as it trains (docs/adaptive.md).
    """

    tokens: Tokens
    depth: Depth = Depth()
    sequence_length: Positive
    attention: Literal["packed", "documents"] = "packed"
    rope_theta: PositiveFloat | None = None
    batch_size: Annotated[tuple[BatchStep, ...], Field(min_length=1)]
    lr: LearningRate
    mixture: Mixture
    mask_questions: bool
    optimizer_state: Literal["carry", "reset"]
    data_cursors: Literal["carry", "reset"] = "carry"
    averages: Averages | None = None
    mixtures: tuple[MixtureStep, ...] = ()
    until: Until | None = None
    adapt: Adapt | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        starts = [step.from_tokens for step in self.batch_size]
        if starts[0] != 0:
            raise ValueError(f"batch_size leaves a gap: no batch size from token 0 to {starts[0]}")
        for index, (before, after) in enumerate(pairwise(starts), start=1):
            if after <= before:
                raise ValueError(
                    f"batch_size.{index}.from_tokens {after} must be past {before}, where the size before begins"
                )
        if problem := self.lr.problem(self.tokens):
            raise ValueError(problem)
        if self.grid.steps == 0:
            raise ValueError(f"tokens {self.tokens} do not hold one step of {self.batch_size[0].sequences} sequences")
        moves = [step.from_tokens for step in self.mixtures]
        if moves != sorted(set(moves)):
            raise ValueError(f"mixtures must rise in from_tokens, got {moves}")
        self._require_policies_fit()
        return self

    def _require_policies_fit(self) -> None:
        for name, policy in (("until", self.until), ("adapt", self.adapt)):
            if policy is not None and policy.earliest >= self.grid.tokens_used:
                raise ValueError(
                    f"{name} decides after {policy.earliest} tokens at the earliest (window x the interval of its "
                    f"checks, or min_tokens), which the stage's {self.grid.tokens_used} tokens do not reach"
                )
        if self.until is not None and self.lr.shape not in ENDLESS:
            raise ValueError(
                f"lr.shape {self.lr.shape} needs to know where the stage ends, which until decides as it trains; "
                f"{' and '.join(ENDLESS)} are accepted, and a decay in a stage of its own after this one"
            )
        if self.until is not None and self.until.earliest < self.lr.warmup_tokens:
            raise ValueError(
                f"until may end the stage after {self.until.earliest} tokens, inside lr.warmup_tokens "
                f"{self.lr.warmup_tokens}; until.min_tokens of {self.lr.warmup_tokens} or more is accepted"
            )
        if self.adapt is not None and self.mixtures:
            raise ValueError("mixtures and adapt both move the mixture; give one of them")

    @property
    def is_adaptive(self) -> bool:
        """Whether something of the stage is decided as it trains."""
        return self.until is not None or self.adapt is not None

    @property
    def mixture_spans(self) -> list[tuple[int, int, Mixture]]:
        """``(begin, end, mixture)`` of each stretch of one mixture, in tokens of the stage, on step boundaries."""
        grid = self.grid
        found: list[tuple[int, int, Mixture]] = []
        begin, mixture = 0, self.mixture
        for step in self.mixtures:
            done = grid.step_at(step.from_tokens)
            since = grid.tokens_at(min(done + (grid.tokens_at(done) < step.from_tokens), grid.steps))
            if begin < since:
                found.append((begin, since, mixture))
            begin, mixture = since, step.mixture
        if begin < grid.tokens_used:
            found.append((begin, grid.tokens_used, mixture))
        return found

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
        return self.lr.over(self.tokens, begin)


class Curriculum(Frozen):
    """The ordered stages of a run."""

    name: str
    stages: Annotated[dict[str, Stage], Field(min_length=1)]

    @model_validator(mode="after")
    def _carries(self) -> Self:
        rate, average = None, None
        for name, stage in self.stages.items():
            if stage.lr.start == "carry" and not rate:
                before = "it is the first stage" if rate is None else "the stage before ends with a rate of 0"
                raise ValueError(f"stages.{name}.lr.start: carry has nothing to carry, since {before}; give a rate")
            rate = _with_rate(stage, rate).lr_pieces()[-1].stop
            kind = stage.averages and stage.averages.kind
            if stage.averages and stage.averages.state == "carry" and average not in (None, kind):
                raise ValueError(
                    f"stages.{name}.averages.state: carry, but the stage before averages by {average}, not {kind}; "
                    "accepted is reset"
                )
            average = kind
        return self

    @property
    def resolved(self) -> dict[str, Stage]:
        """The stages with the number that each carried learning rate stands for: what the schedule of the stage before
        was to reach at the end of its budget."""
        rate = None
        stages = {}
        for name, stage in self.stages.items():
            stages[name] = _with_rate(stage, rate)
            rate = stages[name].lr_pieces()[-1].stop
        return stages


def _with_rate(stage: Stage, rate: float | None) -> Stage:
    """The stage with `rate` where its learning rate is carried."""
    if stage.lr.start != "carry":
        return stage
    return stage.model_copy(update={"lr": stage.lr.model_copy(update={"start": rate})})
