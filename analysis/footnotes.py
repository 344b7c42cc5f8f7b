"""A table's footnotes: how to read the numbers, what the design can see, what is missing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from analysis.bootstrap import FEWEST_SEEDS
from analysis.comparison import Comparison
from analysis.load import Sweep
from analysis.published import SOURCE
from analysis.replicates import Floor
from analysis.samples import OVERALL, Column
from analysis.tables import EQUIVALENT, NOISE, percent
from analysis.units import unit
from davinci.planning.identity import human_tokens
from davinci.planning.likeness import FACTOR

DELTA_LABEL = 12  # letters of a baseline's label that a line of the table has room for


def delta_label(comparison: Comparison) -> str:
    """What a line of differences is called: by the baseline arm, where its label is short."""
    return f"Δ {comparison.baseline}" if len(comparison.baseline) <= DELTA_LABEL else "Δ baseline"


def notes(sweep: Sweep, comparison: Comparison, floor: Floor | None, *, paper: bool = True) -> list[str]:
    """The footnotes; `paper` says whether the table has the published figures."""
    plan = sweep.plan
    equal = "documents" if "documents" in plan.audit.held_fixed else "tokens"
    text = [*_intervals(sweep, comparison), *_differences(comparison, equal)]
    if floor is not None:
        text.append(floor_text(floor, comparison))
    trunks = dict.fromkeys(arm.config.seeds_from for arm in plan.arms if arm.config.seeds_from is not None)
    if trunks:
        text.append(f"All seeds share one trunk up to {', '.join(trunks)}: intervals are conditional on that trunk.")
    text.append(_tokens(sweep, comparison))
    if plan.audit.claim is not None:
        text.append(f"Claim: {plan.audit.claim.text}.")
    if len({arm.config.evaluation.key for arm in plan.arms}) > 1:
        text.append("Arms are evaluated on suites of their own: a difference is one of model and suite together.")
    for column in comparison.columns:
        chance = {arm: value for arm, value in comparison.chance[column.name].items() if value is not None}
        if len(set(chance.values())) > 1:
            listed = ", ".join(f"{percent(value)} in {arm}" for arm, value in chance.items())
            text.append(f"{column.name} by guessing: {listed}.")
    if paper and any(cell.published is not None for cell in comparison.shown):
        text.append(f"paper: {SOURCE}, another model at another scale: compare directions, not levels.")
    if plan.audit.verdict != "controlled":
        text.append(f"The control audit is {plan.audit.verdict}: arms may differ in more than the factor.")
    return text + gaps(comparison)


def _intervals(sweep: Sweep, comparison: Comparison) -> list[str]:
    """What the intervals of the scores speak of, and from how many seeds and items."""
    scores = [cell.score for cell in comparison.shown if cell.score]
    losses = [column for column in comparison.columns if column.losses]
    bootstrapped = [score.bootstrapped for score in scores]
    how = "t, seed variance pooled over the column's cells"
    if any(bootstrapped):
        how = "bootstrap over seeds and items" if all(bootstrapped) else f"bootstrap from {FEWEST_SEEDS} on, else {how}"
    over = f"± half of the 95% interval over {_count(len(sweep.plan.seeds), 'seed')} ({how})"
    asked = f" and over benchmark items{_items(comparison)}" if len(losses) < len(comparison.columns) else ""
    text = [f"{'score' if asked else 'loss'} {over}{asked}."]
    if losses:
        text[0] += f" {_losses(losses)}"
    if any(column.name == OVERALL for column in comparison.columns):
        text[0] += " Overall is the mean over benchmarks."
    if any(cell.best for cell in comparison.shown):
        text[0] += " Bold: the best of its column and point, told from every other arm there."
    if comparison.averaged:
        text.append(_averaged(comparison))
    if comparison.borrowed is not None and any(score.borrowed for score in scores):
        sources = comparison.borrowed.sources
        more = f" and {len(sources) - 3} more sweeps" if len(sources) > 3 else ""
        text.append(
            f"One seed: the noise between seeds is that of {', '.join(sources[:3])}{more}, of the same scale, suite "
            f"and kind of layers, within a factor {FACTOR} in parameters and tokens."
        )
    if any("seeds" not in score.covers for score in scores):
        known = "the intervals speak of items only, not of training noise" if asked else "nothing is known of its noise"
        text.append(f"One seed: {known}.")
    if any(score.seeds == 2 and not score.borrowed for score in scores):
        text.append(
            "Two seeds cannot show how far cells are correlated: what is not known of it is averaged over, and some "
            "95% intervals hold up to 98.5%."
        )
    benchmarks = [cell.score for cell in comparison.shown if cell.score and not unit(cell.column).lower_is_better]
    if any("items" not in score.covers for score in benchmarks):
        text.append("Where item scores are not at hand the interval speaks of seeds only.")
    return text


def _losses(columns: Sequence[Column]) -> str:
    """What the held-out losses of a table are of, and that less is better."""
    units = {unit(column.name).name: column for column in reversed(columns)}
    named = ", ".join(f"{column.name} in {name}" for name, column in reversed(units.items()))
    several = next((column for column in columns if len(column.losses) > 1), None)
    domains = ", ".join(one.domain or "" for one in several.losses) if several else ""
    text = f"Held-out losses ({named}) are of documents never trained on, over seeds alone; ↓: less is better."
    return text + (f" Without a domain: the mean over {domains}." if domains else "")


def _items(comparison: Comparison) -> str:
    """`` (General 1,200, Overall 3,600)``: how many items a score rests on, the most of a column's cells."""
    most = {
        column.name: max((cell.items for cell in comparison.shown if cell.column == column.name), default=0)
        for column in comparison.columns
        if not column.losses
    }
    if not any(most.values()):
        return ""
    if len(set(most.values())) == 1:
        return f" ({next(iter(most.values())):,} a column)" if len(most) > 1 else f" ({next(iter(most.values())):,})"
    return f" ({', '.join(f'{name} {count:,}' for name, count in most.items())})"


