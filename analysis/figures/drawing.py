"""Panels in a grid, saved for print; single ones as SVG for the page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from analysis.figures.look import INK, LONGEST, MUTED, WARNING, abridged, plain, shortened, style
from analysis.figures.panel import TAG_LINE, draw
from analysis.panels import SHARED_COLOUR, Line, Panel
from davinci.store import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (3.3, 2.6)  # inches of a panel with what belongs to it
LEFT, RIGHT, TITLE, AXIS = 0.66, 0.19, 0.4, 0.55  # inches around its axes
LEGEND_LINE, LEGEND_ENTRY, LEGEND_LETTER = 0.205, 0.47, 0.075  # inches: a line, a handle and its gaps, a letter
NOTE_LINE, NOTE_LETTER = 0.13, 0.058  # inches of a note's line and letter
PUBLISHED = "published"  # the label of a line that stands for all that is
PUBLISHED_LABEL = "published (arXiv 2603.27164)"


class Drawable(Protocol):
    """What stands in a grid beside panels: a radar, a map."""

    @property
    def title(self) -> str: ...
    @property
    def lines(self) -> tuple[Line, ...]: ...
    def draw(self, axes: Axes) -> None: ...


def save(
    panels: Sequence[Panel | Drawable],
    stem: Path,
    columns: int,
    stamp: str = "",
    notes: Sequence[str] = (),
    size: tuple[float, float] = SIZE,
    heights: Sequence[float] = (),
) -> list[Path]:
    """Write `panels` in a grid as ``stem.pdf`` and ``stem.png``: one legend above, `notes` and `stamp` below.

    `size` is in inches, of one panel with its title and axes; `heights` are those of the rows where they differ. A row
    is higher where its lines have more written at their ends than would fit.
    """
    if not panels:
        return []
    with style():
        from matplotlib.backends.backend_pdf import FigureCanvasPdf  # noqa: F401 (loads with the style set)

        figure = composed(panels, columns, stamp, notes, size, heights)
        return written(figure, stem)


def written(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as ``stem.pdf``, the same bytes every time, and ``stem.png``."""
    paths = [stem.parent / f"{stem.name}.{ending}" for ending in ("pdf", "png")]
    with atomic_file(paths[0]) as temporary:
        figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})
    with atomic_file(paths[1]) as temporary:
        figure.savefig(temporary, format="png", dpi=170)
    return paths


def composed(
    panels: Sequence[Panel | Drawable],
    columns: int,
    stamp: str = "",
    notes: Sequence[str] = (),
    size: tuple[float, float] = SIZE,
    heights: Sequence[float] = (),
) -> Figure:
    """The figure, its sizes in inches worked out so that nothing lies on anything else."""
    from matplotlib.figure import Figure

    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    width = size[0] * columns
    entries = _entries(panels)
    across = _legend_columns([label for label, _ in entries], width)
    above = (0.8 if entries else 0.45) + LEGEND_LINE * (-(-len(entries) // across) - 1 if entries else 0)
    letters = int((width - 0.2) / NOTE_LETTER)
    said = [line for note in notes for line in textwrap.wrap(note, letters)]
    below = NOTE_LINE * (len(said) + bool(stamp and said)) + 0.1 * bool(said)
    deep = list(heights) or [size[1]] * rows
    for index, panel in enumerate(panels):
        tags = sum(bool(line.tag) for line in panel.lines)
        deep[index // columns] = max(deep[index // columns], TITLE + AXIS + TAG_LINE * tags)
    height = sum(deep) + above - 0.35 + below
    figure = Figure(figsize=(width, height))
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        top = height - above - sum(deep[:row])
        inside = deep[row] - TITLE - AXIS
        box = (column * size[0] + LEFT, top - inside, size[0] - LEFT - RIGHT, inside)
        axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
        if isinstance(panel, Panel):
            draw(axes, panel)
        else:
            panel.draw(axes)
        title = shortened(panel.title, int((size[0] - 0.6) / 0.085))
        axes.set_title(plain(title), loc="left", fontsize=10, fontweight="bold", color=INK, pad=14)
    if entries:
        _legend(figure, entries, across)
    look: dict[str, Any] = {"va": "bottom", "fontsize": 7.5, "color": MUTED}
    for index, line in enumerate(reversed(said)):
        y = 0.05 + NOTE_LINE * (index + bool(stamp))
        figure.text(0.1 / width, y / height, plain(line), **look)
    if stamp:
        place: dict[str, Any] = {"ha": "right", "va": "bottom", "fontsize": 8.5, "color": WARNING}
        figure.text(1 - 0.06 / width, 0.03 / height, plain(stamp), **place)
    return figure


def _entries(panels: Sequence[Panel | Drawable]) -> list[tuple[str, Line]]:
    """The legend: a line a name. Published ones are named where nothing measured has their name, else are one entry;
    context has none."""
    lines = [line for panel in panels for line in panel.lines if not line.faint]
    found: dict[str, Line] = {}  # the first of a name: a panel of gains joins no points
    for line in lines:
        if not line.published:
            found.setdefault(line.label, line)
    published = {line.label: line for line in lines if line.published}
    entries = list(found.items())
    named = {label: line for label, line in published.items() if label not in {*found, PUBLISHED}}
    entries += [(f"{label} (published)", line) for label, line in named.items()]
    again = [line for label, line in published.items() if label in found]
    if PUBLISHED in published:
        entries.append((PUBLISHED_LABEL, published[PUBLISHED]))
    elif again:
        entries.append((PUBLISHED_LABEL, replace(again[0], colour=SHARED_COLOUR)))
    return [(abridged(label, LONGEST), line) for label, line in entries]


def _legend_columns(names: Sequence[str], width: float) -> int:
    """How many legend columns fit `width` inches; matplotlib fills column by column."""
    for count in range(len(names), 1, -1):
        deep = -(-len(names) // count)
        longest = [max(len(name) for name in names[first : first + deep]) for first in range(0, len(names), deep)]
        if sum(LEGEND_ENTRY + LEGEND_LETTER * letters for letters in longest) <= width:
            return count
    return 1


def _legend(figure: Figure, entries: Sequence[tuple[str, Line]], across: int) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=line.colour,
            linewidth=1.7 if line.joined else 0,
            linestyle=(0, (2.2, 1.2)) if line.published else "-",
            marker=line.marker,
            markersize=4.5,
            markerfacecolor="white" if line.published else line.colour,
            markeredgecolor=line.colour if line.published else "white",
        )
        for _, line in entries
    ]
    names = [plain(label) for label, _ in entries]
    look = {"frameon": False, "fontsize": 9, "labelcolor": INK, "handlelength": 1.9, "columnspacing": 1.6}
    figure.legend(handles, names, loc="upper left", ncols=across, bbox_to_anchor=(0.0, 1.0), **look)
