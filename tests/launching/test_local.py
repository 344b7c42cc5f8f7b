"""Real launchers and workers, killed and stopped at every wrong moment; only training itself is a stand-in.

The test and a worker meet at FIFOs (see `launch_fakes`), so that nothing here depends on timing.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import launch_fakes
import pytest

from davinci.accounting.machine import core_sets
from davinci.launching.job import failure_path
from davinci.launching.lock import holder, process_start
from davinci.store import Store, read_json
from davinci.tracking.records import read

SCRIPT = Path(__file__).with_name("fake_launch.py")


class Launcher:
    """A launch in its own process, with the folder of FIFOs that steer it."""

    def __init__(self, store: Path, control: Path, *sizes: int, stdout: int | IO[bytes] = subprocess.PIPE) -> None:
        control.mkdir(exist_ok=True)
        self.store = Store(store)
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(store), *map(str, sizes)],
            env={**os.environ, "FAKE_CONTROL": str(control), "COLUMNS": "200"},
            stdout=stdout,
            stderr=subprocess.STDOUT,
        )

    def line_with(self, text: str) -> str:
        """Read output up to a line that holds `text`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if text in line.decode():
                return line.decode()
        pytest.fail(f"the launcher ended without saying {text!r}")

    def end(self) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=60)
        return self.process.returncode, (output or b"").decode()


@pytest.fixture
def control(tmp_path: Path) -> Path:
    folder = tmp_path / "control"
    folder.mkdir()
    return folder


@contextmanager
def halted(control: Path, name: str) -> Iterator[None]:
    """With training standing at FIFO `name`, which must exist; it goes on afterwards."""
    with (control / name).open("wb"):
        yield


def stop_at(control: Path, *names: str) -> None:
    for name in names:
        os.mkfifo(control / name)


def digests(store: Store) -> dict[str, str]:
    marks = [json.loads(path.read_text()) for path in (store.root / "nodes").glob("*/done.json")]
    return {mark["node"]: mark["weights_digest"] for mark in marks}


def scores(store: Store) -> dict[str, list[float]]:
    nodes = sorted(path.name for path in (store.root / "nodes").iterdir())
    return {node: [row["score"] for row in read(store.records(node)) if row["kind"] == "evaluation"] for node in nodes}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("undisturbed")
    status, output = Launcher(folder / "store", folder / "control", 2, 2).end()
    assert status == 0, output
    assert "runs: 4 done" in output
    return Store(folder / "store")


def same(store: Store, other: Store) -> bool:
    return digests(store) == digests(other) and scores(store) == scores(other)


def test_a_finished_sweep_starts_nothing(undisturbed: Store, control: Path) -> None:
    before = sorted(path.stat().st_mtime_ns for path in (undisturbed.root / "nodes").rglob("*"))
    status, output = Launcher(undisturbed.root, control, 2, 2).end()
    assert (status, output) == (0, "all 4 runs are done; nothing to train or evaluate\n")
    assert sorted(path.stat().st_mtime_ns for path in (undisturbed.root / "nodes").rglob("*")) == before


def test_a_killed_launcher_takes_its_workers_along_and_resumes(
    undisturbed: Store, tmp_path: Path, control: Path
) -> None:
    stop_at(control, "b-s0.5", "b-s1.7")
    launcher = Launcher(tmp_path / "store", control, 2, 2)
    with halted(control, "b-s0.5"), halted(control, "b-s1.7"):
        workers = [holder(launcher.store.node(node)) for node in ("b-s0", "b-s1")]
        handles = [os.pidfd_open(worker.pid) for worker in workers if worker]
        assert len(handles) == 2
        launcher.process.kill()
        launcher.end()
        for handle in handles:  # Readable once the process has ended.
            wait_readable(handle)
    for worker in workers:
        assert worker is not None and process_start(worker.pid) != worker.started
    for fifo in control.iterdir():
        fifo.unlink()
    status, output = Launcher(tmp_path / "store", control, 2, 2).end()
    assert status == 0, output
    assert same(launcher.store, undisturbed)
    attempts = {row["attempt"] for row in read(launcher.store.records("b-s0"))}
    assert attempts == {1, 2}, "it resumed from its checkpoint instead of starting over"


