"""Memory of a computation on a CPU, as torch's allocator sees it: the same number every time, whatever else runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler tells when it begins and ends, on stderr


def peak(call: Callable[[], Any]) -> int:
    """The most bytes of tensors that `call` has at once beside what is there before it; what it frees of that may not
    be counted. What it returns counts until it is done."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as found:
        kept = call()
    del kept
    live = most = 0
    events = found.profiler.kineto_results.events()
    for event in sorted((one for one in events if one.name() == "[memory]"), key=lambda one: one.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most
