"""One holder at a time; a dead one is replaced, on this machine at once and elsewhere after a silence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from davinci.launching import lock
from davinci.launching.lock import Lock, Owner, WaitAbandoned, holder, this_process

HOLD = """
import sys
from pathlib import Path
from davinci.launching.lock import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def start_holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def write_lock(folder: Path, owner: Owner, number: int = 1) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"lock.{number:06d}"
    path.write_text(json.dumps(asdict(owner)))
    return path


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.002)
    monkeypatch.setattr(lock, "SILENCE_SECONDS", 0.05)


def test_a_live_holder_is_waited_for_then_replaced(tmp_path: Path) -> None:
    process = start_holder(tmp_path)
    seen: list[Owner] = []
    with pytest.raises(WaitAbandoned), Lock(tmp_path, seen.append, should_stop=lambda: bool(seen)):
        pass
    assert [owner.pid for owner in seen] == [process.pid]
    assert holder(tmp_path) == seen[0]
    process.communicate("")  # The end of its input lets it release.
    assert holder(tmp_path) is None
    with Lock(tmp_path, lambda owner: pytest.fail("waited for a released lock")):
        assert [path.name for path in tmp_path.iterdir()] == ["lock.000002"]


def test_a_killed_holder_is_replaced_even_unreaped(tmp_path: Path) -> None:
    process = start_holder(tmp_path)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # It is now a zombie, and stays one.
    assert holder(tmp_path) is None
    with Lock(tmp_path, lambda owner: pytest.fail("waited for a zombie")):
        pass
    process.communicate()


def test_a_reused_pid_is_not_the_holder(tmp_path: Path) -> None:
    write_lock(tmp_path, replace(this_process(), started="1"))
    with Lock(tmp_path, lambda owner: pytest.fail("waited for a stranger")):
        pass


def test_a_silent_holder_elsewhere_is_replaced(tmp_path: Path) -> None:
    write_lock(tmp_path, replace(this_process(), machine="elsewhere", host="elsewhere"))
    waited: list[Owner] = []
    with Lock(tmp_path, waited.append) as mine:
        assert not mine.lost
    assert [owner.host for owner in waited] == ["elsewhere"]


def test_a_beating_holder_elsewhere_is_left_alone(tmp_path: Path) -> None:
    path = write_lock(tmp_path, replace(this_process(), machine="elsewhere"))
    polls = 0

    def beat() -> bool:
        nonlocal polls
        polls += 1
        # Its clock may say anything: only change counts.
        os.utime(path, ns=(polls, polls))
        return polls > 60

    with pytest.raises(WaitAbandoned), Lock(tmp_path, should_stop=beat):
        pass
    assert path.exists()


def test_a_holder_learns_that_it_was_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.002)
    with Lock(tmp_path) as mine:
        other = write_lock(tmp_path, replace(this_process(), machine="elsewhere"), number=2)
        assert mine._lost.wait(10)
        assert mine.lost
    assert other.exists(), "a lost lock must not be released for its new holder"
    assert json.loads(other.read_text())["machine"] == "elsewhere"


def test_a_torn_lock_file_is_free(tmp_path: Path) -> None:
    (tmp_path / "lock.000007").write_text('{"host": "x"')
    with Lock(tmp_path, lambda owner: pytest.fail("waited for nobody")):
        assert (tmp_path / "lock.000008").exists()


def test_claimants_of_a_stale_lock_take_turns(tmp_path: Path) -> None:
    write_lock(tmp_path, replace(this_process(), started="1"))
    inside, overlaps, turns = [0], [], []

    def claim(number: int) -> None:
        for _ in range(5):
            with Lock(tmp_path):
                inside[0] += 1
                overlaps.append(inside[0] > 1)
                turns.append(number)
                inside[0] -= 1

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(turns) == 30 and not any(overlaps)
    assert len(list(tmp_path.iterdir())) == 1
