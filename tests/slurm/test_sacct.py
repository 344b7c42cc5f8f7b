"""What a true sacct says of a sweep's jobs: a slurmdbd on a MariaDB, beside a Slurm that has already forgotten them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from launch_fakes import make_plan
from slurm_jobs import SLURM, attempts, deaths, field, is_done, jobs, state, steered, submit, wait_for

from davinci.launching.queued import live
from davinci.store import Store

CLUSTER = Path(__file__).with_name("cluster.sh")

pytestmark = pytest.mark.skipif(
    not (shutil.which("slurmdbd") and shutil.which("mariadbd")),
    reason="no accounting here: SLURM_ACCOUNTING=1 tests/slurm/cluster.sh install",
)


@pytest.fixture(scope="module")
def accounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cluster with accounting, beside that of the other tests, that takes its nodes with SIGKILL alone."""
    folder = tmp_path_factory.mktemp("accounted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("SLURM_PORT", str(int(os.environ.get("SLURM_PORT", "17817")) + 50))
        for name, value in {"SLURM_ACCOUNTING": "1", "SLURM_GRACE": "0", "SLURM_KILL_WAIT": "0"}.items():
            patch.setenv(name, value)
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


def test_a_job_that_slurm_took_without_a_word_did_not_die(
    accounted: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: Callable[[Callable[[], bool]], None]
) -> None:
    """It hears nothing of it; that it was preempted only accounting tells."""
    control = steered(tmp_path, monkeypatch)
    plan, store = make_plan(1, 1, cluster=SLURM | {"cpus_per_task": 4, "max_retries": 0}), Store(tmp_path / "store")
    (control / "b-s0.120.deaf").touch()
    submit(plan, store)
    (job,) = jobs(store).values()
    until((control / "b-s0.120.is-deaf").is_file)
    urgent = ["srun", "--quiet", "-p", "urgent", "-w", field(job, "NodeList"), "-c4", "--mem=3000", "true"]
    subprocess.run(urgent, check=True, timeout=60, cwd="/")
    wait_for(store)
    assert (state(job), field(job, "Restarts")) == ("COMPLETED", "1")
    told = subprocess.run(
        ["sacct", "--duplicates", "-X", "-n", "-P", "-o", "State", "-j", job],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split()[0] == "PREEMPTED"
    assert deaths(store, "c0-s0") == 0
    assert (attempts(store, "b-s0")[120], attempts(store, "b-s0")[128]) == (1, 2)
    assert is_done(store)