def wait_readable(handle: int) -> None:
    ready, _, _ = select.select([handle], [], [], 60)
    os.close(handle)
    assert ready


def test_a_killed_worker_is_replaced(undisturbed: Store, tmp_path: Path, control: Path) -> None:
    stop_at(control, "b-s0.5")
    launcher = Launcher(tmp_path / "store", control, 2, 2)
    with halted(control, "b-s0.5"):
        worker = holder(launcher.store.node("b-s0"))
        assert worker is not None
        (control / "b-s0.5").unlink()
        os.kill(worker.pid, signal.SIGKILL)
    status, output = launcher.end()
    assert status == 0, output
    assert "a worker died (signal 9); its chain is resumed" in output
    assert same(launcher.store, undisturbed)


def test_a_chain_that_keeps_killing_its_worker_fails_alone(tmp_path: Path, control: Path) -> None:
    (control / "b-s0.dies").touch()
    status, output = Launcher(tmp_path / "store", control, 2, 2).end()
    assert status == 1
    assert "failed: arm0 seed 0, arm1 seed 0: the worker process died (signal 9); log: " in output
    assert "failed: b of 2 runs of seed 0: the worker process died (signal 9)" in output
    assert "blocked: arm0 seed 0: waits for b-s0" in output
    assert "runs: 2 done, 2 failed" in output


@pytest.fixture
def small_memory() -> Iterator[Path]:
    """A control group whose processes the kernel kills beyond 300 MB."""
    one = Path("/sys/fs/cgroup/memory")
    folder = (one if one.is_dir() else one.parent) / f"davinci-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / ("memory.limit_in_bytes" if one.is_dir() else "memory.max")).write_text(str(300 << 20))
    except OSError:
        with suppress(OSError):
            folder.rmdir()
        pytest.skip("no control group may be made here")
    yield folder
    folder.rmdir()


def test_a_chain_that_takes_too_much_memory_fails_with_that_reason(
    tmp_path: Path, control: Path, small_memory: Path
) -> None:
    (control / "b-s0.hogs").write_text(str(small_memory))
    launcher = Launcher(tmp_path / "store", control, 2, 2)
    status, output = launcher.end()
    assert status == 1
    assert output.count("a worker died (out of memory") == 2, "cluster.max_retries"
    reason = "the worker process died (out of memory; a smaller cluster.workers leaves more to each)"
    assert f"failed: arm0 seed 0, arm1 seed 0: {reason}; log: " in output
    assert "runs: 2 done, 2 failed" in output
    assert read_json(failure_path(launcher.store, "fake", "b-s0"))["error"] == reason


def test_a_failure_is_reported_with_its_log_and_mended(undisturbed: Store, tmp_path: Path, control: Path) -> None:
    (control / "c1-s0.fails").touch()
    launcher = Launcher(tmp_path / "store", control, 2, 2)
    status, output = launcher.end()
    assert status == 1
    log = launcher.store.jobs("fake") / "c1-s0.log"
    assert f"failed: arm1 seed 0: RuntimeError: the loss went away; log: {log}" in output
    assert "Traceback" not in output
    assert "RuntimeError: the loss went away" in log.read_text()
    (control / "c1-s0.fails").unlink()
    status, output = Launcher(tmp_path / "store", control, 2, 2).end()
    assert status == 0
    assert same(launcher.store, undisturbed)


