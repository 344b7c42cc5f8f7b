"""Panels drawn with matplotlib: one file of them for print, single ones as SVG for the page."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.panels import Line, Panel, token_ticks
from davinci.store import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, RULE, WARNING = "#1f262d", "#5d6770", "#e2e6ea", "#9a5b00"
LEGEND_LINE, LEGEND_ENTRY, LEGEND_LETTER = 0.17, 0.47, 0.075  # inches: a line, a handle and its gaps, a letter
_RC = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": "#aab2ba",
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "lines.markeredgewidth": 0.7,
    "lines.solid_capstyle": "round",
}
_SMALL: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7.5, "color": MUTED}


def save(panels: Sequence[Panel], stem: Path, columns: int, stamp: str = "") -> list[Path]:
    """Write `panels` in a grid as ``stem.pdf`` and ``stem.png``, with one legend above and `stamp` below."""
    if not panels:
        return []
    with style():
        from matplotlib.backends.backend_pdf import FigureCanvasPdf  # noqa: F401 (loads with the style set)
        from matplotlib.figure import Figure

        rows = -(-len(panels) // columns)
        names = list(dict.fromkeys(line.label for panel in panels for line in panel.lines))
        width = 3.3 * columns
        across = _legend_columns(names, width)
        above = 0.8 + LEGEND_LINE * (-(-len(names) // across) - 1)
        height = 2.6 * rows + above - 0.35
        figure = Figure(figsize=(width, height))
        figure.subplots_adjust(left=0.62 / width, right=1 - 0.12 / width, wspace=0.26)
        figure.subplots_adjust(top=1 - above / height, bottom=0.5 / height, hspace=0.58)
        for index, panel in enumerate(panels):
            axes = figure.add_subplot(rows, columns, index + 1)
            draw(axes, panel)
            axes.set_title(plain(panel.title), loc="left", fontsize=10, fontweight="bold", color=INK, pad=14)
        _legend(figure, panels, across)
        if stamp:
            place: dict[str, Any] = {"ha": "right", "va": "bottom", "fontsize": 8.5, "color": WARNING}
            figure.text(1 - 0.06 / width, 0.03 / height, plain(stamp), **place)
        paths = [stem.with_suffix(".pdf"), stem.with_suffix(".png")]
        with atomic_file(paths[0]) as temporary:
            figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})
        with atomic_file(paths[1]) as temporary:
            figure.savefig(temporary, format="png", dpi=170)
    return paths


def svg(panel: Panel, prefix: str) -> str:
    """One panel as an inline ``<svg>`` without title; `prefix` keeps its ids apart from those of other panels."""
    with style({"svg.hashsalt": prefix}):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.1, 2.7))
        figure.subplots_adjust(left=0.125, right=0.98, top=0.93, bottom=0.165)
        draw(figure.add_subplot(), panel)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return inline(out.getvalue(), prefix)


def inline(text: str, prefix: str) -> str:
    """A saved SVG as an element of the page, its ids apart from those of others by `prefix`."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(href="|url\()#', rf"\1#{prefix}-", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    text = re.sub(r"font: ([^;\"]*?px) [^;\"]*", r"font-size: \1; font-family: inherit", text)
    head, _, rest = text.partition(">")
    return re.sub(r'\s(width|height)="[^"]*"', "", head) + ">" + rest


def draw(axes: Axes, panel: Panel) -> None:
    """Draw one panel: bands under lines under markers, stage starts dashed."""
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    for line in panel.lines:
        _draw_line(axes, line)
    low, high = axes.get_ylim()
    if panel.lines:
        _x_axis(axes, panel)
    for tokens, stage in panel.boundaries:
        axes.axvline(tokens, color="#9aa3ab", linewidth=0.9, dashes=(4, 3), zorder=1)
        place: dict[str, Any] = {"xy": (tokens, 1.0), "xycoords": ("data", "axes fraction"), "xytext": (3, 1)}
        axes.annotate(plain(stage), **place, **_SMALL, va="bottom")
    if panel.guide and low <= panel.guide[0] <= high:
        axes.axhline(panel.guide[0], color="#9aa3ab", linewidth=0.9, dashes=(1, 2), zorder=1)
        place = {"xy": (1.0, panel.guide[0]), "xycoords": ("axes fraction", "data"), "xytext": (-2, 2)}
        axes.annotate(panel.guide[1], **place, **_SMALL, ha="right")
    for tokens, colour in panel.spikes:  # a tick at the foot of the plot
        axes.plot([tokens, tokens], [0.0, 0.035], transform=axes.get_xaxis_transform(), color=colour, linewidth=0.9)
    axes.set_ylim(low, high)
    axes.set_xlabel(panel.x_label, fontsize=8.5)
    axes.set_ylabel(panel.y_label, fontsize=8.5)
    axes.tick_params(length=2.5, width=0.8)


def _draw_line(axes: Axes, line: Line) -> None:
    dense = line.x.size > 12
    axes.fill_between(line.x, line.low, line.high, color=line.colour, alpha=0.14, linewidth=0, zorder=2)
    marker: dict[str, Any] = {"marker": "" if dense else line.marker, "markersize": 4.2, "markeredgecolor": "white"}
    axes.plot(line.x, line.mean, color=line.colour, linewidth=1.3 if dense else 1.7, zorder=3, **marker)


def _x_axis(axes: Axes, panel: Panel) -> None:
    low = min([line.x.min() for line in panel.lines] + [tokens for tokens, _ in panel.boundaries])
    high = max(line.x.max() for line in panel.lines)
    pad = 0.04 * (high - low) or 1.0
    axes.set_xlim(low - pad, high + pad)
    ticks = list(panel.ticks) or token_ticks(low, high)
    axes.set_xticks([x for x, _ in ticks], [plain(name) for _, name in ticks])


def _legend_columns(names: Sequence[str], width: float) -> int:
    """How many legend columns fit `width` inches; matplotlib fills column by column."""
    for count in range(len(names), 1, -1):
        deep = -(-len(names) // count)
        longest = [max(len(name) for name in names[first : first + deep]) for first in range(0, len(names), deep)]
        if sum(LEGEND_ENTRY + LEGEND_LETTER * letters for letters in longest) <= width:
            return count
    return 1


def _legend(figure: Figure, panels: Sequence[Panel], across: int) -> None:
    from matplotlib.lines import Line2D

    lines = {line.label: line for panel in panels for line in panel.lines}
    handles = [
        Line2D([], [], color=line.colour, marker=line.marker, linewidth=1.7, markersize=4.5, markeredgecolor="white")
        for line in lines.values()
    ]
    names = [plain(label) for label in lines]
    look = {"frameon": False, "fontsize": 9, "labelcolor": INK, "handlelength": 1.6, "columnspacing": 1.6}
    figure.legend(handles, names, loc="upper left", ncols=across, bbox_to_anchor=(0.0, 1.0), **look)


def style(extra: dict[str, Any] | None = None) -> Any:
    """A context in which matplotlib draws as all figures here do."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    return matplotlib.rc_context({**_RC, **(extra or {})})


def plain(text: str) -> str:
    """Text that matplotlib must not read as mathematics."""
    return text.replace("$", r"\$")
