"""What the page's figures draw, as plain JSON: curves thinned to what a screen shows, every seed beside the mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import panels
from analysis.comparison import Comparison
from analysis.emergence import Course, above_chance, order
from analysis.findings import Findings
from analysis.load import Sweep
from analysis.units import unit

# Points of all training curves of the page together, and of one curve at least and at most.
POINTS, FEWEST, MOST = 80_000, 60, 400
DIGITS = 5

Chart = dict[str, Any]


def charts(found: Findings) -> dict[str, Any]:
    """Everything the page's scripts draw: arms, and by section its charts."""
    sweep = found.sweep
    index = {arm.label: place for place, arm in enumerate(sweep.plan.arms)}
    return {
        "arms": [
            {"label": arm.label, "colour": place % len(panels.COLOURS), "baseline": arm.is_baseline}
            for arm, place in zip(sweep.plan.arms, index.values(), strict=True)
        ],
        "seeds": list(sweep.plan.seeds),
        "effects": effects(found),
        "scores": [_score_chart(panel, found.main, index) for panel in panels.score_panels(found.grid, found.main)],
        "loss": _loss_charts(sweep, index),
        "routing": _routing_charts(sweep, index),
        "timeline": _timeline(found.courses, index, panels.boundaries(sweep, 0)),
    }


def effects(found: Findings) -> list[dict[str, Any]]:
    """By column, every arm's difference to the baseline at its last point: mean and half of the interval, in the
    column's unit (points of score)."""
    index = {arm.label: place for place, arm in enumerate(found.sweep.plan.arms)}
    columns = []
    for column in found.main.columns:
        rows, of = [], unit(column.name)
        for arm, last in found.last_shown.items():
            cell = found.main.cells[arm, last.tokens, column.name]
            if cell.difference is None:
                continue
            rows.append(
                {
                    "arm": index[arm],
                    "at": last.name,
                    "mean": _short(of.shown(cell.difference.mean)),
                    "half": _short(of.width(cell.difference.half_width)),
                    "apart": bool(cell.told_apart),
                    "paper": cell.published_difference,
                }
            )
        if rows:
            least = _short(of.width(found.main.detectable[column.name]))
            about = {"unit": of.of_difference, "decimals": 1 + of.finer, "mark": of.mark}
            columns.append({"title": column.name, "rows": rows, "detectable": least} | about)
    return columns


def _score_chart(panel: panels.Panel, comparison: Comparison, index: Mapping[str, int]) -> Chart:
    lines, of = [], unit(panel.title)
    for line in panel.lines:
        arm = line.label if line.label in index else None
        cells = [
            comparison.cells.get((arm, int(x), panel.title)) or comparison.cells[None, int(x), panel.title]
            for x in line.x
        ]
        seeds = sorted({seed for cell in cells for seed in cell.by_seed})
        halves = [of.width(cell.score.half_width) if cell.score else math.nan for cell in cells]
        single = {seed: [of.shown(cell.by_seed.get(seed, math.nan)) for cell in cells] for seed in seeds}
        lines.append(_line(line, index, slice(None), single) | {"half": _numbers(halves)})
    return _chart(panel, lines)


