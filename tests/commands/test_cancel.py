"""``cancel`` and ``retry``, on real launchers whose training is a stand-in."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import launch_fakes
import pytest

from davinci.__main__ import main
from davinci.launching import cancelled
from davinci.launching.launch import launch
from davinci.launching.lock import holder
from davinci.launching.status import sweep_state
from davinci.planning.plan import load_plan
from davinci.store import Store

Start = Callable[..., "subprocess.Popen[bytes]"]


def states(store: Store) -> dict[str, str]:
    return {run.id: run.state for run in sweep_state(load_plan(store, "fake"), store).runs}


def digests(store: Store) -> dict[str, str]:
    marks = [json.loads(path.read_text()) for path in (store.root / "nodes").glob("*/done.json")]
    return {mark["node"]: mark["weights_digest"] for mark in marks}


def stands(control: Path, node: str, step: int) -> None:
    """Wait until training of a node stands before `step`; it then runs until it is told to stop."""
    with (control / f"{node}.{step}").open("wb"):
        pass


def will_stand(control: Path, node: str, begin: int, step: int) -> None:
    os.mkfifo(control / f"{node}.{step}")
    (control / f"{node}.{begin + step * launch_fakes.STEP_TOKENS}.awaits-stop").touch()


def test_cancelling_a_sweep_and_retrying_it(
    tmp_path: Path, control: Path, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    store, undisturbed = Store(tmp_path / "store"), Store(tmp_path / "undisturbed")
    will_stand(control, "b-s0", 80, 5)
    launcher = start(2, 1, 1)
    stands(control, "b-s0", 5)
    assert main(["cancel", "fake", "--store", str(store.root)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("cancelled 3 jobs; those that run checkpoint and stop\n")
    assert f"told process {launcher.pid} on " in said
    assert f"to go on: python -m davinci retry fake --store {store.root}" in said
    launcher.communicate(timeout=60)
    assert launcher.returncode == 130
    assert states(store) == {"arm0-s0": "cancelled", "arm1-s0": "cancelled"}
    assert store.checkpoint("b-s0", 80 + 6 * 8).is_dir(), "the step it was in is kept"
    assert main(["status", "fake", "--store", str(store.root)]) == 1
    assert "cancelled by " in capsys.readouterr().out

    for path in control.iterdir():
        path.unlink()
    assert main(["retry", "fake", "--json", "--store", str(store.root)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"sweep": "fake", "run": None, "cluster": "local", "status": 0}
    assert states(store) == {"arm0-s0": "done", "arm1-s0": "done"}
    assert not list(store.jobs("fake").glob("*.cancelled.json"))
    plan = launch_fakes.make_plan()
    launch(plan, undisturbed, plan.arms[0].config.cluster, plan.arms[0].config.tracking)
    assert digests(store) == digests(undisturbed)


def test_cancelling_a_run_leaves_what_others_need(
    tmp_path: Path, control: Path, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "store")
    os.mkfifo(control / "b-s0.5")
    launcher = start(2, 1, 1)
    with (control / "b-s0.5").open("wb"):
        assert main(["cancel", "fake/arm1/0", "--json", "--store", str(store.root)]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["run"], found["chains"], found["kept"]) == ("arm1-s0", ["c1-s0"], ["b-s0"])
        assert states(store) == {"arm0-s0": "running", "arm1-s0": "cancelled"}
        assert main(["cancel", "arm1-s0", "--store", str(store.root)]) == 2
        assert "run arm1-s0 is cancelled already; to go on: " in capsys.readouterr().err
    launcher.communicate(timeout=60)
    assert launcher.returncode == 1
    assert states(store) == {"arm0-s0": "done", "arm1-s0": "cancelled"}
    assert main(["retry", "arm1-s0", "--store", str(store.root)]) == 0
    assert states(store) == {"arm0-s0": "done", "arm1-s0": "done"}
    assert main(["cancel", "arm1-s0", "--store", str(store.root)]) == 2
    assert "run arm1-s0 is done; nothing to cancel" in capsys.readouterr().err
    assert main(["cancel", "fake", "--store", str(store.root)]) == 2
    assert "all 2 runs are done; nothing to cancel" in capsys.readouterr().err


def test_a_running_run_finds_its_mark(tmp_path: Path, control: Path, start: Start) -> None:
    store = Store(tmp_path / "store")
    will_stand(control, "c1-s0", 160, 4)
    launcher = start(2, 1, 1)
    stands(control, "c1-s0", 4)
    assert holder(store.node("c1-s0")) is not None
    assert main(["cancel", "arm1-s0", "--store", str(store.root)]) == 0
    said, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 1
    assert b"runs: 1 done, 1 cancelled" in said and b"failed" not in said
    assert b"\ncancelled: arm1 seed 0: cancelled by " in said
    assert states(store) == {"arm0-s0": "done", "arm1-s0": "cancelled"}
    assert store.checkpoint("c1-s0", 160 + 5 * 8).is_dir()
    log = (store.jobs("fake") / "c1-s0.log").read_text()
    assert "stopped: cancelled by " in log and "Traceback" not in log


def test_retrying_a_run_leaves_the_others(tmp_path: Path, control: Path, start: Start) -> None:
    store = Store(tmp_path / "store")
    (control / "c0-s0.fails").touch()
    (control / "c1-s0.fails").touch()
    start(2).communicate(timeout=60)
    assert states(store) == {"arm0-s0": "failed", "arm1-s0": "failed"}
    (control / "c0-s0.fails").unlink()
    assert main(["retry", "arm0-s0", "--store", str(store.root)]) == 0
    assert states(store) == {"arm0-s0": "done", "arm1-s0": "failed"}
    assert main(["retry", "fake", "--store", str(store.root)]) == 1, "it fails again"
    assert states(store)["arm1-s0"] == "failed"


def test_a_killed_worker_s_run_is_failed_for_other_shells_too(tmp_path: Path, control: Path, start: Start) -> None:
    store = Store(tmp_path / "store")
    (control / "c0-s0.dies").touch()
    start(2).communicate(timeout=60)
    (run, _) = sweep_state(load_plan(store, "fake"), store).runs
    assert (run.state, run.error) == ("failed", "the worker process died (signal 9)")
    assert states(store)["arm1-s0"] == "done"


def test_retrying_what_is_done_does_nothing(
    tmp_path: Path, control: Path, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    start(2).communicate(timeout=60)
    assert main(["retry", "arm0-s0", "--store", str(tmp_path / "store")]) == 0
    assert "all 2 runs are done" in capsys.readouterr().out


def test_a_torn_mark_still_cancels(store: Store) -> None:
    cancelled.mark(store, "fake", "c1-s0")
    cancelled.mark_path(store, "fake", "c1-s0").write_text("{")
    assert cancelled.reason(store, "fake", "c1-s0") == "cancelled"
    assert states(store)["arm1-s0"] == "cancelled"
