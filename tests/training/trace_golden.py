"""The golden trace: loss of each of the first steps of a fixed tiny training, and a digest of the weights after them.

``python tests/training/trace_golden.py`` prints this process's trace as JSON; with ``--write`` it writes the golden
files ``golden_portable.json`` and ``golden_native.json`` of this machine. Write them again only together with a bump of
``davinci.planning.identity.NUMERICS``: a changed trace means that equal ids no longer mean equal weights.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
STEPS = 20
# What makes torch, MKL and oneDNN round alike on every x86 processor with AVX2.
PORTABLE = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "AVX2"}


def trace() -> dict[str, Any]:
    """Train in a temporary store, recording every step."""
    from pools import tiny_pool
    from training_nodes import tiny_node, tiny_stage

    from davinci.model.weights import weights_digest
    from davinci.store import Store
    from davinci.tracking.records import read
    from davinci.training import loop, numerics

    numerics.configure(1)
    every, loop.RECORD_EVERY = loop.RECORD_EVERY, 1
    try:
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder))
            tiny_pool(store, tokens=4_000)
            node = tiny_node(stage=tiny_stage(STEPS))
            loop.train(
                node,
                store,
                checkpoints=(),
                attempt=1,
                progress=lambda *_: None,
                should_stop=lambda: False,
                heldout_sequences=1,
            )
            losses = [row["loss"] for row in read(store.records(node.id)) if row["kind"] == "train"]
            digest = weights_digest(store.checkpoint(node.id, node.end))
    finally:
        loop.RECORD_EVERY = every
    return {"losses": losses, "weights": digest}


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


def elsewhere(environment: dict[str, str]) -> dict[str, Any]:
    """The trace of a fresh process."""
    found = subprocess.run(
        [sys.executable, str(HERE / "trace_golden.py")],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(found.stdout)
    return result


def main() -> None:
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    if "--write" not in sys.argv:
        print(json.dumps({"machine": machine(), **trace()}))
        return
    from davinci.planning.identity import NUMERICS

    for name, environment in (("portable", PORTABLE), ("native", {})):
        content = {"numerics": NUMERICS, **elsewhere(environment)}
        (HERE / f"golden_{name}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
