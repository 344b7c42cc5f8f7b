"""What a true sacct says of a sweep's jobs: a slurmdbd on a MariaDB, beside a Slurm that has already forgotten them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from launch_fakes import make_plan
from slurm_jobs import SLURM, jobs, state, steered, submit, wait_for

from davinci.launching.queued import live
from davinci.store import Store

CLUSTER = Path(__file__).with_name("cluster.sh")

pytestmark = pytest.mark.skipif(
    not (shutil.which("slurmdbd") and shutil.which("mariadbd")),
    reason="no accounting here: SLURM_ACCOUNTING=1 tests/slurm/cluster.sh install",
)


@pytest.fixture(scope="module")
def accounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cluster with accounting, beside that of the other tests."""
    folder = tmp_path_factory.mktemp("accounted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("SLURM_PORT", str(int(os.environ.get("SLURM_PORT", "17817")) + 50))
        patch.setenv("SLURM_ACCOUNTING", "1")
        subprocess.run([CLUSTER, "start", folder, "2"], check=True, timeout=120)
        yield
        subprocess.run([CLUSTER, "stop", folder, "2"], check=True, timeout=120)


def forgetful(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Have squeue list nothing, as a controller that was just restarted or forgets early."""
    folder.mkdir()
    (folder / "squeue").write_text("#!/bin/sh\n")
    (folder / "squeue").chmod(0o755)
    patch.setenv("PATH", str(folder), prepend=os.pathsep)
    patch.setattr("davinci.launching.queued.SEARCH_SECONDS", 0.0)


def test_accounting_tells_what_the_queue_forgot(
    accounted: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: Callable[[Callable[[], bool]], None]
) -> None:
    control = steered(tmp_path, monkeypatch)
    plan, store = make_plan(1, 3, cluster=SLURM), Store(tmp_path / "store")
    (control / "c0-s1.fails").touch()
    os.mkfifo(control / "a-s2.3")
    submit(plan, store)
    ids, order = jobs(store), [chain.name for chain in plan.chains()]
    assert len(ids) == 3 and len({job.partition("_")[0] for job in ids.values()}) == 1, "an array"
    with (control / "a-s2.3").open("wb"):
        until(lambda: {state(ids[name]) for name in ("c0-s0", "c0-s1")} == {"COMPLETED", "FAILED"})
        with pytest.MonkeyPatch.context() as patch:
            forgetful(tmp_path / "bin", patch)
            until(lambda: live(plan, store, order) == {"c0-s2": ids["c0-s2"]})
            subprocess.run(["scancel", ids["c0-s2"]], check=True)
            until(lambda: live(plan, store, order) == {})
    wait_for(store)
