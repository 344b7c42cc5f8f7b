"""Figures 7, 9 and 13: arms over the tokens since they parted, and what each gained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from analysis import published
from analysis.figures.plot import Asked, Plot
from analysis.figures.series import Window, overall_first, score_panels, spans
from analysis.panels import COLOURS, MARKERS, Line, Panel, fork_of, styles
from analysis.samples import OVERALL

# Published gains in points, by arm and column.
Points = dict[str, dict[str, float]]


def figure_7(asked: Asked) -> Plot:
    """Arms since they parted, overall and by domain, with the gain of each."""
    panels, notes = score_panels(
        asked, since_parting(asked), overall_first(asked.grid), gain="start", from_last_shared=True
    )
    return Plot("7", tuple(panels), columns=2, notes=tuple(notes))


def figure_9(asked: Asked) -> Plot:
    """Arms since they parted, a panel a domain, their gains beside those the paper prints."""
    columns = [column for column in asked.grid.domain_columns if column.name != OVERALL]
    panels, notes = score_panels(asked, since_parting(asked), columns, gain="start", from_last_shared=True)
    paper = _published_gains("figure9_qa_introduction", "path")
    return _with_published("9", asked, panels, notes, paper, "Gain since the arms parted", "gain")


def figure_13(asked: Asked) -> Plot:
    """Arms since they parted, with the difference of each to the baseline arm, beside what the paper prints."""
    panels, notes = score_panels(
        asked, since_parting(asked), overall_first(asked.grid), gain="baseline", from_last_shared=True
    )
    title = f"Difference to {asked.sweep.plan.baseline}"
    return _with_published("13", asked, panels, notes, published_masking(), title, "difference")


def published_9() -> Plot:
    """The paper's gains alone."""
    return _only("9", _published_gains("figure9_qa_introduction", "path"), "Gain from the same checkpoint")


def published_13() -> Plot:
    """The paper's differences alone."""
    return _only("13", published_masking(), "Masked minus unmasked")


def since_parting(asked: Asked) -> Window:
    """From the last point before the arms part to the end of the longest, or the stages asked for.

    Raises:
        UserError: the sweep has one arm, or arms that are one to the end.
    """
    sweep = asked.sweep
    if len(sweep.plan.arms) < 2:
        raise asked.lacks("has one arm; this figure compares arms")
    known = spans(asked)
    names = asked.chosen("--stages", asked.options.stages, list(known)) if asked.options.stages else []
    if names:
        return Window(tuple(names), min(known[name][0] for name in names), max(known[name][1] for name in names))
    fork = fork_of(sweep)
    before = [moment.tokens for moment in asked.grid.moments if moment.tokens <= fork and moment.shared]
    end = max(end for _, end in known.values())
    stages = tuple(name for name, (_, stage_end) in known.items() if stage_end > fork)
    return Window(stages, before[-1] if before else fork, end)


def _published_gains(name: str, key: str) -> Points:
    return {
        row[key]: {
            column.removeprefix("delta_").capitalize(): float(value)
            for column, value in row.items()
            if column.startswith("delta_") and value
        }
        for row in published.rows(name)
    }


def published_masking() -> Points:
    """What leaving questions out of the loss adds, by domain and overall, in points."""
    rows = published.rows("appendix_b_qa_masking")
    unmasked, masked = (next(row for row in rows if row["configuration"] == one) for one in
                        ("Without loss mask", "With loss mask"))  # fmt: skip
    (gains,) = (_published_gains("appendix_b_qa_masking", "configuration")[masked["configuration"]],)
    overall = round(float(masked[OVERALL]) - float(unmasked[OVERALL]), 2)
    return {masked["configuration"]: {OVERALL: overall} | gains}


