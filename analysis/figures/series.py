"""Scores over tokens as lines, and what was gained along them, with its interval.

A gain is one arm's score at a later point minus its own at an earlier one, paired by seed and item; a difference is an
arm's score minus the baseline arm's at the same point. Both are estimated as the tables' differences are
(`analysis.statistics`), pooled over the figure's arms by column, and corrected by Holm over all that the figure prints.
Where all seeds share one trunk, its one state is the start of each of them, and the gain is conditional on it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.bootstrap import intervals
from analysis.cells import efficiency
from analysis.figures.plot import Asked
from analysis.panels import SHARED_COLOUR, SHARED_LABEL, Line, Panel, boundaries, styles
from analysis.samples import OVERALL, Column, Grid, Moment, Sampler
from analysis.statistics import Estimate, Sample, holm
from analysis.tables import NOISE, percent
from davinci.accounting.power import LEVEL
from davinci.planning.wording import count, some

Key = tuple[str, int]  # arm, tokens


@dataclass(frozen=True)
class Window:
    """Stages that follow each other: from `begin` to `end`, tokens since initialisation."""

    stages: tuple[str, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Gain:
    """A gain or a difference as a fraction, and its p-value corrected for the others of the figure."""

    estimate: Estimate
    p_adjusted: float

    @property
    def told_apart(self) -> bool:
        return self.p_adjusted < 1 - LEVEL

    @property
    def text(self) -> str:
        """``+3.1 ± 1.2`` in points, led by ``≈`` where it cannot be told from noise, ``± ?`` where nothing is known."""
        mean, half = float(self.estimate.mean), float(self.estimate.half_width)
        if math.isnan(half):
            return f"{percent(mean, signed=True)} ± ?"
        return ("" if self.told_apart else f"{NOISE} ") + f"{percent(mean, signed=True)} ± {percent(half)}"

    def values(self, name: str) -> dict[str, Any]:
        """What the data says of it, under names that begin with `name`; in points."""
        return {
            name: 100 * float(self.estimate.mean),
            f"{name}_half_width": 100 * float(self.estimate.half_width),
            f"{name}_p_adjusted": self.p_adjusted,
            f"{name}_seeds": self.estimate.seeds,
        }


def spans(asked: Asked) -> dict[str, tuple[int, int]]:
    """Where each stage lies, by the arms' curricula: its earliest beginning and latest end."""
    found: dict[str, tuple[int, int]] = {}
    for arm in asked.sweep.plan.arms:
        position = 0
        for name, stage in arm.config.curriculum.stages.items():
            end = position + stage.grid.tokens_used
            low, high = found.get(name, (position, end))
            found[name] = min(low, position), max(high, end)
            position = end
    return found


def stage_window(asked: Asked, number: int) -> Window:
    """The stages of the paper's stage `number` (``s1_1``, ``s1_2``), or those asked for.

    Raises:
        UserError: the sweep has no such stage.
    """
    known = spans(asked)
    wanted = asked.chosen("--stages", asked.options.stages, list(known)) if asked.options.stages else []
    names = wanted or [name for name in known if re.fullmatch(rf"s(tage)?_?{number}([._-].*)?", name)]
    if not names:
        raise asked.lacks(
            f"has no stage {number} (its stages: {some(list(known))}); name those meant: --stages {next(iter(known))}"
        )
    return Window(tuple(names), min(known[name][0] for name in names), max(known[name][1] for name in names))


class Scores:
    """The cells of a figure's columns, as samples."""

    def __init__(self, grid: Grid, columns: Sequence[Column]) -> None:
        self.grid = grid
        self.columns = tuple(columns)
        self._samplers = {column.name: Sampler(grid, column) for column in columns}
        self._samples: dict[tuple[str, str, int], Sample | None] = {}

    def sample(self, column: str, arm: str, tokens: int) -> Sample | None:
        """The cell, None where no seed has every benchmark of the column."""
        key = (column, arm, tokens)
        if key not in self._samples:
            self._samples[key] = self._samplers[column].sample(arm, tokens)
        return self._samples[key]

    def gained(self, column: str, arm: str, begin: int, end: int) -> Sample | None:
        """The arm's score at `end` minus its own at `begin`, seed by seed."""
        first, last = self.sample(column, arm, begin), self.sample(column, arm, end)
        if first is None or last is None or begin == end:
            return None
        return last.minus(self._spread(first, arm, begin, last.seeds))

    def _spread(self, sample: Sample, arm: str, tokens: int, seeds: Sequence[int]) -> Sample:
        """`sample` with the seeds that share another's state there, which stands for them too."""
        rows = self.grid.rows(arm, tokens, self.columns[-1])
        nodes = {row.seed: row.node for row in rows}
        stands = {nodes[seed]: seed for seed in sample.seeds if seed in nodes}
        kept = [seed for seed in seeds if seed in sample.seeds or nodes.get(seed) in stands]
        places = [sample.seeds.index(seed if seed in sample.seeds else stands[nodes[seed]]) for seed in kept]
        items = None if sample.items is None else sample.items[..., places, :]
        return Sample(tuple(kept), sample.values[..., places], items)

    def against(self, column: str, arm: str, baseline: str, tokens: int) -> Sample | None:
        """The arm minus the baseline arm at the same tokens, seed by seed."""
        mine, other = self.sample(column, arm, tokens), self.sample(column, baseline, tokens)
        return None if mine is None or other is None or arm == baseline else mine.minus(other)

    def runs(self, column: str, arm: str, tokens: int) -> tuple[str, ...]:
        """Run ids behind a cell."""
        found = next(one for one in self.columns if one.name == column)
        return tuple(dict.fromkeys(row.run for row in self.grid.rows(arm, tokens, found) if not row.missing))


