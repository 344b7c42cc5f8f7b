"""What this machine has to offer."""

from __future__ import annotations

import os
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


def workers(cluster: Cluster) -> int:
    """Worker processes of a local cluster: `workers`, or as many as its threads leave cores for."""
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
