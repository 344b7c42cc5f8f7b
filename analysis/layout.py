"""What the tables say: the paper's layout filled with a comparison's numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from analysis.comparison import AboveChance, Cell, Comparison
from analysis.load import Sweep
from analysis.published import SOURCE
from analysis.replicates import Floor
from analysis.samples import OVERALL, Moment
from analysis.statistics import Estimate
from analysis.tables import MINUS, NOISE, Table, Tone, Value, percent

SHARED = "all arms"
DELTA_LABEL = 12  # letters of a baseline's label that a line of the table has room for


def score_text(cell: Cell) -> str:
    """``52.3 ± 1.1``, with ``[2/3]`` where seeds are missing; ``–`` where the arm's suite has nothing of the column."""
    if cell.score is None:
        return "missing" if cell.absent else "–"
    text = interval_text(cell.score)
    planned = len(cell.runs) + len(cell.absent)
    return f"{text} [{len(cell.runs)}/{planned}]" if cell.absent else text


def interval_text(estimate: Estimate, *, signed: bool = False) -> str:
    """Mean and half of the 95% interval, in percent."""
    return f"{percent(float(estimate.mean), signed=signed)} ± {percent(float(estimate.half_width))}"


def difference_text(cell: Cell) -> str:
    """``+1.2 ± 0.8``, led by ``≈`` where it cannot be told from noise."""
    if cell.difference is None:
        return "" if cell.score is None else "no pair"
    return ("" if cell.told_apart else f"{NOISE} ") + interval_text(cell.difference, signed=True)


def published_text(cell: Cell) -> str:
    """``51.72 (+0.13)``: the paper's score, and its difference to the paper's baseline."""
    if cell.published is None:
        return ""
    if cell.published_difference is None:
        return f"{cell.published:.2f}"
    return f"{cell.published:.2f} ({cell.published_difference:+.2f})".replace("-", MINUS)


def stubs(sweep: Sweep, arm: str | None, moment: Moment) -> tuple[str, str]:
    """What names a row of the table: its group (arm or point, as the sweep lays it out), then the other of the two."""
    names = (arm or SHARED, moment.name)
    return names if sweep.plan.question.table.rows == "arm" else (names[1], names[0])


def delta_label(comparison: Comparison) -> str:
    """What a line of differences is called: by the baseline arm, where its label is short."""
    return f"Δ {comparison.baseline}" if len(comparison.baseline) <= DELTA_LABEL else "Δ baseline"


def title(sweep: Sweep, comparison: Comparison, floor: Floor | None) -> str:
    """What the table compares, in one line."""
    plan = sweep.plan
    first, second = ("arm", "tokens") if plan.question.table.rows == "arm" else ("tokens", "arm")
    text = f"{plan.sweep}: score in percent by {first} and {second}"
    if any(cell.published is not None for cell in comparison.shown):
        paper = plan.question.paper
        text += f", beside {f'Table {paper.table}' if paper and paper.table else 'the paper'}"
    return text + (" (A/A comparison)" if floor and len(floor.repeats) == len(plan.arms) - 1 else "")


def paper_table(sweep: Sweep, comparison: Comparison, floor: Floor | None = None) -> Table:
    """Arm x tokens (or tokens x arm) by column: score, difference to the baseline, and the paper's figure."""
    groups: list[tuple[tuple[Value, ...], ...]] = []
    last_group: str | None = None
    for arm, moment in comparison.rows:
        cells = comparison.row(arm, moment)
        group, row = stubs(sweep, arm, moment)
        lines = [(Value("" if group == last_group else group, "strong"), Value(row), Value("score"))]
        values = [tuple(_score_value(cell) for cell in cells)]
        if any(cell.difference for cell in cells):
            lines.append((Value(), Value(), Value(delta_label(comparison), "faint")))
            values.append(tuple(_difference_value(cell) for cell in cells))
        if any(cell.published is not None for cell in cells):
            lines.append((Value(), Value(), Value("paper", "faint")))
            values.append(tuple(Value(published_text(cell), "faint") for cell in cells))
        rows = tuple(line + value for line, value in zip(lines, values, strict=True))
        if group == last_group:
            groups[-1] += rows
        else:
            groups.append(rows)
        last_group = group
    names = ("Arm", "Tokens") if sweep.plan.question.table.rows == "arm" else ("Tokens", "Arm")
    verdict = sweep.plan.audit.verdict
    return Table(
        title=title(sweep, comparison, floor),
        headers=(*names, "", *(column.name for column in comparison.columns)),
        stubs=3,
        groups=tuple(groups),
        notes=tuple(notes(sweep, comparison, floor)),
        data=tuple(_numbers(cell) | {"audit": verdict} for cell in comparison.shown),
    )


def _score_value(cell: Cell) -> Value:
    return Value(score_text(cell), "plain" if cell.score else "missing" if cell.absent else "faint")


def _difference_value(cell: Cell) -> Value:
    tone: Tone = "missing" if cell.difference is None else "strong" if cell.told_apart else "faint"
    return Value(difference_text(cell), tone)


