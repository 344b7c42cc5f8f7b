"""Power of the paired t-test, against simulation and the normal limit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from davinci.accounting.power import MOST_SEEDS, POWER, detectable, detectable_errors, power, seeds_needed


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_the_detectable_difference_is_found_four_times_in_five(seeds):
    noise, tables = 1.7, 100_000
    differences = np.random.default_rng(seeds).normal(detectable(noise, seeds), noise, (tables, seeds))
    statistic = differences.mean(axis=1) / (differences.std(axis=1, ddof=1) / np.sqrt(seeds))
    found = (statistic > student.ppf(0.975, seeds - 1)).mean()
    assert found == pytest.approx(POWER, abs=5 * np.sqrt(0.8 * 0.2 / tables))


def test_one_seed_detects_nothing():
    assert detectable(1.0, 1) is None


def test_many_seeds_approach_the_normal_distribution():
    assert detectable_errors(1e6) == pytest.approx(1.959964 + 0.841621, abs=1e-4)


def test_without_a_difference_power_is_half_the_level():
    assert power(0.0, 4) == pytest.approx(0.025)


@given(noise=st.floats(0.01, 10), difference=st.floats(0.05, 20))
def test_seeds_needed_are_the_fewest(noise, difference):
    seeds = seeds_needed(noise, difference)
    assert detectable(noise, seeds) <= difference
    assert seeds == 2 or detectable(noise, seeds - 1) > difference


def test_a_difference_far_below_the_noise_is_capped():
    assert seeds_needed(1.0, 1e-9) == MOST_SEEDS
