"""A value picked for each variant by held-out loss, and the comparison with seeds that the pick has not seen."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import tuning
from analysis.commands.tune import _require_fresh
from davinci.errors import UserError

KEY = "scale.peak_lr"
RATES = ("0.002", "0.004", "0.008")


def recorded(losses: dict[tuple[str, int], float | None], overrides: dict[str, tuple[str, ...]], base: str) -> Any:
    """A sweep as `load` gives it, with a node a run: the loss at its end, and a worse one on the way."""
    rows, nodes, runs = [], {}, []
    for number, ((arm, seed), loss) in enumerate(losses.items()):
        nodes[name := f"n{number}"] = SimpleNamespace(end=100)
        runs.append(SimpleNamespace(arm=arm, seed=seed, nodes=(name,)))
        for tokens, value in ((50, 9.0), (100, loss)):
            if value is not None:
                for domain, shift in (("code", -0.5), ("qa", 0.5)):
                    row = {"node": name, "tokens": tokens, "domain": domain, "bits_per_byte": value + shift}
                    rows += [row | {"averaged": False}, row | {"averaged": True, "bits_per_byte": 0.0}]
    arms = [SimpleNamespace(label=label, overrides=own, is_baseline=label == base) for label, own in overrides.items()]
    for arm in arms:
        arm.config = None
    seeds = tuple(dict.fromkeys(seed for _, seed in losses))
    plan = SimpleNamespace(sweep="zoo", runs=runs, nodes=nodes, arms=arms, seeds=seeds)
    return SimpleNamespace(plan=plan, heldout=pd.DataFrame(rows))


def grid(table: dict[str, tuple[float | None, ...]]) -> Any:
    """A tuning sweep: variant -> its loss at each of `RATES`, on seed 0."""
    cells = {(name, rate): loss for name, row in table.items() for rate, loss in zip(RATES, row, strict=True)}
    losses = {(f"{name} peak_lr={rate}", 0): loss for (name, rate), loss in cells.items()}
    overrides = {f"{name} peak_lr={rate}": (f"model/x={name}", f"{KEY}={rate}") for name, rate in cells}
    return recorded(losses, overrides, "A peak_lr=0.004")


@given(st.lists(st.floats(0.1, 9), min_size=3, max_size=3))
def test_the_lowest_loss_is_picked_and_the_lower_rate_of_equals(losses: list[float]) -> None:
    by_rate = dict(zip(RATES, losses, strict=True))
    value = tuning.lowest(by_rate)
    assert value is not None and by_rate[value] == min(losses)
    assert tuning.lowest(dict.fromkeys(reversed(RATES), 1.0)) == RATES[0]


def test_a_diverged_run_has_lost_and_a_missing_one_leaves_the_variant_open() -> None:
    found = tuning.picks(grid({"A": (3.0, 2.0, 4.0), "B": (1.0, math.nan, 4.0), "C": (1.0, None, 4.0)}), KEY)
    assert [one.label for one in found] == ["A", "B", "C"]
    assert [one.value for one in found] == ["0.004", "0.002", None]
    assert [one.at_edge for one in found[:2]] == [False, True]
    assert found[0].losses["0.004"] == pytest.approx(2.0) and math.isinf(found[1].losses["0.004"])
    assert [line[-1].text for line in tuning.picks_table(found, KEY).groups[0]] == ["", "edge", "not finished"]
    assert len(tuning.picks_table(found, KEY).notes) == 1 and not tuning.picks_table(found[:1], KEY).notes
    with pytest.raises(UserError, match="1 of 3 variants are not tuned yet: C"):
        tuning.comparing_file({}, found, KEY, (1,))


def test_the_comparing_sweep_has_each_variant_at_its_own_rate_and_nothing_else_new() -> None:
    found = tuning.picks(grid({"A": (3.0, 2.0, 4.0), "B": (1.0, 2.0, 4.0)}), KEY)
    file = {
        "question": "?",
        "arms": {"A": [], "B": []},
        "grid": {KEY: [2e-3, 4e-3, 8e-3]},
        "seeds": [0],
        "match": "flops",
    }
    made = tuning.comparing_file(file, found, KEY, (1, 2))
    arms = {"A": ["model/x=A", f"{KEY}=0.004"], "B": ["model/x=B", f"{KEY}=0.002"]}
    assert made == {"question": "?", "arms": arms, "seeds": [1, 2], "match": "flops", "baseline": "A"}


def test_a_key_that_no_arm_sets_is_refused() -> None:
    with pytest.raises(UserError, match=r"arm 'A peak_lr=0.002' does not set optimizer.eps"):
        tuning.picks(grid({"A": (3.0, 2.0, 4.0)}), "optimizer.eps")


def test_a_seed_of_the_pick_is_no_seed_of_the_comparison() -> None:
    _require_fresh((0,), (1, 2), "--seeds")
    with pytest.raises(UserError, match="--seeds: seed 0 had a part in the pick"):
        _require_fresh((0,), (2, 0), "--seeds")


def test_differences_are_paired_by_seed_and_a_missing_seed_is_counted() -> None:
    # Seeds scatter by 1, variants by 0.01 beside that: unpaired, B's 0.2 would be noise.
    losses: dict[tuple[str, int], float | None] = {
        **{("A", seed): 2.0 + seed for seed in (1, 2, 3)},
        **{("B", seed): 1.8 + seed + 0.01 * (seed - 2) for seed in (1, 2, 3)},
        **{("C", seed): 2.0 + seed + 0.01 * (2 - seed) for seed in (1, 2)},
        ("C", 3): None,
    }
    found = {one.label: one for one in tuning.compared(recorded(losses, dict.fromkeys("ABC", ()), "A"))}
    assert found["A"].difference is None and [found[arm].seeds for arm in "ABC"] == [3, 3, 2]
    better, noise = found["B"].difference, found["C"].difference
    assert better is not None and noise is not None
    assert better.mean == pytest.approx(-0.2) and found["B"].p < 0.05
    assert noise.mean == pytest.approx(0.005) and found["C"].p > 0.05
