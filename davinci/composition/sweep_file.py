"""A sweep file: one question, its factor, its arms, its seeds and what is held fixed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from davinci.config import Evaluation, Frozen, NotNegative, parse
from davinci.errors import UserError, nearest
from davinci.planning.plan import Arm, Hypothesis, PaperReference, Question
from davinci.store import checked_name


class StatedHypothesis(Frozen):
    """A hypothesis as a sweep file states it: `metric` may differ by evaluation suite, as ``{suite: metric}``."""

    text: str
    metric: str | dict[str, str]
    arm: str
    direction: Literal["increase", "decrease", "any"]

    def resolve(self, evaluation: Evaluation) -> Hypothesis:
        """The hypothesis for the suite a run is evaluated with.

        Raises:
            ValueError: if the suite has no metric of that name.
        """
        metric = self.metric if isinstance(self.metric, str) else self.metric.get(evaluation.suite)
        known = [*evaluation.benchmarks, "General", "Code", "Science", "Overall"]
        if metric is None:
            raise ValueError(f"hypothesis.metric: names none for suite {evaluation.suite}; known: {', '.join(known)}")
        if metric not in known:
            raise ValueError(f"hypothesis.metric: suite {evaluation.suite} has no {metric!r}" + nearest(metric, known))
        return Hypothesis(text=self.text, metric=metric, arm=self.arm, direction=self.direction)


class SweepFile(Frozen):
    """What `sweeps/NAME.yaml` may say. Overrides are written as on Hydra's command line."""

    question: str
    hypothesis: StatedHypothesis | None = None
    paper: PaperReference | None = None
    assumptions: tuple[str, ...] = ()
    factor: Annotated[tuple[str, ...], Field(min_length=1)]
    baseline: str
    arms: Annotated[dict[str, tuple[str, ...]], Field(min_length=1)]
    seeds: Annotated[tuple[NotNegative, ...], Field(min_length=1)]
    seeds_from: str | None = None
    fixed: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _names_resolve(self) -> Self:
        for what, label in [("baseline", self.baseline)] + (
            [("hypothesis.arm", self.hypothesis.arm)] if self.hypothesis else []
        ):
            if label not in self.arms:
                raise ValueError(f"{what}: no arm {label!r}" + nearest(label, self.arms))
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)} repeats one")
        seen: dict[tuple[str, ...], str] = {}
        for label, overrides in self.arms.items():
            if overrides in seen:
                raise ValueError(f"arms: {seen[overrides]!r} and {label!r} are equal")
            seen[overrides] = label
        return self

    def words(self, evaluation: Evaluation) -> Question:
        """The texts the plan and the report print, for runs evaluated as `evaluation` says."""
        hypothesis = self.hypothesis.resolve(evaluation) if self.hypothesis else None
        return Question(text=self.question, hypothesis=hypothesis, paper=self.paper, assumptions=self.assumptions)

    def labelled_arms(self) -> tuple[Arm, ...]:
        """The arms in the order of the file."""
        return tuple(
            Arm(label=label, overrides=overrides, is_baseline=label == self.baseline)
            for label, overrides in self.arms.items()
        )


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


def read_sweep_file(folder: Path, name: str) -> SweepFile:
    """Read `folder`/`name`.yaml.

    Raises:
        UserError: for a name that is no file (with the nearest), text that is not YAML, or a wrong key or value.
    """
    checked_name(name, "sweep")
    path = folder / f"{name}.yaml"
    where = f"{folder.name}/{path.name}"
    if not path.exists():
        raise UserError(f"sweep={name}: no {where}" + nearest(name, [file.stem for file in folder.glob("*.yaml")]))
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise UserError(f"{where}: a mapping is expected, with question, factor, baseline, arms and seeds")
    return parse(SweepFile, data, where=lambda key: where)
