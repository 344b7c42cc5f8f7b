"""The job that mirrors a sweep to W&B while it trains on Slurm, with the real client, against a server on loopback."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import launch_fakes
import pytest
from slurm_jobs import SLURM, deaths, field, is_done, jobs, state, submit, wait_for
from wandb_server import Server, serving

from davinci.launching.lock import holder
from davinci.store import Store

Until = Callable[[Callable[[], bool]], None]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        # Seconds for which the client collects rows: 15 without this.
        monkeypatch.setenv("WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL", "0.2")
        yield server


@pytest.fixture
def store(tmp_path: Path, control: Path) -> Store:
    return Store(tmp_path / "store")


def mirror_job(store: Store) -> str:
    """Id of the newest job that mirrors the sweep."""
    listed = subprocess.run(
        ["squeue", "--noheader", "--states=all", "--name=fake/wandb", "--format=%A|%k"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return max((line.partition("|")[0] for line in listed if line.endswith(f" {store.root}")), key=int)


def tokens(server: Server, name: str) -> list[int]:
    """Where the W&B runs of this display name have a loss, in the order of their rows."""
    return [
        row["tokens"]
        for run in server.runs.values()
        if run.display_name == name
        for row in run.history
        if "train/loss" in row
    ]


def test_rows_arrive_while_jobs_train_and_once_though_the_mirror_is_stopped_and_killed(
    store: Store, control: Path, until: Until, server: Server
) -> None:
    plan = launch_fakes.make_plan(
        arms=1, seeds=1, mode="online", cluster=SLURM | {"cpus_per_task": 2, "gpus_per_node": 1}
    )
    (control / "b-s0.120.awaits-stop").touch()
    assert submit(plan, store) == 0
    job, (chain,) = mirror_job(store), jobs(store).values()
    until(lambda: tokens(server, "arm0 seed 0") == list(range(8, 121, 8)))
    assert state(chain) == "RUNNING" and not is_done(store)
    assert field(job, "TRES") == "cpu=1,node=1,billing=1", "one core and no accelerator"

    lock = store.wandb / "locks" / "fake-online"
    first = holder(lock)
    subprocess.run(["scancel", "--signal=USR2", job], check=True)  # as before its time limit
    until(lambda: field(job, "Restarts") == "1" and state(job) == "RUNNING")
    until(lambda: (owner := holder(lock)) is not None and owner != first)
    owner = holder(lock)
    assert owner is not None
    (control / "b-s0.120.awaits-stop").unlink()
    os.kill(owner.pid, signal.SIGKILL)
    wait_for(store)
    assert is_done(store) and deaths(store, "c0-s0") == 0
    assert (state(job), field(job, "Restarts")) == ("COMPLETED", "2")
    assert tokens(server, "arm0 seed 0") == list(range(8, 241, 8)), "nothing twice, nothing left out"
    assert {run.exit_code for run in server.runs.values()} == {0}
    log = (store.jobs("fake") / "wandb.log").read_text()
    assert "Traceback" not in log and log.endswith("1 of 1 runs are finished and mirrored\n")


def test_training_does_not_wait_for_a_mirror_that_hangs_and_a_launch_replaces_it(
    store: Store, control: Path, until: Until, server: Server
) -> None:
    server.hanging = True
    plan = launch_fakes.make_plan(arms=1, seeds=1, mode="online", cluster=SLURM | {"max_parallel": 1})
    (control / "b-s0.120.awaits-stop").touch()
    assert submit(plan, store) == 0
    (chain,), first = jobs(store).values(), mirror_job(store)
    until(lambda: state(first) == "RUNNING")
    assert submit(plan, store) == 0
    second = mirror_job(store)
    until(lambda: state(first) == "CANCELLED")
    (control / "b-s0.120.awaits-stop").unlink()
    until(lambda: state(chain) == "COMPLETED")
    assert is_done(store) and not server.runs
    assert second != first and state(second) in ("PENDING", "RUNNING", "COMPLETING")
    subprocess.run(["scancel", second], check=True)


def test_where_slurm_takes_no_mirror_the_launch_says_how_to_have_one(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = tmp_path / "tools" / "sbatch"
    tool.parent.mkdir()
    tool.write_text(
        f'#!/bin/sh\ngrep -q "job-name=fake/wandb" "$@" || exec {shutil.which("sbatch")} "$@"\n'
        "echo 'sbatch: error: no job without an accelerator here' >&2\nexit 1\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    plan = launch_fakes.make_plan(arms=1, seeds=1, mode="online", cluster=SLURM)
    assert submit(plan, store) == 0
    assert f"python -m davinci sync fake --watch --store {store.root}" in capsys.readouterr().out
    wait_for(store)
    assert is_done(store)
