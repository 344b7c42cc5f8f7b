"""Whether a killed process was killed by the kernel for want of memory, which leaves no word but SIGKILL."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

# Where a batch script keeps what `kills` was when it began.
BEFORE = "DAVINCI_OOM_KILLS"


def kills() -> int | None:
    """How many processes of this machine the kernel has killed for want of memory, be it the machine's or a cgroup's;
    None where it does not say."""
    try:
        found = re.search(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None


def ran_out(before: int | None) -> bool:
    """Whether the kernel has killed for want of memory since `kills` was `before`."""
    now = kills()
    return now is not None and before is not None and now > before


def ran_out_in_job(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether it has since the batch script of this job began."""
    before = environment.get(BEFORE, "")
    return ran_out(int(before) if before.isdigit() else None)
