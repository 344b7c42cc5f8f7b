"""The paper's Tables 6 to 10 from its own printed scores: averages and differences recomputed, beside those printed.

A domain average is the unweighted mean of its benchmarks, and Overall that of all 19. Where a table prints no
benchmarks of a domain its printed average stands for each of them, which leaves Overall unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis import published
from analysis.samples import DOMAINS, OVERALL
from analysis.spec import Spec, spans
from analysis.tables import Table, Value, points
from davinci.errors import UserError

AVERAGES = tuple(domain.capitalize() for domain in DOMAINS)


@dataclass(frozen=True)
class Printed:
    """One configuration as printed, at a point: scores in percent by column, averages by their plain name."""

    configuration: str
    tokens: str
    scores: dict[str, float]

    def recomputed(self, column: str, domains: Mapping[str, str]) -> float | None:
        """An average from what is printed besides it; None for what is no average, or has nothing to be made from.

        Args:
            column: a domain's name or Overall.
            domains: domain of each benchmark.
        """
        if column == OVERALL:
            sizes = {name: list(domains.values()).count(name.lower()) for name in AVERAGES}
            means = {name: self._mean(name, domains) for name in AVERAGES}
            known = {name: mean for name, mean in means.items() if mean is not None}
            total = sum(sizes[name] * mean for name, mean in known.items())
            return total / len(domains) if len(known) == len(sizes) else None
        return self._benchmarks(column, domains)

    def _mean(self, domain: str, domains: Mapping[str, str]) -> float | None:
        """A domain's mean: over its benchmarks, or as printed where they are not all printed."""
        mean = self._benchmarks(domain, domains)
        return self.scores.get(domain) if mean is None else mean

    def _benchmarks(self, domain: str, domains: Mapping[str, str]) -> float | None:
        members = [name for name, one in domains.items() if one.capitalize() == domain]
        own = [self.scores[name] for name in members if name in self.scores]
        return sum(own) / len(own) if members and len(own) == len(members) else None


def domains() -> dict[str, str]:
    """Domain of each of the paper's benchmarks."""
    return {row["benchmark"]: row["domain"] for row in published.rows("benchmarks")}


def printed(name: str) -> list[Printed]:
    """The configurations of a published table, in its order.

    Raises:
        UserError: for a file that has neither configurations nor benchmarks by model.
    """
    rows = published.rows(name)
    if "benchmark" in rows[0]:
        models = [model for model in rows[0] if model != "benchmark"]
        return [
            Printed(model, "", {_plain(row["benchmark"]): float(row[model]) for row in rows if row[model]})
            for model in models
        ]
    if "configuration" not in rows[0]:
        raise UserError(f"published: {name} has neither configurations nor benchmarks by model; table9_… has")
    return [
        Printed(
            row["configuration"],
            f"{row['tokens_b']}B" if row.get("tokens_b") else "",
            {
                _plain(key): float(text)
                for key, text in row.items()
                if key not in ("configuration", "tokens_b") and text
            },
        )
        for row in rows
    ]


def _plain(column: str) -> str:
    return column.removeprefix("Avg ")


def disagreement(rows: list[Printed]) -> float:
    """The largest gap, in points, between a printed average and the recomputed one."""
    known = domains()
    gaps = [
        abs(value - row.scores[column])
        for row in rows
        for column in (*AVERAGES, OVERALL)
        if (value := row.recomputed(column, known)) is not None and column in row.scores
    ]
    return max(gaps, default=0.0)


def published_table(spec: Spec) -> Table:
    """The published table: scores as printed, averages recomputed, differences to the baseline.

    Raises:
        UserError: the specification names no published file, or columns that it has not.
    """
    if spec.published is None:
        raise UserError("published: the specification names no published figures")
    rows = printed(spec.published)
    table = _by_model(spec, rows) if spec.layout == "models" else _by_arm(spec, rows)
    notes = [
        f"{published.SOURCE}, scores as printed, in percent. recomputed: the mean over a domain's benchmarks, and over "
        f"all {len(domains())} for Overall; a domain's printed average stands for benchmarks that are not printed.",
        f"Recomputed averages are within {disagreement(rows):.3f} points of those printed; rounding allows 0.01.",
        "The paper states no intervals: nothing is bold.",
    ]
    return Table(
        title=f"{spec.title or spec.published}, as published",
        headers=table.headers,
        stubs=table.stubs,
        groups=table.groups,
        notes=tuple(notes),
        data=table.data,
        spans=table.spans,
    )


