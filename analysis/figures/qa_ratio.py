"""Figure 11b: domain and overall scores over the share of question-answer data."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from analysis import published
from analysis.figures.drawing import PUBLISHED
from analysis.figures.plot import Asked, Plot
from analysis.figures.series import Scores, half_widths, judged, missing_note, overall_first
from analysis.panels import COLOURS, Line, Panel
from analysis.tables import MINUS, NOISE

LOOK = (COLOURS[0], "o")
LABEL = "measured: arms by their share of QA"


def figure_11b(asked: Asked) -> Plot:
    """Scores at each arm's last point over its share of QA, in the stage in which the arms differ by it.

    Raises:
        UserError: fewer than two arms differ in their share of QA.
    """
    grid, arms = asked.grid, asked.arms
    share = _shares(asked, arms)
    if len(set(share.values())) < 2:
        said = ", ".join(f"{arm} {100 * value:g}%" for arm, value in list(share.items())[:4]) or "none has QA"
        raise asked.lacks(f"has no two arms that differ in the share of QA ({said})")
    arms = sorted(share, key=lambda arm: share[arm])
    scores = Scores(grid, overall_first(grid))
    last = {arm: grid.last(arm) for arm in arms}
    cells = {
        column.name: {
            arm: sample for arm in arms if (sample := scores.sample(column.name, arm, last[arm].tokens)) is not None
        }
        for column in scores.columns
    }
    if not any(cells.values()):
        raise asked.lacks("has no scores at the last point of its arms yet")
    widths = half_widths(cells)
    ends = arms[0], arms[-1]
    beside = {
        column.name: {
            (arm, moment.tokens): difference
            for moment in grid.moments
            if not moment.shared
            for arm in arms[1:]
            if (difference := scores.against(column.name, arm, ends[0], moment.tokens))
        }
        for column in scores.columns
    }
    at_end = ends[1], last[ends[1]].tokens
    gains = judged(
        {
            name: {at_end: difference}
            for name, found in cells.items()
            if ends[0] in found and ends[1] in found and (difference := found[ends[1]].minus(found[ends[0]]))
        },
        beside,
    )
    panels: list[Panel] = []
    for column in scores.columns:
        found = cells[column.name]
        own = [arm for arm in arms if arm in found]
        gain = gains.get((column.name, at_end))
        line = Line(
            label=LABEL,
            colour=LOOK[0],
            marker=LOOK[1],
            x=np.array([100 * share[arm] for arm in own]),
            mean=np.array([100 * found[arm].values.mean() for arm in own]),
            low=np.array([100 * found[arm].values.min() for arm in own]),
            high=np.array([100 * found[arm].values.max() for arm in own]),
            half=np.array([widths[column.name, arm] for arm in own]),
            whiskers=True,
            tag=gain.text if gain else "",
            values=gain.values("difference") if gain else {},
        )
        ticks = tuple((100 * value, f"{100 * value:g}") for value in sorted(set(share.values())))
        panels.append(Panel(column.name, "QA, % of the stage's tokens", "score, %", (line,), (), _thinned(ticks)))
    if asked.options.paper == "overlay":
        paper = {panel.title: panel for panel in published_panels()}
        panels = [
            replace(panel, lines=(*panel.lines, *(paper[panel.title].lines if panel.title in paper else ())), ticks=())
            for panel in panels
        ]
        panels = [replace(panel, ticks=_ticks(panel)) for panel in panels]
    elif asked.options.paper == "side":
        paper = {panel.title: panel for panel in published_panels()}
        panels += [
            replace(paper[panel.title], title=f"{panel.title}, published") for panel in panels if panel.title in paper
        ]
    when = {moment.name for moment in last.values()}
    seeds = len(asked.sweep.plan.seeds)
    note = (
        f"At {when.pop() if len(when) == 1 else 'the last point of each arm'}. "
        + (f"Band: lowest to highest of {seeds} seeds. " if seeds > 1 else "One seed. ")
        + f"Whiskers: 95% interval over seeds and items. At the end: {ends[1]} {MINUS} {ends[0]}, in points, paired by "
        f"seed and item; {NOISE} cannot be told from noise (Holm over the figure)."
    )
    columns = len(scores.columns) if asked.options.paper == "side" else 2
    notes = [note, *missing_note(asked, list(last.values()), arms)]
    return Plot("11b", tuple(panels), columns=columns, notes=tuple(notes))


def published_11b() -> Plot:
    """The paper's values alone."""
    note = f"Published values alone ({published.SOURCE}); without intervals."
    return Plot("11b", tuple(published_panels()), columns=2, notes=(note,))


def published_panels() -> list[Panel]:
    """A panel a column of the paper's values."""
    rows = published.rows("figure11b_qa_ratio")
    x = np.array([float(row["qa_percent"]) for row in rows])
    panels = []
    for column in ("Overall", "General", "Code", "Science"):
        y = np.array([float(row[column]) for row in rows])
        line = Line(PUBLISHED, COLOURS[1], "D", x, y, y, y, published=True)
        ticks = tuple((float(value), f"{value:g}") for value in x)
        panels.append(Panel(column, "QA, % of the stage's tokens", "score, %", (line,), (), ticks))
    return panels


def _shares(asked: Asked, arms: list[str]) -> dict[str, float]:
    """Each arm's share of QA in the last stage in which the arms differ by it, else in their last one."""
    by_stage: dict[str, dict[str, float]] = {}
    for arm in asked.sweep.plan.arms:
        if arm.label in arms:
            for name, stage in arm.config.curriculum.stages.items():
                by_stage.setdefault(name, {})[arm.label] = float(stage.mixture.domains.get("qa", 0.0))
    differing = [shares for shares in by_stage.values() if len(set(shares.values())) > 1]
    return (differing or list(by_stage.values()) or [{}])[-1]


def _ticks(panel: Panel) -> tuple[tuple[float, str], ...]:
    found = sorted({round(float(x), 4) for line in panel.lines for x in line.x})
    return _thinned(tuple((x, f"{x:g}") for x in found))


def _thinned(ticks: tuple[tuple[float, str], ...]) -> tuple[tuple[float, str], ...]:
    """Those that stand at least a fifteenth of the axis apart."""
    if not ticks:
        return ticks
    least = (ticks[-1][0] - ticks[0][0]) / 15
    kept, last = [], -math.inf
    for tick in ticks:
        if tick[0] - last >= least:
            kept.append(tick)
            last = tick[0]
    return tuple(kept)
