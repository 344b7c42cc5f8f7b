"""Tables from specifications: the paper's own from its published scores, and a sweep's beside them."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fabricated_store import QUESTION, fabricate
from rich.console import Console

from analysis import published, tables
from analysis.__main__ import main
from analysis.findings import study
from analysis.published import rows
from analysis.recomputed import disagreement, domains, printed, published_table
from analysis.samples import OVERALL, Grid
from analysis.spec import FOLDER, read_spec
from analysis.tables import Table, Value
from analysis.tabulate import tabulate
from davinci.store import Store

PAPER = ("table6", "table7", "table8", "table9", "table10")
# A printed average and what it is recomputed from are each rounded to 0.01: together they may be 0.01 apart.
ROUNDING = 0.01


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = fabricate(tmp_path_factory.mktemp("specs"))
    fabricate(store.root, sweep="two", arms={"A": 0.0, "B": 1.0}, seeds=(0, 1), question={"text": "?"})
    margin = {"text": "?", "equivalence": 60.0, "table": {"points": "last", "average_last": 2}}
    fabricate(store.root, sweep="single", arms={"A": 0.0, "B": 1.0}, seeds=(3,), question=margin)
    return store


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_averages_are_reproduced_to_rounding(name: str) -> None:
    spec, _ = read_spec(name)
    table = published_table(spec)
    averages = [cell for cell in table.data if cell["recomputed"] is not None]
    assert {cell["column"] for cell in averages} >= {OVERALL}
    for cell in averages:
        assert cell["recomputed"] == pytest.approx(cell["printed"], abs=ROUNDING)
    assert disagreement(printed(spec.published or "")) <= ROUNDING
    assert any("rounding allows 0.01" in note for note in table.notes)


def test_table_6_has_every_average_of_every_model() -> None:
    table = published_table(read_spec("table6")[0])
    averages = [cell for cell in table.data if cell["recomputed"] is not None]
    assert len(averages) == 8 * 4 and len(table.data) == 8 * (19 + 4)
    assert all(abs(cell["recomputed"] - cell["printed"]) <= 0.0051 for cell in averages), (
        "19 exact scores: rounded once"
    )


@pytest.mark.parametrize(
    ("name", "configuration", "tokens", "column", "difference"),
    [
        ("table7", "Model-Based Filtering (L3)", "", "MBPP", 3.40),
        ("table8", "Generative Refined (L4)", "", "MATH", 7.00),
        ("table8", "Generative Refined (L4)", "", "GSM8K", 1.37),
        ("table9", "QA-70%", "419B", "Overall", 2.90),
        ("table10", "Cosine decay", "", "Overall", 0.34),
    ],
)
def test_the_papers_differences(name: str, configuration: str, tokens: str, column: str, difference: float) -> None:
    """The gains that the paper's text states (`studies.csv`)."""
    data = published_table(read_spec(name)[0]).data
    found = {(cell["configuration"], cell["tokens"], cell["column"]): cell["difference"] for cell in data}
    assert found[configuration, tokens, column] == difference


def test_an_average_of_unprinted_benchmarks_stands_for_them() -> None:
    row = next(one for one in printed("table8_refinement") if one.configuration == "Baseline")
    assert row.recomputed("Science", domains()) is None, "three of seven are printed"
    assert row.recomputed(OVERALL, domains()) == pytest.approx((9 * 51.69 + 3 * 49.80 + 7 * 40.52) / 19)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_specs_name_what_their_published_file_has(path: Path) -> None:
    spec, _ = read_spec(path.stem)
    listed = {row["configuration"] for row in rows(spec.published or "") if "configuration" in row}
    assert set(spec.arms) == listed and (spec.baseline is None or spec.baseline in listed)


def one(store: Store, *names: str, spec: str | None = None, given: tuple[str, ...] = ()) -> Table:
    read, where = read_spec(spec, given)
    (table,) = tabulate(store, names, read, where)
    return table


def test_measured_beside_published(store: Store) -> None:
    table = one(store, "qa_ratio", spec="table9", given=("paper=side",))
    assert table.headers[3:] == ("General", "paper", "Code", "paper", "Science", "paper", "Overall", "paper")
    last = table.groups[-1][-2:]
    assert last[0][-1].text == "49.84" and last[1][-1].text == "+2.90"
    assert re.fullmatch(r"\d+\.\d\d ± \d+\.\d\d", last[0][-2].text), "two decimals, as in the paper"
    assert "paper" not in one(store, "qa_ratio", given=("paper=none",)).title


