"""A Slurm of our own (see `cluster.sh`) for the tests of this folder, which run one after another in one process.

They mostly wait, so that several processes, with a Slurm each, take less time: ``pytest -n 3 --dist loadgroup``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "launching"))
sys.path.insert(0, str(Path(__file__).parent))
from slurm_jobs import steered, wait_until

CLUSTER = Path(__file__).with_name("cluster.sh")

# Where one test has the kernel kill for want of memory, others that are killed may be told the same: never at once.
TOGETHER = {"test_memory": "killed", "test_survival": "killed"}
# Ports of a process's clusters.
PORTS = 200


def pytest_configure(config: pytest.Config) -> None:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    if int(worker):
        os.environ["SLURM_PORT"] = str(int(os.environ.get("SLURM_PORT", "17817")) + PORTS * int(worker))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    missing = [
        reason
        for reason, lacks in (
            ("no Slurm here: tests/slurm/cluster.sh install", shutil.which("slurmctld") is None),
            ("a Slurm of our own needs root", os.geteuid() != 0),
        )
        if lacks
    ]
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.slurm)
            item.add_marker(pytest.mark.xdist_group(TOGETHER.get(item.path.stem, item.path.stem)))
            for reason in missing:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a running cluster."""
    folder = tmp_path_factory.mktemp("slurm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("SLURM_ARRAY", "6")
        subprocess.run([CLUSTER, "start", folder], check=True, timeout=60)
        yield folder
        subprocess.run([CLUSTER, "stop", folder], check=True, timeout=60)


@pytest.fixture
def control(cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that steers the stand-ins for training which jobs run."""
    return steered(tmp_path, monkeypatch)


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    return wait_until
