"""The report of a fabricated store: true numbers, gaps that show, files that hold."""

from __future__ import annotations

import csv
import json
import os
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fabricated_store import BENCHMARKS, QUESTION, fabricate

from analysis import layout, tables
from analysis.__main__ import main
from analysis.findings import Findings, study, verdict_text
from analysis.load import load
from analysis.report import page
from davinci.store import Store
from davinci.tracking import records

LAST = 1_342_400
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return fabricate(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def found(whole: Store) -> Findings:
    return study(whole, "qa_ratio")


def test_the_frame_has_a_row_for_everything_demanded(found: Findings) -> None:
    scores = found.sweep.scores
    assert len(scores) == 9 * 4 * len(BENCHMARKS)
    assert (scores["missing"] == "").all() and scores["score"].between(0, 1).all()
    assert set(scores.loc[scores["tokens"] == LAST, "label"]) == {"419B"}
    assert found.sweep.notes == []


def test_cells_are_means_of_the_records(whole: Store, found: Findings) -> None:
    """Overall averages benchmarks, not domains; a difference is the mean of the seeds' differences."""

    def recorded(dose: float, seed: int) -> dict[str, float]:
        rows = records.read(whole.records(f"s2_2-v1-dose{dose}-seed{seed}"))
        return {row["benchmark"]: row["score"] for row in rows if row["kind"] == "evaluation" and row["tokens"] == LAST}

    high = [recorded(1.0, seed) for seed in range(3)]
    base = [recorded(0.0, seed) for seed in range(3)]
    cells = found.main.cells
    overall, code = cells["QA-70%", LAST, "Overall"], cells["QA-70%", LAST, "Code"]
    assert float(overall.score.mean) == pytest.approx(np.mean([list(one.values()) for one in high]))
    assert float(code.score.mean) == pytest.approx(np.mean([[one["code_next"], one["code_order"]] for one in high]))
    gap = np.mean([list(one.values()) for one in high]) - np.mean([list(one.values()) for one in base])
    assert float(overall.difference.mean) == pytest.approx(gap)
    assert overall.runs == ("dose1.0-s0", "dose1.0-s1", "dose1.0-s2") and overall.absent == ()
    assert (overall.published, overall.published_difference) == (49.84, 2.9)


def test_the_truth_is_found(found: Findings) -> None:
    """The store was made with a large effect on science and none on general."""
    assert found.main.cells["QA-70%", LAST, "Science"].told_apart is True
    assert not any(cell.told_apart for cell in found.main.cells.values() if cell.column == "General")
    assert found.verdict is not None and found.verdict.word == "supported"
    assert (verdict_text(found) or "").startswith("supported: arithmetic_generative, QA-70% − QA-30% at 419B is +")
    assert all(row.above for row in found.chance if row.domain == "science")


def test_the_point_before_the_fork_is_one_row(found: Findings) -> None:
    assert found.main.rows[0][0] is None and len(found.main.rows) == 10
    cell = found.main.cells[None, 1_240_000, "Overall"]
    assert len(cell.runs) == 9 and cell.difference is None and cell.score.seeds == 3


def test_golden_tables(tmp_path: Path) -> None:
    """Set DAVINCI_UPDATE_GOLDEN=1 to rewrite them after a change that is meant."""
    arms = {"QA-30%": 0.0, "QA-70%": 1.0}
    store = fabricate(tmp_path, arms=arms, seeds=(0, 1), items=24, without=["dose1.0-s1"])
    table = study(store, "qa_ratio").table
    rendered = {
        "table.md": tables.render_markdown(table),
        "table.tex": tables.render_latex(table),
        "table.csv": tables.render_csv(table.data),
    }
    for name, text in rendered.items():
        if os.environ.get("DAVINCI_UPDATE_GOLDEN"):
            (GOLDEN / name).write_text(text)
        assert text == (GOLDEN / name).read_text(), name
    content = json.loads(tables.render_json(table))
    assert len(content["cells"]) == 7 * 4 and content["cells"][-1]["missing"] == ["dose1.0-s1"]


def test_a_half_finished_sweep_gives_a_partial_table(tmp_path: Path) -> None:
    gone = ["dose0.5-s0", "dose0.5-s1", "dose0.5-s2", "dose1.0-s2"]
    found = study(fabricate(tmp_path, without=gone), "qa_ratio")
    cell = found.main.cells["QA-50%", LAST, "General"]
    assert cell.score is None and layout.score_text(cell) == "missing" and cell.absent == tuple(gone[:3])
    partial = found.main.cells["QA-70%", LAST, "General"]
    assert partial.score.seeds == 2 and layout.score_text(partial).endswith("[2/3]")
    assert f"{', '.join(gone)} at 83.9B, 252B, 419B" in found.table.notes[-1]
    assert "(so far: 2 of 3 seeds)" in (verdict_text(found) or "")
    assert set(found.sweep.scores.loc[found.sweep.scores["missing"] != "", "run"]) == set(gone)


def test_nothing_recorded_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = fabricate(tmp_path, arms={"QA-30%": 0.0, "QA-70%": 1.0}, seeds=(0,), without=["dose0.0-s0", "dose1.0-s0"])
    for file in store.root.glob("nodes/*/records.jsonl"):
        file.unlink()
    assert main(["report", "qa_ratio", "--store", str(tmp_path)]) == 0
    assert "Hypothesis not yet: arithmetic_generative at 419B lacks dose1.0-s0, dose0.0-s0" in capsys.readouterr().out


def test_deleted_records_change_their_cells(tmp_path: Path) -> None:
    store = fabricate(tmp_path)
    before = study(store, "qa_ratio")
    store.records("s2_2-v1-dose1.0-seed1").unlink()
    after = study(store, "qa_ratio")
    key = ("QA-70%", LAST, "Overall")
    assert after.main.cells[key].absent == ("dose1.0-s1",)
    assert float(after.main.cells[key].score.mean) != float(before.main.cells[key].score.mean)
    other = ("QA-50%", LAST, "Overall")
    assert float(after.main.cells[other].score.mean) == float(before.main.cells[other].score.mean)


def test_a_torn_record_is_missing_and_named(tmp_path: Path) -> None:
    store = fabricate(tmp_path)
    path = store.records("s2_2-v1-dose0.5-seed0")
    path.write_bytes(path.read_bytes()[:-20])
    found = study(store, "qa_ratio")
    lost = found.sweep.scores[found.sweep.scores["missing"] != ""]
    assert list(lost["benchmark"]) == ["arithmetic_generative"]
    assert list(lost["missing"]) == ["not evaluated at this point"]
    assert found.main.cells["QA-50%", LAST, "Science"].absent == ("dose0.5-s0",)
    assert found.main.cells["QA-50%", LAST, "Code"].absent == ()


def test_lost_item_scores_are_said(tmp_path: Path) -> None:
    store = fabricate(tmp_path)
    files = list(store.node("s2_2-v1-dose1.0-seed0").glob("evaluations/*.parquet"))
    files[0].write_bytes(b"torn")
    found = study(store, "qa_ratio")
    assert any("cannot be read" in note for note in found.sweep.notes)
    assert any("speaks of seeds only" in note for note in found.table.notes)


def test_items_that_disagree_with_the_record_are_said(tmp_path: Path) -> None:
    store = fabricate(tmp_path)
    with records.Writer(store.records("s2_2-v1-dose1.0-seed0"), attempt=2) as writer:
        (row, *_) = [
            row
            for row in records.read(store.records("s2_2-v1-dose1.0-seed0"))
            if row["kind"] == "evaluation" and row["tokens"] == LAST
        ]
        values = {
            name: row[name] for name in ("benchmark", "domain", "protocol", "metric", "items", "chance", "key", "suite")
        }
        writer.write("evaluation", LAST, row["step"], score=0.123, **values)
    found = study(store, "qa_ratio")
    assert any("the record says 0.1230" in note for note in found.sweep.notes)


def test_a_trunk_shared_by_all_seeds_is_one_observation(tmp_path: Path) -> None:
    store = fabricate(tmp_path, shared_trunk=True)
    found = study(store, "qa_ratio")
    fork = found.main.cells[None, 1_240_000, "Overall"]
    assert fork.score.seeds == 1 and len(fork.runs) == 9
    assert any("conditional on that trunk" in note for note in found.table.notes)


def test_one_arm_and_no_question_marks(tmp_path: Path) -> None:
    question = {"text": "One arm", "hypothesis": None, "paper": None}
    store = fabricate(tmp_path, arms={"only": 0.0}, seeds=(0, 1), question=question)
    found = study(store, "qa_ratio")
    assert found.verdict is None and verdict_text(found) is None
    assert all(cell.difference is None for cell in found.main.cells.values())
    assert "only" in page(found)


@pytest.mark.parametrize(
    ("metric", "direction", "effect", "word"),
    [
        ("Science", "decrease", 1.0, "opposite"),
        ("science", "any", 1.0, "supported"),
        ("general_cloze", "increase", 0.0, "noise"),
        ("chess", "increase", 1.0, "unknown"),
    ],
)
def test_verdicts(tmp_path: Path, metric: str, direction: str, effect: float, word: str) -> None:
    hypothesis = {"text": "?", "metric": metric, "arm": "QA-70%", "direction": direction}
    store = fabricate(
        tmp_path,
        arms={"QA-30%": 0.0, "QA-70%": 1.0},
        question=QUESTION | {"hypothesis": hypothesis},
        effect={"general": 0.0, "code": 0.0, "science": effect},
    )
    found = study(store, "qa_ratio")
    assert found.verdict is not None and found.verdict.word == word
    if word == "noise":
        assert "cannot be told from noise (MDD " in found.verdict.text


class Page(HTMLParser):
    """Collects tags, checks that they nest, and what the page would load."""

    VOID = frozenset({"meta", "br", "img", "link", "hr", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.loads: list[str] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "script":
            self.scripts.append(dict(attributes).get("type") or "")
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "xlink:href", "src", "srcset", "data", "action"):
                (self.targets if (value or "").startswith("#") else self.loads).append(value or "")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing(found: Findings) -> None:
    text = page(found)
    parser = Page()
    parser.feed(text)
    assert parser.open == [] and parser.loads == []
    assert parser.scripts == ["application/json", ""] and "@import" not in text and "url(http" not in text
    assert len(parser.ids) == len(set(parser.ids))
    assert {target.removeprefix("#") for target in parser.targets} <= set(parser.ids)
    assert text.count('href="#behind-') == 40
    for run in found.sweep.plan.runs:
        assert run.id in text and run.nodes[-1] in text


def test_names_are_escaped_everywhere(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> $x$ & | \\"
    question = QUESTION | {"text": evil, "hypothesis": {**QUESTION["hypothesis"], "text": evil, "arm": evil}}
    store = fabricate(tmp_path, arms={"=base": 0.0, evil: 1.0}, seeds=(0, 1), items=20, question=question)
    assert main(["report", "qa_ratio", "--store", str(tmp_path)]) == 0
    folder = store.sweep("qa_ratio") / "report"
    parser = Page()
    parser.feed(text := (folder / "report.html").read_text())
    assert parser.scripts == ["application/json", ""] and parser.open == [] and "<script>alert" not in text
    assert "<script" not in (folder / "table.md").read_text()
    assert "\\textbf{$<$script$>$alert(1)" in (folder / "table.tex").read_text()
    with (folder / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["arm"] for row in rows} == {layout.SHARED, "'=base", evil}


def test_the_command_prints_a_table_that_fits_and_writes_every_file(
    whole: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "qa_ratio", "--store", str(whole.root)]) == 0
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines() if "/" not in line) <= 100
    assert "QA-70%" in printed and "≈" in printed and "report.html" in printed
    written = {path.name for path in (whole.sweep("qa_ratio") / "report").iterdir()}
    assert written == {
        "report.html", "table.md", "table.tex", "table.csv", "table.json", "benchmarks.md", "scores.csv",
        "figure.pdf", "figure.png", "loss.pdf", "loss.png", "ledger.json", "ledger.md", "summary.json",
    }  # fmt: skip
    first = (whole.sweep("qa_ratio") / "report" / "table.json").read_bytes()
    assert main(["report", "qa_ratio", "--store", str(whole.root)]) == 0
    assert (whole.sweep("qa_ratio") / "report" / "table.json").read_bytes() == first


@pytest.mark.parametrize(
    ("name", "message"),
    [("qa_ratoi", "has no sweep 'qa_ratoi'; nearest: qa_ratio"), ("../x", "cannot name a folder")],
)
def test_mistakes_are_one_line(whole: Store, capsys: pytest.CaptureFixture[str], name: str, message: str) -> None:
    assert main(["report", name, "--store", str(whole.root)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_spoiled_plan_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = fabricate(tmp_path, arms={"only": 0.0}, seeds=(0,))
    path = store.sweep("qa_ratio") / "launched.json"
    for text in ("[]", "{", json.dumps(json.loads(path.read_text()) | {"extra": 1})):
        path.write_text(text)
        assert main(["report", "qa_ratio", "--store", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert "launched.json" in error and error.count("\n") == 1


def test_item_files_of_another_form_cost_the_item_part_alone(tmp_path: Path) -> None:
    store = fabricate(tmp_path, seeds=(0, 1), items=20)
    scores = load(store, "qa_ratio").scores
    paths = sorted(tmp_path.glob("nodes/*/evaluations/*.parquet"))
    table = pq.read_table(paths[0])
    spoiled = (
        table.drop_columns(["score"]),
        table.slice(0, 0),
        pa.table({"benchmark": ["x"], "item": [None], "score": ["high"]}),
    )
    for path, one in zip(paths, spoiled, strict=False):
        pq.write_table(one, path)
    again = load(store, "qa_ratio")
    pd.testing.assert_frame_equal(again.scores, scores)
    unread = [note for note in again.notes if "cannot be read: intervals that need it cover seeds only" in note]
    assert len(unread) == len(spoiled)
