"""What this machine has to offer."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from davinci.config import Cluster


def cores() -> int:
    """Cores this process may use: its affinity, and a container's CPU quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):
        return count


def core_sets(count: int) -> tuple[frozenset[int], ...]:
    """The cores this process may use in `count` even parts, neighbours together; more parts than cores share them.

    Empty where the system does not bind processes to cores.
    """
    if not hasattr(os, "sched_getaffinity"):
        return ()
    known = sorted(os.sched_getaffinity(0))
    if count > len(known):
        return tuple(frozenset({known[part % len(known)]}) for part in range(count))
    edges = [part * len(known) // count for part in range(count + 1)]
    return tuple(frozenset(known[begin:end]) for begin, end in itertools.pairwise(edges))


def gpus() -> tuple[str, ...]:
    """The accelerators this process may use, as CUDA_VISIBLE_DEVICES names them: what that says, else the driver."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is None:
        return _installed_gpus()
    names = [name.strip() for name in visible.split(",")]
    end = next((place for place, name in enumerate(names) if name in ("", "-1")), len(names))
    return tuple(names[:end])  # CUDA too stops at the first name of no device.


@cache
def _installed_gpus() -> tuple[str, ...]:
    """Unique ids (of a divided accelerator those of its parts) as nvidia-smi lists them, else numbers."""
    if shutil.which("nvidia-smi"):
        try:
            listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            return ()  # A driver that does not answer runs nothing.
        return _listed(listed.stdout)
    try:
        return tuple(str(number) for number, _ in enumerate(Path("/proc/driver/nvidia/gpus").iterdir()))
    except OSError:
        return ()


def _listed(text: str) -> tuple[str, ...]:
    """Ids in what ``nvidia-smi -L`` prints: a line a GPU, and below it an indented one for each part."""
    whole: list[list[str]] = []
    for line in text.splitlines():
        if found := re.search(r"\(UUID: ([^)\s]+)\)", line):
            if line[0].isspace() and whole:
                whole[-1].append(found[1])
            else:
                whole.append([found[1]])
    return tuple(name for gpu, *parts in whole for name in (parts or [gpu]))


def workers(cluster: Cluster) -> int:
    """Worker processes of a local cluster: `workers`, or as many as its threads leave cores for; where there are
    accelerators, `runs_per_gpu` on each, and no more than that."""
    if places := len(gpus()) * cluster.runs_per_gpu:
        return min(cluster.workers or places, places)
    return cluster.workers or max(1, cores() // cluster.threads)


def memory_bytes() -> int | None:
    """Main memory of this machine, or what its container may use; None where that cannot be told."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return total
