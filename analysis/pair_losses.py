"""Losses of two runs: training losses paired by recorded step, held-out losses at the last point both have.

One held-out loss of each run says nothing of the noise between seeds. Where both are runs of one sweep that has several
seeds, it is taken from there: of two arms the seed variance of their paired differences, of two seeds of one arm twice
that of a run; pooled over the sweep's cells as its tables do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from analysis import cells as sampling
from analysis.pair_parts import Metric, Side
from analysis.samples import Column, Grid
from analysis.statistics import Estimate, Noise, Sample, estimate, pooled
from davinci.planning.heldout_metrics import HeldOutMetric

# The share of the steps both runs recorded, from the last one back, over which training losses are compared.
TAIL = 0.1


def losses(left: Side, right: Side) -> list[Metric]:
    """Training loss over the last steps both recorded; of held-out text nats a token, the mean over the domains, and
    bits a byte of each."""
    found = []
    mine, theirs = _training(left), _training(right)
    common = sorted(mine.keys() & theirs.keys())
    if common:
        tail = common[-max(2, round(TAIL * len(common))) :]
        pairs = np.array([[mine[tokens], theirs[tokens]] for tokens in tail])
        name = f"training loss, nats per token, last {len(tail)} records"
        found.append(Metric("loss", name, tail[-1], *pairs.mean(axis=0).tolist(), estimate=_over_steps(pairs)))
    return found + _heldout(left, right)


def _over_steps(pairs: np.ndarray) -> Estimate | None:
    """The mean difference over float64[steps, 2], as if the steps' differences were independent."""
    if len(pairs) < 3:
        return None
    gaps = pairs[:, 1] - pairs[:, 0]
    error = gaps.std(ddof=1) / math.sqrt(len(gaps))
    return Estimate(gaps.mean(), np.float64(error), np.float64(len(gaps) - 1), 1, ("steps",))


def _training(side: Side) -> dict[int, float]:
    found: dict[int, float] = {}
    for node in side.run.nodes:
        if (rows := side.sweep.train.get(node)) is not None:
            kept = rows.dropna(subset=["loss"])
            found |= {int(at): float(loss) for at, loss in zip(kept["tokens"], kept["loss"], strict=True)}
    return found


def _heldout(left: Side, right: Side) -> list[Metric]:
    values = _measured(left), _measured(right)
    domains = list(dict.fromkeys(domain for domain, _ in values[0]))
    shared = {
        domain: {tokens for name, tokens in values[0].keys() & values[1].keys() if name == domain} for domain in domains
    }
    rows = [("held-out loss, nats per token, mean over domains", HeldOutMetric("loss"), domains)]
    rows += [(f"held-out {one}, bits per byte", HeldOutMetric("bits_per_byte", one), [one]) for one in domains]
    alike = left.sweep.plan.sweep == right.sweep.plan.sweep
    grid = Grid(left.sweep) if alike else None
    found = []
    for name, metric, members in rows:
        common = set.intersection(*(shared[domain] for domain in members)) if members else set()
        if common:
            at = max(common)
            both = [float(np.mean([side[one, at][metric.value] for one in members])) for side in values]
            noise = None if grid is None else _by_seeds(grid, left, right, metric, both[1] - both[0])
            found.append(Metric("loss", name, at, *both, estimate=noise))
    return found


def _measured(side: Side) -> Mapping[tuple[str, int], Mapping[str, float]]:
    rows = side.sweep.heldout
    own = rows[rows["node"].isin(side.run.nodes) & ~rows["averaged"].astype(bool)].dropna()
    return {
        (str(row.domain), int(str(row.tokens))): {
            "loss": float(str(row.loss)),
            "bits_per_byte": float(str(row.bits_per_byte)),
        }
        for row in own.itertuples()
    }


def _by_seeds(grid: Grid, left: Side, right: Side, metric: HeldOutMetric, difference: float) -> Estimate | None:
    """`difference` with the noise between the seeds of the sweep of both; None where it has none to show."""
    column = next((one for one in grid.loss_columns if one.name == metric.name), Column(metric.name))
    cells = sampling.samples(grid, column, sampling.places(grid))
    alike = left.run.arm == right.run.arm
    family = cells if alike else sampling.paired(cells, left.sweep.plan.baseline, grid)
    repeated = {key: cell for key, cell in family.items() if len(cell.seeds) > 1}
    if not repeated:
        return None
    pool = pooled(repeated)
    noise = Noise(float(pool.variance) * (2 if alike else 1), 0.0, pool.degrees * sampling.efficiency([repeated]))
    return estimate({"": Sample((0,), np.array([difference]), None)}, noise=noise)[""]
