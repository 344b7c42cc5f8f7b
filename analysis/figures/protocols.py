"""Figure 12: the same questions under both protocols, by model, and how far each model is from one of them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis import published
from analysis.figures.plot import Asked, Plot
from analysis.figures.series import Scores, half_widths
from analysis.models import NORMAL_95, external_folder, item_error
from analysis.panels import COLOURS, MARKERS, Line, Panel
from analysis.samples import Column, stem
from analysis.tables import MINUS, percent
from davinci.config import Benchmark
from davinci.errors import UserError, nearest
from davinci.planning.wording import some
from davinci.store import read_json

PROTOCOLS = {"ppl": "few-shot PPL", "generative": "generative"}
PAPER_COLUMNS = {"ppl": "mmlu_fewshot_ppl", "generative": "mmlu_fewshot_generative_cot"}
NAME_LINE, NAME_LINES, PER_MODEL = 13, 3, 1.0  # letters and lines of a model's name, inches of a model


@dataclass(frozen=True)
class Answer:
    """A score in percent and half of its 95% interval (NaN where unknown)."""

    value: float
    half: float

    def minus(self, other: Answer) -> Answer:
        """The difference, as if the two were independent."""
        return Answer(self.value - other.value, math.hypot(self.half, other.half))


@dataclass(frozen=True)
class Model:
    """A model's score under each protocol."""

    name: str
    answers: dict[str, Answer]
    runs: tuple[str, ...] = ()


def figure_12(asked: Asked) -> Plot:
    """The sweep's models, each state once, beside the external ones that answered the same questions.

    Raises:
        UserError: no set of questions is asked under both protocols, or fewer than two models answered under both.
    """
    name, tests = _questions(asked)
    models = [*_ours(asked, tests), *_externals(asked, tests)]
    if len(models) < 2:
        have = models[0].name if models else "none"
        raise asked.lacks(
            f"needs two models with scores under both protocols of {name!r}, and has {have}; python -m davinci "
            "evaluate hf:PATH --suite SUITE, once for each protocol's suite"
        )
    chance = {protocol: test.chance for protocol, (_, test) in tests.items()}
    panels = _panels(name, models, asked.options.reference, chance["ppl"] or None)
    if asked.options.paper in ("side", "overlay"):
        panels += [replace(panel, title=f"{panel.title}, published") for panel in _published_panels()]
    note = (
        "Whiskers: 95% interval, over seeds and items; of external models over items. Below each name: generative "
        f"{MINUS} PPL. Intervals of gaps take the two scores as independent, which is too wide where items are shared."
    )
    return Plot("12", tuple(panels), columns=2, notes=(note,), size=_size(len(models)))


def published_12() -> Plot:
    """The paper's values alone."""
    note = f"Published values alone ({published.SOURCE}), without intervals. Below each name: generative {MINUS} PPL."
    return Plot("12", tuple(_published_panels()), columns=2, notes=(note,), size=_size(3))


def _size(models: int) -> tuple[float, float]:
    return max(3.9, PER_MODEL * models + 0.9), 3.3


def _questions(asked: Asked) -> tuple[str, dict[str, tuple[str, Benchmark]]]:
    """The set of questions drawn, and by protocol the benchmark that asks it."""
    found: dict[str, dict[str, tuple[str, Benchmark]]] = {}
    for arm in asked.sweep.plan.arms:
        for name, test in arm.config.evaluation.benchmarks.items():
            found.setdefault(stem(name, test.protocol), {}).setdefault(test.protocol, (name, test))
    both = {name: tests for name, tests in found.items() if set(tests) == set(PROTOCOLS)}
    if not both:
        raise asked.lacks(
            f"asks nothing under both protocols (it asks {some(list(found), 6)}); evaluate its runs on the other "
            "protocol's suite too, or take sweeps/evaluation_protocol.yaml as a pattern"
        )
    wanted = asked.chosen("--benchmarks", asked.options.benchmarks, list(both))
    return wanted[0], both[wanted[0]]


def _ours(asked: Asked, tests: dict[str, tuple[str, Benchmark]]) -> list[Model]:
    """A model a state of the weights: arms that are one at their last point, and asked differently, are one model."""
    grid = asked.grid
    scores = Scores(grid, [Column(name, (name,)) for name in dict.fromkeys(name for name, _ in tests.values())])
    states: dict[frozenset[str], list[str]] = {}
    for arm in asked.arms:
        rows = [row for row in grid.at(grid.last(arm).tokens) if row.arm == arm]
        states.setdefault(frozenset(row.node for row in rows), []).append(arm)
    cells: dict[str, dict[Any, Any]] = {}
    found: dict[str, dict[str, tuple[str, str]]] = {}
    runs: dict[str, tuple[str, ...]] = {}
    for arms in states.values():
        model = arms[0] if len(arms) == 1 else asked.sweep.plan.sweep
        for protocol, (name, _) in tests.items():
            for arm in arms:
                if grid.asks(arm, name, protocol):
                    sample = scores.sample(name, arm, grid.last(arm).tokens)
                    if sample is not None:
                        cells.setdefault(f"{name} {protocol}", {})[model] = sample
                        found.setdefault(model, {})[protocol] = (f"{name} {protocol}", model)
                        runs[model] = runs.get(model, ()) + scores.runs(name, arm, grid.last(arm).tokens)
                        break
    widths = half_widths(cells)
    return [
        Model(
            model,
            {
                protocol: Answer(100 * float(cells[column][key].values.mean()), widths[column, key])
                for protocol, (column, key) in answers.items()
            },
            runs[model],
        )
        for model, answers in found.items()
        if set(answers) == set(PROTOCOLS)
    ]