def _averaged(comparison: Comparison) -> str:
    """How many evaluated points each arm is the mean over, and which arms have fewer."""
    wanted = comparison.view.average_last
    text = f"Each arm is scored by the mean over its last {wanted} evaluated points (checkpoint averaging of scores)."
    fewer = [f"{arm} has {len(points)}" for arm, points in comparison.averaged.items() if len(points) < wanted]
    return text + (f" Fewer: {', '.join(fewer)}." if fewer else "")


def _differences(comparison: Comparison, equal: str) -> list[str]:
    """What a difference is, at `equal` what, when it is told from noise, and what could have been."""
    cells = [cell for cell in comparison.shown if cell.difference]
    if not cells:
        return []
    paired = "seed" if all(column.losses for column in comparison.columns) else "seed and item"
    to = "" if comparison.baseline in delta_label(comparison) else f" to {comparison.baseline}"
    text = [
        f"{delta_label(comparison)}: difference{to} at equal {equal}, paired by {paired}. {NOISE}: cannot be "
        f"told from noise (Holm over the {_count(comparison.family, 'difference')} of the table, 5%). Intervals are "
        "for one comparison."
    ]
    margin, scores = comparison.view.equivalence, [cell for cell in cells if not unit(cell.column).lower_is_better]
    if margin is not None and scores:
        text.append(
            f"{EQUIVALENT}: equivalent within ±{margin:g} points (two one-sided tests, Holm over the table, 5%); of "
            f"{_count(len(scores), 'difference')} {sum(cell.equivalent for cell in scores)} shown to be."
        )
    detectable = [
        f"{column.name} {unit(column.name).width_text(comparison.detectable[column.name])}"
        for column in comparison.columns
        if not math.isnan(comparison.detectable[column.name])
    ]
    if detectable:
        text.append(f"Smallest difference this design detects (80% power, one comparison): {', '.join(detectable)}.")
    return text


def _tokens(sweep: Sweep, comparison: Comparison) -> str:
    """The unit of token counts, and how far the rows reach."""
    scales = {arm.config.scale.tokens_per_trillion for arm in sweep.plan.arms}
    units = ", ".join(f"{one:,}" for one in sorted(scales - {10**12}))
    text = "Tokens count from the start of the stage"
    text += f", in the paper's units: 1T stands for {units}" if units else ""
    reached = sorted({moment.tokens for _, moment in comparison.rows})
    if not reached:
        return f"{text}."
    ends = human_tokens(reached[0]), human_tokens(reached[-1])
    return f"{text}; rows are at {ends[0] if ends[0] == ends[1] else ' to '.join(ends)} tokens since initialisation."


def floor_text(floor: Floor, comparison: Comparison) -> str:
    """The footnote of an A/A comparison: which arms repeat which, and the noise measured."""
    alike: dict[str, list[str]] = {}
    for arm, original in floor.repeats.items():
        alike.setdefault(original, []).append(arm)
    who = "; ".join(f"{', '.join(arms)} repeat{'s' * (len(arms) == 1)} {one}" for one, arms in alike.items())
    text = f"A/A comparison: {who} with equal configs and other random streams, so their differences are noise."
    if floor.pairs:
        noise = ", ".join(
            f"{column.name} {of.width_text(floor.noise[column.name])} {of.of_difference}"
            for column in comparison.columns
            for of in [unit(column.name)]
        )
        pairs = _count(floor.pairs, "pair")
        text += f" Noise floor at {floor.moment} (SD of a paired difference about 0, {pairs}): {noise}."
    if floor.tested:
        text += f" Of {_count(floor.tested, 'difference')} {floor.apart} told from noise; any is a false alarm."
    return text


def gaps(comparison: Comparison) -> list[str]:
    """Which runs the table lacks, and where."""
    where: dict[str, list[str]] = {}
    for row in comparison.rows:
        for run in dict.fromkeys(run for cell in comparison.row(*row) for run in cell.absent):
            where.setdefault(run, []).append(row[1].name)
    alike: dict[str, list[str]] = {}
    for run, names in where.items():
        alike.setdefault(", ".join(names), []).append(run)
    listed = "; ".join(f"{', '.join(runs)} at {names}" for names, runs in alike.items())
    return [f"Missing ([present/planned runs] where some are there): {listed}."] if listed else []


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")
