"""Nominal 95% intervals hold the truth 93 to 97% of the time, and equal arms are called different in at most 6%."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from simulation import FORMS, REGIMES, bare, called, covered, simulated, tables

from analysis.bootstrap import FEWEST_SEEDS, bootstrap
from analysis.statistics import Estimate, Noise, Sample, estimate, holm, pooled

REPEATS = Path("shared/public_runs/modded_nanogpt_repeats.csv")


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize(("seeds", "replicates"), [(2, 800), (3, 800), (5, 300), (FEWEST_SEEDS, 80)])
def test_simulated_truth(seeds: int, replicates: int, regime: str) -> None:
    columns = simulated(np.random.default_rng(seeds), replicates, **REGIMES[regime], seeds=seeds)
    scores, differences = tables(columns)
    assert 0.93 <= covered(scores, 0.5) <= 0.97
    assert 0.93 <= covered(differences, 0.0) <= 0.975
    assert replicates < 300 or called(differences) <= 0.06


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("seeds", "arms", "points", "columns"), [(2, 2, 1, 10), (2, 3, 3, 3), (3, 3, 3, 3), (3, 6, 1, 1)]
)
def test_any_correlation_of_the_cells(form: str, seeds: int, arms: int, points: int, columns: int) -> None:
    """Cells that share nothing, a trunk, a branch: with several columns two seeds suffice."""
    shape = {"seeds": seeds, "arms": arms, "points": points, "columns": columns}
    scores, differences = tables(bare(np.random.default_rng(4), 1000, **FORMS[form], **shape))
    assert 0.925 <= covered(scores, 0.0) <= 0.975
    assert 0.925 <= covered(differences, 0.0) <= 0.975
    assert called(differences) <= 0.07  # 1,000 tables: the standard error of 5% is 0.7


def test_one_column_of_two_seeds_is_wide_rather_than_short() -> None:
    for form in FORMS.values():
        shape = {"seeds": 2, "arms": 2, "points": 3, "columns": 1}
        scores, differences = tables(bare(np.random.default_rng(5), 1000, **form, **shape))
        assert 0.90 <= covered(scores, 0.0) <= 0.99 and 0.92 <= covered(differences, 0.0) <= 0.985
        assert called(differences) <= 0.05


def groups() -> list[np.ndarray]:
    beside = [folder / REPEATS for folder in Path(__file__).resolve().parents]
    path = next((file for file in beside if file.is_file()), None)
    if path is None:
        pytest.skip(f"no {REPEATS} beside this checkout")
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            found[row["record"], row["steps"]].append(float(row["final_val_loss"]))
    return [np.array(values) for values in found.values() if len(values) >= 8]


@pytest.mark.parametrize(("seeds", "arms"), [(2, 2), (2, 6), (3, 2), (3, 3), (3, 6), (5, 3), (5, 6), (8, 2), (10, 3)])
def test_resampled_public_runs(seeds: int, arms: int) -> None:
    """A table of `arms` recipes: seeds drawn from all repeats of each, whose mean is the truth."""
    values = groups()
    random = np.random.default_rng(1)
    scores, gaps = [], []
    tables_each = 200 if seeds < FEWEST_SEEDS else 30
    for _ in range(40):
        picked = [values[index] for index in random.choice(len(values), arms, replace=False)]
        column = {
            (arm, 0): Sample(tuple(range(seeds)), own[random.integers(0, len(own), (tables_each, seeds))], None)
            for arm, own in enumerate(picked)
        }
        (found,), (differences,) = tables([column])
        scores += [np.abs(one.mean - picked[arm].mean()) <= one.half_width for (arm, _), one in found.items()]
        gaps += [
            np.abs(one.mean - picked[arm].mean() + picked[0].mean()) <= one.half_width
            for (arm, _), one in differences.items()
        ]
    assert 0.93 <= np.mean(scores) <= 0.975
    assert 0.93 <= np.mean(gaps) <= 0.97


@pytest.mark.parametrize(("seeds", "arms"), [(2, 3), (3, 2), (3, 4), (5, 3), (8, 2)])
def test_public_repeats_of_one_recipe_are_not_called_different(seeds: int, arms: int) -> None:
    """A/A: arms are seeds of one recipe, drawn apart."""
    random = np.random.default_rng(2)
    called = []
    tables_each = 200 if seeds < FEWEST_SEEDS else 40
    for own in groups():
        column = {
            (arm, 0): Sample(tuple(range(seeds)), own[random.integers(0, len(own), (tables_each, seeds))], None)
            for arm in range(arms)
        }
        _, (differences,) = tables([column])
        adjusted = np.array([holm(list(row)) for row in np.stack([one.p for one in differences.values()], axis=-1)])
        called.append((adjusted < 0.05).any(axis=-1))
    assert np.mean(called) <= 0.06


def test_the_bootstrap_is_right_where_t_is_not() -> None:
    """Skewed seeds: t is short, the bootstrap less so. Repeated on the same numbers it gives the same interval."""
    random = np.random.default_rng(3)
    cell = Sample(tuple(range(10)), random.exponential(size=(1000, 10)), None)
    found, plain = bootstrap({0: cell})[0], estimate({0: cell})[0]
    short, better = (np.mean(np.abs(one.mean - 1) <= one.half_width) for one in (plain, found))
    assert short < 0.91 < better
    again = bootstrap({0: cell})[0]
    assert np.array_equal(found.half_width, again.half_width) and found.bootstrapped
    assert bootstrap({0: cell.of(range(FEWEST_SEEDS - 1))}) == {}


def test_noise_of_other_sweeps_stands_in_for_a_second_seed() -> None:
    """One seed: with the noise of equal runs elsewhere the interval covers; without, it speaks of items alone."""
    regime = {"trunk": 0.0, "branch": 0.03, "interaction": 0.3, "arm_item": 0.0}
    elsewhere = simulated(np.random.default_rng(5), 1, **regime, seeds=60, arms=1, points=1)[0]
    pool = pooled(elsewhere)
    noise = Noise(float(pool.variance[0]), float(pool.interaction[0]), pool.degrees)
    here = simulated(np.random.default_rng(6), 4000, **regime, seeds=1, arms=1, points=1)[0]
    borrowed, alone = estimate(here, noise=noise)[0, 0], estimate(here)[0, 0]
    assert borrowed.borrowed and borrowed.covers == ("seeds", "items") and alone.covers == ("items",)
    assert 0.93 <= np.mean(np.abs(borrowed.mean - 0.5) <= borrowed.half_width) <= 0.97
    assert np.mean(np.abs(alone.mean - 0.5) <= alone.half_width) < 0.9
    two = simulated(np.random.default_rng(6), 5, **regime, seeds=2, arms=1, points=1)[0]
    assert not estimate(two, noise=noise)[0, 0].borrowed, "seeds of one's own come first"


@pytest.mark.parametrize(("true", "least", "most"), [(0.0, 0.5, 1.0), (0.02, 0.0, 0.06), (0.05, 0.0, 0.01)])
def test_equivalence_is_seldom_claimed_wrongly(true: float, least: float, most: float) -> None:
    """Two one-sided tests at a margin of 2 points: a difference of the margin passes in at most 5%."""
    random = np.random.default_rng(7)
    cell = Sample(tuple(range(5)), true + random.normal(0, 0.012, (4000, 5)), None)
    claimed = np.mean(estimate({0: cell})[0].p_equivalent(0.02) < 0.05)
    assert least <= claimed <= most


def test_equivalence_by_hand() -> None:
    one = Estimate(np.float64(0.004), np.float64(0.005), np.float64(4.0), 5, ("seeds",))
    assert float(one.p_equivalent(0.02)) == pytest.approx(0.0164, abs=2e-4)  # T(4) > (0.02 - 0.004) / 0.005
    still = Estimate(np.float64(0.01), np.float64(0.0), np.float64(4.0), 5, ("seeds",))
    assert float(still.p_equivalent(0.02)) == 0.0 and float(still.p_equivalent(0.005)) == 1.0
    assert math.isnan(float(Estimate(np.float64(0.0), np.float64(0.0), np.float64(1.0), 1, ()).p_equivalent(1.0)))
