"""Figures 4 and 6: overall and domain scores over the stages of one half of the curriculum."""

from __future__ import annotations

from analysis.figures.plot import Asked, Plot
from analysis.figures.series import overall_first, score_panels, stage_window


def figure_4(asked: Asked) -> Plot:
    """Scores over stage 1, and each line's gain since its first point."""
    panels, notes = score_panels(
        asked, stage_window(asked, 1), overall_first(asked.grid), gain="start", from_last_shared=False
    )
    return Plot("4", tuple(panels), columns=2, notes=tuple(notes))


def figure_6(asked: Asked) -> Plot:
    """Scores over stage 2, and what was gained over the end of stage 1, a dotted level."""
    panels, notes = score_panels(
        asked, stage_window(asked, 2), overall_first(asked.grid), gain="start", from_last_shared=False
    )
    return Plot("6", tuple(panels), columns=2, notes=tuple(notes))
