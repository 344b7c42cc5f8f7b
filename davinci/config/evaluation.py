"""What is measured, and when."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from davinci.config.base import Frozen, NotNegative, Positive


class Benchmark(Frozen):
    """One task of the suite. `chance` is the score of a uniform guess (0 for generation).

    `prompt` says how an item is put: as the task itself does; with its options listed under letters, of which one is
    the answer; free, the options not shown and the answer one of their texts; or listed and answered after a chain of
    thought. A task of either protocol whose items have options can be run under the other (docs/evaluation.md).
    `items` and `tokens_per_item` (prompt, examples, all choices or the answer, in tokens) only price the evaluation.
    """

    domain: Literal["general", "code", "science"]
    task: str
    protocol: Literal["ppl", "generative"]
    num_fewshot: NotNegative
    metric: str
    chance: Annotated[float, Field(ge=0, le=1)] = 0.0
    prompt: Literal["own", "options", "free", "cot"] = "own"
    items: Positive | None = None
    tokens_per_item: Positive | None = None

    @model_validator(mode="after")
    def _writes_its_thoughts(self) -> Self:
        if self.prompt == "cot" and self.protocol == "ppl":
            raise ValueError("prompt: a chain of thought is written, so protocol ppl has none; own, options or free")
        return self


def asked(suite: str, weights: str = "trained", states: Sequence[int] = ()) -> str:
    """How records name `suite` (its key) asked of `weights`, or of the mean of the states at these tokens: the key
    itself for a state's trained weights."""
    parts = [suite] if weights == "trained" else [suite, weights]
    return "-".join([*parts, "mean", *map(str, states)] if states else parts)


class EvaluationPoint(Frozen):
    """A moment to evaluate at: `tokens` into `stage`, rounded down to a whole step; null means the stage's end.

    With `every_tokens` it is many moments: every so many tokens into the stage. Where `stage` is null, ends are those
    of every stage, and intervals are counted since initialisation.

    `weights` says which: those trained, or the average that the stage keeps of them. With `average_of` n the mean of n
    such states is evaluated, the last one there and each of the others `spacing_tokens` before the next (checkpoint
    averaging, LAWA, arXiv 2209.14981); training then leaves a checkpoint at each of them.
    """

    stage: str | None = None
    tokens: Positive | None = None
    every_tokens: Positive | None = None
    weights: Literal["trained", "average"] = "trained"
    average_of: Annotated[int, Field(gt=0, le=1000)] = 1
    spacing_tokens: Positive | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.tokens is not None and self.every_tokens is not None:
            raise ValueError("tokens and every_tokens exclude each other; write two entries")
        if self.tokens is not None and self.stage is None:
            raise ValueError("tokens needs stage, the one they are counted into; every_tokens does not")
        if (self.average_of > 1) != (self.spacing_tokens is not None):
            raise ValueError(
                "average_of more than 1 needs spacing_tokens, from one state to the next, and they need it"
            )
        return self


class Probes(Frozen):
    """Cheap likelihood items scored while a run trains: at initialisation, and whenever a step passes a multiple of
    `every_tokens` since then.

    `file` is a JSONL of one's own; null means the embedded set. `digest` is the file's, filled in when it is read.
    """

    every_tokens: Positive
    file: str | None = None
    digest: str | None = None


class Evaluation(Frozen):
    """What is evaluated, and when. `harness` says whose task files the task names are.

    With `keep_text`, per-item records hold what the model wrote. `keep` says how long checkpoints stay that are there
    only to be evaluated: for good (``all``), until ``gc`` is told to remove them (``evaluated``), or until their
    stretch of training is finished and evaluated (``last``: ends of stretches alone stay).

    `data` says where the tasks' data sets lie, for machines that reach no hub: a folder with a folder for each
    task, or these by task or benchmark. `run_code` must be set before programs that a model wrote are run: ``isolated``
    only where they can be kept from network, files and processes, ``best_effort`` anywhere.
    """

    suite: str
    harness: Literal["embedded", "lm_eval"]
    benchmarks: Annotated[dict[str, Benchmark], Field(min_length=1)]
    at: tuple[EvaluationPoint, ...]
    limit: Positive | None
    heldout_sequences: Positive
    probes: Probes | None = None
    keep_text: bool = False
    keep: Literal["all", "evaluated", "last"] = "evaluated"
    data: str | dict[str, str] | None = None
    run_code: Literal["refuse", "isolated", "best_effort"] = "refuse"

    def only(self, benchmark: str) -> Evaluation:
        """The suite of one of its benchmarks, which says nothing of when."""
        return self.model_copy(update={"benchmarks": {benchmark: self.benchmarks[benchmark]}, "at": (), "probes": None})

    @field_validator("data")
    @classmethod
    def _wherever_a_job_runs(cls, data: str | dict[str, str] | None) -> str | dict[str, str] | None:
        if isinstance(data, dict):
            return {name: str(Path(place).expanduser().absolute()) for name, place in data.items()}
        return None if data is None else str(Path(data).expanduser().absolute())

    @property
    def key(self) -> str:
        """Eight hex digits that tell suites apart by what they measure: records carry it beside each score."""
        measured = {
            name: [one.task, one.protocol, one.num_fewshot, one.metric, *([] if one.prompt == "own" else [one.prompt])]
            for name, one in self.benchmarks.items()
        }
        plain = json.dumps([self.harness, self.limit, measured], sort_keys=True)
        return hashlib.sha256(plain.encode()).hexdigest()[:8]
