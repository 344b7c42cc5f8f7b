"""Chains through submitit on a real Slurm (see `cluster.sh`); only training itself is a stand-in.

Jobs get the stand-ins through a sitecustomize module, since submitit starts a plain interpreter.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "launching"))
import launch_fakes

from davinci.errors import UserError
from davinci.launching.job import read_job, run_job
from davinci.launching.launch import launch, write_jobs
from davinci.launching.status import run_states
from davinci.planning.plan import Plan, load_plan
from davinci.store import Store, read_json
from davinci.tracking.records import read

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(shutil.which("slurmctld") is None, reason="no Slurm here: tests/slurm/cluster.sh install"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a Slurm of our own needs root"),
]

CLUSTER = Path(__file__).with_name("cluster.sh")


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("slurm")
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text("import launch_fakes\nlaunch_fakes.install()\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(Path(launch_fakes.__file__).parent)]))
        subprocess.run([CLUSTER, "start", folder], check=True, timeout=60)
        yield
        subprocess.run([CLUSTER, "stop", folder], check=True, timeout=60)


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, module in launch_fakes.stand_ins().items():
        monkeypatch.setitem(sys.modules, name, module)
    (tmp_path / "control").mkdir()
    monkeypatch.setenv("FAKE_CONTROL", str(tmp_path / "control"))


def submit(plan: Plan, store: Store, max_parallel: int = 8) -> int:
    first = plan.arms[0].config
    wanted = {"kind": "slurm", "max_parallel": max_parallel}
    return launch(plan, store, first.cluster.model_copy(update=wanted), first.tracking)


def jobs(store: Store) -> dict[str, str]:
    """Job id of each chain."""
    found: dict[str, str] = read_json(store.jobs("fake") / "slurm.json")
    return found


def wait_for(store: Store) -> None:
    """Until all jobs of the sweep, the mirror's included, have left the queue."""
    names = {path.name.split("_")[0] for path in (store.jobs("fake") / "slurm").glob("*_submitted.pkl")}
    command = ["srun", "--quiet", "--mem=1", f"--dependency=afterany:{':'.join(sorted(names))}", "true"]
    subprocess.run(command, check=True, timeout=120, cwd="/", capture_output=True)


def field(job: str, name: str) -> str:
    shown = subprocess.run(["scontrol", "-o", "show", "job", job], capture_output=True, text=True, check=True).stdout
    return next(part.partition("=")[2] for part in shown.split() if part.startswith(f"{name}="))


def digests(store: Store) -> dict[str, str]:
    marks = [json.loads(path.read_text()) for path in (store.root / "nodes").glob("*/done.json")]
    return {mark["node"]: mark["weights_digest"] for mark in marks}


def run_here(plan: Plan, store: Store) -> dict[str, str]:
    """What an undisturbed run on this machine gives."""
    os.environ.pop("FAKE_CONTROL")
    for path in write_jobs(plan, store, [chain.name for chain in plan.chains()]).values():
        run_job(read_job(path), lambda event: None, lambda: False)
    return digests(store)


def test_a_plan_runs_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "store")
    plan = launch_fakes.make_plan(arms=2, seeds=2, mode="offline")
    os.mkfifo(tmp_path / "control" / "a-s0.0")
    assert submit(plan, store) == 0
    output = capsys.readouterr().out
    ids = jobs(store)
    assert "submitted 6 jobs" in output
    assert f"squeue --jobs {','.join(sorted(ids.values(), key=int))}" in output
    assert field(ids["c0-s0"], "Dependency").startswith(f"afterok:{ids['b-s0']}")
    with (tmp_path / "control" / "a-s0.0").open("wb"):
        # Launched again while jobs are queued: those are left alone.
        assert submit(plan, store) == 0
        assert "queued already" in capsys.readouterr().out
        assert jobs(store)["b-s0"] == ids["b-s0"]
        assert run_states(load_plan(store, "fake"), store)[0].state == "running"
    wait_for(store)
    assert {field(job, "JobState") for job in ids.values()} == {"COMPLETED"}
    assert digests(store) == run_here(plan, Store(tmp_path / "other"))
    assert all(state.state == "done" for state in run_states(load_plan(store, "fake"), store))
    assert len(list(store.wandb.glob("offline-run-*"))) == 4
    assert submit(plan, store) == 0
    assert "all 4 runs are done" in capsys.readouterr().out


def test_a_failure_cancels_what_comes_after_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    plan = launch_fakes.make_plan(arms=2, seeds=1)
    (tmp_path / "control" / "b-s0.fails").touch()
    assert submit(plan, store) == 0
    ids = jobs(store)
    wait_for(store)
    assert field(ids["b-s0"], "JobState") == "FAILED"
    assert {field(ids[name], "JobState") for name in ("c0-s0", "c1-s0")} == {"CANCELLED"}
    states = run_states(load_plan(store, "fake"), store)
    assert [(state.state, state.error) for state in states] == [("failed", "RuntimeError: the loss went away")] * 2
    assert "Traceback" in (store.jobs("fake") / "b-s0.log").read_text()
    (tmp_path / "control" / "b-s0.fails").unlink()
    assert submit(plan, store) == 0
    wait_for(store)
    assert all(state.state == "done" for state in run_states(load_plan(store, "fake"), store))


def test_a_preempted_job_checkpoints_and_is_queued_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    plan = launch_fakes.make_plan(arms=1, seeds=1)
    fifo = tmp_path / "control" / "b-s0.5"
    os.mkfifo(fifo)
    (tmp_path / "control" / "b-s0.120.awaits-stop").touch()
    # One chain: both stages and the branch.
    assert submit(plan, store) == 0
    (job,) = jobs(store).values()
    with fifo.open("wb"):
        subprocess.run(["scancel", "--signal=USR2", job], check=True)
    wait_for(store)
    assert (field(job, "JobState"), field(job, "Restarts")) == ("COMPLETED", "1")
    attempts = {row["tokens"]: row["attempt"] for row in read(store.records("b-s0")) if row["kind"] == "train"}
    assert attempts[128] == 1 and attempts[136] == 2, "it went on from the very step it was stopped at"
    assert digests(store) == run_here(plan, Store(tmp_path / "other"))


def test_at_most_max_parallel_run_at_a_time(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    plan = launch_fakes.make_plan(arms=1, seeds=4)
    assert submit(plan, store, max_parallel=1) == 0
    ids = jobs(store)
    wait_for(store)
    times = sorted((field(job, "StartTime"), field(job, "EndTime")) for job in ids.values())
    assert all(end <= start for (_, end), (start, _) in pairwise(times))


def test_each_chain_asks_for_what_its_arm_says(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    plan = launch_fakes.make_plan(arms=2, seeds=1, cluster=[{"kind": "slurm"}, {"kind": "slurm", "time_minutes": 5}])
    assert submit(plan, store) == 0
    ids = jobs(store)
    assert {name: field(ids[name], "TimeLimit") for name in ("b-s0", "c0-s0", "c1-s0")} == {
        "b-s0": "00:10:00",
        "c0-s0": "00:10:00",
        "c1-s0": "00:05:00",
    }
    wait_for(store)


def test_no_slurm_is_one_clear_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="cluster=slurm: "):
        submit(launch_fakes.make_plan(), Store(tmp_path / "store"))
