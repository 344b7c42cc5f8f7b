"""Which jobs are alive, when squeue no longer lists them and sacct says what became of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from launch_fakes import make_plan

from davinci.launching.lock import Lock
from davinci.launching.queued import book_path, live
from davinci.planning.plan import Plan
from davinci.store import Store, write_json

BOOK = {"c0-s0": "7", "c0-s1": "8_0", "c0-s2": "8_1", "c0-s3": "8_12"}


@pytest.fixture
def plan() -> Plan:
    return make_plan(1, 4)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """All jobs in the book were submitted long ago."""
    store = Store(tmp_path / "store")
    write_json(book_path(store, "fake"), BOOK)
    return store


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Scripts in place of squeue, which lists nothing, and of sacct and scancel, which say nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    scripts = {name: folder / name for name in ("squeue", "sacct", "scancel")}
    for path in scripts.values():
        path.write_text("#!/bin/sh\nexit 0\n")
        path.chmod(0o755)
    return scripts


def answer(sacct: Path, *lines: str, status: int = 0) -> None:
    """What the real one prints for jobs 7 and 8, and for nothing else."""
    printed = "\n".join(lines)
    sacct.write_text(
        f'#!/bin/sh\n[ "$*" = "-X -n -P -o JobID,State -j 7,8" ] || exit 9\ncat <<END\n{printed}\nEND\nexit {status}\n'
    )


def chains(plan: Plan, store: Store) -> set[str]:
    return set(live(plan, store, [chain.name for chain in plan.chains()]))


@pytest.mark.parametrize(
    "state", ["COMPLETED", "FAILED", "OUT_OF_MEMORY", "NODE_FAIL", "TIMEOUT", "PREEMPTED", "CANCELLED by 0"]
)
def test_what_accounting_saw_end_is_over_whatever_a_lock_says(
    state: str, plan: Plan, store: Store, says: dict[str, Path]
) -> None:
    with Lock(store.node("a-s0")), Lock(store.node("a-s2")):
        assert chains(plan, store) == {"c0-s0", "c0-s2"}, "without a word from accounting the heartbeat decides"
        answer(says["sacct"], f"7|{state}", f"8_0|{state}", "8_1|RUNNING", "8_[2-12%8]|PENDING")
        assert chains(plan, store) == {"c0-s2"}


def test_a_record_that_nobody_closed_keeps_no_job_alive(plan: Plan, store: Store, says: dict[str, Path]) -> None:
    answer(says["sacct"], "7|RUNNING", "8_0|RUNNING", "8_1|COMPLETED", "8_12|PENDING")
    assert chains(plan, store) == set()
    with Lock(store.node("b-s1")):
        assert chains(plan, store) == {"c0-s1"}


def test_accounting_that_fails_says_nothing(plan: Plan, store: Store, says: dict[str, Path]) -> None:
    answer(says["sacct"], "7|COMPLETED", status=1)
    with Lock(store.node("a-s3")):
        assert chains(plan, store) == {"c0-s3"}