def test_nothing_is_bold_where_nothing_is_known_of_the_noise(tmp_path: Path) -> None:
    store = fabricate(tmp_path, seeds=(0,), items=20)
    for path in store.root.glob("nodes/*/evaluations/*.parquet"):
        path.unlink()
    shown = study(store, "qa_ratio").main.shown
    assert all(math.isnan(cell.p_best) for cell in shown) and not any(cell.best for cell in shown)


def test_bold_is_what_is_told_from_every_other_arm(store: Store) -> None:
    table = one(store, "two", given=("points=last",))
    best = {cell["column"]: cell for cell in table.data if cell["best"]}
    assert "Overall" in best and best.keys() <= {"Science", "Overall"}
    for cell in best.values():
        assert cell["arm"] == "B" and cell["p"] < 0.05
    tones = {(group[0][0].text, at): group[0][at].tone for group in table.groups for at in range(3, 7)}
    assert tones["B", 6] == "strong" and tones["A", 6] == "plain"
    assert f"**{table.groups[1][0][6].text}**" in tables.render_markdown(table)


def test_arms_baseline_points_and_columns_are_chosen(store: Store) -> None:
    given = ("arms=[QA-70%, QA-50%]", "baseline=QA-50%", "points=[252B]", "columns=[Overall, code_next]", "rows=point")
    table = one(store, "qa_ratio", given=given)
    assert [(cell["arm"], cell["label"], cell["column"]) for cell in table.data] == [
        (arm, "252B", column) for arm in ("QA-70%", "QA-50%") for column in ("Overall", "code_next")
    ]
    assert table.headers[:2] == ("Tokens", "Arm")
    assert [cell["difference"] is None for cell in table.data] == [False, False, True, True]


def test_checkpoint_averaging_is_declared_and_said(store: Store) -> None:
    plain = {(cell["arm"], cell["label"], cell["column"]): cell for cell in one(store, "qa_ratio").data}
    table = one(store, "qa_ratio", given=("points=last", "average_last=3"))
    for cell in table.data:
        points = [plain[cell["arm"], label, cell["column"]] for label in ("83.9B", "252B", "419B")]
        for value in ("score", "difference"):
            if cell[value] is not None:
                assert cell[value] == pytest.approx(sum(point[value] for point in points) / 3)
    assert any("mean over its last 3 evaluated points" in note for note in table.notes)
    assert "419B, mean of 3" in table.groups[0][0][1].text
    few = one(store, "qa_ratio", given=("points=last", "average_last=9"))
    assert any("Fewer: QA-30% has 3" in note for note in few.notes)


def test_one_seed_borrows_noise_and_equivalence_is_marked(store: Store) -> None:
    table = one(store, "single")
    note = next(note for note in table.notes if "noise between seeds is that of" in note)
    assert "qa_ratio (3 seeds x 3 arms)" in note and "two (2 seeds x 2 arms)" in note
    assert any(value.text.startswith("≡ ") for group in table.groups for row in group for value in row)
    assert any("equivalent within ±60 points" in note for note in table.notes)
    assert {cell["equivalent"] for cell in table.data if cell["difference"] is not None} == {True}


@pytest.mark.parametrize("part", ["layers", "tokens"])
def test_one_seed_borrows_nothing_of_other_architectures_or_lengths(tmp_path: Path, part: str) -> None:
    store = fabricate(tmp_path, arms={"A": 0.0, "B": 1.0}, items=10, question={"text": "?"})
    fabricate(tmp_path, sweep="single", arms={"A": 0.0, "B": 1.0}, seeds=(3,), items=10, question={"text": "?"})
    assert any("noise between seeds is that of qa_ratio" in note for note in one(store, "single").notes)
    path = store.sweep("qa_ratio") / "launched.json"
    plan = json.loads(path.read_text())
    for arm in plan["arms"]:
        if part == "layers":
            arm["config"]["model"]["placement"]["kind"] = "post"
        for stage in arm["config"]["curriculum"]["stages"].values():
            stage["tokens"] *= 3 if part == "tokens" else 1
    path.write_text(json.dumps(plan))
    assert any("speak of items only" in note for note in one(store, "single").notes)


