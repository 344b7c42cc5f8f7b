"""Chains through submitit on a real Slurm: what is submitted, how, and what a second launch does about it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import launch_fakes
import pytest
from slurm_jobs import SLURM, digests, field, is_done, jobs, most_at_once, run_here, state, states, submit, times
from slurm_jobs import wait_for as wait_for_all

from davinci.errors import UserError
from davinci.launching.job import read_job
from davinci.store import Store, write_json

Until = Callable[[Callable[[], bool]], None]


@pytest.fixture
def store(tmp_path: Path, control: Path) -> Store:
    return Store(tmp_path / "store")


def test_a_plan_runs_to_its_end(
    store: Store, control: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Children are arrays that depend on their parent alone; what is queued is left alone by a second launch."""
    plan = launch_fakes.make_plan(arms=2, seeds=2, mode="offline", cluster=SLURM)
    os.mkfifo(control / "a-s0.0")
    assert submit(plan, store) == 0
    output = capsys.readouterr().out
    ids = jobs(store)
    assert "submitted 6 jobs" in output
    arrays = {name: job.split("_")[0] for name, job in ids.items()}
    assert arrays["b-s0"] == arrays["b-s1"] and len(set(arrays.values())) == 3
    assert arrays["c0-s0"] == arrays["c1-s0"] != arrays["c0-s1"] == arrays["c1-s1"]
    assert f"squeue --jobs {','.join(sorted(set(arrays.values()), key=int))}" in output
    assert field(ids["c0-s0"], "Dependency").startswith(f"afterok:{ids['b-s0']}")
    assert (store.root / "code" / str(read_job(store.jobs("fake") / "b-s0.json").code) / "davinci").is_dir()
    with (control / "a-s0.0").open("wb"):
        assert submit(plan, store) == 0
        assert "submitted 0 jobs; " in capsys.readouterr().out
        assert jobs(store) == ids
        assert states(store)[0] == ("running", None)
    wait_for_all(store)
    assert {state(job) for job in ids.values()} == {"COMPLETED"}
    assert is_done(store)
    assert len(list((store.wandb / "mirrored").iterdir())) == 6, "four runs and two trunks"
    assert submit(plan, store) == 0
    assert "all 4 runs are done" in capsys.readouterr().out
    assert digests(store) == run_here(plan, Store(tmp_path / "undisturbed"))


def test_a_failed_trunk_blocks_its_own_branches_only(store: Store, control: Path) -> None:
    plan = launch_fakes.make_plan(arms=2, seeds=2, cluster=SLURM)
    (control / "b-s0.fails").touch()
    assert submit(plan, store) == 0
    ids = jobs(store)
    wait_for_all(store)
    assert state(ids["b-s0"]) == "FAILED"
    assert {state(ids[name]) for name in ("c0-s0", "c1-s0")} == {"CANCELLED"}
    assert [name for name, _ in states(store)] == ["blocked", "blocked", "done", "done"]
    assert "Traceback" in (store.jobs("fake") / "b-s0.log").read_text()
    (control / "b-s0.fails").unlink()
    # What failed and what Slurm cancelled for it are submitted again, at once.
    assert submit(plan, store) == 0
    assert jobs(store).keys() == {"b-s0", "c0-s0", "c1-s0"}
    wait_for_all(store)
    assert is_done(store)


def test_a_branch_that_fails_leaves_its_siblings_alone(store: Store, control: Path) -> None:
    plan = launch_fakes.make_plan(arms=3, seeds=1, cluster=SLURM)
    (control / "c1-s0.fails").touch()
    assert submit(plan, store) == 0
    wait_for_all(store)
    assert states(store) == [("done", None), ("failed", "RuntimeError: the loss went away"), ("done", None)]


@pytest.mark.parametrize("license", [None, "seat"])
def test_never_more_than_max_parallel_at_once(store: Store, license: str | None) -> None:
    """Over several arrays: of each seed's branches, and of what exceeds MaxArraySize (6 here)."""
    limit = {"max_parallel": 3, "memory_gb": 1} if license is None else {"license": license}
    plan = launch_fakes.make_plan(arms=2 if license else 7, seeds=2, cluster=SLURM | limit)
    assert submit(plan, store) == 0
    ids = jobs(store)
    if license is None:
        of_seed = [{ids[f"c{arm}-s{seed}"].split("_")[0] for arm in range(7)} for seed in range(2)]
        assert [len(arrays) for arrays in of_seed] == [2, 2]
    wait_for_all(store)
    assert is_done(store)
    assert most_at_once(times(store)) <= (3 if license is None else 2)


