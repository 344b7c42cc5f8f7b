"""How all figures look: colours of text and rules, fonts, and text as matplotlib takes it."""

from __future__ import annotations

from typing import Any

INK, MUTED, RULE, WARNING = "#1f262d", "#5d6770", "#e2e6ea", "#9a5b00"
LONGEST = 60  # letters of a name in a legend
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


def style(extra: dict[str, Any] | None = None) -> Any:
    """A context in which matplotlib draws as all figures here do."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    return matplotlib.rc_context({**_RC, **(extra or {})})


def plain(text: str) -> str:
    """Text that matplotlib must not read as mathematics."""
    return text.replace("$", r"\$")


def abridged(text: str, letters: int) -> str:
    """`text` in at most so many letters without its middle: labels of arms often begin alike."""
    tail = round(0.6 * letters)
    return text if len(text) <= letters else f"{text[: letters - tail - 1].rstrip()}…{text[-tail:]}"


def shortened(text: str, letters: int) -> str:
    """`text` in at most so many letters, an ellipsis where it was cut."""
    return text if len(text) <= letters else text[: max(1, letters - 1)].rstrip() + "…"
