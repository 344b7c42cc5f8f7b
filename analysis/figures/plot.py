"""A figure before it is drawn, what is asked of it, and its files: PDF, PNG, and the data behind it as CSV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from analysis.figures.drawing import SIZE, Drawable, save
from analysis.load import Sweep
from analysis.panels import Panel
from analysis.samples import Grid
from analysis.tables import render_csv
from davinci.errors import UserError, nearest
from davinci.store import write_text

Paper = Literal["side", "overlay", "none", "only"]


@dataclass(frozen=True)
class Options:
    """What may be asked of a figure; each uses what concerns it.

    Attributes:
        paper: where published values stand: in panels of their own, in the same ones, nowhere, or alone.
        arms: labels of those drawn; empty means all.
        stages: names of the stages drawn; empty means those that the figure is about.
        benchmarks: names of the benchmarks drawn; empty means the figure's choice.
        externals: names of models in ``external/`` of the store; empty means all that fit.
        reference: name of the model that others are compared with; empty means the figure's choice.
    """

    paper: Paper = "side"
    arms: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    benchmarks: tuple[str, ...] = ()
    externals: tuple[str, ...] = ()
    reference: str = ""


@dataclass(frozen=True)
class Asked:
    """A figure of a sweep that is asked for."""

    number: str
    sweep: Sweep
    grid: Grid
    options: Options = field(default_factory=Options)

    def lacks(self, what: str) -> UserError:
        """The error that names what the sweep's records lack."""
        return UserError(f"figure {self.number}: sweep {self.sweep.plan.sweep!r} {what}")

    @property
    def arms(self) -> list[str]:
        """Labels of the arms drawn, in the sweep's order.

        Raises:
            UserError: an arm is asked for that the sweep has not.
        """
        return self.chosen("--arms", self.options.arms, [arm.label for arm in self.sweep.plan.arms])

    def chosen(self, option: str, wanted: Sequence[str], known: Sequence[str]) -> list[str]:
        """Those of `known` that are wanted, all where none is named, in the order of `known`.

        Raises:
            UserError: one is wanted that is not known.
        """
        for name in wanted:
            if name not in known:
                raise UserError(f"{option}: sweep {self.sweep.plan.sweep!r} has no {name!r}{nearest(name, known)}")
        return [name for name in known if not wanted or name in wanted]


@dataclass(frozen=True)
class Plot:
    """A figure as plain data. `size` is in inches, of one panel, `heights` of the grid's rows where they differ; `rows`
    are what the CSV says beside the panels' lines."""

    number: str
    panels: tuple[Panel | Drawable, ...]
    columns: int
    notes: tuple[str, ...] = ()
    size: tuple[float, float] = SIZE
    heights: tuple[float, ...] = ()
    rows: tuple[dict[str, Any], ...] = ()

    @property
    def data(self) -> list[dict[str, Any]]:
        """Every point drawn, a row each, then `rows`; all rows have the same keys."""
        found = [*self.rows]
        for panel in self.panels:
            for line in panel.lines:
                for index, x in enumerate(line.x):
                    half = math.nan if line.half is None else float(line.half[index])
                    row = {
                        "panel": panel.title,
                        "line": line.name or line.label,
                        "source": "published" if line.published else "measured",
                        "x": float(x),
                        "value": float(line.mean[index]),
                        "lowest_seed": float(line.low[index]),
                        "highest_seed": float(line.high[index]),
                        "half_width": half,
                    }
                    last = index == len(line.x) - 1
                    found.append(row | {key: value for key, value in line.values.items() if last or key == "runs"})
        keys = list(dict.fromkeys(key for row in found for key in row))
        return [{"figure": self.number} | {key: row.get(key) for key in keys} for row in found]


def write(plot: Plot, folder: Path, audit: str) -> list[Path]:
    """Write ``figure-N.pdf``, ``.png`` and ``.csv`` into `folder`; each bears an `audit` that is not clean."""
    stem = folder / f"figure-{plot.number}"
    stamp = "" if audit == "controlled" else f"control audit: {audit}"
    paths = save(plot.panels, stem, plot.columns, stamp, plot.notes, plot.size, plot.heights)
    data = stem.parent / f"{stem.name}.csv"
    write_text(data, render_csv([row | {"audit": audit} for row in plot.data]))
    return [*paths, data]