def test_one_seed_with_nothing_to_borrow(tmp_path: Path) -> None:
    store = fabricate(tmp_path, arms={"A": 0.0, "B": 1.0}, seeds=(0,), question={"text": "?"})
    assert any("speak of items only" in note for note in one(store, "qa_ratio").notes)
    broken = store.sweep("broken") / "launched.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("{")
    assert one(store, "qa_ratio").notes == one(store, "qa_ratio").notes


def test_repeats_of_one_seed_are_seeds(tmp_path: Path) -> None:
    arms = {"A": 0.0, "A again": 0.0, "B": 1.0}
    store = fabricate(tmp_path, arms=arms, seeds=(0,), question={"text": "?"}, replicates={"A again": 1})
    assert any("qa_ratio itself (A/A arms)" in note for note in one(store, "qa_ratio").notes)


def test_several_sweeps_in_one_table(store: Store) -> None:
    table = one(store, "qa_ratio", "two", given=("points=last", "columns=[Science, Overall]"))
    assert table.headers[0] == "Sweep" and {cell["sweep"] for cell in table.data} == {"qa_ratio", "two"}
    assert any("Holm over the 6 differences" in note for note in table.notes), "(2 + 1) arms x 2 columns"
    assert any("Differences are within a sweep" in note for note in table.notes)
    alone = {cell["arm"]: cell for cell in one(store, "two", given=("points=last", "columns=[Science]")).data}
    joined = {cell["arm"]: cell for cell in table.data if cell["sweep"] == "two" and cell["column"] == "Science"}
    assert joined["B"]["difference"] == alone["B"]["difference"] and joined["B"]["p_holm"] >= alone["B"]["p_holm"]


def test_models_beside_published_ones(store: Store) -> None:
    table = one(store, "qa_ratio", spec="table6", given=("paper=side",))
    cells = {(cell["column"], cell["model"]): cell["score"] for cell in table.data}
    assert cells["Overall", "daVinci-3B (paper)"] == pytest.approx(51.72)
    assert cells["code_next", "daVinci-3B (paper)"] is None and cells["Overall", "QA-70%"] is not None
    some = one(store, "qa_ratio", given=("layout=models", "arms=[QA-70%]", "columns=[code_next, Overall]"))
    assert {(cell["column"], cell["model"]) for cell in some.data} == {("code_next", "QA-70%"), ("Overall", "QA-70%")}


def braces(text: str) -> Iterator[int]:
    """Depth of braces after every character, escaped ones aside."""
    depth = 0
    for mark in re.sub(r"\\[\\{}]", "", text):
        depth += {"{": 1, "}": -1}.get(mark, 0)
        yield depth


def well_formed(text: str) -> None:
    """Braces and environments nest, every row has as many cells as the tabular has columns."""
    depths = list(braces(text))
    assert min(depths) >= 0 and depths[-1] == 0 and text.count("$") % 2 == 0
    opened: list[str] = []
    for what, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if what == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert opened == []
    columns = len(re.search(r"\\begin\{tabular\}\{([lr]+)\}", text).group(1))  # type: ignore[union-attr]
    body = text[text.index("\\toprule") : text.index("\\bottomrule")]
    for line in body.splitlines():
        if line.endswith("\\\\"):
            spanned = sum(int(width) - 1 for width in re.findall(r"\\multicolumn\{(\d+)\}", line))
            assert len(re.findall(r"(?<!\\)&", line)) + 1 + spanned == columns, line


def test_latex_of_every_paper_table_is_well_formed(store: Store) -> None:
    for name in PAPER:
        well_formed(tables.render_latex(published_table(read_spec(name)[0])))
    spans = "groups={Some: [General, Code]}"
    for given in (("paper=side", spans), ("layout=models", "paper=side")):
        well_formed(tables.render_latex(one(store, "qa_ratio", given=given)))
    latex = tables.render_latex(published_table(read_spec("table7")[0]))
    assert "\\multicolumn{3}{c}{Code}" in latex and "\\cmidrule(lr){4-6}\\cmidrule(lr){7-10}" in latex


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex", "csv", "json"])
def test_the_command_in_every_format(
    store: Store, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["table", "qa_ratio", "--store", str(store.root), "--spec", "table9", "--format", form, "paper=side"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    if form == "csv":
        assert main([*arguments, "--output", str(tmp_path / "table")]) == 0
        assert (tmp_path / "table").read_text() == text and capsys.readouterr().out == ""
        assert len(list(csv.DictReader(io.StringIO(text)))) == 9 * 4
    elif form == "json":
        assert len(json.loads(text)["cells"]) == 9 * 4
    else:
        assert "49.84" in text and "QA-70" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["qa_ratio", "columns=[Scince]"], "columns: suite embedded of sweep 'qa_ratio' has no 'Scince'; nearest: Sci"),
        (["qa_ratio", "baseline=QA-40%"], "baseline: sweep 'qa_ratio' has no arm 'QA-40%'; nearest: QA-70%"),
        (["qa_ratio", "arms=[QA-30%, QA-8%]"], "arms: sweep 'qa_ratio' has no arm 'QA-8%'"),
        (["qa_ratio", "columns=[code_nxt]"], "nearest: code_next"),
        (["qa_ratio", "points=[1B]"], "points: sweep 'qa_ratio' has no '1B'"),
        (["qa_ratio", "average_last=2"], "it needs points: last"),
        (["qa_ratio", "papr=side"], "papr: unknown key; nearest: paper"),
        (["qa_ratio", "paper=left"], "'below', 'side' or 'none'"),
        (["qa_ratio", "--spec", "tabel9"], "--spec tabel9: there is none; nearest: table9"),
        (["qa_ratio", "--spec", "no/such.yaml"], "there is none"),
        (["qa_ratio", "published=table77"], "no published figures 'table77'"),
        (["two", "--spec", "table9"], "table9.yaml: arms: sweep 'two' has no arm 'QA-30%'"),
        (["qa_ratoi"], "nearest: qa_ratio"),
        (["--published", "77"], "--spec table77: there is none"),
        (["qa_ratio", "--published", "7"], "it takes no sweep"),
        ([], "name a sweep"),
    ],
)
def test_mistakes_are_one_line(
    store: Store, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["table", *arguments, "--store", str(store.root)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


SPOILED = ["[", "- a", "decimals: x", "arm: [A]", "3: x", "average_last: 0", "title: 2026-01-01", "arms: &a [*a]"]


@pytest.mark.parametrize("text", SPOILED)
def test_a_spoiled_specification_is_one_line(
    store: Store, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert main(["table", "qa_ratio", "--spec", str(path), "--store", str(store.root)]) == 2
    error = capsys.readouterr().err
    assert "mine.yaml" in error and error.count("\n") == 1


def test_the_verdict_may_be_equivalence(tmp_path: Path) -> None:
    from analysis.comparison import compare
    from analysis.load import load
    from analysis.verdict import judge

    hypothesis = {"text": "?", "metric": "General", "arm": "QA-70%", "direction": "increase"}
    question = QUESTION | {"hypothesis": hypothesis, "equivalence": 40.0}
    store = fabricate(tmp_path, arms={"QA-30%": 0.0, "QA-70%": 1.0}, question=question)
    grid = Grid(load(store, "qa_ratio"))
    verdict = judge(grid, [compare(grid, grid.domain_columns)])
    assert verdict is not None and (verdict.word, verdict.text) == ("equivalent", "equivalent within ±40")


def test_no_number_is_broken_at_any_width() -> None:
    numbers = [Value("≈ −0.56 ± 0.78"), Value("+0.13")] * 3
    rows = ((Value("QA-50%"), Value("84B"), Value("Δ QA-30%"), *numbers),)
    table = Table("t", ("Arm", "Tokens", "", *["General", "paper"] * 3), 3, (rows,))
    for width in range(46, 130):
        out = io.StringIO()
        tables.render_terminal(table, Console(file=out, width=width))
        assert out.getvalue().count("≈ −0.56 ± 0.78") == 3, width
        assert max(map(len, out.getvalue().splitlines())) <= width


@pytest.fixture
def shuffled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The published figures with the rows and columns of every file in another order."""
    for path in published.FOLDER.glob("*.csv"):
        rows = list(csv.DictReader(path.open(encoding="utf-8")))[::-1]
        with (tmp_path / path.name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0])[::-1])
            writer.writeheader()
            writer.writerows(rows)
    monkeypatch.setattr(published, "FOLDER", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", PAPER)
def test_published_scores_in_another_order_give_the_same_table(
    name: str, shuffled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cells() -> dict[tuple[str, ...], tuple[float, ...]]:
        return {
            (cell["configuration"], cell["tokens"], cell["column"]): tuple(
                np.nan if cell[key] is None else cell[key] for key in ("printed", "recomputed", "difference")
            )
            for cell in published_table(read_spec(name)[0]).data
        }

    other = cells()
    monkeypatch.undo()
    same = cells()
    assert other.keys() == same.keys()
    for key, values in same.items():
        np.testing.assert_allclose(other[key], values, atol=1e-9)


@pytest.mark.parametrize("name", PAPER)
def test_a_cell_that_was_not_published_stays_empty(name: str, shuffled: Path) -> None:
    spec, _ = read_spec(name)
    path = shuffled / f"{spec.published or ''}.csv"
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    column = next(key for key in rows[0] if key not in ("configuration", "tokens_b", "benchmark"))
    rows[0][column] = ""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    table = published_table(spec)
    empty = [cell for cell in table.data if cell["printed"] is None]
    assert len(empty) == 1 and "nan" not in tables.render_markdown(table)
    assert disagreement(printed(spec.published or "")) <= ROUNDING
