"""The real training loop on Slurm, killed in the middle: the same weights as undisturbed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import launch_fakes
import pytest
from real_plans import filled, long, planned
from slurm_jobs import SLURM, digests, wait_for

from davinci.config import Run
from davinci.launching.job import read_job, run_job
from davinci.launching.launch import launch, write_jobs
from davinci.launching.lock import holder
from davinci.launching.reconcile import plan_remaining
from davinci.launching.status import run_states
from davinci.tracking.records import read

EVALUATION = """
import sys, launch_fakes
sys.modules.update({name: one for name, one in launch_fakes.stand_ins().items() if name.startswith("davinci.eval")})
"""


@pytest.fixture(autouse=True)
def unevaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is evaluated for real, here or in jobs."""
    (tmp_path / "sitecustomize.py").write_text(EVALUATION)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(launch_fakes.__file__).parent)]))
    for name, module in launch_fakes.stand_ins().items():
        if name.startswith("davinci.evaluation"):
            monkeypatch.setitem(sys.modules, name, module)


def on_slurm(run: Run) -> Run:
    return run.model_copy(update={"cluster": run.cluster.model_copy(update=SLURM | {"memory_gb": 2})})


def test_a_job_whose_accelerator_torch_does_not_see_fails_before_it_trains(cluster: Path, tmp_path: Path) -> None:
    """Slurm gives it one, which is /dev/null."""
    store = filled(tmp_path / "store")
    run = on_slurm(long(2))
    run = run.model_copy(update={"cluster": run.cluster.model_copy(update={"gpus_per_node": 1})})
    plan = planned(store, run)
    (trunk,) = plan.chains()
    assert launch(plan, store, plan.arms[0].config.cluster, plan.arms[0].config.tracking) == 0
    wait_for(store, plan.sweep)
    (state,) = run_states(plan, store)
    assert state.state == "failed" and state.error is not None
    assert state.error.startswith("cluster.gpus_per_node: 1 asked for, but torch sees none on ")
    assert not store.records(trunk.nodes[0]).exists()


def test_a_killed_job_ends_with_the_same_weights(
    cluster: Path, tmp_path: Path, until: Callable[[Callable[[], bool]], None]
) -> None:
    store, quiet = filled(tmp_path / "store"), filled(tmp_path / "quiet")
    plan = planned(store, on_slurm(long(2)))
    (trunk,) = plan.chains()
    assert launch(plan, store, plan.arms[0].config.cluster, plan.arms[0].config.tracking) == 0
    trained = store.records(trunk.nodes[-1])
    until(lambda: len(read(trained, "train")) > 0)
    owner = holder(store.node(trunk.nodes[-1]))
    if owner is not None:  # else it was quicker than this test
        os.kill(owner.pid, signal.SIGKILL)
    wait_for(store, plan.sweep)
    assert all(left.finished for left in plan_remaining(plan, store).values())
    for path in write_jobs(plan, quiet, [chain.name for chain in plan.chains()]).values():
        run_job(read_job(path), lambda event: None, lambda: False)
    assert digests(store) == digests(quiet)
    assert max(row["attempt"] for row in read(trained, "train")) == (1 if owner is None else 2)
