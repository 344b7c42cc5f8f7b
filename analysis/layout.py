"""What the tables say: the paper's layout filled with a comparison's numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from analysis.chance import AboveChance
from analysis.comparison import Cell, Comparison
from analysis.footnotes import delta_label, notes
from analysis.load import Sweep
from analysis.replicates import Floor
from analysis.samples import Column, Moment
from analysis.statistics import Estimate, together
from analysis.tables import EQUIVALENT, NOISE, Table, Tone, Value, percent, points
from analysis.units import PERCENT, Unit, unit

SHARED = "all arms"


Paper = Literal["below", "side", "none"]
"""Where published figures stand: on lines below the measured ones, in columns beside them, or nowhere."""


def score_text(cell: Cell, decimals: int = 1) -> str:
    """``52.3 ± 1.1``, with ``[2/3]`` where seeds are missing; ``–`` where the arm's suite has nothing of the column."""
    if cell.score is None:
        return "missing" if cell.absent else "–"
    text = interval_text(cell.score, decimals=decimals, of=unit(cell.column))
    planned = len(cell.runs) + len(cell.absent)
    return f"{text} [{len(cell.runs)}/{planned}]" if cell.absent else text


def interval_text(estimate: Estimate, *, signed: bool = False, decimals: int = 1, of: Unit = PERCENT) -> str:
    """Mean and half of the 95% interval, in the unit's."""
    half = of.width_text(estimate.half_width, decimals=decimals)
    return f"{of.text(estimate.mean, signed=signed, decimals=decimals)} ± {half}"


def difference_text(cell: Cell, decimals: int = 1) -> str:
    """``+1.2 ± 0.8``, led by ``≈`` where it cannot be told from noise and ``≡`` where it is shown to be equivalent."""
    if cell.difference is None:
        return "" if cell.score is None else "no pair"
    marks = [NOISE] * (not cell.told_apart) + [EQUIVALENT] * cell.equivalent
    text = interval_text(cell.difference, signed=True, decimals=decimals, of=unit(cell.column))
    return " ".join([*marks[-1:], text])


def published_text(cell: Cell) -> str:
    """``51.72 (+0.13)``: the paper's score, and its difference to the paper's baseline."""
    if cell.published is None:
        return ""
    if cell.published_difference is None:
        return f"{cell.published:.2f}"
    return f"{cell.published:.2f} ({points(cell.published_difference, signed=True, decimals=2)})"


def stubs(comparison: Comparison, arm: str | None, moment: Moment) -> tuple[str, str]:
    """What names a row of the table: its group (arm or point, as the table is laid out), then the other of the two."""
    averaged = comparison.averaged.get(arm or "", ())
    name = f"{moment.name}, mean of {len(averaged)}" if averaged and moment == averaged[-1] else moment.name
    names = (arm or SHARED, name)
    return names if comparison.view.rows == "arm" else (names[1], names[0])


def measured(columns: Sequence[Column]) -> str:
    """What the columns hold: ``score in percent``, ``score in percent, held-out loss in nats a token``."""
    units = dict.fromkeys(unit(column.name) for column in columns)
    texts = [f"{'held-out loss' if one.lower_is_better else 'score'} in {one.name}" for one in units]
    return ", ".join(texts)


def title(sweep: Sweep, comparison: Comparison, floor: Floor | None, *, paper: bool = True) -> str:
    """What the table compares, in one line."""
    plan = sweep.plan
    first, second = ("arm", "tokens") if comparison.view.rows == "arm" else ("tokens", "arm")
    text = f"{plan.sweep}: {measured(comparison.columns)} by {first} and {second}"
    if paper and any(cell.published is not None for cell in comparison.shown):
        reference = plan.question.paper
        text += f", beside {f'Table {reference.table}' if reference and reference.table else 'the paper'}"
    return text + (" (A/A comparison)" if floor and len(floor.repeats) == len(plan.arms) - 1 else "")


