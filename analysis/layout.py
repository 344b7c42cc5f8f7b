"""What the tables say: the paper's layout filled with a comparison's numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from analysis.comparison import AboveChance, Cell, Comparison
from analysis.load import Sweep
from analysis.published import SOURCE
from analysis.statistics import Estimate
from analysis.tables import MINUS, NOISE, Table, Tone, Value, percent

SHARED = "all arms"


def score_text(cell: Cell) -> str:
    """``52.3 ± 1.1``, with ``[2/3]`` where seeds are missing."""
    if cell.score is None:
        return "missing"
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


def paper_table(sweep: Sweep, comparison: Comparison) -> Table:
    """Arm x tokens by domain: score, difference to the baseline, and the paper's figure below one another."""
    paper = sweep.plan.question.paper
    has_paper = any(cell.published is not None for cell in comparison.cells.values())
    name = f"Table {paper.table}" if paper and paper.table else "the paper"
    groups: list[tuple[tuple[Value, ...], ...]] = []
    last_arm: str | None = "never"
    for arm, moment in comparison.rows:
        cells = comparison.row(arm, moment)
        lines = [(Value("" if arm == last_arm else arm or SHARED, "strong"), Value(moment.name), Value("score"))]
        values = [tuple(_score_value(cell) for cell in cells)]
        if any(cell.difference for cell in cells):
            lines.append((Value(), Value(), Value(f"Δ {comparison.baseline}", "faint")))
            values.append(tuple(_difference_value(cell) for cell in cells))
        if any(cell.published is not None for cell in cells):
            lines.append((Value(), Value(), Value("paper", "faint")))
            values.append(tuple(Value(published_text(cell), "faint") for cell in cells))
        rows = tuple(line + value for line, value in zip(lines, values, strict=True))
        if arm == last_arm:
            groups[-1] += rows
        else:
            groups.append(rows)
        last_arm = arm
    return Table(
        title=f"{sweep.plan.sweep}: score in percent by arm and tokens" + (f", beside {name}" if has_paper else ""),
        headers=("Arm", "Tokens", "", *(column.name for column in comparison.columns)),
        stubs=3,
        groups=tuple(groups),
        notes=tuple(notes(sweep, comparison, has_paper=has_paper)),
        data=tuple(_numbers(cell) for arm, moment in comparison.rows for cell in comparison.row(arm, moment)),
    )


def _score_value(cell: Cell) -> Value:
    return Value(score_text(cell), "missing" if cell.score is None else "plain")


def _difference_value(cell: Cell) -> Value:
    tone: Tone = "missing" if cell.difference is None else "strong" if cell.told_apart else "faint"
    return Value(difference_text(cell), tone)


def notes(sweep: Sweep, comparison: Comparison, *, has_paper: bool) -> list[str]:
    """The footnotes: how to read the numbers, what the design can see, what is missing."""
    plan = sweep.plan
    cells = list(comparison.cells.values())
    covers = {cell.score.covers for cell in cells if cell.score}
    text = [
        f"score ± half of the 95% interval over {_count(len(plan.seeds), 'seed')} (t, seed variance pooled over the "
        "column's cells) and over benchmark items. Overall is the mean over benchmarks."
    ]
    if covers and any("seeds" not in one for one in covers):
        text.append("One seed: the intervals speak of items only, not of training noise.")
    if covers and any("items" not in one for one in covers):
        text.append("Where item scores are not at hand the interval speaks of seeds only.")
    if any(cell.difference for cell in cells):
        family = max(
            sum(cell.difference is not None for cell in cells if cell.column == column.name)
            for column in comparison.columns
        )
        text.append(
            f"Δ {comparison.baseline}: difference at equal tokens, paired by seed and item. {NOISE}: cannot be told "
            f"from noise (Holm over the {_count(family, 'difference')} of its column, 5%). Intervals are for one "
            "comparison."
        )
    detectable = [
        f"{column.name} {percent(comparison.detectable[column.name])}"
        for column in comparison.columns
        if not math.isnan(comparison.detectable[column.name])
    ]
    if detectable:
        text.append(f"Smallest difference this design detects (80% power, one comparison): {', '.join(detectable)}.")
    run = plan.runs[0].config
    if run.seeds_from is not None:
        text.append(f"All seeds share one trunk up to {run.seeds_from}: intervals are conditional on that trunk.")
    per_trillion = run.scale.tokens_per_trillion
    units = "" if per_trillion == 10**12 else f", in the paper's units: 1T stands for {per_trillion:,}"
    text.append(f"Tokens count from the start of the stage{units}.")
    if has_paper:
        text.append(f"paper: {SOURCE}, another model at another scale: compare directions, not levels.")
    if plan.audit.verdict != "controlled":
        text.append(f"The control audit is {plan.audit.verdict}: arms may differ in more than the factor.")
    return text + gaps(comparison)


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
