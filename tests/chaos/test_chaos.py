"""A sweep on a real Slurm while launchers, jobs, nodes, a checkpoint and the disk fail: it ends as undisturbed.

docs/survival.md says what is done to it; `long_form.py` does the same to a sweep of the repository.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import conductor
import onlooker
import pytest
import small_sweep
from scene import Scene

SEED = 4
MEGABYTES = 48
KINDS = {
    "launcher killed",
    "two launchers at once",
    "job killed",
    "batch script killed",
    "job preempted",
    "slurmd stopped with its jobs",
    "slurmd restarted",
    "checkpoint truncated",
    "disk filled",
}

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(shutil.which("slurmctld") is None, reason="no Slurm here: tests/slurm/cluster.sh install"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a Slurm of our own needs root"),
]


def test_a_sweep_in_chaos_ends_as_undisturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in small_sweep.stand_ins().items():
        monkeypatch.setitem(sys.modules, name, module)
    environment = small_sweep.environment(tmp_path / "site", pause=0.03)
    python = [sys.executable, "-m", "davinci", "retry", small_sweep.NAME, "--store"]
    quiet, _ = small_sweep.filled(tmp_path / "quiet", kind="local", workers=1)
    undisturbed = subprocess.Popen(
        [*python, str(quiet.root)], env={**environment, "CHAOS_PAUSE": "0"}, stdout=subprocess.DEVNULL
    )
    try:
        with conductor.slurm(tmp_path / "slurm", environment), conductor.small_disk(tmp_path / "disk", MEGABYTES):
            monkeypatch.setenv("SLURM_CONF", environment["SLURM_CONF"])
            store, plan = small_sweep.filled(
                tmp_path / "disk" / "store", kind="slurm", time_minutes=10, memory_gb=1, max_parallel=8
            )
            scene = Scene(plan, store, [*python, str(store.root)], tmp_path / "slurm", environment, tmp_path)
            dice = Random(SEED)
            report = conductor.conduct(scene, conductor.schedule(len(plan.chains()), dice), dice, limit=900)
            assert undisturbed.wait(timeout=600) == 0
            report.wrong += onlooker.differences(scene, quiet)
            print(report.text())
            assert not report.wrong
            assert set(report.faults) == KINDS
            assert (report.runs, report.faults["job killed"]) == (24, 6)
    except PermissionError as error:
        pytest.skip(str(error))
    finally:
        undisturbed.kill()
        undisturbed.wait()
