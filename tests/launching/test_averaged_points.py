"""Averages of weights from a plan's points to what is evaluated: trained for real, evaluated by a stand-in."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import launch_fakes
import pytest
from real_plans import UNIT, arm, filled, planned, stage

from davinci.config import Run, parse
from davinci.errors import UserError
from davinci.launching.job import read_job, run_job
from davinci.launching.launch import write_jobs
from davinci.launching.manifests import record
from davinci.launching.reconcile import plan_remaining
from davinci.planning.plan import Plan
from davinci.store import Store
from davinci.tracking.records import read
from davinci.training import numerics

POLYAK = {"kind": "polyak"}


@pytest.fixture(autouse=True)
def only_training_is_real(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in launch_fakes.stand_ins().items():
        if name.startswith("davinci.evaluation"):
            monkeypatch.setitem(sys.modules, name, module)
    numerics.configure(1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return filled(tmp_path / "store")


def asking(label: str, *at: dict[str, Any], averages: dict[str, Any] | None = None) -> Run:
    """A run of two stages that asks for the points `at`."""
    stages = {"s": stage(4), "end": stage(2) | ({"averages": averages} if averages else {})}
    data = arm(label, stages, {}).model_dump(mode="json")
    data["evaluation"]["at"] = list(at)
    return parse(Run, data)


def run_all(plan: Plan, store: Store) -> list[dict[str, Any]]:
    record(plan, store)
    left = plan_remaining(plan, store)
    events: list[dict[str, Any]] = []
    names = [chain.name for chain in plan.chains() if not all(left[node].finished for node in chain.nodes)]
    for path in write_jobs(plan, store, names).values():
        run_job(read_job(path), events.append, lambda: False)
    assert all(one.finished for one in plan_remaining(plan, store).values())
    return events


def keys(plan: Plan, store: Store) -> set[str]:
    """Keys of evaluations, without the digests they begin with."""
    rows = [row for node in plan.nodes for row in read(store.records(node)) if row["kind"] == "evaluation"]
    return {row["key"].partition("-")[2] for row in rows}


def test_arms_ask_the_same_training_for_weights_and_their_average(store: Store) -> None:
    end = {"stage": "end"}
    plan = planned(
        store,
        asking("trained", end, averages=POLYAK),
        asking("averaged", end | {"weights": "average"}, averages=POLYAK),
    )
    assert len(plan.nodes) == 2 and plan.tokens_shared == 6 * UNIT
    run_all(plan, store)
    assert keys(plan, store) == {"", f"{6 * UNIT:015d}.average"}
    assert run_all(plan, store) == []


def test_the_mean_of_states_that_reach_back_into_another_stage(store: Store) -> None:
    asked = {"stage": "end", "average_of": 4, "spacing_tokens": UNIT}
    plan = planned(store, asking("mean", asked))
    places = [units * UNIT for units in (3, 4, 5, 6)]
    assert [node.end for node in plan.nodes.values()] == places
    assert [state.tokens for state in plan.runs[0].points[0].states] == places
    run_all(plan, store)
    assert keys(plan, store) == {"-".join(f"{tokens:015d}.model" for tokens in places)}
    # What the mean is made of comes back if it is lost before the evaluation is.
    shutil.rmtree(store.checkpoint(plan.runs[0].nodes[0], 3 * UNIT))
    run_all(plan, store)
    assert store.checkpoint(plan.runs[0].nodes[0], 3 * UNIT).is_dir()


def test_a_finished_run_is_asked_for_a_mean_afterwards(store: Store) -> None:
    run_all(planned(store, asking("mean", {"stage": "end"})), store)
    asked = {"stage": "end", "average_of": 2, "spacing_tokens": UNIT}
    plan = planned(store, asking("mean", asked))
    run_all(plan, store)
    assert "-".join(f"{units * UNIT:015d}.model" for units in (5, 6)) in keys(plan, store)


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ([{"stage": "end", "weights": "average"}], "evaluation.at.0.weights: average, but stage end keeps none"),
        ([{"stage": "end", "average_of": 2}], "average_of more than 1 needs spacing_tokens"),
        (
            [{"stage": "end", "average_of": 9, "spacing_tokens": UNIT}],
            f"9 states {UNIT} tokens apart, the last at {6 * UNIT} tokens, are only 6 whole steps of training",
        ),
        (
            [{"stage": "end"}, {"stage": "end", "average_of": 2, "spacing_tokens": UNIT}],
            "asks two kinds of weights of the state",
        ),
    ],
)
def test_what_cannot_be_averaged_is_refused(store: Store, at: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(UserError) as told:
        planned(store, asking("wrong", *at))
    assert said in str(told.value) and "\n" not in str(told.value)
