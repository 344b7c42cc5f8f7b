"""Benchmarks by model: every arm at its last point beside models that were not trained here (the paper's Table 6)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.comparison import Comparison
from analysis.layout import measured, score_text
from analysis.published import SOURCE
from analysis.samples import DOMAINS, OVERALL, Grid
from analysis.tables import Table, Value, percent, points
from analysis.units import PERCENT, Unit, unit
from davinci.errors import UserError, nearest
from davinci.store import Store, read_json

NORMAL_95 = 1.96


@dataclass(frozen=True)
class Score:
    """A score as a fraction, with its standard error over items (NaN where the items cannot be read)."""

    value: float
    error: float
    items: int


@dataclass(frozen=True)
class External:
    """A model evaluated by ``davinci evaluate hf:PATH``: its scores by benchmark, and what a reader must know."""

    name: str
    scores: dict[str, Score]
    notes: tuple[str, ...]


def read_external(store: Store, name: str, grid: Grid) -> External:
    """The model's scores on the sweep's benchmarks: asked by the same task, protocol, metric and shots.

    Where it was not evaluated on the sweep's own suite, but on one with fewer items, a note says so.

    Args:
        store: where it was evaluated.
        name: of its folder there, or the part before the digest where only one is called so.
        grid: of the sweep.

    Raises:
        UserError: there is no such model, or it has no score on any benchmark of the sweep.
    """
    folder = external_folder(store, name)
    suites = read_json(folder / "scores.json") if (folder / "scores.json").is_file() else {}
    wanted: dict[str, Any] = {}
    for arm in grid.sweep.plan.arms:
        wanted |= arm.config.evaluation.benchmarks
    scores: dict[str, Score] = {}
    fewer, cut = [], []
    for benchmark, test in wanted.items():
        asked = [test.task, test.protocol, test.metric, test.num_fewshot]
        found = [
            (key in grid.suites, one["items"], one)
            for key, suite in suites.items()
            for one in [suite["benchmarks"].get(benchmark)]
            if one and [one["task"], one["protocol"], one["metric"], one["num_fewshot"]] == asked
        ]
        if found:
            _, items, one = max(found, key=lambda one: one[:2])
            scores[benchmark] = Score(one["score"], item_error(folder, one["key"], benchmark), items)
            ours = max((int(row.items) for row in grid.all_rows if row.benchmark == benchmark), default=0)
            fewer += [f"{benchmark} ({items} of {ours})"] if items < ours else []
            cut += [f"{benchmark} ({one['truncated']})"] if one["truncated"] else []
    if not scores:
        raise UserError(
            f"--external {name}: it has no score on a benchmark of sweep {grid.sweep.plan.sweep!r}; python -m davinci "
            f"evaluate hf:PATH --suite {grid.sweep.plan.arms[0].config.evaluation.suite}"
        )
    notes = []
    if fewer:
        notes.append(f"{folder.name} was asked fewer items of {', '.join(fewer)}.")
    if cut:
        notes.append(f"{folder.name}: items that did not fit its context, and lost their beginning: {', '.join(cut)}.")
    return External(folder.name, scores, tuple(notes))


def columns(store: Store, names: Sequence[str], grid: Grid) -> list[External]:
    """The models `names`, who must be there, and those that the sweep's `table.external` declares; one of these that
    is not evaluated here has an empty column, and a note says why.

    Raises:
        UserError: as `read_external`, of `names`.
    """
    found = [read_external(store, name, grid) for name in names]
    for name in grid.sweep.plan.question.table.external:
        try:
            model = read_external(store, name, grid)
        except UserError as error:
            said = str(error).removeprefix("--external ").removeprefix("--external: ")
            model = External(name, {}, (f"table.external, {name}: {said.removeprefix(f'{name}: ')}.",))
        if model.name not in [one.name for one in found]:
            found.append(model)
    return found


def external_folder(store: Store, name: str) -> Path:
    """The folder of a model that `davinci evaluate hf:PATH` evaluated, by its name or the part before the digest.

    Raises:
        UserError: no model is called so, or several are.
    """
    known = sorted(path for path in (store.root / "external").glob("*") if path.is_dir())
    found = [path for path in known if path.name == name] or [
        path for path in known if path.name.rpartition("-")[0] == name
    ]
    if len(found) > 1:
        raise UserError(f"--external {name}: several are called so: {', '.join(path.name for path in found)}")
    if not found:
        raise UserError(
            f"--external: store {store.root} has no model {name!r}" + nearest(name, [path.name for path in known])
        )
    return found[0]


def item_error(folder: Path, key: str, benchmark: str) -> float:
    """Standard error of the mean over the benchmark's items.

    Two items right and two wrong are added, so that one who knows all of few items is not sure of all the others
    (Agresti and Coull, The American Statistician 52, 1998).
    """
    try:
        table = pq.read_table(folder / "evaluations" / f"{key}.parquet", columns=["benchmark", "score"])
    except (OSError, pa.ArrowException):
        return math.nan
    of = np.array(table["benchmark"].to_pylist()) == benchmark
    scores = np.concatenate([table["score"].to_numpy()[of], [0.0, 0.0, 1.0, 1.0]])
    return float(np.std(scores) / math.sqrt(len(scores)))


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean over benchmarks, each weighing the same."""
    error = math.sqrt(sum(one.error**2 for one in scores)) / len(scores)
    return Score(float(np.mean([one.value for one in scores])), error, sum(one.items for one in scores))