def paper_table(
    sweep: Sweep, comparison: Comparison, floor: Floor | None = None, *, paper: Paper = "below", decimals: int = 1
) -> Table:
    """Arm x tokens (or tokens x arm) by column: score, difference to the baseline, and the paper's figure."""
    groups: list[tuple[tuple[Value, ...], ...]] = []
    last_group: str | None = None
    for arm, moment in comparison.rows:
        group, row = stubs(comparison, arm, moment)
        first = Value("" if group == last_group else group, "strong")
        lines = _lines(comparison, comparison.row(arm, moment), paper, decimals)
        rows = tuple(
            (Value() if index else first, Value("" if index else row), *line) for index, line in enumerate(lines)
        )
        if group == last_group:
            groups[-1] += rows
        else:
            groups.append(rows)
        last_group = group
    names = ("Arm", "Tokens") if comparison.view.rows == "arm" else ("Tokens", "Arm")
    heads = [f"{column.name}{unit(column.name).mark}" for column in comparison.columns]
    headers = [[head, "paper"] if paper == "side" else [head] for head in heads]
    verdict = sweep.plan.audit.verdict
    return Table(
        title=title(sweep, comparison, floor, paper=paper != "none"),
        headers=(*names, "", *(header for pair in headers for header in pair)),
        stubs=3,
        groups=tuple(groups),
        notes=tuple(notes(sweep, comparison, floor, paper=paper != "none")),
        data=tuple(_numbers(cell, p) | {"audit": verdict} for cell, p in _with_p(comparison.shown)),
    )


def _lines(comparison: Comparison, cells: Sequence[Cell], paper: Paper, decimals: int) -> list[list[Value]]:
    """The lines of one row behind its two names: what the line is, then a value a column."""
    side = paper == "side"
    lines: list[tuple[Value, list[Value], list[str]]] = [
        (
            Value(value_name(comparison)),
            [_score_value(cell, decimals) for cell in cells],
            ["" if cell.published is None else f"{cell.published:.2f}" for cell in cells],
        )
    ]
    published = [
        "" if cell.published_difference is None else points(cell.published_difference, signed=True, decimals=2)
        for cell in cells
    ]
    if any(cell.difference for cell in cells) or (side and any(published)):
        label = Value(delta_label(comparison), "faint")
        lines.append((label, [_difference_value(cell, decimals) for cell in cells], published))
    if paper == "below" and any(cell.published is not None for cell in cells):
        lines.append((Value("paper", "faint"), [Value(published_text(cell), "faint") for cell in cells], []))
    found = []
    for label, values, beside in lines:
        pairs = [[value, Value(text, "faint")] for value, text in zip(values, beside, strict=True)] if side else []
        found.append([label, *(value for pair in pairs for value in pair)] if side else [label, *values])
    return found


def value_name(comparison: Comparison) -> str:
    """What a line of values is called: score, loss, or value where the columns hold both."""
    kinds = {unit(column.name).lower_is_better for column in comparison.columns}
    return "value" if len(kinds) > 1 else "loss" if True in kinds else "score"


def _score_value(cell: Cell, decimals: int) -> Value:
    tone: Tone = "strong" if cell.best else "plain" if cell.score else "missing" if cell.absent else "faint"
    return Value(score_text(cell, decimals), tone)


def _difference_value(cell: Cell, decimals: int) -> Value:
    tone: Tone = "missing" if cell.difference is None else "strong" if cell.told_apart else "faint"
    return Value(difference_text(cell, decimals), tone)


def _with_p(cells: Sequence[Cell]) -> Iterator[tuple[Cell, float | None]]:
    """Each cell beside the p-value of its difference, which are computed at once; None without one."""
    p_values = iter(together([cell.difference for cell in cells if cell.difference]).p.tolist())
    return ((cell, next(p_values) if cell.difference else None) for cell in cells)


def _numbers(cell: Cell, p: float | None) -> dict[str, Any]:
    """A cell as numbers in its column's unit, scores and their differences in percent; `p` is of the difference."""
    of = unit(cell.column)

    def spread(estimate: Estimate | None, name: str) -> dict[str, Any]:
        if estimate is None:
            return {name: None, f"{name}_half_width": None, f"{name}_low": None, f"{name}_high": None}
        mean, half = of.shown(estimate.mean), of.width(estimate.half_width)
        return {name: mean, f"{name}_half_width": half, f"{name}_low": mean - half, f"{name}_high": mean + half}

    return {
        "arm": cell.arm or SHARED,
        "label": cell.moment.label,
        "stage": cell.moment.stage,
        "stage_tokens": cell.moment.stage_tokens,
        "tokens": cell.moment.tokens,
        "column": cell.column,
        "unit": of.name,
        **spread(cell.score, "score"),
        "dof": float(cell.score.dof) if cell.score else None,
        **spread(cell.difference, "difference"),
        "p": p,
        "p_holm": cell.p_adjusted,
        "told_from_noise": cell.told_apart,
        "equivalent": cell.equivalent if cell.difference and not math.isnan(cell.p_equivalent) else None,
        "best": cell.best,
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
