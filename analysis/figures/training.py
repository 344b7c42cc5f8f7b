"""Figure 5: training loss and gradient norm over the steps of stage 1."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from analysis.figures.plot import Asked, Plot
from analysis.figures.series import Window, stage_window
from analysis.panels import SHARED_LABEL, SMOOTHING, Line, Panel, boundaries, grouped
from davinci.planning.wording import some

MEASURES = {"loss": ("Training loss", "nats per token"), "grad_norm": ("Gradient norm", "norm before clipping")}


def figure_5(asked: Asked) -> Plot:
    """A panel a measure over training steps: mean over seeds, from lowest to highest seed as band.

    Raises:
        UserError: the nodes of stage 1 have no training rows, or none with a gradient norm.
    """
    window = stage_window(asked, 1)
    rows = _rows(asked, window)
    if rows.empty:
        raise asked.lacks(f"has no training rows in {', '.join(window.stages)}; it has not trained there yet")
    lacking = [name for name in MEASURES if rows[name].isna().all()]
    if lacking:
        raise asked.lacks(f"has no {some(lacking)} in its training rows of {', '.join(window.stages)}")
    steps = _step_of(rows)
    stages = tuple((int(steps(tokens)), name) for tokens, name in boundaries(asked.sweep, window.begin))
    stages = tuple(one for one in stages if one[0] < rows["step"].max())
    panels = []
    for measure, (title, unit) in MEASURES.items():
        lines = []
        for label, colour, _, nodes in grouped(asked.sweep):
            own = rows[rows["node"].isin(nodes)].dropna(subset=[measure])
            if own.empty or (label != SHARED_LABEL and label not in asked.arms):
                continue
            by_step = own.groupby("step")[measure].agg(["mean", "min", "max"])
            span = max(1, round(SMOOTHING * len(by_step)))
            smooth = by_step.rolling(span, min_periods=1, center=True).mean()
            mean, low, high = smooth.to_numpy().T
            lines.append(Line(label, colour, "", smooth.index.to_numpy(float), mean, low, high))
        panels.append(Panel(title, "training steps", unit, tuple(lines), stages))
    seeds = len(asked.sweep.plan.seeds)
    band = f"Band: lowest to highest of {seeds} seeds." if seeds > 1 else "One seed."
    note = f"{band} Recorded rows averaged over {100 * SMOOTHING:.0f}% of them."
    return Plot("5", tuple(panels), columns=2, notes=(note,), size=(4.0, 2.8))


def _rows(asked: Asked, window: Window) -> pd.DataFrame:
    """Training rows of the window: node, tokens, step and the measures."""
    frames = []
    for node, found in asked.sweep.recorded.nodes.items():
        planned = asked.sweep.plan.nodes[node]
        if planned.begin < window.end and planned.end > window.begin and planned.stage_name in window.stages:
            values = {name: found.column(f"train/{name}") for name in MEASURES}
            rows = pd.DataFrame({"tokens": found.tokens, "step": found.column("record/step"), **values})
            frames.append(rows.dropna(subset=["step"]).assign(node=node))
    return pd.concat(frames) if frames else pd.DataFrame(columns=["tokens", "step", *MEASURES, "node"])


def _step_of(rows: pd.DataFrame) -> Callable[[float], float]:
    """Steps at a token count, between the recorded rows."""
    by_tokens = rows.drop_duplicates("tokens").sort_values("tokens")
    known = np.append(0, by_tokens["tokens"].to_numpy()), np.append(0, by_tokens["step"].to_numpy())
    return lambda tokens: float(np.interp(tokens, *known))
