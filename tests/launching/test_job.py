"""What running a job does with what the store holds already."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import launch_fakes
import pytest

from davinci.errors import UserError
from davinci.launching.job import Interrupted, Job, perform, read_job, run_job
from davinci.launching.launch import write_jobs
from davinci.launching.manifests import record
from davinci.launching.reconcile import plan_remaining
from davinci.launching.snapshot import program
from davinci.launching.status import run_states
from davinci.planning.plan import Plan, load_plan
from davinci.store import Store, read_json, write_json
from davinci.tracking.records import read

LEAF = "c0-s0"


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in launch_fakes.stand_ins().items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def never() -> bool:
    return False


def run_all(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """Run every chain of the plan; the events reported."""
    events: list[dict[str, Any]] = []
    for path in write_jobs(plan, store, [chain.name for chain in plan.chains()]).values():
        run_job(read_job(path), events.append, never)
    return events


def phases(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["node"], event["phase"]) for event in events if event["event"] == "phase"]


def marks(store: Store) -> dict[str, Any]:
    return {path.parent.name: json.loads(path.read_text()) for path in (store.root / "nodes").glob("*/done.json")}


def digests(store: Store) -> dict[str, str]:
    return {node: mark["weights_digest"] for node, mark in marks(store).items()}


def test_a_plan_is_done_once(store: Store) -> None:
    plan = launch_fakes.make_plan()
    assert not any(left.finished for left in plan_remaining(plan, store).values())
    events = run_all(plan, store)
    assert all(left.finished for left in plan_remaining(plan, store).values())
    assert phases(events) == [
        ("a-s0", "training"),
        ("b-s0", "training"),
        ("c0-s0", "training"),
        ("c0-s0", "evaluating"),
        ("c0-s0", "evaluating"),
        ("c1-s0", "training"),
        ("c1-s0", "evaluating"),
        ("c1-s0", "evaluating"),
    ]
    rows = [row for row in read(store.records(LEAF)) if row["kind"] == "evaluation"]
    assert [(row["tokens"], row["step"], row["benchmark"]) for row in rows] == [
        (tokens, tokens // launch_fakes.STEP_TOKENS, name) for tokens in (200, 240) for name in ("sums", "words")
    ]
    assert all((store.node(LEAF) / row["items_file"]).is_file() for row in rows)
    assert phases(run_all(plan, store)) == []


def test_done_says_which_program_trained_it(store: Store) -> None:
    run_all(launch_fakes.make_plan(), store)
    assert {mark["environment"]["code"] for mark in marks(store).values()} == {program()}
    mark = store.node(LEAF) / "done.json"
    write_json(mark, read_json(mark) | {"environment": {"code": "another", "device": "NVIDIA H100"}})
    before = digests(store)
    run_all(launch_fakes.make_plan(evaluation={"limit": 3}), store)  # evaluated by this program, trained by that one
    assert digests(store) == before and marks(store)[LEAF]["environment"]["device"] == "NVIDIA H100"


def test_another_suite_is_only_evaluated(store: Store) -> None:
    run_all(launch_fakes.make_plan(), store)
    before = digests(store)
    changed = launch_fakes.make_plan(evaluation={"limit": 3})
    assert not plan_remaining(changed, store)[LEAF].train
    assert {phase for _, phase in phases(run_all(changed, store))} == {"evaluating"}
    assert digests(store) == before
    # The first suite still stands beside it.
    assert phases(run_all(launch_fakes.make_plan(), store)) == []


def test_arms_may_ask_one_state_for_different_suites(store: Store) -> None:
    """The leaf of the first arm is evaluated as both arms say, and neither's rows hide the other's."""
    plan = launch_fakes.make_plan(evaluation=[{"limit": None, "heldout_sequences": 2}, {"limit": 3}])
    same = plan.runs[0].model_copy(update={"id": "arm1-s0", "arm": "arm1"})
    nodes = {name: node for name, node in plan.nodes.items() if name != "c1-s0"}
    plan = plan.model_copy(update={"runs": (plan.runs[0], same), "nodes": nodes})
    events = run_all(plan, store)
    assert [phase for node, phase in phases(events) if node == LEAF] == ["training"] + ["evaluating"] * 4
    keys = [arm.config.evaluation.key for arm in plan.arms]
    rows = [row for row in read(store.records(LEAF)) if row["kind"] == "evaluation"]
    assert {(row["tokens"], row["suite"], row["benchmark"]) for row in rows} == {
        (tokens, key, name) for tokens in (200, 240) for key in keys for name in ("sums", "words")
    }
    assert all(left.finished for left in plan_remaining(plan, store).values())
    assert phases(run_all(plan, store)) == []
    job = read_job(store.jobs("fake") / f"{LEAF}.json")
    assert (sorted(job.suites), job.heldout_sequences) == (sorted(keys), 2)
    assert [(demand.tokens, demand.suite) for demand in job.demands[LEAF]] == sorted(
        (tokens, key) for tokens in (200, 240) for key in keys
    )


def test_a_finished_node_is_believed_without_reading_its_rows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = launch_fakes.make_plan()
    run_all(plan, store)

    def refuse(path: Path) -> None:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr("davinci.launching.reconcile.read", refuse)
    assert all(left.finished for left in plan_remaining(plan, store).values())
    for path, change in (
        (store.records(LEAF), lambda path: path.write_bytes(path.read_bytes()[:-1])),
        (store.checkpoint(LEAF, 240) / "model.safetensors", Path.unlink),
        (next((store.node(LEAF) / "evaluations").iterdir()), Path.unlink),
    ):
        kept = path.read_bytes()
        change(path)
        with pytest.raises(AssertionError, match="was read"):
            plan_remaining(plan, store)
        path.write_bytes(kept)
    with pytest.raises(AssertionError, match="was read"):
        plan_remaining(launch_fakes.make_plan(points=(48,)), store)


def test_an_earlier_point_is_replayed_and_only_there(store: Store) -> None:
    run_all(launch_fakes.make_plan(points=(80,)), store)
    before = digests(store)
    plan = launch_fakes.make_plan(points=(40, 80))
    left = plan_remaining(plan, store)
    assert left["a-s0"].finished and left[LEAF].train and left[LEAF].start == 192  # The checkpoint before 160 + 40.
    run_all(plan, store)
    assert digests(store) == before
    assert all(left.finished for left in plan_remaining(plan, store).values())


@pytest.mark.parametrize("lost", ["records.jsonl", "checkpoints", "evaluations", "done.json"])
def test_what_is_lost_is_made_again(store: Store, lost: str) -> None:
    plan = launch_fakes.make_plan()
    run_all(plan, store)
    before = digests(store)
    path = store.node(LEAF) / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert [node for node, left in plan_remaining(plan, store).items() if not left.finished] == [LEAF]
    run_all(plan, store)
    assert digests(store) == before
    assert all(left.finished for left in plan_remaining(plan, store).values())
    assert not marks(store)[LEAF]["replay_differs"]
    trained = [row["tokens"] for row in read(store.records(LEAF)) if row["kind"] == "train"]
    assert trained == list(range(168, 248, 8))


def test_a_node_recorded_from_a_later_begin_is_trained_again_for_its_rows(store: Store) -> None:
    plan = launch_fakes.make_plan()
    run_all(plan, store)
    node = plan.nodes[LEAF]
    longer = node.model_copy(update={"begin": node.begin - 8})
    moved = plan.model_copy(update={"nodes": plan.nodes | {LEAF: longer}})
    left = plan_remaining(moved, store)[LEAF]
    assert left.train and left.start == longer.begin


def test_a_damaged_parent_is_refused_then_trained_again(store: Store) -> None:
    plan = launch_fakes.make_plan(arms=1)
    (job,) = write_jobs(plan, store, [LEAF]).values()
    run_job(read_job(job), lambda event: None, never)
    before = digests(store)
    (store.checkpoint("b-s0", 160) / "model.safetensors").write_text("rot")
    shutil.rmtree(store.node(LEAF))
    with pytest.raises(UserError, match="damaged; run the same command again"):
        run_job(read_job(job), lambda event: None, never)
    assert not plan_remaining(plan, store)["b-s0"].finished
    run_job(read_job(job), lambda event: None, never)
    assert digests(store) == before


def test_a_stop_keeps_the_step_and_says_so(store: Store) -> None:
    plan = launch_fakes.make_plan(arms=1)
    (job,) = write_jobs(plan, store, [LEAF]).values()
    with pytest.raises(Interrupted):
        run_job(read_job(job), lambda event: None, lambda: store.records("b-s0").exists())
    stopped = plan_remaining(plan, store)
    assert stopped["a-s0"].finished and stopped["b-s0"].start == 88
    assert perform(job, lambda event: None, never).state == "done"
    undisturbed = Store(store.root.parent / "other")
    run_all(plan, undisturbed)
    assert digests(store) == digests(undisturbed)


def test_what_is_asked_to_stop_before_it_begins_does_not_begin(store: Store) -> None:
    (job,) = write_jobs(launch_fakes.make_plan(arms=1), store, [LEAF]).values()
    assert perform(job, lambda event: None, lambda: True).state == "stopped"
    assert not store.node("a-s0").exists()


def test_an_exception_goes_to_the_log(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan = launch_fakes.make_plan(arms=1)
    record(plan, store)
    (job,) = write_jobs(plan, store, [LEAF]).values()
    monkeypatch.setenv("FAKE_CONTROL", str(tmp_path))
    (tmp_path / "b-s0.fails").touch()
    outcome = perform(job, lambda event: None, never)
    assert (outcome.state, outcome.error) == ("failed", "RuntimeError: the loss went away")
    assert "Traceback" in Path(outcome.log).read_text()
    (state,) = run_states(load_plan(store, "fake"), store)
    assert (state.state, state.at, state.error, state.log) == ("failed", "b", outcome.error, outcome.log)
    (tmp_path / "b-s0.fails").unlink()
    assert perform(job, lambda event: None, never).state == "done"
    (state,) = run_states(load_plan(store, "fake"), store)
    assert (state.state, state.tokens) == ("done", state.total_tokens)


def test_a_job_file_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text('{"sweep": "x", "chian": "y"}')
    with pytest.raises(UserError, match="chian"):
        read_job(path)
    assert Job.model_fields.keys() >= {"nodes", "demands", "suites", "donors"}
