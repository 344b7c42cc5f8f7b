"""What one stretch of training is a function of."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from davinci.config.base import Frozen, NotNegative, Positive, PositiveFloat
from davinci.config.curriculum import Stage
from davinci.config.evaluation import Evaluation
from davinci.config.model import Model, Optimizer
from davinci.config.pool import Level


class SourceUse(Frozen):
    """A source as a node reads it: its depth, its content digest (null where it is not on this machine), its weight."""

    domain: str
    depth: Level
    digest: str | None
    weight: Positive


class Node(Frozen):
    """A stage (or part of one) reached by a particular history: everything its training is a function of.

    `begin` and `end` are tokens since initialisation, `end` after the last whole step; `stage_begin` is where the stage
    itself starts. `sources` holds only sources with a positive integer weight. `mixture_position` is how many sequences
    of this mixture's order were consumed before `mixture_begin`, the tokens since which the stage reads this mixture
    (null: since it began): not 0 only where the stage before had the same mixture, so that cutting a stage in two
    changes nothing. `watched` are the digests of what the stage's policies watch: of held-out text by domain, of a
    benchmark's task and items as ``benchmark/NAME``; `benchmark` is the suite of that one alone. `max_epochs` is how
    often a source may be read, where the pool limits it. `end_of_text` is the tokenizer's token that closes a
    document. A node is frozen as JSON in the store.

    All tokens are places on the axis of the plan. Where a stage ended early, that axis has a gap up to its planned end,
    and a state holds fewer tokens than its place says (docs/adaptive.md).
    """

    id: str
    parent: str | None
    stage_name: str
    stage_begin: NotNegative
    begin: NotNegative
    end: Positive
    stage: Stage
    sources: Annotated[dict[str, SourceUse], Field(min_length=1)]
    mixture_position: NotNegative
    initialisation_seed: NotNegative
    data_seed: NotNegative
    model: Model
    optimizer: Optimizer
    pool: str
    tokenizer_digest: str | None
    vocab_size: Positive
    checkpoint_every_tokens: Positive
    mixture_begin: NotNegative | None = None
    watched: Annotated[dict[str, str | None], Field(default={})]
    benchmark: Evaluation | None = None
    max_epochs: Annotated[dict[str, PositiveFloat], Field(default={})]
    end_of_text: NotNegative = 0

    @property
    def steps(self) -> range:
        """The stage's steps that this node trains."""
        grid = self.stage.grid
        return range(grid.step_at(self.begin - self.stage_begin), grid.step_at(self.end - self.stage_begin))

    def probed_at(self, every_tokens: int) -> list[int]:
        """Where the node's probes are scored, in tokens since initialisation: at initialisation itself, and after each
        step that reaches or passes a multiple of `every_tokens`. The same however training is cut into nodes."""
        grid, first = self.stage.grid, self.begin // every_tokens + 1
        found = [] if self.begin else [0]
        for multiple in range(first * every_tokens, self.end + 1, every_tokens):
            step = grid.step_at(multiple - self.stage_begin)
            passed = grid.tokens_at(step) + self.stage_begin < multiple
            reached = grid.tokens_at(step + passed) + self.stage_begin
            if reached <= self.end and reached not in found[-1:]:
                found.append(reached)
        return found
