"""A small store, partly done, made by the launcher's own code with stand-ins for training and evaluation."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

FAKES = Path(__file__).parents[1] / "launching"
sys.path.insert(0, str(FAKES))

import launch_fakes  # noqa: E402

from davinci.launching import local  # noqa: E402
from davinci.launching.job import read_job, run_job  # noqa: E402
from davinci.launching.launch import write_jobs  # noqa: E402
from davinci.launching.manifests import record  # noqa: E402
from davinci.planning.plan import Plan  # noqa: E402
from davinci.store import Store  # noqa: E402


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing trains for real, here or in the workers of a launch."""
    for name, module in launch_fakes.stand_ins().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(local, "WORKER", [sys.executable, str(FAKES / "fake_worker.py")])


@pytest.fixture
def work() -> Callable[[Plan, Store, Sequence[str]], None]:
    """Launches a plan as far as the named chains."""

    def do(plan: Plan, store: Store, chains: Sequence[str]) -> None:
        record(plan, store)
        for path in write_jobs(plan, store, chains).values():
            run_job(read_job(path), lambda event: None, lambda: False)

    return do


@pytest.fixture
def store(tmp_path: Path, work: Callable[[Plan, Store, Sequence[str]], None]) -> Store:
    """A plan of two arms: the trunk and arm0 are done, arm1 is not begun."""
    store = Store(tmp_path / "store")
    work(launch_fakes.make_plan(), store, ["b-s0", "c0-s0"])
    return store


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that steers the stand-ins (see `launch_fakes`)."""
    folder = tmp_path / "control"
    folder.mkdir()
    monkeypatch.setenv("FAKE_CONTROL", str(folder))
    return folder


@pytest.fixture
def start(tmp_path: Path, control: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a launch of the fake sweep in a process of its own: ``start(arms, seeds, workers)``."""
    started: list[subprocess.Popen[bytes]] = []

    def launch(*sizes: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(FAKES / "fake_launch.py"), str(tmp_path / "store"), *map(str, sizes)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ})
        started.append(process)
        return process

    yield launch
    for process in started:
        process.kill()
        process.communicate()