def test_ctrl_c_drains_and_the_same_command_resumes(undisturbed: Store, tmp_path: Path, control: Path) -> None:
    stop_at(control, "b-s0.5")
    (control / f"b-s0.{80 + 5 * 8}.awaits-stop").touch()
    launcher = Launcher(tmp_path / "store", control, 2, 2, 1)
    with halted(control, "b-s0.5"):
        launcher.process.send_signal(signal.SIGINT)
        launcher.line_with("stopping: each worker checkpoints at its next step")
    status, output = launcher.end()
    assert status == 130
    assert "stopped; the same command goes on: python" in output and "fake_launch.py" in output
    assert launcher.store.checkpoint("b-s0", 80 + 6 * 8).is_dir(), "the step it was in is kept"
    status, output = Launcher(tmp_path / "store", control, 2, 2).end()
    assert status == 0, output
    assert same(launcher.store, undisturbed)


def test_a_second_ctrl_c_kills(tmp_path: Path, control: Path) -> None:
    stop_at(control, "a-s0.2")
    launcher = Launcher(tmp_path / "store", control, 1, 1, 1)
    with halted(control, "a-s0.2"):
        worker = holder(launcher.store.node("a-s0"))
        assert worker is not None
        launcher.process.send_signal(signal.SIGINT)
        launcher.line_with("Ctrl-C again kills them")
        launcher.process.send_signal(signal.SIGINT)
        status, _ = launcher.end()  # Although the worker still stands at its FIFO.
    assert status == 130
    assert process_start(worker.pid) != worker.started


def test_a_reader_that_went_away_changes_nothing(undisturbed: Store, tmp_path: Path, control: Path) -> None:
    stop_at(control, "a-s0.1")
    launcher = Launcher(tmp_path / "store", control, 2, 2)
    with halted(control, "a-s0.1"):
        assert launcher.process.stdout is not None
        launcher.process.stdout.close()
    assert launcher.process.wait(timeout=60) == 0
    assert same(launcher.store, undisturbed)


def test_a_second_launcher_waits_for_the_first(undisturbed: Store, tmp_path: Path, control: Path) -> None:
    stop_at(control, "a-s0.3")
    first = Launcher(tmp_path / "store", control, 2, 2)
    with halted(control, "a-s0.3"):
        worker = holder(first.store.node("a-s0"))
        assert worker is not None
        second = Launcher(tmp_path / "store", tmp_path / "nothing", 2, 2)
        line = second.line_with("a of 2 runs of seed 0: waiting for")
        assert f"process {worker.pid} on " in line
    assert first.end()[0] == 0
    assert second.end()[0] == 0
    assert same(first.store, undisturbed)
    assert {row["attempt"] for row in read(first.store.records("a-s0"))} == {1}, "nothing was trained twice"


def test_every_worker_sees_one_accelerator_and_its_share_of_the_cores(
    tmp_path: Path, control: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-one,GPU-two")
    stop_at(control, "a-s0.1", "a-s1.1")
    launcher = Launcher(tmp_path / "store", control, 1, 4, 4)
    with halted(control, "a-s0.1"), halted(control, "a-s1.1"):
        found = [holder(launcher.store.node(f"a-s{seed}")) for seed in range(4)]
        pids = [worker.pid for worker in found if worker]
        assert len(pids) == 2, "of the four workers asked for, two have an accelerator to themselves"
        sees = [Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in pids]
        assert [[text for text in one if b"VISIBLE" in text] for one in sees] == [
            [b"CUDA_VISIBLE_DEVICES=GPU-one"],
            [b"CUDA_VISIBLE_DEVICES=GPU-two"],
        ]
        assert [os.sched_getaffinity(pid) for pid in pids] == list(core_sets(2))
    status, output = launcher.end()
    assert status == 0, output


def test_job_files_are_whole_plans(undisturbed: Store) -> None:
    jobs = {path.stem: json.loads(path.read_text()) for path in undisturbed.jobs("fake").glob("*.json")}
    assert {name: [node["id"] for node in job["nodes"]] for name, job in jobs.items()} == {
        chain.name: list(chain.nodes) for chain in launch_fakes.make_plan(2, 2).chains()
    }
