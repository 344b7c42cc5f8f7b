"""Intervals over few seeds and finitely many items.

The model of one cell (an arm at a token count, in a column: a set of benchmarks), for seed s and item g::

    score[s, g] = mean + seed[s] + item[g] + interaction[s, g]

Seeds and items are both random (a new seed, a new sample of items) and crossed: every seed answers the same items. A
cell's value for seed s is ``x[s]``, the unweighted mean over the column's benchmarks; ``c[s, g]`` is what item g adds
to it (`contributions`, centred in each benchmark). With S seeds::

    s2  = sum over cells, s of (x[s] - mean_s x)^2        / sum over cells of (S - 1)      pooled seed variance
    w   = sum over cells, s, g of (c[s,g] - mean_s c)^2   / sum over cells of (S - 1)      its part due to items
    R   = sum over g of (mean_s c[s,g])^2                                                  items, and w/S
    V   = s2/S + (R - w/S)        degrees of freedom of the two parts: dof_seed and items - 1
    V   = w/S                     with items - 1 degrees of freedom, where the line above gives less
    95% interval = mean_s x  +-  q sqrt(V)

V is the variance of the grand mean of a two-way crossed random-effects layout, (MS_seeds + MS_items - MS_interaction) /
(seeds x items), Cornfield & Tukey 1956 (Ann. Math. Stat. 27:907): the interaction is taken off once because s2 holds it
already. What the interaction alone contributes, w/S, is known precisely from many items: V in truth cannot be less, and
w/S stands in where few seeds agree by luck. q is the geometric mean of two critical values for a sum of two variances:
t(0.975) of V^2 / (sum of part^2 / its dof), Welch 1947 (Biometrika 34:28) and Satterthwaite 1946 (Biometrics Bull.
2:110), and the mean of the parts' own t(0.975), weighted by the parts (Cochran & Cox 1950, Experimental Designs, 4.14).
The first is short with few seeds, since a seed variance that is low by luck counts for less in its own correction; the
second is long (Cochran 1964, Biometrics 20:191). p-values are of the t that has q. Items are clustered where benchmarks
share them, and differences are paired: Miller 2024, arXiv 2411.00640. A
difference between two arms is the same computation on ``x_arm - x_baseline`` and ``c_arm - c_baseline`` of the seeds
both have.

dof_seed is not simply the sum of S - 1: cells of a column share runs (one branch at three token counts) and trunks, so
their seed deviations are correlated. `analysis.pooling` says what fraction of that sum is real.

Limits. One seed variance is assumed for all cells of a column; seeds are assumed normal, which three seeds cannot show.
With one seed everywhere the interval speaks of items only; without item scores, of seeds only. Intervals are symmetric,
and near 0% or 100% may reach past it. Intervals are for one comparison at a time; `holm` is what corrects a family.
Benchmarks that share items under unrelated names are treated as independent. In simulation the 95% interval covers 93
to 97%, up to 98.5% in a lone column of two seeds (docs/statistics.md). From eight seeds on `analysis.bootstrap`
takes over; with one seed everywhere `Noise` may be that of other sweeps.

All arrays may carry leading batch dimensions, so that a simulation runs thousands of tables at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtridf, stdtrit

from davinci.accounting.power import LEVEL, detectable_errors_of

Array = Any  # float64 ndarray; shapes are in the docstrings

_TAIL = (1 + LEVEL) / 2

# Numbers that are computed on at once, which bounds memory.
_AT_ONCE = 2**21


@dataclass(frozen=True)
class Sample:
    """The scores of one cell.

    Args:
        seeds: S distinct seeds.
        values: float64[..., S], the column's score (0 to 1) by seed.
        items: float64[..., S, G], `contributions` of G items, or None where item scores are not at hand.
    """

    seeds: tuple[int, ...]
    values: Array
    items: Array | None

    def of(self, seeds: Sequence[int]) -> Sample:
        """The same cell with only `seeds`, in their order."""
        if tuple(seeds) == self.seeds:
            return self
        rows = [self.seeds.index(seed) for seed in seeds]
        items = None if self.items is None else self.items[..., rows, :]
        return Sample(tuple(seeds), self.values[..., rows], items)

    def minus(self, other: Sample) -> Sample | None:
        """The paired difference over the seeds both have; None where they share no seed."""
        shared = [seed for seed in self.seeds if seed in other.seeds]
        if not shared:
            return None
        left, right = self.of(shared), other.of(shared)
        items = None if left.items is None or right.items is None else left.items - right.items
        return Sample(tuple(shared), left.values - right.values, items)


def average(samples: Sequence[Sample]) -> Sample | None:
    """The mean of several cells, seed by seed, over the seeds all of them have; None where there is no such seed."""
    shared = [seed for seed in samples[0].seeds if all(seed in other.seeds for other in samples)] if samples else []
    if not shared:
        return None
    parts = [sample.of(shared) for sample in samples]
    known = [part.items for part in parts if part.items is not None]
    items = np.mean(known, axis=0) if len(known) == len(parts) else None
    return Sample(tuple(shared), np.mean([part.values for part in parts], axis=0), items)


def contributions(scores: Array, benchmarks: int) -> Array:
    """What each item adds to a column's mean, around its benchmark's mean.

    Args:
        scores: float64[..., S, n], scores of one benchmark's n items by seed.
        benchmarks: number of benchmarks in the column, all weighing the same.

    Returns:
        float64[..., S, n]; the sum of squares over items estimates without bias the variance of the benchmark's part of
        the column's mean, hence sqrt(n / (n - 1)).
    """
    count = scores.shape[-1]
    correction = np.sqrt(count / (count - 1)) if count > 1 else 0.0
    return (scores - scores.mean(axis=-1, keepdims=True)) * correction / (benchmarks * count)


@dataclass(frozen=True)
class Noise:
    """Seed noise of one column that is known from elsewhere: the module's s2 and w, with s2's degrees of freedom."""

    variance: float
    interaction: float
    dof: float


@dataclass(frozen=True)
class Estimate:
    """A mean with its uncertainty. Floats (or arrays of the batch's shape).

    Attributes:
        error: standard error, in units of which a t of `dof` degrees of freedom is read.
        seeds: how many seeds it rests on.
        covers: which sampling the interval speaks of: any of "seeds", "items".
        borrowed: whether the seed noise is that of other sweeps.
        bootstrapped: whether the interval is the bootstrap's (`analysis.bootstrap`).
    """

    mean: Array
    error: Array
    dof: Array
    seeds: int
    covers: tuple[str, ...]
    borrowed: bool = False
    bootstrapped: bool = False

    @cached_property
    def half_width(self) -> Array:
        """Half of the 95% interval; NaN where nothing is known about the noise."""
        return quantile(_TAIL, self.dof) * self.error if self.covers else self.error * np.nan

    @cached_property
    def p(self) -> Array:
        """Two-sided p-value of "the mean is 0"; NaN where nothing is known about the noise."""
        return np.minimum(1.0, 2 * self._tail(np.abs(self.mean)))

    def p_equivalent(self, margin: float) -> Array:
        """p-value of "the mean is `margin` or further from 0": the larger of two one-sided tests (Schuirmann 1987,
        J. Pharmacokinet. Biopharm. 15:657). NaN where nothing is known about the noise."""
        return self._tail(margin - np.abs(self.mean))

    def _tail(self, distance: Array) -> Array:
        """Chance that noise alone exceeds `distance`; 1/2 at 0, also where there is no noise."""
        if not self.covers:
            return self.error * np.nan
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(distance == 0, 0.0, distance / self.error)
        return np.where(np.isinf(ratio), ratio < 0, stdtr(self.dof, -np.clip(ratio, -1e300, 1e300)))

    @property
    def detectable(self) -> Array:
        """The smallest true mean told from 0 with 80% power at the 5% level; the formula is `accounting.power`'s."""
        return detectable_errors_of(self.dof) * self.error if self.covers else np.nan


def together(estimates: Sequence[Estimate]) -> Estimate:
    """Several estimates as one of arrays float64[n], to compute p-values at once; NaN where one covers nothing."""
    return Estimate(
        mean=np.array([float(one.mean) for one in estimates]),
        error=np.array([float(one.error) if one.covers else np.nan for one in estimates]),
        dof=np.array([float(one.dof) if one.covers else np.nan for one in estimates]),
        seeds=min((one.seeds for one in estimates), default=0),
        covers=("seeds",),
    )


def quantile(probability: float, dof: Array) -> Array:
    """Quantile of Student's t."""
    return stdtrit(dof, probability)


def estimate(column: Mapping[Any, Sample], efficiency: Array = 1.0, noise: Noise | None = None) -> dict[Any, Estimate]:
    """Mean and standard error of every cell of one column, by the module's formula.

    Args:
        column: the cells that are pooled; two entries must not be the same runs at the same tokens.
        efficiency: see `analysis.pooling.pooling_efficiency`.
        noise: that of other sweeps, taken where no cell has two seeds.
    """
    pool = pooled(column)
    borrowed = not pool.degrees and noise is not None
    seed_variance, interaction, degrees = pool.variance, pool.interaction, pool.degrees * efficiency
    if borrowed and noise is not None:
        seed_variance, interaction, degrees = noise.variance, noise.interaction, noise.dof
    found: dict[Any, Estimate] = {}
    for keys, count, values, items in _stacks(column):
        covers: tuple[str, ...] = ("seeds",) if pool.degrees or borrowed else ()
        by_seed: Array = seed_variance / count
        by_item: Array = 0.0
        seed_dof: Array = np.where(pool.degrees or borrowed, degrees, 1.0)
        item_dof = 1
        if items is not None:
            covers = (*covers, "items")
            item_dof = max(items.shape[-1] - 1, 1)
            by_item = (items.mean(axis=-2) ** 2).sum(axis=-1) - interaction / count
            lucky = by_seed + by_item < interaction / count
            by_seed = np.where(lucky, interaction / count, by_seed)
            seed_dof = np.where(lucky, item_dof, seed_dof)
            by_item = np.where(lucky, 0.0, by_item)
        variance = by_seed + by_item
        dof = np.where(variance > 0, sum_dof(by_seed, seed_dof, by_item, item_dof), np.maximum(degrees, 1.0))
        mean = values.mean(axis=-1)
        error, dof = np.broadcast_to(np.sqrt(variance), mean.shape), np.broadcast_to(dof, mean.shape)
        whole = Estimate(mean, error, dof, count, covers, borrowed)
        for index, key in enumerate(keys):
            one = Estimate(mean[index], error[index], dof[index], count, covers, borrowed)
            vars(one)["half_width"] = whole.half_width[index]  # all at once: a table of hundreds of runs has thousands
            found[key] = one
    return {key: found[key] for key in column}


def sum_dof(first: Array, first_dof: Array, second: Array, second_dof: Array) -> Array:
    """Degrees of freedom of a sum of two estimated variances: those of the t that has the module's q."""
    first, second = np.maximum(first, 0.0), np.maximum(second, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        welch = (first + second) ** 2 / (first**2 / first_dof + second**2 / second_dof)
        cochran = first * quantile(_TAIL, first_dof) + second * quantile(_TAIL, second_dof)
        critical = np.sqrt(quantile(_TAIL, welch) * cochran / (first + second))
    return dof_of(critical)


def dof_of(critical: Array) -> Array:
    """Degrees of freedom of the t whose 97.5% quantile is `critical`; infinitely many where a normal's is no less."""
    normal = quantile(_TAIL, np.inf) * 1.0001
    return np.where(critical > normal, stdtridf(_TAIL, np.maximum(critical, normal)), np.inf)


def _stacks(column: Mapping[Any, Sample]) -> Iterator[tuple[list[Any], int, Array, Array | None]]:
    """Cells of equal seeds and items at once: keys, how many seeds, float64[n, ..., S], float64[n, ..., S, G]."""
    alike: dict[tuple[Any, ...], list[Any]] = {}
    for key, cell in column.items():
        alike.setdefault((cell.values.shape, None if cell.items is None else cell.items.shape), []).append(key)
    for (shape, width), keys in alike.items():
        most = max(1, _AT_ONCE // max(1, math.prod(width or shape)))
        for start in range(0, len(keys), most):
            some = keys[start : start + most]
            items = None if width is None else np.stack([column[key].items for key in some])
            yield some, shape[-1], np.stack([column[key].values for key in some]), items


@dataclass(frozen=True)
class Pool:
    """What the cells of a column say together of its noise: s2, w and the sum of S - 1; variances 0 without a pair."""

    variance: Array
    interaction: Array
    degrees: int


def pooled(column: Mapping[Any, Sample]) -> Pool:
    """The seed variance of a column and its part due to items, pooled over its cells."""
    seed_squares: Array = np.float64(0.0)
    item_squares: Array = np.float64(0.0)
    degrees, item_degrees = 0, 0
    for keys, count, values, items in _stacks(column):
        degrees += len(keys) * (count - 1)
        seed_squares = seed_squares + _squares(values[..., None]).sum(axis=0)
        if items is not None:
            item_degrees += len(keys) * (count - 1)
            item_squares = item_squares + _squares(items).sum(axis=0)
    return Pool(seed_squares / max(degrees, 1), item_squares / max(item_degrees, 1), degrees)


def _squares(rows: Array) -> Array:
    """Sum of squares around the mean over seeds: float64[..., S, G] -> float64[...]."""
    return ((rows - rows.mean(axis=-2, keepdims=True)) ** 2).sum(axis=(-2, -1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979, Scand. J. Statist. 6:65); NaN stays NaN and is not counted."""
    known = sorted((p, index) for index, p in enumerate(p_values) if not np.isnan(p))
    adjusted = [float("nan")] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[index] = highest
    return adjusted
