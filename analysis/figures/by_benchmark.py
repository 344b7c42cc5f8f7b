"""Figures 8 and 10: every benchmark's curve, light, under its domain's mean, dark."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from analysis.figures.plot import Asked, Plot
from analysis.figures.series import (
    Scores,
    Window,
    half_widths,
    judged,
    missing_note,
    score_line,
    stage_window,
)
from analysis.panels import COLOURS, MARKERS, Panel, boundaries
from analysis.samples import OVERALL, Column
from analysis.tables import NOISE

MOST_TAGS = 12  # names beside one panel
LONG_NAME = 20


def figure_8(asked: Asked) -> Plot:
    """Benchmarks and domain means over stage 1, a row an arm."""
    return _plot("8", asked, stage_window(asked, 1))


def figure_10(asked: Asked) -> Plot:
    """Benchmarks and domain means over stage 2, a row an arm."""
    return _plot("10", asked, stage_window(asked, 2))


def _plot(number: str, asked: Asked, window: Window) -> Plot:
    grid, arms = asked.grid, asked.arms
    moments = [moment for moment in grid.moments if window.begin <= moment.tokens <= window.end]
    if len({moment.tokens for moment in moments}) < 2:
        raise asked.lacks(
            f"has fewer than two evaluated points in {', '.join(window.stages)}; evaluate more: "
            "evaluation.at=[{every_tokens:N}] at launch, or python -m davinci evaluate SWEEP --checkpoint all"
        )
    if len(arms) > 1 and all(moment.shared for moment in moments):
        arms = arms[:1]  # one row stands for all
    domains = [column for column in grid.domain_columns if column.name != OVERALL]
    known = asked.chosen("--benchmarks", asked.options.benchmarks, list(grid.benchmarks))
    singles = [Column(name, (name,)) for name in known]
    scores = Scores(grid, [*singles, *domains])
    gains = judged(
        {
            column.name: {
                arm: sample
                for arm in arms
                if (points := _scored(scores, column.name, arm, [one.tokens for one in moments]))
                and (sample := scores.gained(column.name, arm, points[0], points[-1]))
            }
            for column in domains
        }
    )
    widths = half_widths(
        {
            column.name: {
                (arm, moment.tokens): sample
                for arm in arms
                for moment in moments
                if (sample := scores.sample(column.name, arm, moment.tokens))
            }
            for column in scores.columns
        }
    )
    panels = []
    for arm in arms:
        for domain, colour, marker in zip(domains, COLOURS, MARKERS, strict=False):
            members = [column for column in singles if column.name in domain.benchmarks]
            lines = []
            for column in [*members, domain]:
                mean = column is domain
                label = f"{domain.name}: mean of {len(domain.benchmarks)}" if mean else column.name
                line = score_line(scores, column.name, arm, moments, (colour, marker), label)
                if line is None:
                    continue
                half = np.array([widths.get((column.name, (arm, int(x))), np.nan) for x in line.x])
                gain = gains.get((column.name, arm)) if mean else None
                tag = (gain.text if gain else "") if mean else _short(column.name, len(members))
                values = dict(line.values) | (gain.values("gain") if gain else {})
                name = f"{arm}: {column.name}"
                lines.append(replace(line, half=half, tag=tag, values=values, faint=not mean, name=name))
            title = domain.name if len(arms) == 1 else f"{arm} · {domain.name}"
            stages = tuple(one for one in boundaries(asked.sweep, window.begin) if one[0] < window.end)
            panels.append(Panel(title, "tokens since initialisation", "score, %", tuple(lines), stages))
    note = (
        "Dark: the unweighted mean of the domain's benchmarks, with its gain since the first point, in points, ± half "
        f"of its 95% interval; {NOISE} cannot be told from noise (Holm over the figure). Light: each benchmark."
    )
    notes = [note, *missing_note(asked, moments, arms)]
    return Plot(number, tuple(panels), columns=len(domains), notes=tuple(notes), size=(4.0, 2.9))


def _scored(scores: Scores, column: str, arm: str, tokens: list[int]) -> list[int]:
    return [at for at in tokens if scores.sample(column, arm, at)]


def _short(name: str, many: int) -> str:
    """A benchmark's name beside its curve; nothing where there are too many to read."""
    if many > MOST_TAGS:
        return ""
    return name if len(name) <= LONG_NAME else name[: LONG_NAME - 1] + "…"
