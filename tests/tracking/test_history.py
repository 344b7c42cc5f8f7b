"""A run's metrics: the whole curriculum, of its own evaluations only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mirrored_sweep import EVALUATION, RUNS, evaluate, make_sweep

from davinci.store import Store
from davinci.tracking.history import history, metrics, summary
from davinci.tracking.records import Writer


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    make_sweep(store)
    return store


def test_history_is_the_whole_curriculum(store: Store) -> None:
    manifest = json.loads(store.runs("qa").read_text())[RUNS[0]]
    rows = history(store, manifest)
    assert list(rows) == list(range(10, 201, 10))
    assert float(rows[100].pop("record/time")) > 1e9
    assert rows[100] == {
        "train/loss": 1.5,
        "train/lr": 0.1,
        "train/batch": 4,
        "train/loss/general": 1.5,
        "record/attempt": 1,
        "record/step": 10,
        "heldout/code/loss": 0.9,
        "heldout/code/bits_per_byte": 0.4,
        "heldout/code/sequences": 8,
        "heldout/general/loss": 0.9,
        "heldout/general/bits_per_byte": 0.4,
        "heldout/general/sequences": 8,
    }
    assert {name: value for name, value in rows[200].items() if name.startswith("eval")} == {
        "eval/sums": 0.25,
        "eval/maths": 1.0,
        "eval/prose": 0.5,
        "eval/Science average": 0.625,
        "eval/General average": 0.5,
        "eval/Overall average": 1.75 / 3,
    }
    assert summary(rows)["train/loss"] == 1.0 and summary(rows)["tokens"] == 200


def test_checks_of_adaptive_stages_and_averages_have_names_of_their_own(store: Store) -> None:
    run = json.loads(store.runs("qa").read_text())[RUNS[0]]
    states = [{"node": "x", "tokens": tokens} for tokens in (140, 150)]
    run["points"] = [
        {"tokens": 150, "weights": "average", "states": states},
        {"tokens": 150, "weights": "average", "states": []},
        {"tokens": 160, "weights": "trained", "states": states},
    ]
    node = run["nodes"][1]["id"]
    evaluate(store, node, 150, 0.75, suite=f"{EVALUATION.key}-average-mean-140-150")
    evaluate(store, node, 150, 0.5, suite=f"{EVALUATION.key}-average")
    evaluate(store, node, 160, 1.0, suite=f"{EVALUATION.key}-mean-140-150")
    evaluate(store, node, 150, 0.0)  # another arm's: of the weights there
    with Writer(store.records(node), 1) as writer:
        writer.write("until", 110, 11, domain="code", loss=2.0, slope=None, ends=False)
        writer.write("until", 120, 12, domain="code", benchmark="prose", score=0.5, slope=-0.1, ends=True)
        writer.write("adapt", 120, 12, domain="qa", loss=1.5, slope=0.2, proportion=0.3)
        writer.write("heldout_average", 120, 12, domain="qa", loss=1.0, bits_per_byte=0.5, sequences=8)
    rows = history(store, run)
    assert {name: value for name, value in rows[150].items() if name.endswith("/sums")} == {
        "eval_average_mean2/sums": 0.75,
        "eval_average/sums": 0.5,
    }
    assert rows[150]["eval_average/General average"] == 0.5
    assert rows[160]["eval_mean2/sums"] == 1.0 and rows[200]["eval/sums"] == 0.25
    assert {name: value for name, value in rows[110].items() if name.startswith("until")} == {
        "until/code/loss": 2.0,
        "until/ends": 0,
    }
    assert {name: value for name, value in rows[120].items() if not name.startswith(("train", "record"))} == {
        "until/prose/score": 0.5,
        "until/prose/slope": -0.1,
        "until/ends": 1,
        "adapt/qa/loss": 1.5,
        "adapt/qa/slope": 0.2,
        "adapt/qa/proportion": 0.3,
        "heldout_average/qa/loss": 1.0,
        "heldout_average/qa/bits_per_byte": 0.5,
        "heldout_average/qa/sequences": 8,
    }


def test_an_evaluation_says_of_how_many_items_and_where_they_are() -> None:
    row = {"kind": "evaluation", "benchmark": "sums", "domain": "science", "score": 0.5, "items": 40, "key": "a1"}
    assert metrics(row) == {"eval/sums": 0.5, "eval_items/sums": 40, "eval_key/sums": "a1"}
    assert metrics(row | {"score": None}, "eval_average") == {
        "eval_average_items/sums": 40,
        "eval_average_key/sums": "a1",
    }
