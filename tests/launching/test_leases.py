"""What jobs of a sweep leave in the store to count each other: places, deaths, the code they run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import davinci
from davinci.launching import attempts, lock
from davinci.launching.lock import Lock, WaitAbandoned, beats, holder, this_process
from davinci.launching.slots import Slot
from davinci.launching.snapshot import code_folder, snapshot
from davinci.store import Store, write_json


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
    assert (folder / "davinci/data/archives.txt").read_bytes() == (package / "data/archives.txt").read_bytes()
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
