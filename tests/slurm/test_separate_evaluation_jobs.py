"""Evaluation as Slurm jobs of its own: after the job that trains, or on demand."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import launch_fakes
import pytest
from slurm_jobs import SLURM, field, is_done, jobs, state, submit, wait_for, wait_until

from davinci.__main__ import main
from davinci.launching.early import EARLY
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
    training, evaluating = (
        {ids[f"c{arm}-s0{ending}"].partition("_")[0] for arm in (0, 1)} for ending in ("", ".evaluation")
    )
    assert len(training) == len(evaluating) == 1, "an array each"
    assert field(ids["c0-s0.evaluation"], "Dependency").startswith(f"aftercorr:{training.pop()}_*")
    assert field(ids["c0-s0.evaluation"], "TimeLimit") == "00:03:00"
    assert field(ids["c0-s0"], "TimeLimit") == "00:10:00"
    wait_for(store)
    assert is_done(store) and {state(job) for job in ids.values()} == {"COMPLETED"}
    for path in (store.node("c1-s0") / "evaluations").iterdir():
        path.unlink()
    capsys.readouterr()
    assert submit(plan, store) == 0
    assert "submitted 1 jobs" in capsys.readouterr().out
    assert {name for name in jobs(store) if not name.endswith(EARLY)} == {"c1-s0.evaluation"}
    wait_for(store)
    assert is_done(store)


def test_a_chain_that_fails_takes_its_evaluation_alone_with_it(store: Store, control: Path) -> None:
    (control / "c0-s0.fails").touch()
    plan = launch_fakes.make_plan(arms=3, cluster=SLURM | CHEAP)
    assert submit(plan, store) == 0
    ids = jobs(store)
    wait_for(store)
    assert [state(ids[f"c{arm}-s0.evaluation"]) for arm in range(3)] == ["CANCELLED", "COMPLETED", "COMPLETED"]
    (control / "c0-s0.fails").unlink()
    assert submit(plan, store) == 0
    assert jobs(store).keys() >= {"c0-s0", "c0-s0.evaluation"}
    wait_for(store)
    assert is_done(store)


def test_cancelling_stops_what_was_asked_on_demand(
    store: Store, control: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit(launch_fakes.make_plan(arms=1, cluster=SLURM), store) == 0
    wait_for(store)
    os.mkfifo(control / "c0-s0.evaluates")
    words = ["evaluate", "fake", "--checkpoint", "168", "--cluster", "slurm", "--store", str(store.root)]
    assert main(words) == 0
    (job,) = [job for name, job in jobs(store).items() if name.startswith("c0-s0.")]
    with (control / "c0-s0.evaluates").open("wb"):  # It is at it.
        capsys.readouterr()
        assert main(["cancel", "fake", "--store", str(store.root)]) == 0
        said = capsys.readouterr().out
        assert "cancelled 1 evaluation on demand" in said and f"told Slurm to cancel {job}" in said
        assert "retry" not in said
    wait_for(store)
    assert state(job) == "CANCELLED" and is_done(store)
    assert main(["cancel", "fake", "--store", str(store.root)]) == 2
    (control / "c0-s0.evaluates").unlink(missing_ok=True)
    assert main(words) == 0
    wait_for(store)
    assert 168 in {row["tokens"] for row in read(store.records("c0-s0"), "evaluation")}


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


def test_states_are_evaluated_while_training_goes_on(store: Store, control: Path) -> None:
    os.mkfifo(control / "c0-s0.7")
    assert submit(launch_fakes.make_plan(arms=1, cluster=SLURM | CHEAP), store) == 0
    wait_until(lambda: "c0-s0.early" in jobs(store))
    early = jobs(store)["c0-s0.early"]
    wait_until(lambda: state(early) == "COMPLETED")
    assert len(list((store.node("c0-s0") / "evaluations").iterdir())) == 1, "of the state in the middle"
    assert not read(store.records("c0-s0"), "evaluation"), "training holds the records"
    with (control / "c0-s0.7").open("wb"):
        pass
    wait_for(store)
    assert is_done(store)
    assert {row["tokens"] for row in read(store.records("c0-s0"), "evaluation")} == {200, 240}
    assert read_job(store.jobs("fake") / "c0-s0.early.json").task == "early"


def test_where_jobs_may_not_submit_all_is_evaluated_in_the_end(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "tools" / "sbatch"
    tool.parent.mkdir()
    tool.write_text(
        f'#!/bin/sh\n[ -z "$IN_JOB" ] && exec env IN_JOB=1 {shutil.which("sbatch")} "$@"\n'
        "echo 'sbatch: error: not from a node' >&2\nexit 1\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    assert submit(launch_fakes.make_plan(arms=1, cluster=SLURM | CHEAP), store) == 0
    wait_for(store)
    assert is_done(store) and "c0-s0.early" not in jobs(store)
    log = (store.jobs("fake") / "c0-s0.log").read_text()
    assert "not evaluated early: cluster=slurm: " in log and "not from a node" in log
