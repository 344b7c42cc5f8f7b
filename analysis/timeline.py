"""The timeline of capabilities: a row a capability, a strip an arm, darker where more is right than chance would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.emergence import Course, above_chance, order
from analysis.figures.drawing import written
from analysis.figures.look import INK, MUTED, RULE, plain, style
from analysis.panels import token_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW, STRIP = 0.3, 0.1  # inches: of a row, and of each strip after the first
ABOVE, BELOW, LEFT, RIGHT, WIDTH = 0.3, 0.42, 1.35, 1.15, 7.4


def save(
    found: Sequence[Course],
    colours: Mapping[str, tuple[str, str]],
    stages: Sequence[tuple[int, str]],
    stem: Path,
    stamp: str = "",
) -> list[Path]:
    """Write the timeline as ``stem.pdf`` and ``stem.png``; nothing where nothing was probed."""
    if not found:
        return []
    with style():
        figure = _drawn(found, colours, stages)
        if stamp:
            figure.text(0.99, 0.01, plain(stamp), ha="right", fontsize=8, color="#9a5b00")
        return written(figure, stem)


def _drawn(
    found: Sequence[Course], colours: Mapping[str, tuple[str, str]], stages: Sequence[tuple[int, str]]
) -> Figure:
    from matplotlib.figure import Figure

    arms = list(dict.fromkeys(one.arm for one in found))
    rows = order(found)
    row = ROW + STRIP * (len(arms) - 1)
    height = ABOVE + BELOW + row * len(rows)
    figure = Figure(figsize=(WIDTH, height))
    figure.subplots_adjust(left=LEFT / WIDTH, right=1 - RIGHT / WIDTH, top=1 - ABOVE / height, bottom=BELOW / height)
    axes = figure.add_subplot()
    by_place = {(one.capability, one.arm): one for one in found}
    end = max(one.passes[-1].tokens + _gap(one) for one in found)
    for line, capability in enumerate(rows):
        axes.axhline(line + 0.5, color=RULE, linewidth=0.7, zorder=0)
        for place, arm in enumerate(arms):
            if (one := by_place.get((capability, arm))) is not None:
                top = line - 0.4 + 0.8 * place / len(arms)
                _strip(axes, one, colours[arm], top, 0.8 / len(arms))
        own = [by_place[capability, arm] for arm in arms if (capability, arm) in by_place]
        last = "  ".join(f"{100 * one.passes[-1].accuracy:.0f}" for one in own)
        axes.annotate(
            last, (1.0, line), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points",
            va="center", fontsize=8.5, color=INK,
        )  # fmt: skip
        axes.annotate(
            f"{100 * own[0].chance:.0f}", (1.0, line), xycoords=("axes fraction", "data"),
            xytext=(72 * RIGHT - 14, 0), textcoords="offset points", va="center", ha="right", fontsize=8.5, color=MUTED,
        )  # fmt: skip
    for text, offset, align in (("last, %", 6, "left"), ("chance", 72 * RIGHT - 14, "right")):
        axes.annotate(
            text, (1.0, 1.0), xycoords="axes fraction", xytext=(offset, 4), textcoords="offset points",
            fontsize=7.5, color=MUTED, ha=align,
        )  # fmt: skip
    for tokens, stage in stages:
        if 0 < tokens < end:
            axes.axvline(tokens, color="#9aa3ab", linewidth=0.9, dashes=(4, 3), zorder=4)
            axes.annotate(
                plain(stage), (tokens, 1.0), xycoords=("data", "axes fraction"), xytext=(3, 4),
                textcoords="offset points", fontsize=7.5, color=MUTED,
            )  # fmt: skip
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(-0.012 * end, end * 1.012)
    axes.set_yticks(range(len(rows)), [plain(name) for name in rows])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    ticks = token_ticks(0, end)
    axes.set_xticks([x for x, _ in ticks], [plain(name) for _, name in ticks])
    axes.set_xlabel("tokens since initialisation", fontsize=8.5)
    axes.spines["left"].set_visible(False)
    return figure


def _gap(one: Course) -> int:
    """Tokens between its last two passes."""
    return one.passes[-1].tokens - one.passes[-2].tokens if len(one.passes) > 1 else 1


def _strip(axes: Axes, one: Course, look: tuple[str, str], top: float, height: float) -> None:
    """Each pass holds until the next one, the last as long as the one before it."""
    from matplotlib.colors import to_rgb

    colour, marker = look
    tokens = np.array([step.tokens for step in one.passes], float)
    edges = np.append(tokens, tokens[-1] + _gap(one))
    share = [above_chance(step.accuracy, one.chance) for step in one.passes]
    for begin, end, value in zip(edges[:-1], edges[1:], share, strict=True):
        # Mixed with white instead of transparent, so that print and page look alike.
        mixed = tuple(1 - (1 - part) * (0.04 + 0.9 * value**0.8) for part in to_rgb(colour))
        axes.fill_between([begin, end], top + 0.06 * height, top + 0.94 * height, color=mixed, linewidth=0, zorder=2)
    if one.emerged is not None:
        look_of: dict[str, Any] = {"marker": marker, "markersize": 5.5, "markeredgecolor": "white", "color": INK}
        axes.plot([one.emerged], [top + height / 2], zorder=5, clip_on=False, **look_of)
