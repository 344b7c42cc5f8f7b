"""What jobs of a sweep leave in the store to count each other: places, deaths, the code they run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import launch_fakes
import pytest

import davinci
from davinci.launching import attempts, lock, this_job, wrapper
from davinci.launching.job import failure_path
from davinci.launching.launch import write_jobs
from davinci.launching.lock import Lock, WaitAbandoned, beats, holder, this_process
from davinci.launching.queued import book_path
from davinci.launching.slots import Slot
from davinci.launching.snapshot import code_folder, snapshot
from davinci.store import Store, read_json, write_json


def nothing() -> None:
    pass


def slot(folder: Path, count: int, on_wait: Callable[[], None] = nothing) -> Slot:
    return Slot(folder, count, on_wait, lambda: True)


def test_there_are_as_many_places_as_said(tmp_path: Path) -> None:
    waited = []
    with slot(tmp_path, 2), slot(tmp_path, 2):
        with pytest.raises(WaitAbandoned), slot(tmp_path, 2, lambda: waited.append(1)):
            pass
        assert waited == [1]
        with slot(tmp_path, 3):
            pass
    with slot(tmp_path, 1):
        pass


def test_a_dead_holder_loses_its_place(tmp_path: Path) -> None:
    write_json(tmp_path / "0" / "lock.000001", asdict(replace(this_process(), pid=2**22 + 1)))
    with slot(tmp_path, 1):
        pass


def test_a_heart_elsewhere_is_listened_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.001)
    assert not beats(tmp_path, 0.01)
    with Lock(tmp_path):
        assert beats(tmp_path, 0.01)
    assert not beats(tmp_path, 0.01)
    write_json(tmp_path / "lock.000009", asdict(replace(this_process(), machine="elsewhere")))
    assert not beats(tmp_path, 0.01)
    ticks = iter(range(10**9))
    monkeypatch.setattr(lock, "_modified", lambda path: next(ticks))
    assert beats(tmp_path, 1.0)


def test_a_lock_is_released_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Lock, content: object) -> Path:
        raise OSError(28, "No space left on device")

    with Lock(tmp_path):
        assert holder(tmp_path) is not None
        monkeypatch.setattr(Lock, "_write_temporary", full)
    assert holder(tmp_path) is None
    monkeypatch.undo()
    assert Lock(tmp_path).try_take()


def test_a_job_that_left_no_word_died(tmp_path: Path) -> None:
    path = tmp_path / "chain.attempts.json"
    assert attempts.begin(path).count == 0
    attempts.end(path)
    assert attempts.begin(path).count == 0
    found = attempts.begin(path)
    assert (found.count, found.reason) == (1, "its node failed, or it was killed with its batch script")
    assert attempts.died(path, "killed by signal 9").count == 2
    assert attempts.begin(path) == attempts.Attempts(count=2, reason="killed by signal 9")
    path.write_text("torn")
    assert attempts.begin(path).count == 0


@pytest.mark.parametrize(
    ("restarts", "last", "deaths"),
    [
        ("2", "PREEMPTED", 0),
        ("2", "REQUEUED", 0),
        ("2", "NODE_FAIL", 1),
        ("2", None, 1),
        ("0", "PREEMPTED", 1),
        ("3", "PREEMPTED", 1),
    ],
)
def test_what_slurm_took_without_a_word_did_not_die(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarts: str, last: str | None, deaths: int
) -> None:
    """Accounting lists every run of a job; the one before this one counts. Where there is none, or it never hears of
    that run's end, it died."""
    monkeypatch.setattr(this_job, "ACCOUNTING_SECONDS", 0.0)
    sacct = tmp_path / "sacct"
    day = "2026-01-0{}T00:00:00".format
    runs = f"{day(1)}|NODE_FAIL|{day(2)}\n{day(2)}|{last} by 0|{day(3)}\n{day(3)}|RUNNING|Unknown"
    if last is not None:
        sacct.write_text(f'#!/bin/sh\n[ "$1 $8" = "--duplicates 7_1" ] && echo "{runs}"\n')
        sacct.chmod(0o755)
    variables = {"PATH": f"{tmp_path}:/bin", "SLURM_RESTART_COUNT": restarts}
    for name, value in {**variables, "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "chain.attempts.json"
    attempts.begin(path)
    assert attempts.begin(path, excused=this_job.was_taken).count == deaths
    assert attempts.read_attempts(path).open


@pytest.mark.parametrize(
    ("left", "what", "counted"),
    [
        ("0:12", "works", True),
        ("0:12", "trains", False),
        ("0:12", "waits", False),
        ("1-02:03:04", "works", False),
        ("INVALID", "works", False),
    ],
)
def test_a_time_limit_that_leaves_no_time_is_a_death(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str, what: str, counted: bool
) -> None:
    """Else the job would be queued again for ever. A preemption just after its start is none."""
    plan, store = launch_fakes.make_plan(arms=1, cluster={"kind": "slurm", "time_minutes": 1}), Store(tmp_path)
    write_jobs(plan, store, ["c0-s0"])
    write_json(book_path(store, plan.sweep), {"c0-s0": "7"})
    asked = tmp_path / "asked"
    for name in ("squeue", "scontrol"):
        tool = tmp_path / name
        tool.write_text(
            f'#!/bin/sh\necho {name} "$@" >>{asked}\ncase "$*" in *%T) echo RUNNING;; *) echo {left};; esac\n'
        )
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    notes = attempts.attempts_path(store, plan.sweep, "c0-s0")
    nodes = ["a-s0", "b-s0", "c0-s0"]
    for number in range(1, 4):
        attempts.begin(notes)
        if what != "waits":
            attempts.work(notes, attempts.standing(nodes, store))
        if what == "trains":
            store.checkpoint("a-s0", 8 * number).mkdir(parents=True)
        attempts.end(notes)
        status = wrapper.after(store.jobs(plan.sweep), wrapper.STOPPED)
        assert status == (wrapper.FAILED if counted and number == 3 else wrapper.STOPPED)
        assert attempts.read_attempts(notes).count == (number if counted else 0)
    assert asked.read_text().count("scontrol requeue 7") == (2 if counted else 3)
    failure = failure_path(store, plan.sweep, "c0-s0")
    assert failure.is_file() == counted
    if counted:
        assert "cluster.time_minutes=1 is too short" in read_json(failure)["error"]


def test_what_a_job_says_on_a_full_disk_does_not_change_how_it_exits() -> None:
    code = "import sys; from davinci.launching.wrapper import say; say('stopped: asked to'); sys.exit(75)"
    with Path("/dev/full").open("w") as full:
        assert subprocess.run([sys.executable, "-c", code], stdout=full, check=False).returncode == 75


def test_a_snapshot_is_the_package_and_is_made_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    digest = snapshot(store)
    folder = code_folder(store, digest)
    stamp = folder.stat().st_mtime_ns
    assert snapshot(store) == digest
    assert folder.stat().st_mtime_ns == stamp
    assert [path.name for path in folder.parent.iterdir()] == [digest]
    assert not list(folder.rglob("__pycache__"))
    package = Path(davinci.__file__).parent
    assert (folder / "davinci/evaluation/item_sets.yaml").read_bytes() == (
        package / "evaluation/item_sets.yaml"
    ).read_bytes()
    code = "import davinci; print(davinci.__file__)"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert Path(shown.stdout.strip()).is_relative_to(folder)
