"""Process-wide settings that make training deterministic on a CPU, and fast."""

from __future__ import annotations

import contextlib
import ctypes
import platform

import threadpoolctl
import torch

from davinci.config import Execution

# glibc's mallopt keys, from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def configure(threads: int) -> None:
    """Set torch up for this process; call once, before any tensor work.

    `threads` is part of a result: a sum split over more threads rounds differently. Denormals are flushed because a
    step on them can take 30 times as long. On a GPU bits are not promised: its deterministic kernels are slower.
    """
    torch.set_num_threads(threads)
    threadpoolctl.threadpool_limits(threads, user_api="blas")  # numpy's
    torch.set_flush_denormal(True)
    # Not by `use_deterministic_algorithms`, which loads torch's compiler: a second of every start.
    torch.set_deterministic_debug_mode("default" if torch.cuda.is_available() else "error")
    # Deterministic mode would also fill every new tensor with NaN to expose reads of unwritten memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.mkldnn.deterministic = True  # type: ignore[assignment]
    _keep_freed_memory()


def description(world: int, execution: Execution) -> dict[str, str | int | bool]:
    """What the rounding of a result of `world` ranks depends on beside the code."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    here = {
        "device": device,
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "world": world,
    }
    return execution.model_dump(include=set(Execution.model_fields)) | here


def _keep_freed_memory() -> None:
    """Let malloc reuse a step's large buffers: memory returned to the system costs the next step page faults."""
    if platform.system() != "Linux":
        return
    with contextlib.suppress(OSError, AttributeError):  # another libc: only slower
        libc = ctypes.CDLL(None)
        libc.mallopt(_TRIM_THRESHOLD, 1 << 30)
        libc.mallopt(_MMAP_THRESHOLD, 1 << 30)
