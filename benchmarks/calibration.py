"""How often nominal 95% intervals hold the truth, and how often tables of equal arms call something different.

Prints the tables of docs/statistics.md: simulated truth with items; simulated truth over shapes and correlations of a
table, and over other noise, the lowest and the highest of them. Nothing here is timed.

Usage: python benchmarks/calibration.py [--tables 2000]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "analysis")]

from simulation import FORMS, REGIMES, bare, called, covered, simulated, tables  # noqa: E402

from analysis.bootstrap import FEWEST_SEEDS  # noqa: E402

# arms, points, columns
SHAPES = [(2, 1, 1), (2, 3, 1), (6, 1, 1), (2, 1, 10), (3, 3, 3), (6, 4, 2)]
AT_ONCE = 500
BOOTSTRAPPED = 80  # tables a line where every cell is resampled


def percent(values: Sequence[float]) -> str:
    return f"{100 * min(values):.1f} to {100 * max(values):.1f}" if len(values) > 1 else f"{100 * values[0]:.1f}"


def measured(draw: Any, tables_each: int, truth: float) -> tuple[float, float, float]:
    """Coverage of scores and differences, share of tables that call one, over `tables_each` tables."""
    parts = []
    for stream in range(max(1, tables_each // AT_ONCE)):
        columns = draw(np.random.default_rng(stream), min(AT_ONCE, tables_each))
        scores, differences = tables(columns)
        parts.append((covered(scores, truth), covered(differences, 0.0), called(differences)))
    scores, differences, called_ = np.mean(parts, axis=0).tolist()
    return scores, differences, called_


def with_items(tables_each: int) -> Iterator[str]:
    yield "| seeds | noise dominated by | scores | differences | A/A tables (18 differences) |"
    yield "| --- | --- | --- | --- | --- |"
    for seeds in (2, 3, 4, 5, 7, 8, 12):
        count = tables_each if seeds < FEWEST_SEEDS else BOOTSTRAPPED
        found = [
            measured(lambda random, n, r=regime, s=seeds: simulated(random, n, **r, seeds=s), count, 0.5)
            for regime in REGIMES.values()
        ]
        text = [" / ".join(f"{100 * one[index]:.1f}" for one in found) for index in range(3)]
        apart = "" if seeds >= FEWEST_SEEDS else f"{text[2]}%"
        yield f"| {seeds} | items / seeds / both | {text[0]}% | {text[1]}% | {apart} |"


def shapes(tables_each: int, seeds: Sequence[int], variants: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield "| seeds | arms x points x columns | scores | differences | A/A tables |"
    yield "| --- | --- | --- | --- | --- |"
    for count in seeds:
        for arms, points, columns in SHAPES:
            found = []
            for form in variants.values():
                of = form | {"seeds": count, "arms": arms, "points": points, "columns": columns}
                found.append(measured(lambda random, n, o=of: bare(random, n, **o), tables_each, 0.0))
            cells = [percent([one[index] for one in found]) for index in range(3)]
            yield f"| {count} | {arms} x {points} x {columns} | {cells[0]}% | {cells[1]}% | {cells[2]}% |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=2000, help="tables a line (default: 2000)")
    options = parser.parse_args()
    odd = {
        "columns together": FORMS["mixed"] | {"together": 0.6},
        "columns of unequal noise": FORMS["mixed"] | {"scales": (0.1, 1.0, 5.0)},
        "heavy tails": FORMS["mixed"] | {"tails": "t4"},
        "skewed": FORMS["mixed"] | {"tails": "exponential"},
    }
    for title, lines in {
        "with items": with_items(options.tables),
        "correlations": shapes(options.tables, (2, 3, 5), FORMS),
        "other noise": shapes(options.tables, (2, 3, 5), odd),
    }.items():
        print(f"\n{title}\n", flush=True)
        for line in lines:
            print(line, flush=True)


if __name__ == "__main__":
    main()
