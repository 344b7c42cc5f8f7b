"""Intervals: against numbers made by hand, and against simulations with a known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.pooling import pooling_efficiency
from analysis.statistics import (
    Estimate,
    Sample,
    average,
    contributions,
    estimate,
    holm,
    quantile,
)


def test_seeds_alone_give_the_textbook_interval() -> None:
    cell = Sample((0, 1, 2), np.array([0.5, 0.6, 0.7]), None)
    found = estimate({"a": cell})["a"]
    assert found.covers == ("seeds",)
    assert float(found.mean) == pytest.approx(0.6)
    # t(0.975, 2) = 4.3027, s = 0.1
    assert float(found.half_width) == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-4)


def test_variance_is_pooled_over_cells() -> None:
    column = {"a": Sample((0, 1), np.array([0.0, 0.2]), None), "b": Sample((0, 1, 2), np.array([0.4, 0.5, 0.6]), None)}
    found = estimate(column)
    pooled = (0.02 + 0.02) / 3
    assert float(found["a"].error) == pytest.approx(math.sqrt(pooled / 2))
    assert float(found["b"].error) == pytest.approx(math.sqrt(pooled / 3))
    assert float(found["b"].dof) == pytest.approx(3)
    halved = estimate(column, efficiency=0.5)
    assert float(halved["b"].dof) == pytest.approx(1.5)


def test_crossed_variance_equals_the_anova_formula() -> None:
    random = np.random.default_rng(3)
    seeds, items = 4, 30
    effects = random.normal(0, 0.3, (seeds, 1)) + random.normal(0, 0.4, items)
    scores = 0.5 + effects + random.normal(0, 0.1, (seeds, items))
    cell = Sample((0, 1, 2, 3), scores.mean(axis=1), contributions(scores, 1))
    found = estimate({"a": cell})["a"]
    by_seed, by_item, grand = scores.mean(1), scores.mean(0), scores.mean()
    ms_seeds = items * ((by_seed - grand) ** 2).sum() / (seeds - 1)
    ms_items = seeds * ((by_item - grand) ** 2).sum() / (items - 1)
    rest = scores - by_seed[:, None] - by_item + grand
    ms_rest = (rest**2).sum() / (seeds - 1) / (items - 1)
    assert float(found.error) ** 2 == pytest.approx((ms_seeds + ms_items - ms_rest) / (seeds * items))


def test_one_seed_speaks_of_items_only() -> None:
    scores = np.array([[0.0, 1.0, 1.0, 0.0]])
    found = estimate({"a": Sample((0,), scores.mean(axis=1), contributions(scores, 1))})["a"]
    assert found.covers == ("items",)
    assert float(found.error) == pytest.approx(math.sqrt(0.25 * 4 / 3 / 4))
    assert float(found.dof) == pytest.approx(3)


def test_nothing_known_is_said_so() -> None:
    found = estimate({"a": Sample((0,), np.array([0.4]), None)})["a"]
    assert found.covers == ()
    assert math.isnan(found.half_width) and math.isnan(found.p)


def test_items_shared_by_two_benchmarks_do_not_count_twice() -> None:
    random = np.random.default_rng(0)
    scores = random.integers(0, 2, (1, 50)).astype(float)
    one = contributions(scores, 2)
    apart = Sample((0,), scores.mean(axis=1), np.concatenate([one, one], axis=1))
    together = Sample((0,), scores.mean(axis=1), one + one)
    ratio = float(estimate({0: together})[0].error) / float(estimate({0: apart})[0].error)
    assert ratio == pytest.approx(math.sqrt(2))


def test_differences_pair_seeds_and_items() -> None:
    scores = np.array([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    left = Sample((0, 1), scores.mean(axis=1) + 0.1, contributions(scores, 1))
    right = Sample((1, 0), scores[::-1].mean(axis=1), contributions(scores[::-1], 1))
    difference = left.minus(right)
    assert difference is not None
    assert difference.values == pytest.approx([0.1, 0.1])
    assert np.allclose(difference.items, 0)
    assert left.minus(Sample((7,), np.array([0.1]), None)) is None
    mean = average([left, right])
    assert mean is not None and mean.values == pytest.approx(scores.mean(axis=1) + 0.05)


def test_no_variance_is_certain_and_equal_is_noise() -> None:
    column = {"zero": Sample((0, 1), np.zeros(2), None), "one": Sample((0, 1), np.ones(2), None)}
    found = estimate(column)
    assert float(found["zero"].p) == pytest.approx(1.0)
    assert float(found["one"].p) == 0.0


def test_detectable_difference() -> None:
    found = Estimate(np.float64(0.0), np.float64(0.01), np.float64(10.0), 3, ("seeds",))
    # Noncentral t; the usual approximation t(0.975) + t(0.8) says 3.1072.
    assert float(found.detectable) == pytest.approx(0.01 * 3.109971, rel=1e-5)
    assert float(quantile(0.975, 10.0)) == pytest.approx(2.228139, rel=1e-6)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    adjusted = holm([0.01, math.nan, 0.02])
    assert adjusted[0] == pytest.approx(0.02) and math.isnan(adjusted[1]) and adjusted[2] == pytest.approx(0.02)


def test_pooling_efficiency_knows_repeats_from_replicates() -> None:
    random = np.random.default_rng(1)
    independent = [[Sample((0, 1, 2), random.normal(size=(400, 3)), None) for _ in range(6)] for _ in range(3)]
    assert float(np.mean(pooling_efficiency(independent))) > 0.8
    repeated = [[Sample((0, 1, 2), values, None)] * 6 for values in random.normal(size=(3, 400, 3))]
    assert float(np.mean(pooling_efficiency(repeated))) == pytest.approx(1 / 6, abs=0.02)
    assert float(pooling_efficiency([[Sample((0,), np.zeros(1), None)]])) == 1.0