def judged(
    differences: Mapping[str, Mapping[Any, Sample]], beside: Mapping[str, Mapping[Any, Sample]] | None = None
) -> dict[tuple[str, Any], Gain]:
    """Every difference (column -> key -> sample) with its interval, pooled by column, Holm over all of them.

    `beside`: further differences of a column that the figure does not write, whose noise is pooled with theirs, as a
    table pools all its points. Keys begin with the arm, or are it.
    """
    pools = {column: {**(beside or {}).get(column, {}), **samples} for column, samples in differences.items()}
    real = _efficiency(pools)
    estimates = {
        (column, key): one
        for column, samples in pools.items()
        for key, one in intervals(samples, real).items()
        if key in differences[column]
    }
    adjusted = holm([float(one.p) for one in estimates.values()])
    return {key: Gain(one, p) for (key, one), p in zip(estimates.items(), adjusted, strict=True)}


def half_widths(cells: Mapping[str, Mapping[Any, Sample]]) -> dict[tuple[str, Any], float]:
    """Half of the 95% interval of every cell (column -> key -> sample), in percent."""
    real = _efficiency(cells)
    return {
        (column, key): 100 * float(one.half_width)
        for column, samples in cells.items()
        for key, one in intervals(samples, real).items()
    }


def _efficiency(family: Mapping[str, Mapping[Any, Sample]]) -> float:
    """See `cells.efficiency`; Overall is a mean over the other columns, and left out beside them."""
    columns = [cells for name, cells in family.items() if name != OVERALL and cells] or [*family.values()]
    return efficiency(columns) if columns else 1.0


def score_line(
    scores: Scores, column: str, arm: str, moments: Sequence[Moment], look: tuple[str, str], label: str, **more: Any
) -> Line | None:
    """The arm's scores in percent over tokens; None where it has none."""
    found = [(moment, sample) for moment in moments if (sample := scores.sample(column, arm, moment.tokens))]
    if not found:
        return None
    runs = scores.runs(column, arm, found[-1][0].tokens)
    return Line(
        label=label,
        colour=look[0],
        marker=look[1],
        x=np.array([moment.tokens for moment, _ in found], float),
        mean=np.array([100 * sample.values.mean() for _, sample in found]),
        low=np.array([100 * sample.values.min() for _, sample in found]),
        high=np.array([100 * sample.values.max() for _, sample in found]),
        **{"values": {"runs": runs}} | more,
    )


