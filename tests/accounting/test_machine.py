"""What a machine is said to have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from plans import small_run

from davinci.accounting import machine
from davinci.errors import UserError


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What is installed is looked up once a process."""
    machine._installed_gpus.cache_clear()
    yield
    machine._installed_gpus.cache_clear()


def test_cores_heed_a_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    for text, expected in (("max 100000\n", 8), ("300000 100000\n", 3), ("50000 100000\n", 1)):
        monkeypatch.setattr(Path, "read_text", lambda self, text=text: text)
        assert machine.cores() == expected


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("", ()), ("-1", ()), ("0", ("0",)), ("1, 3", ("1", "3")), ("GPU-5f,MIG-a0,-1,2", ("GPU-5f", "MIG-a0"))],
)
def test_visible_accelerators_are_those_there_are(
    visible: str, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.gpus() == expected


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            "echo 'GPU 0: NVIDIA H100 (UUID: GPU-aa-1)'\necho '  MIG 3g.40gb Device  0: (UUID: MIG-x)'\n"
            "echo '  MIG 3g.40gb Device  1: (UUID: MIG-y)'\necho 'GPU 1: NVIDIA H100 (UUID: GPU-bb-2)'",
            ("MIG-x", "MIG-y", "GPU-bb-2"),
        ),
        ("echo 'No devices found.'", ()),
        ("echo 'NVIDIA-SMI has failed because it could not communicate with the driver'; exit 9", ()),
    ],
)
def test_the_driver_is_asked_what_is_installed(
    script: str, expected: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n[ $1 = -L ] || exit 2\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine.gpus() == expected


def test_workers_share_accelerators_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 6)

    def workers(**changes: object) -> int:
        return machine.workers(small_run(cluster={"workers": None} | changes).cluster)

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [workers(), workers(threads=4), workers(workers=9), workers(runs_per_gpu=3)] == [6, 1, 9, 6]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert [workers(), workers(runs_per_gpu=3), workers(workers=9), workers(workers=1)] == [2, 6, 2, 1]
    with pytest.raises(UserError, match=r"cluster.gpus_per_node: cluster=local trains a run .* on one accelerator"):
        workers(gpus_per_node=2)


def test_core_sets_are_even_and_shared_by_more_workers_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 2, 3, 5, 7})
    assert machine.core_sets(2) == ({1, 2}, {3, 5, 7})
    assert machine.core_sets(5) == ({1}, {2}, {3}, {5}, {7})
    assert machine.core_sets(7) == ({1}, {2}, {3}, {5}, {7}, {1}, {2})
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.core_sets(3) == ()
