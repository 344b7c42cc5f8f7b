"""Jobs that take more memory than they asked for, on a Slurm whose kernel kills them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from launch_fakes import make_plan
from slurm_jobs import SLURM, deaths, field, is_done, jobs, state, states, steered, submit, wait_for

from davinci.store import Store

CLUSTER = Path(__file__).with_name("cluster.sh")
GROUPS = Path("/sys/fs/cgroup/memory")

pytestmark = pytest.mark.skipif(
    not os.access(GROUPS / "cgroup.procs", os.W_OK), reason="no memory control groups (v1) may be made here"
)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cluster of one node that holds jobs to their memory, beside that of the other tests."""
    folder = tmp_path_factory.mktemp("strict")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("SLURM_PORT", str(int(os.environ.get("SLURM_PORT", "17817")) + 100))
        patch.setenv("SLURM_MEMORY", "1")
        subprocess.run([CLUSTER, "start", folder, "1"], check=True, timeout=60)
        yield
        subprocess.run([CLUSTER, "stop", folder, "1"], check=True, timeout=60)


def test_a_job_killed_for_memory_is_tried_again_and_says_so_in_the_end(
    strict: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = steered(tmp_path, monkeypatch)
    plan = make_plan(1, 1, cluster=SLURM | {"memory_gb": 1, "max_retries": 1})
    store = Store(tmp_path / "store")
    (control / "b-s0.hogs").touch()
    submit(plan, store)
    (job,) = jobs(store).values()
    wait_for(store)
    assert (state(job), field(job, "Restarts"), deaths(store, "c0-s0")) == ("FAILED", "1", 2)
    error = "the job died 2 times, at last: out of memory; cluster.memory_gb=1 is too little"
    assert states(store) == [("failed", error)]
    (control / "b-s0.hogs").unlink()
    submit(plan, store)
    wait_for(store)
    assert is_done(store)