def _externals(asked: Asked, tests: dict[str, tuple[str, Benchmark]]) -> list[Model]:
    """External models that were asked both by the same tasks, metrics and shots."""
    store, wanted = asked.sweep.store, asked.options.externals
    folders = [external_folder(store, name) for name in wanted] or sorted((store.root / "external").glob("*/"))
    found = []
    for folder in folders:
        path = folder / "scores.json"
        suites = read_json(path) if path.is_file() else {}
        answers = {}
        for protocol, (name, test) in tests.items():
            asks = [test.task, test.protocol, test.metric, test.num_fewshot]
            made = [
                one
                for suite in suites.values()
                for one in suite["benchmarks"].values()
                if [one["task"], one["protocol"], one["metric"], one["num_fewshot"]] == asks
            ]
            if made:
                one = max(made, key=lambda made_: made_["items"])
                error = item_error(folder, one["key"], one.get("benchmark", name))
                answers[protocol] = Answer(100 * one["score"], 100 * NORMAL_95 * error)
        if set(answers) == set(PROTOCOLS):
            found.append(Model(folder.name, answers))
        elif wanted:
            lacking = some([protocol for protocol in PROTOCOLS if protocol not in answers])
            raise UserError(f"--external {folder.name}: it has no score under {lacking} of these questions")
    return found


def _panels(
    name: str, models: Sequence[Model], reference: str, chance: float | None, known: bool = True
) -> list[Panel]:
    """The scores, and the gaps to the reference model (the first one where none is named)."""
    names = [model.name for model in models]
    if reference and reference not in names:
        raise UserError(f"--reference: no model {reference!r} here{nearest(reference, names)}")
    other = next((model for model in models if model.name == reference), models[0])
    by_protocol = [
        _line(protocol, index, [(model.name, model.answers[protocol], model.runs) for model in models], known)
        for index, protocol in enumerate(PROTOCOLS)
    ]
    rest = [model for model in models if model is not other]
    gaps = [
        _line(
            protocol,
            index,
            [(model.name, model.answers[protocol].minus(other.answers[protocol]), ()) for model in rest],
            known,
        )
        for index, protocol in enumerate(PROTOCOLS)
    ]
    ticks = tuple((float(index), _tick(model)) for index, model in enumerate(models))
    guide = (100 * chance, "chance") if chance is not None else None
    return [
        Panel(name, "", "score, %", tuple(by_protocol), (), ticks, guide, categories=True),
        Panel(
            title=f"Gap to {other.name}",
            x_label="",
            y_label="points",
            lines=tuple(gaps),
            boundaries=(),
            ticks=tuple((float(index), _wrapped(model.name)) for index, model in enumerate(rest)),
            levels=((0.0, "#9aa3ab"),),
            categories=True,
        ),
    ]


def _line(protocol: str, index: int, points: Sequence[tuple[str, Answer, tuple[str, ...]]], known: bool) -> Line:
    mean = np.array([answer.value for _, answer, _ in points])
    half = np.array([answer.half for _, answer, _ in points])
    x = np.arange(len(points)) + 0.24 * (index - 0.5)
    return Line(
        label=PROTOCOLS[protocol],
        colour=COLOURS[index],
        marker=MARKERS[index],
        x=x,
        mean=mean,
        low=mean,
        high=mean,
        half=half,
        whiskers=True,
        joined=False,
        published=not known,
        values={
            "models": tuple(name for name, _, _ in points),
            "runs": tuple(run for _, _, runs in points for run in runs),
        },
    )


def _tick(model: Model) -> str:
    gap = model.answers["generative"].minus(model.answers["ppl"])
    half = "" if math.isnan(gap.half) else f" ± {percent(gap.half / 100)}"
    return f"{_wrapped(model.name)}\n{percent(gap.value / 100, signed=True)}{half}"


def _wrapped(name: str) -> str:
    lines = textwrap.wrap(name, NAME_LINE, break_on_hyphens=True)
    return "\n".join(
        lines if len(lines) <= NAME_LINES else [*lines[: NAME_LINES - 1], lines[NAME_LINES - 1][: NAME_LINE - 1] + "…"]
    )


def _published_panels() -> list[Panel]:
    models = [
        Model(row["model"], {protocol: Answer(float(row[key]), math.nan) for protocol, key in PAPER_COLUMNS.items()})
        for row in published.rows("figure12_protocol")
    ]
    return _panels("MMLU", models, "", None, known=False)
