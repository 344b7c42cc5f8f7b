"""A sweep before it is planned: what composition hands over, validated and complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from davinci.config import Frozen, PositiveFloat, Run

Budget = Literal["tokens", "flops", "documents"]
Match = Literal["parameters", "flops"]


class Hypothesis(Frozen):
    """What the sweep expects, stated before it is run: `metric` (a benchmark, a domain or Overall) of `arm` against the
    baseline arm moves in `direction` by the last evaluated point."""

    text: str
    metric: str
    arm: str
    direction: Literal["increase", "decrease", "any"]


class PaperReference(Frozen):
    """Where the paper reports this question. `published` names a file of `analysis/published/`."""

    section: str
    table: str | None = None
    figure: str | None = None
    published: str | None = None


class TableLayout(Frozen):
    """How the report's table is laid out: what its row groups are, and which evaluated points it shows.

    `external` are the names of models that ``davinci evaluate hf:PATH`` evaluates, columns of a table beside it.
    `average_last` scores each arm by the mean over that many evaluated points, its last ones, in one row.
    """

    rows: Literal["arm", "point"] = "arm"
    points: Literal["all", "last"] = "all"
    external: tuple[str, ...] = ()
    average_last: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _averages_end(self) -> Self:
        if self.average_last > 1 and self.points != "last":
            raise ValueError(f"average_last: {self.average_last} points in one row; it needs points: last")
        return self


class Question(Frozen):
    """The words of a sweep: everything the report prints that is not a number.

    `metrics` are the table's columns, in order (benchmarks, domains, Overall); empty means the domains and Overall.
    `equivalence` is the difference, in points of score, below which two arms are declared to be as good.
    """

    text: str
    hypothesis: Hypothesis | None = None
    paper: PaperReference | None = None
    assumptions: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    table: TableLayout = TableLayout()
    equivalence: PositiveFloat | None = None


class Arm(Frozen):
    """One labelled setting of the factor, the overrides that make it, and its config (with the sweep's first seed)."""

    label: str
    overrides: tuple[str, ...]
    is_baseline: bool
    config: Run

    def run(self, seed: int) -> Run:
        """The arm's run with `seed`; without `seeds_from` the seed is the run's own from initialisation on."""
        trunk = seed if self.config.seeds_from is None else self.config.trunk_seed
        return self.config.model_copy(update={"seed": seed, "trunk_seed": trunk})


@dataclass(frozen=True)
class Sweep:
    """Arms x seeds, and what the sweep declares about them.

    Attributes:
        name: also the sweep's folder in the store.
        arms: in the order of the table; exactly one is the baseline.
        seeds: every arm has every one.
        factor: config keys the arms may differ in; a key covers everything below it.
        derived: arm label -> keys that differ from the baseline arm's because a factor key does (composing the baseline
            with only the arm's overrides of factor keys gives the arm's value).
        held_fixed: what must agree between arms: training tokens, training FLOPs, or the documents of every source and
            how often they are seen (`planning.documents`).
        match: what every arm's model is given as much of as the baseline's, by the width of its perceptron
            (`planning.matching`).
        placed: cluster keys that the sweep's per-arm resources set; they may differ.
        noise: seed-to-seed standard deviation of a paired difference between two arms, in points, if stated.
        difference: the difference, in points, the sweep is asked to detect, if stated.
    """

    name: str
    question: Question
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    factor: tuple[str, ...]
    derived: Mapping[str, frozenset[str]] = field(default_factory=dict)
    held_fixed: tuple[Budget, ...] = ()
    match: Match | None = None
    placed: frozenset[str] = frozenset()
    noise: float | None = None
    difference: float | None = None

    @property
    def baseline(self) -> Arm:
        return next(arm for arm in self.arms if arm.is_baseline)
