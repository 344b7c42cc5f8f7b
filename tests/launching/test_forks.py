"""A plan that cuts what the store holds whole, or joins what it holds cut: planned, launched and trained for real."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import launch_fakes
import pytest
from real_plans import UNIT, arm, filled, fork, long, planned, stage

from davinci.launching.donors import Donor, donors
from davinci.launching.job import Interrupted, read_job, run_job
from davinci.launching.launch import write_jobs
from davinci.launching.manifests import record
from davinci.launching.reconcile import plan_remaining
from davinci.planning.plan import Plan
from davinci.store import Store, read_json
from davinci.tracking.records import read
from davinci.training import numerics

Event = dict[str, Any]


@pytest.fixture(autouse=True)
def only_training_is_real(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in launch_fakes.stand_ins().items():
        if name.startswith("davinci.evaluation"):
            monkeypatch.setitem(sys.modules, name, module)
    numerics.configure(1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return filled(tmp_path / "store")


def run_all(plan: Plan, store: Store) -> list[Event]:
    """Launch the plan in this process, as often as it takes; the events reported."""
    record(plan, store)
    left = plan_remaining(plan, store)
    events: list[Event] = []
    names = [chain.name for chain in plan.chains() if not all(left[node].finished for node in chain.nodes)]
    for path in write_jobs(plan, store, names).values():
        run_job(read_job(path), events.append, lambda: False)
    assert all(one.finished for one in plan_remaining(plan, store).values())
    return events


def phases(events: list[Event]) -> list[tuple[str, str]]:
    return [(event["node"], event["phase"]) for event in events if event["event"] == "phase"]


def weights(store: Store, plan: Plan) -> dict[str, str]:
    return {
        node: read_json(store.checkpoint(node, plan.nodes[node].end) / "state.json")["digests"]["model.safetensors"]
        for node in plan.nodes
    }


def trained(store: Store, node: str) -> list[dict[str, Any]]:
    """Training rows without what depends on the clock or the attempt."""
    clock = ("time", "tokens_per_second", "data_wait", "attempt")
    rows = [row for row in read(store.records(node)) if row["kind"] == "train"]
    return [{name: value for name, value in row.items() if name not in clock} for row in rows]


@pytest.fixture
def straight(tmp_path: Path) -> Store:
    """Both arms, trained from the start."""
    store = filled(tmp_path / "straight")
    run_all(planned(store, long(), fork()), store)
    return store


def test_a_fork_goes_on_from_the_nearest_earlier_checkpoint(
    store: Store, straight: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    first = planned(store, long(1, 3))
    (whole,) = first.nodes
    run_all(first, store)
    assert read_json(store.node(whole) / "done.json")["begin"] == 0

    plan = planned(store, long(1, 3), fork(1, 3))
    trunk, branch = plan.runs[1].nodes
    assert plan.runs[0].nodes == (trunk, whole), "the cut changes no id"
    left = plan_remaining(plan, store)
    assert left[whole].finished and left[trunk].train
    assert donors(plan, plan.nodes, store) == {trunk: (Donor(node=whole, tokens=(UNIT, 3 * UNIT)),)}
    events = run_all(plan, store)
    # What was evaluated on the way is not evaluated again, what was trained is not trained again.
    assert phases(events) == [(trunk, "training"), (branch, "training"), (branch, "evaluating")]
    assert min(event["tokens"] for event in events if event["event"] == "tokens") > 3 * UNIT
    assert f"took over the checkpoint at {3 * UNIT} tokens from {whole}" in capsys.readouterr().out
    assert weights(store, plan) == weights(straight, planned(straight, long(), fork()))
    assert trained(store, trunk) == trained(straight, trunk)
    # The older, longer node keeps what it says of itself.
    assert read_json(store.node(whole) / "done.json")["begin"] == 0
    assert read_json(store.node(whole) / "node.json")["begin"] == 0
    assert run_all(planned(store, long(1, 3)), store) == []


def test_a_checkpoint_at_the_fork_is_all_it_takes(store: Store, straight: Store) -> None:
    run_all(planned(store, long(4)), store)
    plan = planned(store, long(4), fork(4))
    trunk, branch = plan.runs[1].nodes
    assert phases(run_all(plan, store)) == [(branch, "training"), (branch, "evaluating")]
    assert weights(store, plan) == weights(straight, planned(straight, long(), fork()))
    assert (store.checkpoint(trunk, 4 * UNIT) / "model.safetensors").stat().st_nlink == 2, "no second copy on disk"
    assert read_json(store.checkpoint(trunk, 4 * UNIT) / "state.json")["node"] == trunk


def test_a_stopped_run_is_taken_over_too(store: Store, straight: Store) -> None:
    first = planned(store, long())
    (whole,) = first.nodes
    (job,) = write_jobs(first, store, [whole]).values()
    asked = iter(range(1000))
    with pytest.raises(Interrupted):
        run_job(read_job(job), lambda event: None, lambda: next(asked) == 17)  # Between three and four units.
    plan = planned(store, long(), fork())
    trunk, _ = plan.runs[1].nodes
    events = run_all(plan, store)
    of_trunk = [event["tokens"] for event in events if event["event"] == "tokens" and event["node"] == trunk]
    assert min(of_trunk) > 3 * UNIT
    assert weights(store, plan) == weights(straight, planned(straight, long(), fork()))
    assert trained(store, trunk) == trained(straight, trunk)


@pytest.mark.parametrize("lie", ["node", "checkpoint"])
def test_a_donor_that_is_not_what_it_says_is_left_alone(store: Store, straight: Store, lie: str) -> None:
    run_all(planned(store, long(3)), store)
    plan = planned(store, long(3), fork(3))
    _, whole = plan.runs[0].nodes
    if lie == "node":
        path = store.node(whole) / "node.json"
        stored = json.loads(path.read_text())
        stored["data_seed"] = 7
        path.write_text(json.dumps(stored))
    else:
        (store.checkpoint(whole, 3 * UNIT) / "model.safetensors").write_bytes(b"rot")
    events = run_all(plan, store)
    assert min(event["tokens"] for event in events if event["event"] == "tokens") < 3 * UNIT
    assert weights(store, plan) == weights(straight, planned(straight, long(), fork()))


def test_without_the_fork_nothing_is_trained_again(straight: Store) -> None:
    plan = planned(straight, long())
    assert len(plan.nodes) == 2, "cut where it was cut before"
    assert run_all(plan, straight) == []


def test_another_sweep_that_goes_on_longer_starts_where_the_first_ended(store: Store, straight: Store) -> None:
    """Neither of these plans holds a node of the other; what they share lies within the nodes."""
    run_all(planned(store, arm("short", {"s": stage(2)}, {"s": [2]})), store)
    run_all(planned(store, arm("half", {"s": stage(4)}, {"s": [4]})), store)
    plan = planned(store, long(2))
    (whole,) = [node for node in plan.nodes if plan.nodes[node].end == 6 * UNIT]
    events = run_all(plan, store)
    assert min(event["tokens"] for event in events if event["event"] == "tokens") > 4 * UNIT
    assert weights(store, plan)[whole] in weights(straight, planned(straight, long(), fork())).values()
    steps = [row["step"] for node in plan.runs[0].nodes for row in trained(store, node)]
    assert steps == [10, 20, 30], "the rows of the whole way are there"


def test_another_sweep_that_stops_earlier_starts_on_the_way(store: Store) -> None:
    run_all(planned(store, long(3)), store)
    plan = planned(store, arm("five", {"s": stage(5)}, {"s": [5]}))
    events = run_all(plan, store)
    assert min(event["tokens"] for event in events if event["event"] == "tokens") > 3 * UNIT


def test_rows_lost_behind_a_fork_are_made_again_from_there(store: Store, straight: Store) -> None:
    run_all(planned(store, long()), store)
    plan = planned(store, long(), fork())
    trunk, whole = plan.runs[0].nodes
    run_all(plan, store)
    store.records(whole).unlink()
    assert ("training", whole) in {(phase, node) for node, phase in phases(run_all(plan, store))}
    assert weights(store, plan) == weights(straight, planned(straight, long(), fork()))
    assert (read_json(store.node(whole) / "done.json")["begin"], plan.nodes[trunk].end) == (4 * UNIT, 4 * UNIT)
    assert min(row["tokens"] for row in trained(store, whole)) > 4 * UNIT
    assert run_all(planned(store, long()), store) == [], "the whole is now known to be cut"
