"""What is measured, and when."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field

from davinci.config.base import Frozen, NotNegative, Positive


class Benchmark(Frozen):
    """One task of the suite. `chance` is the score of a uniform guess (0 for generation).

    `items` and `tokens_per_item` (prompt, examples, all choices or the answer, in tokens) only price the evaluation.
    """

    domain: Literal["general", "code", "science"]
    task: str
    protocol: Literal["ppl", "generative"]
    num_fewshot: NotNegative
    metric: str
    chance: Annotated[float, Field(ge=0, le=1)] = 0.0
    items: Positive | None = None
    tokens_per_item: Positive | None = None


class EvaluationPoint(Frozen):
    """A moment to evaluate at: `tokens` into `stage`, rounded down to a whole step; null means the stage's end."""

    stage: str
    tokens: Positive | None = None


class Evaluation(Frozen):
    """What is evaluated, and when. `harness` says whose task files the task names are."""

    suite: str
    harness: Literal["embedded", "lm_eval"]
    benchmarks: Annotated[dict[str, Benchmark], Field(min_length=1)]
    at: tuple[EvaluationPoint, ...]
    limit: Positive | None
    heldout_sequences: Positive

    @property
    def key(self) -> str:
        """Eight hex digits that tell suites apart by what they measure: records carry it beside each score."""
        measured = {
            name: [one.task, one.protocol, one.num_fewshot, one.metric] for name, one in self.benchmarks.items()
        }
        plain = json.dumps([self.harness, self.limit, measured], sort_keys=True)
        return hashlib.sha256(plain.encode()).hexdigest()[:8]
