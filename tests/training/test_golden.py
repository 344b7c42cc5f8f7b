"""Fifty steps of every kind of stage give the bits they have always given, here and in another process."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest
import torch
import trace_golden
from trace_courses import courses

from davinci.planning.identity import NUMERICS

HERE = Path(__file__).resolve().parent
CHANGED = (
    "training gives other bits than the golden trace. If that is meant, bump davinci.planning.identity.NUMERICS "
    "and run python tests/training/trace_golden.py --write"
)


def golden(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((HERE / f"golden_{name}.json").read_text())
    assert content["numerics"] == NUMERICS, "the golden traces are of another numerics version: write them again"
    assert content["traces"].keys() == courses().keys(), "write the traces of new courses; see trace_golden.py"
    if content["machine"]["torch"] != torch.__version__:
        pytest.skip(f"golden traces are of torch {content['machine']['torch']}, this is {torch.__version__}")
    return content


def assert_golden(found: trace_golden.Traces, wanted: trace_golden.Traces) -> None:
    for name, trace in found.items():
        assert trace["losses"] == wanted[name]["losses"], f"{name}: {CHANGED}"
        assert trace["digests"] == wanted[name]["digests"], f"{name}: {CHANGED}"


def test_here_and_in_another_process() -> None:
    names = ("masked_questions", "ema")
    here = trace_golden.traces(names)
    # Other memory layout, hash seed and thread defaults: none of it may matter.
    there = trace_golden.elsewhere({"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2"}, *names)
    assert here == there["traces"]
    wanted = golden("native")
    if trace_golden.machine() != wanted["machine"]:
        pytest.skip(f"no golden traces for {trace_golden.machine()}; the portable ones are compared everywhere")
    assert_golden(here, wanted["traces"])


def test_every_kind_of_stage_on_any_processor_with_avx2() -> None:
    if platform.machine() != "x86_64" or torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip(f"needs AVX2; this is {platform.machine()} {torch.backends.cpu.get_cpu_capability()}")
    wanted = golden("portable")
    assert_golden(trace_golden.elsewhere(trace_golden.PORTABLE)["traces"], wanted["traces"])


def test_the_courses_differ() -> None:
    """Two traces alike would mean that a stage's field is not read."""
    wanted = golden("portable")["traces"]
    for index, (name, trace) in enumerate(wanted.items()):
        same = [one for one in list(wanted)[:index] if wanted[one]["digests"] == trace["digests"]]
        assert not same, (name, same)
    constant = wanted["constant"]["losses"]
    # What averages and resets begin with is the plain run; a stage that goes on as before, exactly so.
    assert wanted["ema"]["losses"] == wanted["polyak"]["losses"] == constant
    assert wanted["resets"]["losses"][:30] == constant[:30] != wanted["resets"]["losses"][20:]
