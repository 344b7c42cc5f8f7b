"""A sweep file: one question, its factor, its arms, its seeds and what is held fixed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from davinci.composition.grammar import MOST_VALUES, parse_overrides, swept_values
from davinci.config import Frozen, NotNegative, PositiveFloat, Run, parse
from davinci.errors import UserError, nearest
from davinci.planning.heldout_metrics import heldout_metrics
from davinci.planning.sweep import Budget, Hypothesis, Match, PaperReference, Question, TableLayout
from davinci.store import checked_name

# Columns of a report's table beside the benchmarks themselves.
AVERAGES = ("General", "Code", "Science", "Overall")

Values = Annotated[tuple[Any, ...], Field(min_length=1)]
Overrides = tuple[str, ...]


def columns(configs: Sequence[Run]) -> list[str]:
    """What a table may show and a hypothesis may be about: the suites' benchmarks, their averages, and the held-out
    losses of the domains that all arms' pools have."""
    benchmarks = dict.fromkeys(name for config in configs for name in config.evaluation.benchmarks)
    domains = set.intersection(*(set(config.pool.domains) for config in configs))
    return [*benchmarks, *AVERAGES, *heldout_metrics(sorted(domains))]


class StatedHypothesis(Frozen):
    """A hypothesis as a sweep file states it: `metric` may differ by evaluation suite, as ``{suite: metric}``."""

    text: str
    metric: str | dict[str, str]
    arm: str
    direction: Literal["increase", "decrease", "any"]

    def resolve(self, suite: str, known: Sequence[str], arm: str) -> Hypothesis:
        """The hypothesis for runs evaluated with `suite`; `arm` is the full label of its arm, `known` the columns.

        Raises:
            ValueError: if there is no metric of that name.
        """
        metric = self.metric if isinstance(self.metric, str) else self.metric.get(suite)
        if metric is None:
            raise ValueError(f"hypothesis.metric: names none for suite {suite}; known: {', '.join(known)}")
        if metric not in known:
            raise ValueError(f"hypothesis.metric: suite {suite} has no {metric!r}" + nearest(metric, known))
        return Hypothesis(text=self.text, metric=metric, arm=arm, direction=self.direction)


class SweepFile(Frozen):
    """What `sweeps/NAME.yaml` may say; `sweeps/template.yaml` explains each key. Overrides are written as on Hydra's
    command line."""

    question: str
    hypothesis: StatedHypothesis | None = None
    paper: PaperReference | None = None
    assumptions: tuple[str, ...] = ()
    factor: tuple[str, ...] = ()
    baseline: str | None = None
    arms: dict[str, Overrides] = Field(default_factory=dict)
    grid: dict[str, Values] = Field(default_factory=dict)
    zip: dict[str, Values] = Field(default_factory=dict)
    exclude: tuple[dict[str, Any], ...] = ()
    aa: bool = False
    seeds: Annotated[tuple[NotNegative, ...], Field(min_length=1)]
    seeds_from: str | dict[str, str] | None = None
    common: Overrides = ()
    held_fixed: tuple[Budget, ...] = ("tokens", "flops")
    match: Match | None = None
    metrics: tuple[str, ...] | dict[str, tuple[str, ...]] = ()
    table: TableLayout = TableLayout()
    resources: dict[str, Overrides] = Field(default_factory=dict)
    equivalence: PositiveFloat | None = None
    noise: PositiveFloat | None = None
    difference: PositiveFloat | None = None

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds_of_a_range(cls, seeds: Any) -> Any:
        if not isinstance(seeds, str):
            return tuple(seeds) if isinstance(seeds, list) else seeds
        try:
            (override,) = parse_overrides([f"seed={seeds}"], "seeds")
            values = swept_values(override, "seeds") if override.is_sweep_override() else [seeds]
            return tuple(int(value) for value in values)
        except (UserError, ValueError):
            raise ValueError(
                f"{seeds!r} is no range of up to {MOST_VALUES:,} seeds; a list or range(3) is accepted, in quotes"
            ) from None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.arms and not self.grid and not self.zip:
            raise ValueError("arms: none; arms, grid or zip must name some")
        alone = len(self.arms) == 1 and not self.grid and not self.zip
        if not self.factor and not self.aa and not alone:
            raise ValueError("factor: missing; name the config keys the arms may differ in (or say aa: true)")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)} repeats one")
        lengths = {key: len(values) for key, values in self.zip.items()}
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{key} has {length}" for key, length in lengths.items())
            raise ValueError(f"zip: lists must be equally long: {said}")
        for key in self.zip:
            if key in self.grid:
                raise ValueError(f"zip: {key} is in grid too")
        for index, item in enumerate(self.exclude):
            if not item:
                raise ValueError(f"exclude.{index}: empty; name an arm or the value of an axis")
        return self

    def words(self, suite: str, configs: Sequence[Run], hypothesis_arm: str | None) -> Question:
        """The texts the plan and the report print.

        Args:
            suite: name of the suite the baseline arm is evaluated with.
            configs: of the arms.
            hypothesis_arm: full label of the hypothesis's arm.

        Raises:
            ValueError: if the suites and pools have no metric of a name.
        """
        known = columns(configs)
        metrics = self.metrics.get(suite, ()) if isinstance(self.metrics, dict) else self.metrics
        for name in metrics:
            if name not in known:
                raise ValueError(f"metrics: suite {suite} has no {name!r}" + nearest(name, known))
        stated = self.hypothesis.resolve(suite, known, hypothesis_arm) if self.hypothesis and hypothesis_arm else None
        return Question(
            text=self.question,
            hypothesis=stated,
            paper=self.paper,
            assumptions=self.assumptions,
            metrics=metrics,
            table=self.table,
            equivalence=self.equivalence,
        )


class SuiteFile(Frozen):
    """A file that names sweeps to plan as one tree."""

    question: str
    suite: Annotated[tuple[str, ...], Field(min_length=1)]

    @field_validator("suite")
    @classmethod
    def _each_once(cls, suite: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(suite)) != len(suite):
            raise ValueError(f"{list(suite)} repeats one")
        return suite


class _UniqueKeys(yaml.SafeLoader):
    """YAML that refuses a mapping with the same key twice (a duplicate arm label would silently lose an arm) or with a
    key that is no text."""


def _unique_mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    mapping: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} is no text; quote it", key_node.start_mark
            )
        if key in mapping:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
# A date is text here, as it is to Hydra.
_UniqueKeys.add_constructor("tag:yaml.org,2002:timestamp", lambda loader, node: str(node.value))


def read_sweep_file(folder: Path, name: str) -> SweepFile | SuiteFile:
    """Read `folder`/`name`.yaml.

    Raises:
        UserError: for a name that is no file (with the nearest), text that is not YAML, or a wrong key or value.
    """
    checked_name(name, "sweep")
    path = folder / f"{name}.yaml"
    where = f"{folder.name}/{path.name}"
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except FileNotFoundError:
        known = [file.stem for file in folder.glob("*.yaml")]
        raise UserError(f"sweep={name}: no {where}" + nearest(name, known)) from None
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise UserError(f"{where}: a mapping is expected, with question, factor, arms and seeds")
    if "suite" in data:
        return parse(SuiteFile, data, where=lambda key: where)
    return parse(SweepFile, data, where=lambda key: where)
