"""One panel drawn with matplotlib: bands under lines under markers, tags at their ends, stage starts dashed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.figures.look import INK, MUTED, RULE, plain, shortened
from analysis.panels import LIGHT_COLOURS, Line, Panel, token_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW = 3  # bands from which on they are drawn fainter
DENSE, MARKS = 12, 6  # points from which on a line has few markers, and how many
TAG_LETTER, FAINT_LETTER, TAG_LINE = 0.059, 0.053, 0.125  # inches of what is written at a line's end
_SMALL: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7.5, "color": MUTED}


def draw(axes: Axes, panel: Panel) -> None:
    """Draw one panel: bands under lines under markers, stage starts dashed."""
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    bands = sum(not line.faint and not line.published for line in panel.lines)
    for line in panel.lines:
        _draw_line(axes, line, 0.14 * min(1.0, FEW / max(1, bands)))
    for value, colour in panel.levels:
        axes.axhline(value, color=colour, linewidth=0.9, dashes=(1, 2), zorder=2)
    low, high = axes.get_ylim()
    if panel.lines:
        _x_axis(axes, panel)
        write_tags(axes, panel.lines, (low, high))
    _boundaries(axes, panel)
    if panel.guide and low <= panel.guide[0] <= high:
        axes.axhline(panel.guide[0], color="#9aa3ab", linewidth=0.9, dashes=(1, 2), zorder=1)
        place: dict[str, Any] = {"xy": (1.0, panel.guide[0]), "xycoords": ("axes fraction", "data"), "xytext": (-2, 2)}
        axes.annotate(panel.guide[1], **place, **_SMALL, ha="right")
    for tokens, colour in panel.spikes:  # a tick at the foot of the plot
        axes.plot([tokens, tokens], [0.0, 0.035], transform=axes.get_xaxis_transform(), color=colour, linewidth=0.9)
    axes.set_ylim(low, high)
    axes.set_xlabel(panel.x_label, fontsize=8.5)
    axes.set_ylabel(panel.y_label, fontsize=8.5)
    axes.tick_params(length=2.5, width=0.8)


def _draw_line(axes: Axes, line: Line, band: float) -> None:
    dense = line.x.size > DENSE
    marker: dict[str, Any] = {"marker": line.marker, "markersize": 4.2, "markeredgecolor": "white"}
    if dense:  # some markers still, since from the eighth arm on they alone tell lines apart
        marker["markevery"] = max(1, line.x.size // MARKS)
    look: dict[str, Any] = {"color": line.colour, "linewidth": 1.3 if dense else 1.7, "zorder": 3}
    if line.published:
        marker |= {"markerfacecolor": "white", "markeredgecolor": line.colour, "markersize": 4.6}
        look |= {"linewidth": 1.2, "dashes": (4, 2)}
    elif line.faint:
        look |= {"linewidth": 0.9, "alpha": 0.45, "zorder": 2.5}
        marker["markersize"] = 2.6
    else:
        axes.fill_between(line.x, line.low, line.high, color=line.colour, alpha=band, linewidth=0, zorder=2)
        draw_edge(axes, line.x, line.mean, line.colour, look["linewidth"])
    if not line.joined:
        look |= {"linestyle": "none"}
        look.pop("dashes", None)
    if line.whiskers and line.half is not None:
        known = np.isfinite(line.half)
        bars: dict[str, Any] = {"fmt": "none", "ecolor": line.colour, "elinewidth": 1.0, "capsize": 2.0, "zorder": 2.8}
        axes.errorbar(line.x[known], line.mean[known], yerr=line.half[known], **bars)
    axes.plot(line.x, line.mean, **look, **marker)


def draw_edge(axes: Axes, x: np.ndarray, y: np.ndarray, colour: str, width: float) -> None:
    """A thin dark edge under a line of a colour that stands out too little from white."""
    if colour in LIGHT_COLOURS:
        axes.plot(x, y, color=MUTED, linewidth=width + 0.8, zorder=2.9)


def _x_axis(axes: Axes, panel: Panel) -> None:
    low = min([line.x.min() for line in panel.lines] + [tokens for tokens, _ in panel.boundaries])
    high = max(line.x.max() for line in panel.lines)
    ticks = list(panel.ticks) or token_ticks(low, high)
    if panel.categories:
        axes.set_xlim(min(x for x, _ in ticks) - 0.5, max(x for x, _ in ticks) + 0.5)
    else:
        pad = 0.04 * (high - low) or 1.0
        room = _tag_room(axes, panel.lines)
        axes.set_xlim(low - pad, high + pad + (high - low + 2 * pad) * room / (1 - room))
    axes.set_xticks([x for x, _ in ticks], [plain(name) for _, name in ticks])


def _tag_room(axes: Axes, lines: Sequence[Line]) -> float:
    """The share of the axes' width that is kept free for what is written at the ends of lines."""
    inches = max((len(line.tag) * (FAINT_LETTER if line.faint else TAG_LETTER) for line in lines), default=0.0)
    return min(0.55, (inches + 0.1) / _inches(axes)[0]) if inches else 0.0


