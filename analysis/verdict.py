"""The verdict on a sweep's hypothesis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.comparison import Comparison
from analysis.samples import Grid, Moment
from analysis.statistics import Estimate
from analysis.units import unit
from davinci.accounting.power import LEVEL


@dataclass(frozen=True)
class Verdict:
    """What became of the hypothesis, judged at `moment`. `word` is one of supported, opposite, equivalent, noise,
    unknown; equivalent is a difference within the margin that the sweep declares, which may be there nonetheless."""

    word: str
    text: str
    difference: Estimate | None = None
    moment: Moment | None = None


def judge(grid: Grid, comparisons: Sequence[Comparison]) -> Verdict | None:
    """The verdict on the sweep's hypothesis at the last point that its arm and the baseline have, one test at 5%.

    Looks the metric up in `comparisons`, the first that has it; None where the sweep states no hypothesis.
    """
    hypothesis = grid.sweep.plan.question.hypothesis
    if hypothesis is None:
        return None
    wanted: dict[str, tuple[Comparison, str]] = {}
    for one in comparisons:
        for each in one.columns:
            wanted.setdefault(each.name.lower(), (one, each.name))
    if hypothesis.metric.lower() not in wanted:
        return Verdict("unknown", f"cannot be judged: {hypothesis.metric!r} is none of {', '.join(wanted)}")
    comparison, column = wanted[hypothesis.metric.lower()]
    baseline, cells = comparison.baseline, comparison.cells
    if hypothesis.arm == baseline or hypothesis.arm not in [arm.label for arm in grid.sweep.plan.arms]:
        return Verdict("unknown", f"cannot be judged: {hypothesis.arm!r} is no arm beside the baseline")
    both = [
        moment
        for moment in grid.moments
        if (hypothesis.arm, moment.tokens, column) in cells
        and (baseline, grid.level(hypothesis.arm, moment.tokens), column) in cells
    ]
    if not both:
        return Verdict("unknown", f"cannot be judged: {hypothesis.arm} and {baseline} are evaluated at no common point")
    last = both[-1]
    cell = cells[hypothesis.arm, last.tokens, column]
    reference = cells[baseline, grid.level(hypothesis.arm, last.tokens), column]
    if cell.difference is None or not cell.difference.covers:
        absent = ", ".join([*cell.absent, *reference.absent]) or "a second seed and item scores"
        return Verdict("unknown", f"not yet: {column} at {last.name} lacks {absent}")
    difference = cell.difference
    of = unit(column)
    mean, half = of.shown(difference.mean), of.width(difference.half_width)
    low, high = mean - half, mean + half
    margin = None if of.lower_is_better else comparison.view.equivalence
    same = margin is not None and bool(difference.p_equivalent(margin / 100) < 1 - LEVEL)
    within = f"equivalent within ±{margin:g}" if same else ""
    sides = {"increase": low > 0, "decrease": high < 0, "any": low > 0 or high < 0}
    if sides[hypothesis.direction]:
        return Verdict("supported", f"supported, yet {within}" if same else "supported", difference, last)
    if low > 0 or high < 0:
        also = f"opposite, yet {within}" if same else "opposite"
        return Verdict("opposite", f"not supported ({also})", difference, last)
    if same:
        return Verdict("equivalent", within, difference, last)
    smallest = of.width_text(difference.detectable)
    return Verdict("noise", f"cannot be told from noise (MDD {smallest})", difference, last)