def _by_arm(spec: Spec, rows: list[Printed]) -> Table:
    has = tuple(dict.fromkeys(column for row in rows for column in row.scores))
    columns = spec.columns_for("paper") or has
    for name in columns:
        if name not in has:
            raise UserError(f"columns: {spec.published} has no {name!r}; it has {', '.join(has)}")
    baseline = spec.baseline or rows[0].configuration
    reference = {row.tokens: row for row in rows if row.configuration == baseline}
    known = domains()
    groups: dict[str, list[tuple[Value, ...]]] = {}
    data: list[dict[str, Any]] = []
    for row in rows:
        group = groups.setdefault(row.configuration, [])
        name = Value("" if group else row.configuration, "strong")
        group.append((name, Value(row.tokens), Value("printed"), *(_number(row.scores.get(one)) for one in columns)))
        made = [row.recomputed(one, known) for one in columns]
        if any(value is not None for value in made):
            group.append(
                (Value(), Value(), Value("recomputed", "faint"), *(_number(value, faint=True) for value in made))
            )
        base = reference.get(row.tokens)
        gaps = [_gap(row, base, one) if base and base is not row else None for one in columns]
        if base and base is not row:
            group.append((Value(), Value(), Value("Δ baseline", "faint"), *(_number(gap, signed=True) for gap in gaps)))
        for column, value, gap in zip(columns, made, gaps, strict=True):
            about = {"configuration": row.configuration, "tokens": row.tokens, "column": column}
            gap = None if gap is None else round(gap, 2)
            data.append(about | {"printed": row.scores.get(column), "recomputed": value, "difference": gap})
    return Table(
        title="",
        headers=("Configuration", "Tokens", "", *columns),
        stubs=3,
        groups=tuple(tuple(group) for group in groups.values()),
        data=tuple(data),
        spans=spans(spec, columns, 1),
    )


def _by_model(spec: Spec, rows: list[Printed]) -> Table:
    known = domains()
    groups: list[tuple[tuple[Value, ...], ...]] = []
    data: list[dict[str, Any]] = []
    for domain in DOMAINS:
        members = [name for name, one in known.items() if one == domain]
        lines = [(Value(name), Value("printed"), *(_number(row.scores.get(name)) for row in rows)) for name in members]
        groups.append(tuple(lines))
        data += [_cell(row, name, None) for name in members for row in rows]
    averages: list[tuple[Value, ...]] = []
    for column in (*AVERAGES, OVERALL):
        made = [row.recomputed(column, known) for row in rows]
        averages.append((Value(column, "strong"), Value("printed"), *(_number(row.scores.get(column)) for row in rows)))
        averages.append((Value(), Value("recomputed", "faint"), *(_number(value, faint=True) for value in made)))
        data += [_cell(row, column, value) for row, value in zip(rows, made, strict=True)]
    headers = ("Benchmark", "", *(row.configuration for row in rows))
    return Table(title="", headers=headers, stubs=2, groups=(*groups, tuple(averages)), data=tuple(data))


def _gap(row: Printed, base: Printed, column: str) -> float | None:
    """The difference of a column; None where either is not printed."""
    known = column in row.scores and column in base.scores
    return row.scores[column] - base.scores[column] if known else None


def _cell(row: Printed, column: str, recomputed: float | None) -> dict[str, Any]:
    about = {"configuration": row.configuration, "tokens": row.tokens, "column": column}
    return about | {"printed": row.scores.get(column), "recomputed": recomputed, "difference": None}


def _number(value: float | None, *, signed: bool = False, faint: bool = False) -> Value:
    if value is None:
        return Value()
    return Value(points(value, signed=signed, decimals=2), "faint" if faint else "plain")