def model_table(
    grid: Grid,
    domains: Comparison | None,
    benchmarks: Comparison | None,
    externals: Sequence[External],
    *,
    arms: Sequence[str] = (),
    paper: Mapping[str, Mapping[str, float]] | None = None,
    decimals: int = 1,
) -> Table:
    """A row a benchmark, domain and Overall; a column an arm, at its last point, and an external model.

    Args:
        grid: of the sweep.
        domains, benchmarks: the rows, each group where it is given.
        externals: models evaluated here.
        arms: which; all without.
        paper: published models: scores in percent by row.
        decimals: of percentages.
    """
    arms = arms or [arm.label for arm in grid.sweep.plan.arms]
    paper = paper or {}
    lines, data = [], []
    for comparison in (benchmarks, domains):
        group = []
        for column in comparison.columns if comparison else ():
            values = [_ours(comparison, grid, arm, column.name) for arm in arms]
            cells = [_measured(cell, decimals) for cell in values]
            for arm, cell in zip(arms, values, strict=True):
                score = cell.score if cell else None
                of, mean = unit(column.name), score and float(score.mean)
                data.append(_number(column.name, arm, mean, score and float(score.half_width), of))
            for model in externals:
                own = [model.scores[name] for name in column.benchmarks if name in model.scores]
                score_ = mean_score(own) if own and len(own) == len(column.benchmarks) else None
                cells.append(_value(score_, decimals))
                data.append(
                    _number(column.name, model.name, score_ and score_.value, score_ and NORMAL_95 * score_.error)
                )
            for name, scores in paper.items():
                printed = scores.get(column.name)
                cells.append(Value("–" if printed is None else points(printed, decimals=decimals), "faint"))
                data.append(_number(column.name, f"{name} (paper)", None if printed is None else printed / 100, None))
            chance = grid.chance(arms[0], column)
            name_ = f"{column.name}{unit(column.name).mark}"
            group.append((Value(name_, "strong" if column.name == OVERALL else "plain"), _chance(chance), *cells))
        lines.append(tuple(group))
    kinds = measured([column for comparison in (benchmarks, domains) if comparison for column in comparison.columns])
    last = {arm: grid.last(arm).name for arm in arms}
    when = next(iter(last.values())) if len(set(last.values())) == 1 else "its last point"
    seeds = len(grid.sweep.plan.seeds)
    notes = [
        f"Arms at {when}: score ± half of the 95% interval over {seeds} seed{'s' * (seeds > 1)} and items. External "
        f"models: over items alone. {', '.join(DOMAINS).capitalize()} and Overall are means over benchmarks. Bold: "
        "the best of the arms, told from every other one.",
        *(note for model in externals for note in model.notes),
    ]
    if paper:
        notes.append(f"(paper): {SOURCE}, other models on its own suite: compare directions, not levels.")
    return Table(
        title=f"{grid.sweep.plan.sweep}: {kinds} by model",
        headers=(
            *("Benchmark", "Chance"),
            *arms,
            *(model.name for model in externals),
            *(f"{name} (paper)" for name in paper),
        ),
        stubs=1,
        groups=tuple(group for group in lines if group),
        notes=tuple(notes),
        data=tuple(data),
    )


def _measured(cell: Any, decimals: int) -> Value:
    if cell is None:
        return Value("–", "faint")
    return Value(score_text(cell, decimals), "strong" if cell.best else "plain")


def _ours(comparison: Comparison, grid: Grid, arm: str, column: str) -> Any:
    tokens = grid.last(arm).tokens
    return comparison.cells.get((arm, tokens, column)) or comparison.cells.get((None, tokens, column))


def _value(score: Score | None, decimals: int) -> Value:
    if score is None:
        return Value("–", "faint")
    interval = "" if math.isnan(score.error) else f" ± {percent(NORMAL_95 * score.error, decimals=decimals)}"
    return Value(percent(score.value, decimals=decimals) + interval)


def _chance(chance: float | None) -> Value:
    return Value("–" if chance is None else percent(chance), "faint")


def _number(column: str, model: str, score: float | None, half: float | None, of: Unit = PERCENT) -> dict[str, Any]:
    return {
        "column": column,
        "model": model,
        "unit": of.name,
        "score": None if score is None else of.shown(score),
        "score_half_width": None if half is None or math.isnan(half) else of.width(half),
    }
