"""Twenty steps give the bits they have always given, here and in another process."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest
import torch
import trace_golden

from davinci.planning.identity import NUMERICS

HERE = Path(__file__).resolve().parent
CHANGED = (
    "training gives other bits than the golden trace. If that is meant, bump davinci.planning.identity.NUMERICS "
    "and run python tests/training/trace_golden.py --write"
)


def golden(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((HERE / f"golden_{name}.json").read_text())
    assert content["numerics"] == NUMERICS, "the golden traces are of another numerics version: write them again"
    if content["machine"]["torch"] != torch.__version__:
        pytest.skip(f"golden trace is of torch {content['machine']['torch']}, this is {torch.__version__}")
    return content


def assert_golden(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found["losses"] == wanted["losses"], CHANGED
    assert found["weights"] == wanted["weights"], CHANGED


def test_here_and_in_another_process() -> None:
    here = trace_golden.trace()
    # Other memory layout, hash seed and thread defaults: none of it may matter.
    there = trace_golden.elsewhere({"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2"})
    assert (here["losses"], here["weights"]) == (there["losses"], there["weights"])
    wanted = golden("native")
    if trace_golden.machine() != wanted["machine"]:
        pytest.skip(f"no golden trace for {trace_golden.machine()}; the portable one is compared everywhere")
    assert_golden(here, wanted)


def test_on_any_processor_with_avx2() -> None:
    if platform.machine() != "x86_64" or torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip(f"needs AVX2; this is {platform.machine()} {torch.backends.cpu.get_cpu_capability()}")
    assert_golden(trace_golden.elsewhere(trace_golden.PORTABLE), golden("portable"))
