"""Evaluation as a job of its own: training does not wait for it, and a second launch starts nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import launch_fakes
import pytest

from davinci.launching import local
from davinci.launching.job import Interrupted, Job, failure_path, read_job, run_job
from davinci.launching.launch import launch, write_jobs
from davinci.launching.manifests import record
from davinci.launching.reconcile import plan_remaining
from davinci.launching.slurm import wanted
from davinci.launching.status import run_states
from davinci.launching.tasks import tasks, tasks_left
from davinci.planning.plan import Plan
from davinci.store import Store, write_json
from davinci.tracking.records import read

SEPARATE = {"evaluation": "separate"}


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in launch_fakes.stand_ins().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(local, "WORKER", [sys.executable, str(Path(__file__).with_name("fake_worker.py"))])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def plan() -> Plan:
    return launch_fakes.make_plan(arms=2, cluster=SEPARATE)


def do(plan: Plan, store: Store, *names: str) -> list[dict[str, object]]:
    """Do the named tasks; returns what they reported."""
    events: list[dict[str, object]] = []
    for path in write_jobs(plan, store, names).values():
        run_job(read_job(path), events.append, lambda: False)
    return events


def left(plan: Plan, store: Store) -> list[str]:
    return [task.name for task in tasks_left(plan, plan_remaining(plan, store))]


def evaluated(store: Store, node: str) -> int:
    return len({row["tokens"] for row in read(store.records(node), "evaluation")})


def test_what_evaluates_comes_after_what_trains(plan: Plan, store: Store) -> None:
    after = {task.name: task.after for task in tasks(plan)}
    assert after == {
        "b-s0": None,
        "c0-s0": "b-s0",
        "c0-s0.evaluation": "c0-s0",
        "c1-s0": "b-s0",
        "c1-s0.evaluation": "c1-s0",
    }, "the trunk is not evaluated"
    in_job = launch_fakes.make_plan(arms=2)
    assert tasks(in_job) == in_job.chains()
    assert plan.nodes == in_job.nodes, "placement moves no id"


def test_a_trained_node_is_left_to_evaluate(plan: Plan, store: Store) -> None:
    events = do(plan, store, "b-s0", "c0-s0")
    assert evaluated(store, "c0-s0") == 0
    assert [event["node"] for event in events if event["event"] == "node"] == ["a-s0", "b-s0"]
    assert left(plan, store) == ["c0-s0.evaluation", "c1-s0", "c1-s0.evaluation"]
    before = [row for row in read(store.records("c0-s0")) if row["kind"] == "train"]
    events = do(plan, store, "c0-s0.evaluation")
    assert [event["event"] for event in events] == ["phase", "phase", "node"]
    assert evaluated(store, "c0-s0") == 2
    assert [row for row in read(store.records("c0-s0")) if row["kind"] == "train"] == before, "nothing is trained"
    assert left(plan, store) == ["c1-s0", "c1-s0.evaluation"]
    assert do(plan, store, "c0-s0", "c0-s0.evaluation")[-1] == {"event": "node", "node": "c0-s0"}
    assert evaluated(store, "c0-s0") == 2


def test_a_lost_result_is_only_evaluated_again(plan: Plan, store: Store) -> None:
    do(plan, store, *(task.name for task in tasks(plan)))
    assert left(plan, store) == []
    for path in (store.node("c1-s0") / "evaluations").iterdir():
        path.unlink()
    assert left(plan, store) == ["c1-s0.evaluation"]


def test_a_launch_does_both_and_ends_as_one_that_evaluates_in_the_job(plan: Plan, tmp_path: Path) -> None:
    scores = {}
    for name, one in (("separate", plan), ("in_job", launch_fakes.make_plan(arms=2))):
        store, config = Store(tmp_path / name), one.arms[0].config
        assert launch(one, store, config.cluster, config.tracking) == 0
        assert {run.state for run in run_states(one, store)} == {"done"}
        rows = [row for node in ("c0-s0", "c1-s0") for row in read(store.records(node), "evaluation")]
        scores[name] = [(row["tokens"], row["benchmark"], row["score"], row["settings"]) for row in rows]
        assert left(one, store) == []
    assert scores["separate"] == scores["in_job"] != []


def test_status_says_what_is_left(plan: Plan, store: Store) -> None:
    record(plan, store)
    do(plan, store, "b-s0", "c0-s0")
    waiting, other = run_states(plan, store)
    assert (waiting.state, waiting.chain, waiting.tokens) == ("waiting", "c0-s0.evaluation", waiting.total_tokens)
    assert (other.state, other.chain) == ("waiting", "c1-s0")
    write_json(failure_path(store, "fake", "c0-s0.evaluation"), {"state": "failed", "error": "no space", "log": ""})
    failed = run_states(plan, store)[0]
    assert (failed.state, failed.error) == ("failed", "no space")


def test_it_asks_for_what_it_needs(store: Store) -> None:
    cheap = {"memory_gb": 2, "gpus_per_node": 0, "time_minutes": 7, "cpus_per_task": 1, "partition": "small"}
    plan = launch_fakes.make_plan(
        cluster={
            **SEPARATE,
            "kind": "slurm",
            "nodes": 2,
            "gpus_per_node": 1,
            "memory_gb": 64,
            "evaluation_jobs": cheap,
        }
    )
    jobs: dict[str, Job] = {
        name: read_job(path) for name, path in write_jobs(plan, store, [task.name for task in tasks(plan)]).items()
    }
    assert {name: job.task for name, job in jobs.items() if name.startswith("c0")} == {
        "c0-s0": "train",
        "c0-s0.evaluation": "evaluate",
    }
    asked = wanted(jobs["c0-s0.evaluation"].cluster, "x", "afterok:17")
    assert (asked["mem"], asked["time"], asked["partition"], asked["dependency"]) == ("2GB", 7, "small", "afterok:17")
    assert not asked.keys() & {"nodes", "ntasks_per_node", "gpus_per_node"}
    training = wanted(jobs["c0-s0"].cluster, "x", None)
    assert (training["mem"], training["nodes"], training["gpus_per_node"]) == ("64GB", 2, 1)


@pytest.mark.parametrize("name", ["c0-s0", "c0-s0.evaluation"])
def test_a_stop_is_heard_between_two_benchmarks(
    name: str, plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "c0-s0":
        plan = launch_fakes.make_plan(arms=2)
        do(plan, store, "b-s0")
    else:
        do(plan, store, "b-s0", "c0-s0")
    begun: list[bool] = []

    def evaluate(*_: object) -> None:
        begun.append(True)
        between = _[-1]
        assert callable(between)
        between()

    monkeypatch.setattr(sys.modules["davinci.evaluation.evaluate"], "evaluate", evaluate)
    (path,) = write_jobs(plan, store, [name]).values()
    with pytest.raises(Interrupted):
        run_job(read_job(path), lambda event: None, lambda: bool(begun))
    assert begun == [True] and evaluated(store, "c0-s0") == 0
