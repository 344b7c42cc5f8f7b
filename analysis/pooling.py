"""How many degrees of freedom a variance pooled over correlated cells really has.

The cells of a column share runs (one branch at three token counts) and trunks, so their seed deviations are correlated.
A variance pooled over K of them has (S - 1) (tr C)^2 / tr(C^2) degrees of freedom, C their covariance over S seeds (Box
1954, Ann. Math. Stat. 25:290). Two or three seeds cannot show C: an estimate of tr(C^2) that is low by luck gives
degrees that do not exist, and where the luck is of the part that all cells share, s^2 is too small with it. So C is
given the form that the design makes likely, and what is unknown of it is averaged over instead of estimated.

Of the seed variance of a cell a share `common` is that of all cells (the trunk's; in differences, the baseline's), of
the rest a share `own` is that of all points of one arm, and what remains is each point's::

    C / s^2  =  common J  +  (1 - common) own B  +  (1 - common)(1 - own) I       J: ones; B: ones where arms are equal

Both shares have Jeffreys' prior of a proportion, Beta(1/2, 1/2), which is even-handed between cells that repeat one
another and cells that have nothing in common. Their posterior is from the deviations of all columns, the scale of
each integrated out under 1/s^2 (Box & Tiao 1973, Bayesian Inference in Statistical Analysis, chapter 5)::

    p(shares | x)  ~  product over columns of  |C|^(-(S-1)/2) (sum over seeds of d' C^-1 d)^(-K(S-1)/2)

The critical value is that of the mixture of t distributions with Box's degrees of freedom over the posterior, and what
is returned are the degrees of the one t that has it. docs/statistics.md has what this covers in simulation.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, stdtr

from analysis.statistics import Array, Sample, dof_of, quantile
from davinci.accounting.power import LEVEL

# Values of each share: those at the middle of as many equal parts of its prior.
_SHARES = betaincinv(0.5, 0.5, (np.arange(10) + 0.5) / 10)
_TAIL = (1 + LEVEL) / 2


@dataclass(frozen=True)
class _Form:
    """The correlation of cells for one pair of shares; `sizes` int[arms], how many cells each arm has.

    `blocks` is of C with `common` left out: what one cell, and each arm's sum, weigh in its inverse.
    """

    common: float
    own: float
    sizes: Array

    @property
    def blocks(self) -> tuple[float, Array]:
        alone = max((1 - self.common) * (1 - self.own), 1e-12)
        return alone, alone + (1 - self.common) * self.own * self.sizes

    @property
    def independent(self) -> float:
        """(tr C)^2 / tr(C^2), in cells."""
        cells, alike = self.sizes.sum(), (self.sizes**2).sum()
        within = self.common + (1 - self.common) * self.own
        return float(cells**2 / (cells + (alike - cells) * within**2 + (cells**2 - alike) * self.common**2))

    @property
    def log_determinant(self) -> float:
        alone, arms = self.blocks
        inner = float(((self.sizes - 1) * math.log(alone) + np.log(arms)).sum())
        return inner + math.log1p(self.common * float((self.sizes / arms).sum()))

    def quadratic(self, squares: Array, sums: Array) -> Array:
        """Sum over seeds of d' C^-1 d: float64[...], of the cells' squares float64[..., arms], summed over cells and
        seeds, and the arms' sums by seed, float64[..., arms, S]. By Sherman and Morrison's formula, twice."""
        alone, arms = self.blocks
        inner = squares.sum(axis=-1) / alone
        inner = inner - ((1 / alone - 1 / arms) / self.sizes * (sums**2).sum(axis=-1)).sum(axis=-1)
        whole = ((sums / arms[:, None]).sum(axis=-2) ** 2).sum(axis=-1)
        return inner - self.common * whole / (1 + self.common * (self.sizes / arms).sum())


def pooling_efficiency(columns: Sequence[Sequence[Sample]], arms: Sequence[Hashable] | None = None) -> Array:
    """What fraction of the pooled seed degrees of freedom is real, given that cells of a column are correlated.

    Args:
        columns: the cells of each column, in the same order. The correlation between cells is assumed alike in all
            columns, their variances are not. Cells of one seed do not count; of the others' seeds those that all have.
        arms: which arm each cell of a column is of; None where no two are of one arm.

    Returns:
        float64[...], between 1/K (the cells repeat one another) and 1 (independent), K cells a column.
    """
    kept = [
        index for index in range(len(columns[0]) if columns else 0) if all(len(c[index].seeds) > 1 for c in columns)
    ]
    if len(kept) <= 1:
        return np.float64(1.0)
    labels = list(range(len(columns[0]))) if arms is None else list(arms)
    labels = [labels[index] for index in kept]
    cells = [[column[index] for index in kept] for column in columns]
    found = list(dict.fromkeys(labels))
    member = np.array([[label == one for label in labels] for one in found], float)
    sizes = member.sum(axis=1)
    forms = [
        _Form(common, own, sizes)
        for common in (_SHARES if len(found) > 1 else (0.0,))
        for own in (_SHARES if sizes.max() > 1 else (0.0,))
    ]
    shared = [seed for seed in cells[0][0].seeds if all(seed in cell.seeds for column in cells for cell in column)]
    log_weights = np.stack(_log_likelihoods(cells, shared, member, forms)) if len(shared) > 1 else np.zeros(len(forms))
    weights = np.exp(log_weights - log_weights.max(axis=0))
    weights /= weights.sum(axis=0)
    degrees = np.mean([sum(len(cell.seeds) - 1 for cell in column) for column in cells])
    real = degrees / len(kept) * np.array([form.independent for form in forms])
    return np.clip(_mixed(weights, real) / degrees, 1 / len(kept), 1.0)


def _log_likelihoods(
    columns: Sequence[Sequence[Sample]], seeds: Sequence[int], member: Array, forms: Sequence[_Form]
) -> list[Array]:
    """Of each form float64[...], over all columns; a column without noise says nothing."""
    values = np.stack([np.stack([cell.of(seeds).values for cell in column], axis=-2) for column in columns])
    deviations = values - values.mean(axis=-1, keepdims=True)
    squares, sums = (deviations**2).sum(axis=-1) @ member.T, member @ deviations
    noise = squares.sum(axis=-1)
    degrees = len(seeds) - 1
    totals: list[Array] = []
    for form in forms:
        share = np.divide(form.quadratic(squares, sums), noise, out=np.ones_like(noise), where=noise > 0)
        fit = degrees * values.shape[-2] * np.log(np.maximum(share, 1e-300)) + degrees * form.log_determinant
        totals.append(-np.where(noise > 0, fit, 0.0).sum(axis=0) / 2)
    return totals


def _mixed(weights: Array, degrees: Array) -> Array:
    """Degrees of freedom of the t whose critical value is that of a mixture of t: float64[forms, ...] weights, float64
    [forms] degrees."""
    degrees = degrees.reshape(-1, *[1] * (weights.ndim - 1))
    low = np.broadcast_to(quantile(_TAIL, degrees.max()), weights.shape[1:])
    high = np.broadcast_to(quantile(_TAIL, degrees.min()), weights.shape[1:])
    for _ in range(40):
        middle = (low + high) / 2
        short = (weights * stdtr(degrees, middle)).sum(axis=0) < _TAIL
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return dof_of((low + high) / 2)
