"""The golden traces: every loss of fixed tiny trainings, and digests of what they end with.

``python tests/training/trace_golden.py`` prints this process's traces as JSON; with ``--write`` it writes the golden
files ``golden_portable.json`` and ``golden_native.json`` of this machine. A trace that changed is written only together
with a bump of ``davinci.planning.identity.NUMERICS``: it means that equal ids no longer mean equal weights.

The portable traces are of one thread and pinned instruction sets. `PORTABLE` pins the kernels of torch, MKL and oneDNN;
what is not pinned are libm's, which glibc chooses by the processor (cos, pow and exp of a learning rate), and what a
build of torch for other than x86 does.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# What makes torch, MKL and oneDNN round alike on every x86 processor with AVX2. COMPATIBLE is MKL's one path that does
# not depend on the vendor either.
PORTABLE = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "DNNL_MAX_CPU_ISA": "AVX2",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}

Traces = dict[str, dict[str, Any]]


def traces(names: Collection[str] | None = None) -> Traces:
    """Train the courses in a temporary store: losses in nats as hexadecimal floats, digests by file of the end."""
    from pools import tiny_pool
    from trace_courses import courses, nodes

    from davinci.store import Store
    from davinci.tracking.records import read
    from davinci.training import loop, numerics
    from davinci.training.checkpoints import read_state

    numerics.configure(1)
    every, loop.RECORD_EVERY = loop.RECORD_EVERY, 1
    found: Traces = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder))
            tiny_pool(store, tokens=4_000)
            for name in courses() if names is None else names:
                losses: list[str] = []
                for node in nodes(name):
                    loop.train(
                        node,
                        store,
                        checkpoints=(),
                        attempt=1,
                        progress=lambda *_: None,
                        should_stop=lambda: False,
                        heldout_sequences=1,
                    )
                    losses += [row["loss"].hex() for row in read(store.records(node.id)) if row["kind"] == "train"]
                digests = read_state(store.checkpoint(node.id, node.end)).digests
                found[name] = {"losses": losses, "digests": dict(sorted(digests.items()))}
    finally:
        loop.RECORD_EVERY = every
    return found


def machine() -> dict[str, str]:
    """What the bits of a trace depend on beside the program, here and now."""
    import torch

    names = ("vendor_id", "cpu family", "model")
    found = dict.fromkeys(names, "unknown")
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else []:
        name, _, value = line.partition(":")
        if name.strip() in names:
            found[name.strip()] = value.strip()
    return {
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "processor": " ".join([platform.machine(), *found.values()]),
    }


def elsewhere(environment: dict[str, str], *names: str) -> dict[str, Any]:
    """``{"machine": …, "traces": …}`` of a fresh process; all courses unless some are named."""
    found = subprocess.run(
        [sys.executable, str(HERE / "trace_golden.py"), *names],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(found.stdout)
    return result


def write() -> None:
    """Write the golden files; refuses where a trace changed and NUMERICS did not."""
    from davinci.planning.identity import NUMERICS

    for name, environment in (("portable", PORTABLE), ("native", {})):
        path = HERE / f"golden_{name}.json"
        content = {"numerics": NUMERICS, **elsewhere(environment)}
        before = json.loads(path.read_text()) if path.is_file() else {"numerics": None}
        if (before["numerics"], before.get("machine")) == (NUMERICS, content["machine"]):
            both = before["traces"].keys() & content["traces"].keys()
            changed = sorted(one for one in both if before["traces"][one] != content["traces"][one])
            if changed:
                sys.exit(f"{path.name}: {', '.join(changed)} changed; bump davinci.planning.identity.NUMERICS first")
        path.write_text(json.dumps(content, indent=1) + "\n")


def main() -> None:
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    if "--write" in sys.argv:
        write()
    else:
        print(json.dumps({"machine": machine(), "traces": traces(sys.argv[1:] or None)}))


if __name__ == "__main__":
    main()
