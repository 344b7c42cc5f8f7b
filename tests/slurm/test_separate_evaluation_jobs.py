"""Evaluation as Slurm jobs of its own: after the job that trains, or on demand."""

from __future__ import annotations

from pathlib import Path

import launch_fakes
import pytest
from slurm_jobs import SLURM, field, is_done, jobs, state, submit, wait_for

from davinci.__main__ import main
from davinci.launching.job import read_job
from davinci.store import Store
from davinci.tracking.records import read

CHEAP = {"evaluation": "separate", "evaluation_jobs": {"time_minutes": 3, "memory_gb": 1}}


@pytest.fixture
def store(tmp_path: Path, control: Path) -> Store:
    return Store(tmp_path / "store")


def test_evaluation_follows_training_and_alone_is_submitted_again(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = launch_fakes.make_plan(arms=2, cluster=SLURM | CHEAP)
    assert submit(plan, store) == 0
    ids = jobs(store)
    assert field(ids["c0-s0.evaluation"], "Dependency").startswith(f"afterok:{ids['c0-s0']}")
    assert field(ids["c0-s0.evaluation"], "TimeLimit") == "00:03:00"
    assert field(ids["c0-s0"], "TimeLimit") == "00:10:00"
    wait_for(store)
    assert is_done(store) and {state(job) for job in ids.values()} == {"COMPLETED"}
    for path in (store.node("c1-s0") / "evaluations").iterdir():
        path.unlink()
    capsys.readouterr()
    assert submit(plan, store) == 0
    assert "submitted 1 jobs" in capsys.readouterr().out
    assert jobs(store).keys() == {"c1-s0.evaluation"}
    wait_for(store)
    assert is_done(store)


def test_evaluate_on_demand(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit(launch_fakes.make_plan(arms=1, cluster=SLURM), store) == 0
    wait_for(store)
    words = ["evaluate", "fake", "--checkpoint", "all", "--cluster", "slurm", "--store", str(store.root)]
    assert main(words) == 0
    assert "submitted" in capsys.readouterr().out
    found = store.jobs("fake").glob("c0-s0.????????.json")
    (path,) = (path for path in found if path.name != "c0-s0.attempts.json")
    assert read_job(path).task == "evaluate"
    wait_for(store)
    assert {row["tokens"] for row in read(store.records("c0-s0"), "evaluation")} >= {168, 192, 200, 216, 240}
    assert main(words) == 0
    assert "submitted 0 jobs for 0 states" in capsys.readouterr().out