def _inches(axes: Axes) -> tuple[float, float]:
    box = axes.get_position()
    width, height = axes.get_figure(root=True).get_size_inches()  # type: ignore[union-attr]
    return box.width * width, box.height * height


def write_tags(axes: Axes, lines: Sequence[Line], limits: tuple[float, float]) -> None:
    """Write each line's tag right of its end, moved up or down where tags would lie on each other."""
    tagged = sorted((line for line in lines if line.tag and line.x.size), key=lambda line: line.mean[-1])
    if not tagged:
        return
    low, high = limits
    inch = (high - low) / _inches(axes)[1]
    places = spread([float(line.mean[-1]) for line in tagged], TAG_LINE * inch, low, high)
    for line, y in zip(tagged, places, strict=True):
        axes.annotate(
            plain(line.tag), xy=(float(line.x[-1]), y), xytext=(5, 0), textcoords="offset points", va="center",
            fontsize=7.5 if not line.faint else 6.8, color=INK if not line.faint else MUTED, annotation_clip=False,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4}, zorder=5,  # rules and levels pass behind it
        )  # fmt: skip
        if line.faint or len(tagged) > 1:  # which line it speaks of
            mark: dict[str, Any] = {"clip_on": False, "color": line.colour, "linewidth": 0.7, "alpha": 0.7}
            step = 4.0 / 72 / _inches(axes)[0] * (axes.get_xlim()[1] - axes.get_xlim()[0])
            axes.plot([line.x[-1], line.x[-1] + step], [line.mean[-1], y], **mark)


def spread(places: Sequence[float], apart: float, low: float, high: float) -> list[float]:
    """Ascending `places` moved as little as it takes to be `apart` from each other and, where they fit, in range."""
    blocks: list[list[float]] = []  # centre, how many
    for place in places:
        blocks.append([place, 1.0])
        while len(blocks) > 1:
            (below, many), (above, few) = blocks[-2], blocks[-1]
            if above - below >= apart * (many + few) / 2:
                break
            blocks[-2:] = [[(below * many + above * few) / (many + few), many + few]]
    found: list[float] = []
    for centre, many in blocks:
        half = apart * (many - 1) / 2
        centre = min(max(centre, low + half), max(high - half, low + half))
        found += [centre - half + apart * index for index in range(int(many))]
    for index in range(1, len(found)):  # kept inside, two blocks may have met again
        found[index] = max(found[index], found[index - 1] + apart)
    return found


def _boundaries(axes: Axes, panel: Panel) -> None:
    """Dashed lines where stages start, each with as much of its stage's name as fits before the next."""
    left, right = axes.get_xlim()
    ends = [*(tokens for tokens, _ in panel.boundaries[1:]), right]
    for (tokens, stage), end in zip(panel.boundaries, ends, strict=False):
        axes.axvline(tokens, color="#9aa3ab", linewidth=0.9, dashes=(4, 3), zorder=1)
        letters = int(((end - tokens) / (right - left) * _inches(axes)[0] - 0.06) / 0.062)
        if letters < 1:
            continue
        place: dict[str, Any] = {"xy": (tokens, 1.0), "xycoords": ("data", "axes fraction"), "xytext": (3, 1)}
        axes.annotate(plain(shortened(stage, letters)), **place, **_SMALL, va="bottom")