def test_each_chain_asks_for_what_its_arm_says(store: Store) -> None:
    more = SLURM | {"time_minutes": 5, "gpus_per_node": 1}
    plan = launch_fakes.make_plan(arms=2, seeds=1, cluster=[SLURM, more])
    assert submit(plan, store) == 0
    ids = jobs(store)
    limits = {name: field(ids[name], "TimeLimit") for name in ("b-s0", "c0-s0", "c1-s0")}
    assert limits == {"b-s0": "00:10:00", "c0-s0": "00:10:00", "c1-s0": "00:05:00"}
    assert field(ids["c1-s0"], "TresPerNode") == "gres:gpu:1"
    wait_for_all(store)
    assert is_done(store)


def test_two_launchers_at_once_submit_once(store: Store) -> None:
    plan = launch_fakes.make_plan(arms=2, seeds=2, cluster=SLURM)
    launchers = [threading.Thread(target=submit, args=(plan, store)) for _ in range(2)]
    for one in launchers:
        one.start()
    for one in launchers:
        one.join()
    wait_for_all(store)
    assert is_done(store)
    assert len(list((store.jobs("fake") / "slurm").glob("*_submitted.pkl"))) == 6


def test_jobs_of_a_launcher_that_died_before_noting_them_go(store: Store, control: Path, until: Until) -> None:
    plan = launch_fakes.make_plan(arms=1, seeds=1, cluster=SLURM)
    (control / "a-s0.8.awaits-stop").touch()
    assert submit(plan, store) == 0
    (lost,) = jobs(store).values()
    until((store.node("a-s0") / "records.jsonl").is_file)
    write_json(store.jobs("fake") / "slurm.json", {})
    (control / "a-s0.8.awaits-stop").unlink()
    os.mkfifo(control / "a-s0.5")
    assert submit(plan, store) == 0
    assert jobs(store)["c0-s0"] != lost
    with (control / "a-s0.5").open("wb"):
        pass
    wait_for_all(store)
    assert state(lost) in ("CANCELLED", "COMPLETED")
    assert is_done(store)


def test_a_job_that_squeue_does_not_list_is_alive_while_its_lock_is_held(
    store: Store, control: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = launch_fakes.make_plan(arms=1, seeds=1, cluster=SLURM)
    os.mkfifo(control / "a-s0.1")
    assert submit(plan, store) == 0
    ids = jobs(store)
    with (control / "a-s0.1").open("wb"):
        pickle = store.jobs("fake") / "slurm" / f"{ids['c0-s0']}_submitted.pkl"
        os.utime(pickle, (1, 1))
        mute = tmp_path / "mute"
        mute.mkdir()
        (mute / "squeue").write_text("#!/bin/sh\n")
        (mute / "squeue").chmod(0o755)
        with monkeypatch.context() as patch:
            patch.setenv("PATH", f"{mute}:{os.environ['PATH']}")
            capsys.readouterr()
            assert submit(plan, store) == 0
        assert "submitted 0 jobs; 1 were queued already" in capsys.readouterr().out
        assert jobs(store) == ids
    wait_for_all(store)


def test_a_job_that_is_gone_before_it_was_young_is_submitted_again(
    store: Store, control: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled by hand, on a controller that forgets at once: it is looked for, and no minute is waited."""
    plan = launch_fakes.make_plan(arms=1, seeds=1, cluster=SLURM)
    (control / "a-s0.8.awaits-stop").touch()
    assert submit(plan, store) == 0
    (job,) = jobs(store).values()
    subprocess.run(["scancel", job], check=True)
    wait_for_all(store)
    (control / "a-s0.8.awaits-stop").unlink()
    forgetful = tmp_path / "forgetful"
    forgetful.mkdir()
    squeue = shutil.which("squeue")
    (forgetful / "squeue").write_text(f'#!/bin/sh\n{squeue} "$@" | grep -v "^{job}|"\nexit 0\n')
    (forgetful / "squeue").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{forgetful}:{os.environ['PATH']}")
        assert submit(plan, store) == 0
    assert jobs(store)["c0-s0"] != job
    wait_for_all(store)
    assert is_done(store)


def test_no_slurm_is_one_clear_message(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="cluster=slurm: "):
        submit(launch_fakes.make_plan(cluster=SLURM), store)


def test_looking_after_a_job_takes_neither_submitit_nor_torch(store: Store) -> None:
    code = "import sys, davinci.launching.wrapper; print({'submitit', 'torch'} & set(sys.modules))"
    plain = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=plain)
    assert shown.stdout.strip() == "set()"