def _with_published(
    number: str, asked: Asked, panels: Sequence[Panel], notes: Sequence[str], paper: Points, title: str, value: str
) -> Plot:
    """The panels, and where published values are asked for a panel of gains with them, or their lines among the others.

    Arms are matched by label; a sweep of other arms gets no published value.
    """
    arms = [arm for arm in asked.arms if arm in paper]
    how = asked.options.paper if arms else "none"
    if how == "overlay":
        panels = [_overlaid(panel, paper, arms, asked.sweep.plan.baseline, value) for panel in panels]
        notes = [*notes, "Dashed: the published gain, drawn from the measured start (its course is not published)."]
    elif how == "side":
        columns = [panel.title for panel in panels]
        looks = styles(asked.sweep)
        lines: list[Line] = []
        for index, arm in enumerate(arms):
            shift = 0.24 * (index - (len(arms) - 1) / 2)
            found = [_gain_at(panel, arm, value) for panel in panels]
            lines.append(_points(arm, looks[arm], columns, found, shift - 0.05))
            own = [(paper[arm].get(column, math.nan), math.nan) for column in columns]
            lines.append(replace(_points(arm, looks[arm], columns, own, shift + 0.05), published=True))
        panels = [*panels, _gain_panel(title, columns, lines)]
    return Plot(number, tuple(panels), columns=3 if len(panels) == 3 else 2, notes=tuple(notes))


def _gain_at(panel: Panel, arm: str, value: str) -> tuple[float, float]:
    """The gain of an arm's line and half of its interval; NaN where there is none."""
    for line in panel.lines:
        if line.label == arm and value in line.values:
            return float(line.values[value]), float(line.values[f"{value}_half_width"])
    return math.nan, math.nan


def _points(
    arm: str, look: tuple[str, str], columns: Sequence[str], found: Sequence[tuple[float, float]], shift: float
) -> Line:
    known = [(index, *one) for index, one in enumerate(found) if not math.isnan(one[0])]
    mean = np.array([one[1] for one in known])
    return Line(
        label=arm,
        colour=look[0],
        marker=look[1],
        x=np.array([one[0] + shift for one in known], float),
        mean=mean,
        low=mean,
        high=mean,
        half=np.array([one[2] for one in known], float),
        whiskers=True,
        joined=False,
        values={},
    )


def _gain_panel(title: str, columns: Sequence[str], lines: Sequence[Line]) -> Panel:
    return Panel(
        title=title,
        x_label="",
        y_label="points",
        lines=tuple(line for line in lines if line.x.size),
        boundaries=(),
        ticks=tuple((float(index), name) for index, name in enumerate(columns)),
        levels=((0.0, "#9aa3ab"),),
        categories=True,
    )


def _overlaid(panel: Panel, paper: Points, arms: Sequence[str], baseline: str, value: str) -> Panel:
    """The panel with a dashed line an arm: from the measured start to where the published gain would end."""
    added = []
    by_label = {line.label: line for line in panel.lines}
    for arm in arms:
        line, gain = by_label.get(arm), paper[arm].get(panel.title)
        reference = by_label.get(baseline) if value == "difference" else line
        if line is None or reference is None or gain is None:
            continue
        end = float(reference.mean[-1] if value == "difference" else reference.mean[0]) + gain
        ys = np.array([line.mean[0], end])
        kept = {"x": line.x[[0, -1]], "mean": ys, "low": ys, "high": ys}
        added.append(replace(line, published=True, half=None, tag="", values={"published_gain": gain}, **kept))
    return replace(panel, lines=(*panel.lines, *added))


def _only(number: str, paper: Points, title: str) -> Plot:
    columns = list(dict.fromkeys(column for gains in paper.values() for column in gains))
    lines = [
        replace(
            _points(
                arm,
                (COLOURS[index], MARKERS[index]),
                columns,
                [(gains.get(column, math.nan), math.nan) for column in columns],
                0.24 * (index - (len(paper) - 1) / 2),
            ),
            published=True,
            tag="",
        )
        for index, (arm, gains) in enumerate(paper.items())
    ]
    return Plot(number, (_gain_panel(title, columns, lines),), columns=1, size=(5.0, 3.0), notes=(PUBLISHED_NOTE,))


PUBLISHED_NOTE = f"Published values alone ({published.SOURCE}), in percent or points; without intervals."