def notes(sweep: Sweep, comparison: Comparison, floor: Floor | None) -> list[str]:
    """The footnotes: how to read the numbers, what the design can see, what is missing."""
    plan = sweep.plan
    cells = comparison.shown
    covers = {cell.score.covers for cell in cells if cell.score}
    text = [
        f"score ± half of the 95% interval over {_count(len(plan.seeds), 'seed')} (t, seed variance pooled over the "
        "column's cells) and over benchmark items."
    ]
    if any(column.name == OVERALL for column in comparison.columns):
        text[0] += " Overall is the mean over benchmarks."
    if covers and any("seeds" not in one for one in covers):
        text.append("One seed: the intervals speak of items only, not of training noise.")
    if covers and any("items" not in one for one in covers):
        text.append("Where item scores are not at hand the interval speaks of seeds only.")
    if any(cell.difference for cell in cells):
        family = max(
            sum(cell.difference is not None for cell in cells if cell.column == column.name)
            for column in comparison.columns
        )
        to = "" if comparison.baseline in delta_label(comparison) else f" to {comparison.baseline}"
        text.append(
            f"{delta_label(comparison)}: difference{to} at equal tokens, paired by seed and item. {NOISE}: cannot be "
            f"told from noise (Holm over the {_count(family, 'difference')} of its column, 5%). Intervals are for one "
            "comparison."
        )
    detectable = [
        f"{column.name} {percent(comparison.detectable[column.name])}"
        for column in comparison.columns
        if not math.isnan(comparison.detectable[column.name])
    ]
    if detectable:
        text.append(f"Smallest difference this design detects (80% power, one comparison): {', '.join(detectable)}.")
    if floor is not None:
        text.append(floor_text(floor, comparison))
    trunks = dict.fromkeys(arm.config.seeds_from for arm in plan.arms if arm.config.seeds_from is not None)
    if trunks:
        text.append(f"All seeds share one trunk up to {', '.join(trunks)}: intervals are conditional on that trunk.")
    scales = {arm.config.scale.tokens_per_trillion for arm in plan.arms}
    units = ", ".join(f"{one:,}" for one in sorted(scales - {10**12}))
    text.append(
        "Tokens count from the start of the stage"
        + (f", in the paper's units: 1T stands for {units}." if units else ".")
    )
    if len({arm.config.evaluation.key for arm in plan.arms}) > 1:
        text.append("Arms are evaluated on suites of their own: a difference is one of model and suite together.")
    for column in comparison.columns:
        chance = {arm: value for arm, value in comparison.chance[column.name].items() if value is not None}
        if len(set(chance.values())) > 1:
            listed = ", ".join(f"{percent(value)} in {arm}" for arm, value in chance.items())
            text.append(f"{column.name} by guessing: {listed}.")
    if any(cell.published is not None for cell in cells):
        text.append(f"paper: {SOURCE}, another model at another scale: compare directions, not levels.")
    if plan.audit.verdict != "controlled":
        text.append(f"The control audit is {plan.audit.verdict}: arms may differ in more than the factor.")
    return text + gaps(comparison)


def floor_text(floor: Floor, comparison: Comparison) -> str:
    """The footnote of an A/A comparison: which arms repeat which, and the noise measured."""
    alike: dict[str, list[str]] = {}
    for arm, original in floor.repeats.items():
        alike.setdefault(original, []).append(arm)
    who = "; ".join(f"{', '.join(arms)} repeat{'s' * (len(arms) == 1)} {one}" for one, arms in alike.items())
    text = f"A/A comparison: {who} with equal configs and other random streams, so their differences are noise."
    if floor.pairs:
        noise = ", ".join(f"{column.name} {percent(floor.noise[column.name])}" for column in comparison.columns)
        pairs = _count(floor.pairs, "pair")
        text += f" Noise floor at {floor.moment} (SD of a paired difference about 0, {pairs}): {noise} points."
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


def _numbers(cell: Cell) -> dict[str, Any]:
    """A cell as numbers, scores and differences in percent."""

    def spread(estimate: Estimate | None, name: str) -> dict[str, Any]:
        if estimate is None:
            return {name: None, f"{name}_half_width": None, f"{name}_low": None, f"{name}_high": None}
        mean, half = 100 * float(estimate.mean), 100 * float(estimate.half_width)
        return {name: mean, f"{name}_half_width": half, f"{name}_low": mean - half, f"{name}_high": mean + half}

    return {
        "arm": cell.arm or SHARED,
        "label": cell.moment.label,
        "stage": cell.moment.stage,
        "stage_tokens": cell.moment.stage_tokens,
        "tokens": cell.moment.tokens,
        "column": cell.column,
        **spread(cell.score, "score"),
        "dof": float(cell.score.dof) if cell.score else None,
        **spread(cell.difference, "difference"),
        "p": float(cell.difference.p) if cell.difference else None,
        "p_holm": cell.p_adjusted,
        "told_from_noise": cell.told_apart,
        "published": cell.published,
        "published_difference": cell.published_difference,
        "seeds": cell.score.seeds if cell.score else 0,
        "items": cell.items,
        "runs": cell.runs,
        "missing": cell.absent,
    }


def chance_table(rows: Sequence[AboveChance], label: str) -> Table:
    """Every benchmark against chance at the last point, averaged over arms."""
    lines = tuple(
        (
            Value(row.benchmark),
            Value(row.domain),
            Value(row.protocol),
            Value(str(row.items)),
            Value(percent(row.chance)),
            Value(percent(row.score)),
            Value(interval_text(row.excess, signed=True), "strong" if row.above else "faint"),
            Value("yes" if row.above else f"{NOISE} no", "plain" if row.above else "faint"),
        )
        for row in rows
    )
    return Table(
        title=f"Above chance at {label}, mean over all arms",
        headers=("Benchmark", "Domain", "Protocol", "Items", "Chance", "Score", "Score \u2212 chance", "Above"),
        stubs=3,
        groups=(lines,) if lines else (),
        notes=("± half of the 95% interval over seeds and items.",),
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")
