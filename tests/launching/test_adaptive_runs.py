"""Adaptive stages from plan to weights: shared, finished, evaluated where never reached, and trained again fixed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import launch_fakes
import pytest
import yaml
from real_plans import LENGTH, UNIT, arm, filled, planned, stage

from davinci.__main__ import main
from davinci.config import Curriculum, Run, parse
from davinci.launching.job import Interrupted, read_job, run_job
from davinci.launching.launch import write_jobs
from davinci.launching.manifests import record
from davinci.launching.reconcile import plan_remaining
from davinci.planning.plan import Plan
from davinci.realised import read_decisions
from davinci.store import Store, read_json
from davinci.tracking.records import read
from davinci.training import numerics

STEP = 2 * LENGTH
UNTIL = {
    "domain": "code",
    "check_every": 2 * STEP,
    "window": 3,
    "min_slope": 1.0,
    "min_tokens": 12 * STEP,
    "sequences": 4,
}
ADAPT = {"every": 3 * STEP, "window": 2, "sequences": 4}


@pytest.fixture(autouse=True)
def only_training_is_real(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in launch_fakes.stand_ins().items():
        if name.startswith("davinci.evaluation"):
            monkeypatch.setitem(sys.modules, name, module)
    numerics.configure(1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return filled(tmp_path / "store")


def run_all(plan: Plan, store: Store) -> None:
    record(plan, store)
    for path in write_jobs(plan, store, [chain.name for chain in plan.chains()]).values():
        run_job(read_job(path), lambda event: None, lambda: False)
    assert all(one.finished for one in plan_remaining(plan, store).values())


def adaptive(label: str, after: float, units: int = 6) -> Run:
    """A stage that may end early, evaluated in its middle too, and one after it."""
    stages = {
        "s": stage(units) | {"until": UNTIL, "adapt": ADAPT},
        "after": stage(2, shape="linear", start=3e-3, stop=after),
    }
    return arm(label, stages, {"s": [5, units], "after": [2]})


def weights(plan: Plan, store: Store, label: str) -> str:
    node = plan.nodes[next(run.nodes[-1] for run in plan.runs if run.arm == label)]
    digest: str = read_json(store.checkpoint(node.id, node.end) / "state.json")["digests"]["model.safetensors"]
    return digest


def test_arms_share_the_adaptive_stage_and_its_realised_curriculum_trains_the_same_weights(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = planned(store, adaptive("one", 1e-4), adaptive("other", 1e-5))
    trunks = {run.nodes[0] for run in plan.runs}
    assert len(trunks) == 1 and len(plan.nodes) == 3
    run_all(plan, store)
    decisions = read_decisions(store, trunks.pop())
    assert decisions is not None and decisions.ended is not None and decisions.ended < 5 * UNIT
    assert decisions.moves
    run_all(plan, store)  # nothing is left

    one = next(run for run in plan.runs if run.arm == "one")
    assert main(["realised", one.id, "--store", str(store.root)]) == 0
    curriculum: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    assert curriculum["stages"]["s"]["tokens"] == decisions.ended
    fixed = plan.config(one).model_copy(
        update={
            "arm": "fixed",
            "curriculum": parse(Curriculum, curriculum),
            "evaluation": plan.config(one).evaluation.model_copy(update={"at": ()}),
        }
    )
    again = planned(store, fixed)
    assert not again.nodes.keys() & plan.nodes.keys()
    run_all(again, store)
    assert weights(again, store, "fixed") == weights(plan, store, "one") != weights(plan, store, "other")
    assert main(["realised", again.runs[0].id, "--store", str(store.root)]) == 2
    assert "no stage of curriculum realised_" in capsys.readouterr().err


def test_a_longer_maximum_goes_on_from_the_shorter_one(store: Store) -> None:
    """The maximum is not part of the id: where the rule fired before it, both arms end alike."""
    plan = planned(store, adaptive("short", 1e-4), adaptive("long", 1e-4, units=8))
    shared = set(plan.runs[0].nodes) & set(plan.runs[1].nodes)
    assert len(shared) == 1
    run_all(plan, store)
    assert weights(plan, store, "short") == weights(plan, store, "long")
    rest = plan.nodes[plan.runs[1].nodes[1]]
    assert rest.stage_name == "s" and not [row for row in read(store.records(rest.id)) if row["kind"] == "train"]


def test_a_job_stopped_every_few_steps_comes_to_the_same(store: Store, tmp_path: Path) -> None:
    plan = planned(store, adaptive("one", 1e-4))
    run_all(plan, store)
    other = filled(tmp_path / "other")
    record(plan, other)
    (path,) = write_jobs(plan, other, [chain.name for chain in plan.chains()]).values()
    stops = 0
    while True:
        try:
            calls = iter(range(4))
            run_job(read_job(path), lambda event: None, lambda: next(calls, None) is None)  # noqa: B023
            break
        except Interrupted:
            stops += 1
    assert stops > 3
    for node in plan.nodes:
        assert read_decisions(other, node) == read_decisions(store, node)
    assert weights(plan, other, "one") == weights(plan, store, "one")
