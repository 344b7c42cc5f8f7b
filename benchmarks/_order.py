"""The figures of the mixture order: 23 sources at the weights of the paper's stage 2-2 (arXiv 2603.27164, Table 2)."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
import yaml
from _table import Row

from davinci.config import Depth, Mixture, Pool, parse
from davinci.data.order import MixtureOrder
from davinci.planning.mixtures import PoolView

CONF = Path(__file__).resolve().parent.parent / "conf"
PREFIXES, FAR = 200_000, 10**12
INDICES = 1 << 22


def order_rows() -> list[Row]:
    """Speed, evenness and seek."""
    pool = parse(Pool, yaml.safe_load((CONF / "pool" / "davinci.yaml").read_text()))
    mixture = parse(Mixture, yaml.safe_load((CONF / "mixture" / "qa70.yaml").read_text()))
    weights = [use.weight for use in PoolView(pool, Depth(), None).weigh(mixture, "s2_2").values()]
    order = MixtureOrder(weights)
    rates = []
    for turn in range(6):
        started = time.perf_counter()
        order.block(FAR + turn * INDICES, INDICES)
        rates.append(INDICES / (time.perf_counter() - started) / 1e6)
    rate = statistics.median(rates[1:])
    worst = max(_worst_error(order, weights, start) for start in (0, FAR))
    drawn = _drawn_in_time(order, weights)
    seeks = [_seek_seconds(weights, FAR + turn) for turn in range(9)]
    seek = 1e3 * statistics.median(seeks)
    return [
        Row(f"mixture order of {len(weights)} sources", f"{rate:.1f} M/s", "10 M/s asked", rate / 10, 1),
        Row(f"worst of {PREFIXES:,} prefixes, near and far", f"off by {worst:.2f}", "2 allowed", 2 / worst, 1),
        Row("sources drawn in their share", f"{drawn}", f"{len(weights)} asked", drawn / len(weights), 1),
        Row("seek to position 10^12 and draw", f"{seek:.3f} ms", "1 ms allowed", 1 / seek, 1),
    ]


def _worst_error(order: MixtureOrder, weights: list[int], start: int) -> float:
    """The furthest that any source is from its share of any prefix of `start` to `start` + `PREFIXES` positions."""
    sources, _ = order.block(start, PREFIXES)
    total, worst = sum(weights), 0.0
    for source, before in enumerate(order.counts(start)):
        # Exact to the last digit at 10^12: only what is off is turned into a float.
        offset = (before * total - start * weights[source]) / total
        counts = np.cumsum(sources == source)
        due = np.arange(1, PREFIXES + 1) * (weights[source] / total)
        worst = max(worst, float(np.abs(counts + offset - due).max()))
    return worst


def _drawn_in_time(order: MixtureOrder, weights: list[int]) -> int:
    """How many sources are drawn within four intervals of their share, wherever one starts to look."""
    found = 0
    for source, weight in enumerate(weights):
        window = -(-4 * sum(weights) // weight)
        starts = (0, 1, 12_345, 10**6 + 1, FAR)
        found += all(order.counts(start + window)[source] > order.counts(start)[source] for start in starts)
    return found


def _seek_seconds(weights: list[int], position: int) -> float:
    """Seconds from an order just made to the source and draw of one position, and every source's count before it."""
    order = MixtureOrder(weights)
    started = time.perf_counter()
    order.at(position)
    order.counts(position)
    return time.perf_counter() - started


if __name__ == "__main__":
    for row in order_rows():
        print(row)
