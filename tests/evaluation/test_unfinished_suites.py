"""A suite that was killed goes on from the benchmark it was at, and ends as one that was not."""

from __future__ import annotations

import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from davinci.config import Evaluation, Node, parse
from davinci.evaluation import harness, settings, unfinished
from davinci.evaluation.evaluate import Result, evaluate
from davinci.store import Store

CONF = Path(__file__).parents[2] / "conf" / "evaluation" / "embedded.yaml"
NAMES = ("code_indentation", "general_cloze", "arithmetic_generative", "science_cloze")

# Evaluates, and is killed in the middle of the named benchmark: when the model is asked for it.
KILLED = """
import os, pickle, signal, sys
from davinci.evaluation.adapter import DecoderLM
from davinci.evaluation.evaluate import evaluate

dies_in, arguments = pickle.load(sys.stdin.buffer)
for method in ("loglikelihood", "generate_until"):
    def asked(self, requests, *rest, original=getattr(DecoderLM, method), **more):
        if requests[0].task_name == dies_in:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, requests, *rest, **more)
    setattr(DecoderLM, method, asked)
evaluate(*arguments)
"""


def suite(*names: str, **changes: Any) -> Evaluation:
    data = yaml.safe_load(CONF.read_text(encoding="utf-8"))
    chosen = {name: {**data["benchmarks"][name], **changes} for name in names}
    return parse(Evaluation, {**data, "benchmarks": chosen, "limit": 8, "probes": None})


@pytest.fixture
def run_benchmarks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The benchmarks that the model is really asked."""
    asked: list[str] = []
    original = harness.run

    def counted(load: Any, folder: Path, evaluation: Evaluation, *rest: Any, **more: Any) -> Any:
        asked.extend(evaluation.benchmarks)
        return original(load, folder, evaluation, *rest, **more)

    monkeypatch.setattr(harness, "run", counted)
    return asked


def told(results: list[Result]) -> list[tuple[str, float, int, str]]:
    return [(one.benchmark, one.score, one.items, one.key) for one in results]


def files(folder: Path, ending: str) -> int:
    return len(list((folder / "evaluations").glob(f"*{ending}")))


def test_a_killed_suite_goes_on_where_it_was(
    store: Store, node: Node, save: Callable[[int], Path], run_benchmarks: list[str], tmp_path: Path
) -> None:
    whole = Store(tmp_path / "whole")
    shutil.copytree(store.pool("embedded"), whole.pool("embedded"))
    asked, checkpoint, folder = suite(*NAMES), save(1), store.node(node.id)
    said = pickle.dumps(("arithmetic_generative", (checkpoint, node, asked, store)))
    killed = subprocess.run([sys.executable, "-c", KILLED], input=said, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (files(folder, ".parquet"), files(folder, unfinished.SUFFIX)) == (0, 2)
    resumed = evaluate(checkpoint, node, asked, store)
    assert run_benchmarks == ["arithmetic_generative", "science_cloze"]
    assert (files(folder, ".parquet"), files(folder, unfinished.SUFFIX)) == (1, 0)
    straight = evaluate(checkpoint, node, asked, whole)
    assert told(resumed) == told(straight)
    for one, other in zip(resumed, straight, strict=True):
        pd.testing.assert_frame_equal(one.frame, other.frame)
    assert told(evaluate(checkpoint, node, asked, store)) == told(resumed)


def test_what_is_asked_to_stop_stops_after_a_benchmark(
    store: Store, node: Node, save: Callable[[int], Path], run_benchmarks: list[str]
) -> None:
    class Enough(Exception):
        pass

    def stop() -> None:
        raise Enough

    asked, checkpoint = suite(*NAMES), save(1)
    for left in (3, 2):
        with pytest.raises(Enough):
            evaluate(checkpoint, node, asked, store, between=stop)
        assert files(store.node(node.id), unfinished.SUFFIX) == len(NAMES) - left
    run_benchmarks.clear()
    evaluate(checkpoint, node, asked, store)
    assert run_benchmarks == list(NAMES[2:])


def test_a_benchmark_that_another_suite_has_is_read_from_it(
    store: Store, node: Node, save: Callable[[int], Path], run_benchmarks: list[str]
) -> None:
    checkpoint = save(1)
    first = evaluate(checkpoint, node, suite(*NAMES[:2]), store)
    run_benchmarks.clear()
    larger = evaluate(checkpoint, node, suite(*NAMES[:3]), store)
    assert run_benchmarks == [NAMES[2]]
    assert [one.score for one in larger[:2]] == [one.score for one in first]
    run_benchmarks.clear()
    changed = suite(*NAMES[:2]).model_copy(update={"limit": 6})
    evaluate(checkpoint, node, changed, store)
    evaluate(checkpoint, node, suite(NAMES[0], num_fewshot=1), store)
    evaluate(save(2), node, suite(NAMES[0]), store)
    assert run_benchmarks == [*NAMES[:2], NAMES[0], NAMES[0]], "nothing stale is served"


def test_a_damaged_benchmark_is_evaluated_again(
    store: Store, node: Node, save: Callable[[int], Path], run_benchmarks: list[str]
) -> None:
    def stop() -> None:
        raise InterruptedError

    asked, checkpoint = suite(*NAMES[:2]), save(1)
    with pytest.raises(InterruptedError):
        evaluate(checkpoint, node, asked, store, between=stop)
    (kept,) = (store.node(node.id) / "evaluations").iterdir()
    kept.write_bytes(kept.read_bytes()[:200])
    run_benchmarks.clear()
    evaluate(checkpoint, node, asked, store)
    assert run_benchmarks == list(NAMES[:2])
    settings._definition.cache_clear()
