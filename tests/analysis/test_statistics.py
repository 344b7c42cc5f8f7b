"""Intervals: against numbers made by hand, and against simulations with a known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.statistics import (
    Estimate,
    Sample,
    average,
    contributions,
    estimate,
    holm,
    pooling_efficiency,
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


def simulated(
    random: np.random.Generator,
    replicates: int,
    *,
    trunk: float,
    branch: float,
    interaction: float,
    arm_item: float,
    seeds: int = 3,
    arms: int = 3,
    points: int = 3,
    items: int = 60,
) -> list[dict[tuple[int, int], Sample]]:
    """Three columns of two benchmarks each, every arm and token count truly at 0.5; noise as standard deviations.

    The runs of a seed share a trunk, the points of a branch share most of its luck, items are shared by everything.
    """
    columns = []
    for _ in range(3):
        column = {}
        shared = random.normal(0, trunk, (replicates, seeds, 1, 1))
        item = random.normal(0, 0.25, (replicates, 1, 2, items))
        common = random.normal(0, interaction * math.sqrt(0.5), (replicates, seeds, 2, items))
        for arm in range(arms):
            own = random.normal(0, branch, (replicates, seeds, 1, 1))
            liking = random.normal(0, arm_item, (replicates, 1, 2, items))
            answers = random.normal(0, interaction * math.sqrt(0.4), (replicates, seeds, 2, items))
            for point in range(points):
                late = random.normal(0, branch / 2, (replicates, seeds, 1, 1))
                jitter = random.normal(0, interaction * math.sqrt(0.1), (replicates, seeds, 2, items))
                scores = 0.5 + shared + item + common + own + liking + answers + late + jitter
                parts = [contributions(scores[:, :, index], 2) for index in range(2)]
                values = scores.mean(axis=(2, 3))
                column[arm, point] = Sample(tuple(range(seeds)), values, np.concatenate(parts, axis=-1))
        columns.append(column)
    return columns


REGIMES = {
    "items dominate": {"trunk": 0.005, "branch": 0.005, "interaction": 0.4, "arm_item": 0.0},
    "seeds dominate": {"trunk": 0.05, "branch": 0.03, "interaction": 0.1, "arm_item": 0.0},
    "mixed": {"trunk": 0.02, "branch": 0.02, "interaction": 0.3, "arm_item": 0.15},
}


@pytest.mark.parametrize("regime", REGIMES)
def test_coverage_and_false_positives(regime: str) -> None:
    """95% intervals hold the truth 93 to 97% of the time; of columns of equal arms at most 6% show a difference."""
    columns = simulated(np.random.default_rng(11), 700, **REGIMES[regime])
    efficiency = pooling_efficiency([list(column.values()) for column in columns])
    paired = [{key: cell.minus(column[0, key[1]]) for key, cell in column.items() if key[0]} for column in columns]
    paired_efficiency = pooling_efficiency([list(column.values()) for column in paired])
    covered, covered_differences, wrong = [], [], []
    for column, differences in zip(columns, paired, strict=True):
        cells = estimate(column, efficiency).values()
        covered += [np.abs(cell.mean - 0.5) <= cell.half_width for cell in cells]
        found = list(estimate(differences, paired_efficiency).values())
        covered_differences += [np.abs(cell.mean) <= cell.half_width for cell in found]
        lowest = np.stack([cell.p for cell in found]).min(axis=0)
        wrong.append(lowest * len(found) < 0.05)  # Holm rejects anything exactly when the smallest p passes Bonferroni
    assert 0.93 <= np.mean(covered) <= 0.97
    assert 0.93 <= np.mean(covered_differences) <= 0.97
    assert not any(np.isnan(one).any() for one in wrong)
    assert np.mean(wrong) <= 0.06
