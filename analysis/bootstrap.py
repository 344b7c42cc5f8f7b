"""Hierarchical bootstrap of one column: seeds resampled, items resampled, the same draws in every cell of it.

With S seeds of column scores x[s] and G item contributions c[s, g] (`analysis.statistics`; m[g] = mean over s of
c[s, g]), one draw takes S seeds and G items with replacement, N[s] and M[g] times, and gives::

    d  = sum over s of N[s] (x[s] - mean x) / S  +  k sum over g of M[g] m[g]         k^2 = max(0, 1 - w / (S R))
    V* = s2*/S + k^2 R*                          s2*, R* the draw's own s2 and R
    t* = d / sqrt(V*)                            95% interval = mean x  +-  q sqrt(V)     q: 95% quantile of |t*|

The interval is the symmetric bootstrap-t (Hall 1988, J. R. Stat. Soc. B 50:35); the percentile interval of eight seeds
is too short by a fifth. Seeds and items drawn independently carry their interaction twice where the truth has it once
(Owen 2007, Ann. Appl. Stat. 1:386); k leaves out the second, so that V is the variance of `analysis.statistics`. Each
cell goes by its own seed variance instead of one pooled over cells. Fewer than `FEWEST_SEEDS` cannot carry it: of three
seeds a ninth of all draws takes one thrice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from analysis.statistics import Array, Estimate, Noise, Sample, dof_of, estimate, pooled, quantile
from davinci.accounting.power import LEVEL

FEWEST_SEEDS = 8
DRAWS = 2000
_BLOCK = 250  # draws at once, which bounds memory at 250 numbers an item
_STREAM = 20070401


def intervals(column: Mapping[Any, Sample], efficiency: Array = 1.0, noise: Noise | None = None) -> dict[Any, Estimate]:
    """Every cell of one column: by `estimate`, and by the bootstrap where a cell has seeds enough."""
    return estimate(column, efficiency, noise) | bootstrap(column)


def bootstrap(column: Mapping[Any, Sample]) -> dict[Any, Estimate]:
    """The cells of `column` that have `FEWEST_SEEDS` seeds or more, each with the bootstrap's interval.

    The draws are the same on every call, so that a table is the same when made again.
    """
    alike: dict[tuple[int, int], list[Any]] = {}
    for key, cell in column.items():
        if len(cell.seeds) >= FEWEST_SEEDS:
            width = 0 if cell.items is None else cell.items.shape[-1]
            alike.setdefault((len(cell.seeds), width), []).append(key)
    found: dict[Any, Estimate] = {}
    for keys in alike.values():
        found |= _alike({key: column[key] for key in keys})
    return {key: found[key] for key in column if key in found}


def _alike(cells: Mapping[Any, Sample]) -> dict[Any, Estimate]:
    """Cells of equally many seeds and items."""
    plain = {key: estimate({key: cell})[key] for key, cell in cells.items()}
    samples = list(cells.values())
    seeds, shape = len(samples[0].seeds), samples[0].values.shape[:-1]
    values = np.stack([cell.values for cell in samples]).reshape(-1, seeds)
    deviations = values - values.mean(axis=1, keepdims=True)
    means = _item_means(samples, deviations)
    draws = _draws(deviations, means)
    critical = np.quantile(np.abs(draws), LEVEL, axis=0, method="inverted_cdf").reshape(len(samples), *shape)
    found = {}
    for index, (key, one) in enumerate(plain.items()):
        found[key] = _with_critical(one, critical[index], _known_share(cells[key], one))
    return found


def _with_critical(plain: Estimate, critical: Array, known: Array) -> Estimate:
    """`plain` with an interval of `critical` standard errors, as the t whose 97.5% quantile that is.

    p-values beyond what so few draws can show, which Holm asks for, are then that t's. `known` is the share of the
    variance that the interaction accounts for, which many items know well: only the rest needs the bootstrap's tails.
    """
    normal = quantile((1 + LEVEL) / 2, np.inf)
    critical = np.minimum(critical, quantile((1 + LEVEL) / 2, 1.0))
    critical = known * normal + (1 - known) * critical
    dof = dof_of(critical)
    error = np.where(np.isfinite(dof), plain.error, plain.error * critical / normal)
    # Where the interaction is all of it, t is right as it is.
    error, dof = np.where(known >= 1, plain.error, error), np.where(known >= 1, plain.dof, dof)
    return replace(plain, error=error, dof=dof, bootstrapped=True)


def _known_share(cell: Sample, plain: Estimate) -> Array:
    """The interaction's share of the variance, 0 to 1; 1 where it stands in for seeds that agree by luck."""
    if cell.items is None:
        return np.zeros_like(plain.error)
    interaction = pooled({0: cell}).interaction / len(cell.seeds)
    share = np.divide(interaction, plain.error**2, out=np.zeros_like(plain.error), where=plain.error > 0)
    return np.where(share > 1 - 1e-9, 1.0, share)


def _item_means(samples: Sequence[Sample], deviations: Array) -> Array | None:
    """k times the mean contribution of each item over seeds: float64[cells, G]; None without items."""
    if samples[0].items is None:
        return None
    seeds = deviations.shape[1]
    items = np.stack([cell.items for cell in samples]).reshape(len(deviations), seeds, -1)
    mean = items.mean(axis=1)
    interaction = ((items - mean[:, None]) ** 2).sum(axis=(1, 2)) / (seeds - 1)
    known = (mean**2).sum(axis=1)
    share = np.divide(interaction / seeds, known, out=np.ones_like(known), where=known > 0)
    return mean * np.sqrt(np.maximum(0.0, 1.0 - share))[:, None]


def _draws(deviations: Array, means: Array | None) -> Array:
    """t* of every draw and cell: float64[DRAWS, cells]."""
    random = np.random.default_rng(_STREAM)
    seeds = deviations.shape[1]
    blocks = []
    for _ in range(DRAWS // _BLOCK):
        taken = _counts(random, seeds)
        moved = taken @ deviations.T / seeds
        variance = (taken @ (deviations**2).T / seeds - moved**2) / (seeds - 1)
        if means is not None:
            asked = _counts(random, means.shape[1])
            by_item = asked @ means.T
            variance += asked @ (means**2).T - by_item**2 / means.shape[1]
            moved += by_item
        still = variance <= 1e-12 * np.mean(deviations**2, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            blocks.append(np.where(still, np.where(np.abs(moved) > 0, np.inf, 0.0), moved / np.sqrt(variance)))
    return np.concatenate(blocks)


def _counts(random: np.random.Generator, size: int) -> Array:
    """How often each of `size` is taken in each draw of a block: float64[_BLOCK, size], rows summing to `size`."""
    picked = random.integers(0, size, (_BLOCK, size)) + size * np.arange(_BLOCK)[:, None]
    return np.bincount(picked.ravel(), minlength=_BLOCK * size).reshape(_BLOCK, size).astype(float)