def _loss_charts(sweep: Sweep, index: Mapping[str, int]) -> list[Chart]:
    drawn = panels.loss_panels(sweep)
    curves = sum(line.x.size > FEWEST for panel in drawn for line in panel.lines)
    most = max(FEWEST, min(MOST, POINTS // max(1, curves * (4 + len(sweep.plan.seeds)))))
    held = {
        (f"Held-out {domain}" + (", averaged weights" if averaged else "")): (domain, averaged)
        for domain in set(sweep.heldout["domain"].dropna())
        for averaged in (False, True)
    }
    found = []
    for panel in drawn:
        lines = []
        for line in panel.lines:
            if panel.title in held:
                single = _heldout_by_seed(sweep, line, *held[panel.title], index)
            else:
                single = _training_by_seed(sweep, line, index)
            lines.append(_line(line, index, _kept(line.x.size, most), single))
        found.append(_chart(panel, lines))
    return found


def _routing_charts(sweep: Sweep, index: Mapping[str, int]) -> list[Chart]:
    """Mean and band of the seeds alone, at few points: what is looked at is whether experts collapse."""
    drawn = panels.routing_panels(sweep)
    return [_chart(one, [_line(line, index, _kept(line.x.size, FEWEST), {}) for line in one.lines]) for one in drawn]


def _chart(panel: panels.Panel, lines: list[dict[str, Any]]) -> Chart:
    return {
        "title": panel.title,
        "x": panel.x_label,
        "y": panel.y_label,
        "stages": [[tokens, name] for tokens, name in panel.boundaries],
        "ticks": [[tokens, name] for tokens, name in panel.ticks],
        "guide": list(panel.guide) if panel.guide else None,
        "spikes": [tokens for tokens, _ in panel.spikes],
        "lines": lines,
    }


def _line(
    line: panels.Line, index: Mapping[str, int], kept: slice | np.ndarray, single: Mapping[int, Sequence[float]]
) -> dict[str, Any]:
    """One curve at the points `kept`; `arm` is -1 for what all arms share, `seeds` holds each seed's values."""
    found = {
        "arm": index.get(line.label, -1),
        "x": [int(x) for x in line.x[kept]],
        "mean": _numbers(line.mean[kept]),
        "seeds": {str(seed): _numbers(np.asarray(values, float)[kept]) for seed, values in single.items()},
    }
    if len(single) != 1:
        found |= {"low": _numbers(line.low[kept]), "high": _numbers(line.high[kept])}
    return found


def _kept(size: int, most: int) -> slice | np.ndarray:
    """At most `most` places of `size`, evenly spread, both ends among them."""
    return slice(None) if size <= most else np.unique(np.linspace(0, size - 1, most).round().astype(int))


def _nodes_by_seed(sweep: Sweep, line: panels.Line, index: Mapping[str, int]) -> dict[int, list[str]]:
    """The nodes behind a curve, by seed: an arm's own, or those that all arms share."""
    arms: dict[str, set[str]] = {}
    for run in sweep.plan.runs:
        for node in run.nodes:
            arms.setdefault(node, set()).add(run.arm)
    every, own = len(sweep.plan.arms), line.label in index
    found: dict[int, list[str]] = {}
    for run in sweep.plan.runs:
        if own and run.arm != line.label:
            continue
        nodes = [node for node in run.nodes if (every > 1 and len(arms[node]) == every) != own]
        found.setdefault(run.seed, nodes)
    return found


def _training_by_seed(sweep: Sweep, line: panels.Line, index: Mapping[str, int]) -> dict[int, Sequence[float]]:
    """Each seed's own moving average, at the curve's places."""
    found: dict[int, Sequence[float]] = {}
    for seed, nodes in _nodes_by_seed(sweep, line, index).items():
        frames = [sweep.train[node].dropna() for node in nodes if node in sweep.train]
        if not frames or (rows := pd.concat(frames)).empty:
            continue
        rows = rows.drop_duplicates("tokens").sort_values("tokens")
        window = max(1, round(panels.SMOOTHING * len(rows)))
        smooth = rows["loss"].rolling(window, min_periods=1, center=True).mean().to_numpy()
        found[seed] = np.interp(line.x, rows["tokens"].to_numpy(), smooth, left=math.nan, right=math.nan).tolist()
    return found


def _heldout_by_seed(
    sweep: Sweep, line: panels.Line, domain: str, averaged: bool, index: Mapping[str, int]
) -> dict[int, Sequence[float]]:
    rows = sweep.heldout[(sweep.heldout["domain"] == domain) & (sweep.heldout["averaged"] == averaged)]
    values: dict[str, dict[int, float]] = {}
    for row in rows.to_dict("records"):
        values.setdefault(row["node"], {})[int(row["tokens"])] = row["bits_per_byte"]
    of_arm = line.label in index  # an arm's curve starts at the last point that all arms share
    found: dict[int, Sequence[float]] = {}
    for seed, nodes in _nodes_by_seed(sweep, line, index).items():
        run = next(run for run in sweep.plan.runs if run.seed == seed and (not of_arm or run.arm == line.label))
        known = {tokens: value for node in run.nodes for tokens, value in values.get(node, {}).items()}
        if any(node in values for node in nodes):
            found[seed] = [known.get(int(x), math.nan) for x in line.x]
    return found


def _timeline(
    courses: Sequence[Course], index: Mapping[str, int], stages: Sequence[tuple[int, str]]
) -> dict[str, Any] | None:
    if not courses:
        return None
    return {
        "rows": order(courses),
        "stages": [[tokens, name] for tokens, name in stages],
        "strips": [
            {
                "row": one.capability,
                "arm": index[one.arm],
                "items": one.items,
                "chance": _short(100 * one.chance),
                "emerged": one.emerged,
                "x": [step.tokens for step in one.passes],
                "accuracy": _numbers([100 * step.accuracy for step in one.passes]),
                "share": _numbers([above_chance(step.accuracy, one.chance) for step in one.passes]),
            }
            for one in courses
        ],
    }


def _short(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _numbers(values: Any) -> list[float | None]:
    return [_short(float(value)) for value in values]
