"""Held-out losses as columns of a table, as a hypothesis's metric, and in a sweep that evaluates nothing."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricated_store import MIXTURE, QUESTION, fabricate

from analysis import tables
from analysis.__main__ import main
from analysis.findings import study, verdict_text
from analysis.load import load
from analysis.report import page, write
from analysis.spec import read_spec
from analysis.tabulate import tabulate
from davinci.store import Store, read_json, write_json

WITH_QA = "columns=[Overall,heldout_loss,heldout_bits_per_byte/qa]"


def _asked(metric: str, arm: str = "QA-70%", direction: str = "decrease") -> dict[str, Any]:
    stated = {"text": "QA is learnt from QA.", "metric": metric, "arm": arm, "direction": direction}
    return QUESTION | {"hypothesis": stated, "metrics": ["Overall", metric]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return fabricate(tmp_path_factory.mktemp("heldout"), question=_asked("heldout_loss/qa"), without=["dose1.0-s2"])


def _cells(store: Store, name: str = "qa_ratio") -> dict[tuple[str, str, str], dict[str, Any]]:
    table = tabulate(store, [name], read_spec(None, [WITH_QA])[0])[0]
    return {(cell["arm"], cell["label"], cell["column"]): cell for cell in table.data}


def test_a_loss_is_the_mean_over_domains_in_its_own_unit(store: Store) -> None:
    """Against the records themselves; differences are of the seeds that both arms have."""
    held = load(store, "qa_ratio").heldout
    at = {seed: f"s2_2-v1-dose0.5-seed{seed}" for seed in (0, 1, 2)}, {s: f"s2_2-v1-dose0.0-seed{s}" for s in (0, 1, 2)}

    def of(node: str, column: str, domain: str | None) -> float:
        rows = held[(held["node"] == node) & (held["tokens"] == 1_342_400)]
        rows = rows if domain is None else rows[rows["domain"] == domain]
        assert len(rows) == (len(MIXTURE) if domain is None else 1)
        return float(rows[column].mean())

    cells = _cells(store)
    for column, value, domain in (("heldout_loss", "loss", None), ("heldout_bits_per_byte/qa", "bits_per_byte", "qa")):
        mine, base = ([of(node, value, domain) for node in nodes.values()] for nodes in at)
        cell = cells["QA-50%", "419B", column]
        assert cell["score"] == pytest.approx(np.mean(mine))
        assert cell["difference"] == pytest.approx(np.mean(mine) - np.mean(base))
        assert cell["score_low"] < cell["score"] < cell["score_high"] and cell["difference_half_width"] > 0
        assert cell["items"] == 0 and cell["seeds"] == 3
    assert {
        cells["QA-50%", "419B", name]["unit"] for name in ("Overall", "heldout_loss", "heldout_bits_per_byte/qa")
    } == {
        "percent",
        "nats a token",
        "bits a byte",
    }


def test_less_is_better(store: Store) -> None:
    """The arm with the lowest loss is the one in bold, and the difference has the sign of the losses."""
    cells = _cells(store)
    column = "heldout_bits_per_byte/qa"
    lowest = cells["QA-70%", "419B", column]
    assert lowest["score"] < cells["QA-50%", "419B", column]["score"] < cells["QA-30%", "419B", column]["score"]
    assert lowest["best"] and not cells["QA-30%", "419B", column]["best"]
    assert lowest["difference"] < 0 and lowest["told_from_noise"]
    assert len(lowest["missing"]) == 1, "the branch of one seed was not trained"
    card = study(store, "qa_ratio")
    assert "heldout_loss/qa" in {column.name for column in card.main.columns}


def test_scores_and_losses_are_pooled_apart_and_corrected_together(store: Store) -> None:
    alone = tabulate(store, ["qa_ratio"], read_spec(None, ["columns=[Overall]"])[0])[0]
    both = _cells(store)
    for cell in alone.data:
        beside = both[cell["arm"], cell["label"], "Overall"]
        assert beside["score_half_width"] == cell["score_half_width"] and beside["p"] == cell["p"]
        assert cell["p"] is None or beside["p_holm"] >= cell["p_holm"]


def test_a_margin_is_in_points_of_score_alone(store: Store) -> None:
    table = tabulate(store, ["qa_ratio"], read_spec(None, [WITH_QA, "equivalence=60"])[0])[0]
    said = {cell["column"]: cell["equivalent"] for cell in table.data if cell["difference"] is not None}
    assert said == {"Overall": True, "heldout_loss": None, "heldout_bits_per_byte/qa": None}


def test_every_format_says_the_unit_and_that_less_is_better(store: Store) -> None:
    table = tabulate(store, ["qa_ratio"], read_spec(None, [WITH_QA, "points=last"])[0])[0]
    assert table.title.startswith(
        "qa_ratio: score in percent, held-out loss in nats a token, held-out loss in bits a byte"
    )
    assert table.headers[3:] == ("Overall", "heldout_loss ↓", "heldout_bits_per_byte/qa ↓")
    assert "less is better" in table.notes[0] and "the mean over code, general, qa, science" in table.notes[0]
    assert r"heldout\_loss $\downarrow$" in tables.render_latex(table)
    assert "heldout\\_loss ↓" in tables.render_markdown(table)
    rows = list(csv.DictReader(io.StringIO(tables.render_csv(table.data))))
    cells = json.loads(tables.render_json(table))["cells"]
    for row, cell in zip(rows, cells, strict=True):
        assert row["unit"] == cell["unit"] and (not row["score"] or float(row["score"]) == cell["score"])
    loss = next(cell for cell in cells if cell["column"] == "heldout_loss" and cell["arm"] == "QA-50%")
    assert f"{loss['score']:.3f} ± {loss['score_half_width']:.3f}" in tables.render_markdown(table)


@pytest.mark.parametrize(
    ("direction", "word"), [("decrease", "supported"), ("increase", "opposite"), ("any", "supported")]
)
def test_a_hypothesis_about_a_loss(tmp_path: Path, direction: str, word: str) -> None:
    store = fabricate(tmp_path, question=_asked("heldout_loss/qa", direction=direction))
    found = study(store, "qa_ratio")
    assert found.verdict is not None and found.verdict.word == word
    text = verdict_text(found) or ""
    assert "heldout_loss/qa, QA-70% − QA-30% at 419B is −0.2" in text and text.endswith("nats a token")


def test_the_report_shows_it_with_its_sign(store: Store, tmp_path: Path) -> None:
    found = study(store, "qa_ratio")
    write(found, tmp_path)
    text = page(found)
    data = json.loads(text.split('<script type="application/json" id="data">')[1].split("</script>")[0])
    effect = next(one for one in data["effects"] if one["title"] == "heldout_loss/qa")
    assert effect["unit"] == "nats a token" and effect["decimals"] == 3 and effect["mark"] == " ↓"
    assert all(row["mean"] < 0 for row in effect["rows"])
    chart = next(one for one in data["scores"] if one["title"] == "heldout_loss/qa")
    assert chart["y"] == "nats a token"
    line = next(one for one in chart["lines"] if one["arm"] == 1)
    for at, mean in enumerate(line["mean"]):
        assert 0 < line["low"][at] <= mean <= line["high"][at]
        assert mean == pytest.approx(np.mean([values[at] for values in line["seeds"].values()]), rel=1e-4)
    summary = read_json(tmp_path / "summary.json")
    assert summary["metric"] == "heldout_loss/qa" and summary["decimals"] == 3
    worse = read_json(tmp_path / "ledger.json")["negatives"]["below_baseline"]
    assert not [one for one in worse if one["column"] == "heldout_loss/qa"], "a lower loss is not worse"


def test_a_sweep_that_evaluates_nothing_has_its_losses_at_the_ends_of_its_stages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = fabricate(tmp_path)
    path = store.sweep("qa_ratio") / "launched.json"
    plan = read_json(path)
    for run in plan["runs"]:
        run["points"] = []
    plan["question"] |= {"hypothesis": None, "metrics": [], "paper": None}
    write_json(path, plan)
    table = study(store, "qa_ratio").table
    assert {cell["column"] for cell in table.data} == {"heldout_loss", "heldout_bits_per_byte"}
    assert {cell["stage"] for cell in table.data} == {"s1_1", "s2_1", "s2_2"}
    last = [cell for cell in table.data if cell["stage"] == "s2_2" and cell["column"] == "heldout_loss"]
    assert [cell["arm"] for cell in last] == ["QA-30%", "QA-50%", "QA-70%"] and all(cell["seeds"] == 3 for cell in last)
    assert main(["report", "qa_ratio", "--store", str(tmp_path)]) == 0
    assert "held-out loss in nats a token" in capsys.readouterr().out
    assert (store.sweep("qa_ratio") / "report" / "report.html").is_file()
