"""Figure 11a: arms on a radar of a few benchmarks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.figures.look import INK, MUTED, RULE, plain, shortened
from analysis.figures.panel import draw_edge
from analysis.figures.plot import Asked, Plot
from analysis.figures.series import Scores, half_widths, missing_note
from analysis.panels import Line, styles
from analysis.samples import DOMAINS, Column, Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPOKES = 6
FEWEST = 3
HUB = 0.18  # the radius at which a spoke's lowest value stands
RINGS = 4


@dataclass(frozen=True)
class Spoke:
    """A benchmark: its axis runs from `low` at the hub to `high` at the rim, in percent."""

    name: str
    low: float
    high: float


@dataclass(frozen=True)
class Radar:
    """Lines whose `x` is the place of the spoke."""

    title: str
    spokes: tuple[Spoke, ...]
    lines: tuple[Line, ...]

    def draw(self, axes: Axes) -> None:
        angles = [math.pi / 2 - 2 * math.pi * index / len(self.spokes) for index in range(len(self.spokes))]
        along = np.array([[math.cos(angle), math.sin(angle)] for angle in angles])
        for ring in range(RINGS + 1):
            radius = HUB + (1 - HUB) * ring / RINGS
            axes.plot(*(radius * np.vstack([along, along[:1]])).T, color=RULE, linewidth=0.8, zorder=0)
        for spoke, (x, y) in zip(self.spokes, along, strict=True):
            axes.plot([HUB * x, x], [HUB * y, y], color=RULE, linewidth=0.8, zorder=0)
            side = "center" if abs(x) < 0.1 else "left" if x > 0 else "right"
            look: dict[str, Any] = {"ha": side, "annotation_clip": False, "textcoords": "offset points"}
            over = 18 if y > 0.9 else 1 if y > -0.9 else -11
            axes.annotate(
                plain(shortened(spoke.name, 26)),
                (x, y),
                xytext=(9 * x, over),
                fontsize=8.5,
                color=INK,
                va="center",
                **look,
            )
            scale = f"{spoke.low:.0f} to {spoke.high:.0f}%"
            axes.annotate(scale, (x, y), xytext=(9 * x, over - 10), fontsize=7, color=MUTED, va="center", **look)
        for index, line in enumerate(self.lines):
            places = [int(place) for place in line.x]
            points = np.array(
                [self._radius(place, value) * along[place] for place, value in zip(places, line.mean, strict=True)]
            )
            whole = len(places) == len(self.spokes)
            closed = np.vstack([points, points[:1]]) if whole else points
            look = {"color": line.colour, "linewidth": 1.6, "marker": line.marker, "markersize": 4.2, "zorder": 3}
            if not whole:
                look["linestyle"] = "none"
            if whole:
                draw_edge(axes, *closed.T, line.colour, 1.6)
            axes.plot(*closed.T, markeredgecolor="white", **look)
            if line.half is None:
                continue
            beside = 0.022 * (index - (len(self.lines) - 1) / 2)  # so that intervals do not lie on each other
            for place, value, half in zip(places, line.mean, line.half, strict=True):
                if math.isfinite(half):
                    across = beside * np.array([-along[place][1], along[place][0]])
                    ends = [self._radius(place, value + sign * half) * along[place] + across for sign in (-1, 1)]
                    axes.plot(*np.array(ends).T, color=line.colour, linewidth=0.9, alpha=0.6, zorder=2)
        axes.set_aspect("equal")
        axes.set_xlim(-1.75, 1.75)
        axes.set_ylim(-1.28, 1.22)
        axes.axis("off")

    def _radius(self, place: int, value: float) -> float:
        spoke = self.spokes[place]
        return HUB + (1 - HUB) * min(1.0, max(0.0, (value - spoke.low) / (spoke.high - spoke.low)))


def figure_11a(asked: Asked) -> Plot:
    """Each arm at its last point, on six benchmarks or those asked for.

    Raises:
        UserError: fewer than three benchmarks, or no scores there yet.
    """
    grid, arms = asked.grid, asked.arms
    wanted = asked.options.benchmarks
    names = asked.chosen("--benchmarks", wanted, list(grid.benchmarks)) if wanted else _chosen(grid)
    if len(names) < FEWEST:
        raise asked.lacks(f"has {len(names)} benchmarks, and a radar needs {FEWEST}: {', '.join(names)}")
    scores = Scores(grid, [Column(name, (name,)) for name in names])
    last = {arm: grid.last(arm) for arm in arms}
    cells = {
        name: {arm: sample for arm in arms if (sample := scores.sample(name, arm, last[arm].tokens))} for name in names
    }
    names = [name for name in names if cells[name]]
    if len(names) < FEWEST:
        raise asked.lacks(
            f"has scores of {len(names)} of these benchmarks at its arms' last points, and needs {FEWEST}"
        )
    widths = half_widths(cells)
    spokes = tuple(_spoke(name, cells[name], widths) for name in names)
    looks = styles(asked.sweep)
    lines = []
    for arm in arms:
        own = [index for index, name in enumerate(names) if arm in cells[name]]
        samples = [100 * cells[names[index]][arm].values for index in own]
        if own:
            lines.append(
                Line(
                    label=arm,
                    colour=looks[arm][0],
                    marker=looks[arm][1],
                    x=np.array(own, float),
                    mean=np.array([values.mean() for values in samples]),
                    low=np.array([values.min() for values in samples]),
                    high=np.array([values.max() for values in samples]),
                    half=np.array([widths[names[index], arm] for index in own]),
                    values={"runs": scores.runs(names[own[0]], arm, last[arm].tokens)},
                )
            )
    when = {moment.name for moment in last.values()}
    note = (
        f"At {when.pop() if len(when) == 1 else 'the last point of each arm'}. Every axis has its own scale, from hub "
        "to rim as written, at least as wide as its typical 95% interval (the bars along it, cut off where they leave "
        "it): what looks apart may still be noise."
    )
    data = tuple({"panel": "Radar", "axis": index, "benchmark": name} for index, name in enumerate(names))
    notes = (note, *missing_note(asked, list(last.values()), arms))
    return Plot("11a", (Radar("", spokes, tuple(lines)),), columns=1, notes=notes, size=(6.4, 4.6), rows=data)


def _chosen(grid: Grid) -> list[str]:
    """Six benchmarks, the first of each domain in turn until there are so many, in the order of domains."""
    of = {domain: [name for name, row in grid.benchmarks.items() if row.domain == domain] for domain in DOMAINS}
    found: list[str] = []
    for turn in range(max(map(len, of.values()), default=0)):
        found += [names[turn] for names in of.values() if turn < len(names)]
    kept = found[:SPOKES]
    return [name for domain in DOMAINS for name in of[domain] if name in kept]


def _spoke(name: str, cells: dict[str, Any], widths: dict[tuple[str, Any], float]) -> Spoke:
    """From the lowest to the highest arm, and wide enough that noise does not look like an effect."""
    means = [100 * float(sample.values.mean()) for sample in cells.values()]
    halves = [widths[name, arm] for arm in cells if math.isfinite(widths[name, arm])]
    span = max(1.2 * (max(means) - min(means)), 2 * float(np.median(halves or [0.0])), 2.0)
    middle = (max(means) + min(means)) / 2
    low = max(0.0, math.floor(middle - span / 2))
    return Spoke(name, low, math.ceil(low + span))
