"""Models that were not trained here beside the arms, and what was evaluated on demand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fabricated_store import BENCHMARKS, fabricate

from analysis.__main__ import main
from analysis.findings import study
from analysis.load import load
from analysis.models import mean_score, read_external
from analysis.report import page
from analysis.samples import Grid
from davinci.errors import UserError
from davinci.evaluation.item_records import SCHEMA, write
from davinci.store import Store, write_json
from davinci.tracking.records import Writer

ITEMS = 60


def add_external(store: Store, name: str, suite: str, items: int, right: int, truncated: int = 0) -> None:
    """A model that is right on the first `right` of `items` items of every benchmark."""
    folder = store.external(name)
    rows = [
        {"benchmark": benchmark, "item": item, "score": float(item < right), "truncated": False}
        for benchmark in BENCHMARKS
        for item in range(items)
    ]
    frame = pd.DataFrame(rows).reindex(columns=SCHEMA.names).astype({"likelihoods": object})
    write(folder / "evaluations" / "abc.parquet", dict.fromkeys(BENCHMARKS, right / items), frame)
    tests = load(store, "qa_ratio").plan.arms[0].config.evaluation.benchmarks
    scores = {
        name: {
            **{"domain": one.domain, "protocol": one.protocol, "metric": one.metric, "task": one.task},
            **{"num_fewshot": one.num_fewshot, "score": right / items, "items": items, "truncated": truncated},
            **{"chance": one.chance, "key": "abc"},
        }
        for name, one in tests.items()
    }
    write_json(folder / "scores.json", {suite: {"suite": "embedded", "limit": None, "benchmarks": scores}})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return fabricate(tmp_path, seeds=(0, 1))


def key(store: Store) -> str:
    return load(store, "qa_ratio").plan.arms[0].config.evaluation.key


def test_a_model_stands_beside_the_arms(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    add_external(store, "other-12345678", key(store), ITEMS, 45)
    found = study(store, "qa_ratio", externals=["other"])
    assert found.models is not None and found.models.headers[-1] == "other-12345678"
    cells = {(one["column"], one["model"]): one for one in found.models.data}
    overall = cells["Overall", "other-12345678"]
    assert overall["score"] == pytest.approx(75.0)
    arm = found.models.headers[2]
    last = found.grid.last(arm)
    main_cell = next(cell for cell in found.main.row(arm, last) if cell.column == "Overall")
    assert cells["Overall", arm]["score"] == pytest.approx(100 * float(main_cell.score.mean))
    assert not any("fewer items" in note for note in found.models.notes)
    assert "Beside other models" in page(found)
    assert main(["report", "qa_ratio", "--external", "other", "--store", str(store.root)]) == 0
    assert "by model" in capsys.readouterr().out
    assert "other-12345678" in (store.sweep("qa_ratio") / "report" / "models.md").read_text()


def test_what_differs_from_the_sweeps_suite_is_said(store: Store) -> None:
    add_external(store, "few-00000000", "0ther5et", 4, 4, truncated=2)
    model = read_external(store, "few", Grid(load(store, "qa_ratio")))
    assert "was asked fewer items" in model.notes[0] and "4 of 60" in model.notes[0]
    assert "did not fit its context" in model.notes[1]
    assert all(score.error > 0.05 for score in model.scores.values()), "four right answers prove little"
    mean = mean_score(list(model.scores.values()))
    assert mean.value == 1.0 and mean.error < min(score.error for score in model.scores.values())


def test_unknown_models_and_suites(store: Store) -> None:
    grid = Grid(load(store, "qa_ratio"))
    add_external(store, "other-12345678", key(store), ITEMS, 45)
    with pytest.raises(UserError, match="has no model 'othr'; known: other-12345678"):
        read_external(store, "othr", grid)
    add_external(store, "other-87654321", key(store), ITEMS, 45)
    with pytest.raises(UserError, match="several are called so: other-12345678, other-87654321"):
        read_external(store, "other", grid)
    write_json(store.external("none-00000000") / "scores.json", {})
    with pytest.raises(UserError, match="has no score on a benchmark of sweep 'qa_ratio'"):
        read_external(store, "none", grid)
    with pytest.raises(UserError, match="--suite embeded: nothing was evaluated on it; nearest"):
        load(store, "qa_ratio", "embeded")


def test_a_sweep_declares_its_columns(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    add_external(store, "other-12345678", key(store), ITEMS, 45)
    path = store.sweep("qa_ratio") / "launched.json"
    plan = json.loads(path.read_text())
    plan["question"]["table"]["external"] = ["other", "absent"]
    write_json(path, plan)
    table = study(store, "qa_ratio", externals=["other-12345678"]).models
    assert table is not None and table.headers[-2:] == ("other-12345678", "absent"), "no column twice"
    assert {one["score"] for one in table.data if one["model"] == "absent"} == {None}
    (note,) = [note for note in table.notes if "absent" in note]
    assert note.startswith("table.external, absent: ") and "has no model 'absent'; known: other-12345678" in note
    assert main(["report", "qa_ratio", "--store", str(store.root)]) == 0
    assert "by model" in capsys.readouterr().out


def test_a_suite_that_was_asked_on_demand(store: Store) -> None:
    """One state of one run was evaluated on a smaller suite: the table has that state alone."""
    plan = load(store, "qa_ratio").plan
    own = plan.arms[0].config.evaluation
    name = next(iter(own.benchmarks))
    asked = own.model_copy(update={"suite": "mine", "benchmarks": {name: own.benchmarks[name]}, "at": ()})
    write_json(store.suite(asked.key), asked.model_dump(mode="json"))
    with pytest.raises(UserError, match="no state of sweep 'qa_ratio' was evaluated on it"):
        load(store, "qa_ratio", "mine")
    run = plan.runs[0]
    node = plan.nodes[run.nodes[-1]]
    middle = (node.begin + node.end) // 2
    with Writer(store.records(node.id), attempt=1) as writer:
        writer.write(
            "evaluation", middle, 1, benchmark=name, domain="code", protocol="ppl", metric="acc", score=0.5, items=8,
            chance=0.25, key="k", items_file="evaluations/k.parquet", suite=asked.key, settings="s",
        )  # fmt: skip
    scores = load(store, "qa_ratio", "mine").scores
    assert list(scores[["run", "tokens", "benchmark", "score"]].itertuples(index=False, name=None)) == [
        (run.id, middle, name, 0.5)
    ]
    assert json.dumps(load(store, "qa_ratio").scores["tokens"].tolist()).count(str(middle)) == 0
    assert not np.isnan(scores["score"]).any()