def score_panels(
    asked: Asked, window: Window, columns: Sequence[Column], *, gain: str, from_last_shared: bool
) -> tuple[list[Panel], list[str]]:
    """A panel a column over `window`, and what a reader must know.

    Args:
        asked: the figure.
        window: of tokens since initialisation.
        columns: such as `overall_first`.
        gain: what is written at the lines' ends: ``start`` (the gain since the window's first evaluated point) or
            ``baseline`` (the difference to the baseline arm).
        from_last_shared: whether only the last of the points that all arms share is drawn.

    Raises:
        UserError: fewer than two points are evaluated in the window.
    """
    grid, arms = asked.grid, asked.arms
    moments = [moment for moment in grid.moments if window.begin <= moment.tokens <= window.end]
    shared = [moment for moment in moments if moment.shared]
    if from_last_shared:
        shared = shared[-1:]
    own = [moment for moment in moments if not moment.shared]
    scores = Scores(grid, columns)
    groups: dict[str, tuple[str, list[Moment], tuple[str, str]]] = {}
    looks = styles(asked.sweep)
    if shared and (not from_last_shared or not own):
        groups[SHARED_LABEL] = (arms[0], shared, (SHARED_COLOUR, "o"))
    for arm in arms:
        mine = [moment for moment in own if grid.passes(arm, moment.tokens)]
        if any(scores.sample(column.name, arm, moment.tokens) for column in scores.columns for moment in mine):
            groups[arm] = (arm, shared[-1:] + mine, looks[arm])
    if len({moment.tokens for _, some_, _ in groups.values() for moment in some_}) < 2:
        raise asked.lacks(
            f"has fewer than two evaluated points in {', '.join(window.stages) or 'its stages'}; evaluate more: "
            "evaluation.at=[{every_tokens:N}] at launch, or python -m davinci evaluate SWEEP --checkpoint all"
        )
    gains = _gains(scores, grid, groups, gain, asked.sweep.plan.baseline)
    widths = half_widths(
        {
            column.name: {
                (label, moment.tokens): sample
                for label, (arm, points, _) in groups.items()
                for moment in points
                if (sample := scores.sample(column.name, arm, moment.tokens))
            }
            for column in scores.columns
        }
    )
    panels = []
    for column in scores.columns:
        lines, levels = [], []
        for label, (arm, points, look) in groups.items():
            found = gains.get((column.name, label))
            line = score_line(scores, column.name, arm, points, look, label)
            if line is None:
                continue
            half = np.array([widths.get((column.name, (label, int(x))), math.nan) for x in line.x])
            values = dict(line.values) | (found.values("gain" if gain == "start" else "difference") if found else {})
            lines.append(with_values(line, half, found.text if found else "", values))
            if gain == "start" and (points[0].shared or len(groups) == 1):
                levels = [(float(line.mean[0]), SHARED_COLOUR)]
        panels.append(
            Panel(
                title=column.name,
                x_label="tokens since initialisation",
                y_label="score, %",
                lines=tuple(lines),
                boundaries=tuple(one for one in boundaries(asked.sweep, window.begin) if one[0] < window.end),
                levels=tuple(levels),
            )
        )
    dotted = ["Dotted: the score at the first point."] if any(panel.levels for panel in panels) else []
    return panels, [gain_note(asked, gain), *dotted, *missing_note(asked, moments, arms)]


def with_values(line: Line, half: np.ndarray, tag: str, values: Mapping[str, Any]) -> Line:
    """`line` with its intervals, the tag at its end and what the data says of it."""
    return replace(line, half=half, tag=tag, values=values)


def overall_first(grid: Grid) -> list[Column]:
    """Overall, then the domains: the paper's order in figures."""
    return sorted(grid.domain_columns, key=lambda column: column.name != OVERALL)


def _gains(
    scores: Scores,
    grid: Grid,
    groups: Mapping[str, tuple[str, Sequence[Moment], tuple[str, str]]],
    gain: str,
    baseline: str,
) -> dict[tuple[str, Any], Gain]:
    """By (column, label of the line): since the line's first scored point, or to the baseline arm at its last."""
    shared = {moment.tokens for moment in grid.moments if moment.shared} if gain == "baseline" else set()
    found: dict[str, dict[Any, Sample]] = {}
    before: dict[str, dict[Any, Sample]] = {}
    for column in scores.columns:
        found[column.name], before[column.name] = {}, {}
        for label, (arm, points, _) in groups.items():
            scored = [moment.tokens for moment in points if scores.sample(column.name, arm, moment.tokens)]
            if not scored:
                continue
            for tokens in scored:
                if gain == "start":
                    sample = scores.gained(column.name, arm, scored[0], tokens)
                else:
                    sample = scores.against(column.name, arm, baseline, tokens)
                if sample is not None and tokens == scored[-1]:
                    found[column.name][label] = sample
                elif sample is not None and tokens not in shared:
                    before[column.name][label, tokens] = sample
    return judged(found, before)


def gain_note(asked: Asked, gain: str) -> str:
    """How to read the lines."""
    seeds = len(asked.sweep.plan.seeds)
    band = f"Band: lowest to highest of {seeds} seeds. " if seeds > 1 else "One seed: intervals speak of items alone. "
    what = {
        "start": "At the end: the gain since the line's first point",
        "baseline": f"At the end: the difference to {asked.sweep.plan.baseline}",
    }[gain]
    return (
        f"{band}{what}, in points, ± half of its 95% interval, paired by seed and item; {NOISE} cannot be told from "
        "noise (Holm over the figure)."
    )


def missing_note(asked: Asked, moments: Sequence[Moment], arms: Sequence[str]) -> list[str]:
    """What the figure would show and the records lack."""
    at = {moment.tokens for moment in moments}
    rows = [row for row in asked.grid.all_rows if row.tokens in at and row.arm in arms and row.missing]
    if not rows:
        return []
    by_arm: dict[str, dict[str, None]] = {}
    for row in rows:
        by_arm.setdefault(row.arm, {})[row.run] = None
    said = [f"{arm} ({some(list(runs), 3, 60)})" for arm, runs in by_arm.items()]
    more = [f"and {len(said) - 6} more arms"] if len(said) > 6 else []
    return [f"Missing: {count(len(rows), 'score')} of {'; '.join(said[:6] + more)}."]
