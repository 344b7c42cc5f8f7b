"""Reports of sweeps of other shapes: stages cut inside, suites that differ, A/A arms, layouts, an audit overridden."""

from __future__ import annotations

import csv
import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricated_store import BENCHMARKS, BRANCH, POINTS, QUESTION, TRUNK, fabricate, with_routers
from rich.console import Console

from analysis import layout, panels, tables
from analysis.__main__ import main
from analysis.findings import study, verdict_text
from analysis.report import page
from davinci.planning.plan import load_plan
from davinci.store import Store, read_json, write_json
from davinci.tracking import records

LAST = 1_342_400
CUT = 1_118_784  # inside stage s2_1, where a row is
TWO = {"QA-30%": 0.0, "QA-70%": 1.0}


def relaunched(store: Store, **changes: Any) -> None:
    """Overwrite keys of the launched plan."""
    path = store.sweep("qa_ratio") / "launched.json"
    write_json(path, read_json(path) | changes)


def cut_trunks(store: Store) -> None:
    """Cut stage s2_1 of every run at `CUT`, as planning does when another arm forks there.

    The later part keeps its id, and in its folder the rows of the sweep that did not cut the stage; the earlier part is
    a node of its own. What the later folder says of the earlier range is made wrong, to show that nothing reads it.
    """
    plan = load_plan(store, "qa_ratio").model_dump(mode="json")
    for name, node in list(plan["nodes"].items()):
        if node["stage_name"] != "s2_1":
            continue
        half = f"{name}-half"
        plan["nodes"][half] = node | {"id": half, "end": CUT}
        plan["nodes"][name] = node | {"parent": half, "begin": CUT}
        kept = records.read(store.records(name))
        store.records(name).unlink()
        for folder, spoil in ((half, 0.0), (name, 50.0)):
            with records.Writer(store.records(folder), attempt=1) as writer:
                for row in kept:
                    early = row["tokens"] <= CUT
                    if folder == half and not early:
                        continue
                    values = {key: row[key] for key in row if key not in ("kind", "attempt", "tokens", "step", "time")}
                    if early:
                        values["loss"] += spoil
                    writer.write(row["kind"], row["tokens"], row["step"], **values)
        for run in plan["runs"]:
            if name in run["nodes"]:
                run["nodes"].insert(run["nodes"].index(name), half)
    relaunched(store, nodes=plan["nodes"], runs=plan["runs"])


def curves(some: list[panels.Panel]) -> list[tuple[Any, ...]]:
    return [
        (panel.title, panel.boundaries, [(line.label, line.x.tolist(), line.mean.tolist()) for line in panel.lines])
        for panel in some
    ]


def test_a_stage_cut_inside_reads_as_one(tmp_path: Path) -> None:
    store = fabricate(tmp_path, arms=TWO, seeds=(0, 1), items=20)
    whole = study(store, "qa_ratio")
    cut_trunks(store)
    cut = study(store, "qa_ratio")
    assert len(cut.sweep.plan.nodes) == len(whole.sweep.plan.nodes) + 2
    assert curves(panels.loss_panels(cut.sweep)) == curves(panels.loss_panels(whole.sweep))
    assert tables.render_csv(cut.table.data) == tables.render_csv(whole.table.data)
    assert sum(one.tokens for one in cut.sweep.spent.values()) == sum(one.tokens for one in whole.sweep.spent.values())
    starts = [(TRUNK["s2_1"][0], "s2_1"), (BRANCH[1], "s2_2")]
    assert [list(panel.boundaries) for panel in panels.loss_panels(cut.sweep)[:2]] == [starts, starts[1:]]


def test_boundaries_are_those_of_the_arms_not_of_the_node(tmp_path: Path) -> None:
    """One arm trains as one long stage what the other calls two: their nodes are the same, their stages are not."""
    store = fabricate(tmp_path, arms=TWO, seeds=(0,), items=20)
    arms = read_json(store.sweep("qa_ratio") / "launched.json")["arms"]
    stages = arms[1]["config"]["curriculum"]["stages"]
    stages["s1_1"]["tokens"] += stages.pop("s2_1")["tokens"]
    relaunched(store, arms=arms)
    whole_run = panels.loss_panels(study(store, "qa_ratio").sweep)[0]
    assert list(whole_run.boundaries) == [(1_000_000, "s2_1"), (1_240_000, "s2_2")]


def test_rows_of_another_range_are_not_the_nodes(tmp_path: Path) -> None:
    """An evaluation recorded in a node's folder before its planned begin does not answer a demand there."""
    store = fabricate(tmp_path, arms=TWO, seeds=(0,), items=20)
    plan = load_plan(store, "qa_ratio").model_dump(mode="json")
    leaf = plan["runs"][0]["nodes"][-1]
    plan["nodes"][leaf]["begin"] = 1_260_480  # after the first evaluated point
    relaunched(store, nodes=plan["nodes"])
    scores = study(store, "qa_ratio").sweep.scores
    gone = scores[scores["missing"] != ""]
    assert set(gone["tokens"]) == {1_260_480} and set(gone["node"]) == {leaf}
    assert set(gone["missing"]) == {"not evaluated at this point"}


PROTOCOLS = {
    "ppl": {"arithmetic": ("science", "ppl", 0.25), "code_next": ("code", "ppl", 0.25)},
    "generative": {"arithmetic": ("science", "generative", 0.0)},
}


def test_arms_get_the_rows_of_their_own_suite(tmp_path: Path) -> None:
    """Two arms, the same weights, the same questions under two protocols."""
    question = {"text": "Protocols", "metrics": ["arithmetic", "Code"]}
    arms = {"ppl": 0.5, "generative": 0.5}
    store = fabricate(tmp_path, arms=arms, seeds=(0, 1), question=question, suites=PROTOCOLS)
    found = study(store, "qa_ratio")
    plan = found.sweep.plan
    assert len(plan.nodes) == 6 and plan.runs[0].nodes == plan.runs[2].nodes
    leaf = plan.runs[0].nodes[-1]
    for arm in plan.arms:
        key = arm.config.evaluation.key
        (recorded,) = [
            row["score"]
            for row in records.read(store.records(leaf))
            if row["kind"] == "evaluation"
            and (row["tokens"], row["suite"], row["benchmark"]) == (LAST, key, "arithmetic")
        ]
        assert found.main.cells[arm.label, LAST, "arithmetic"].by_seed[0] == recorded
    cells = found.main.cells
    assert cells["ppl", LAST, "arithmetic"].by_seed != cells["generative", LAST, "arithmetic"].by_seed
    difference = cells["generative", LAST, "arithmetic"].difference
    assert difference is not None and difference.covers == ("seeds", "items")
    # The generative suite has no code: nothing is missing, and nothing is invented.
    assert cells["generative", LAST, "Code"].absent == ()
    assert layout.score_text(cells["generative", LAST, "Code"]) == "–"
    # Equal nodes asked different things are no shared row; every point has a row an arm.
    assert [arm for arm, _ in found.main.rows] == ["ppl"] * 4 + ["generative"] * 4
    assert [(row.benchmark, row.protocol, row.chance) for row in found.chance] == [
        ("arithmetic", "ppl", 0.25),
        ("code_next", "ppl", 0.25),
        ("arithmetic", "generative", 0.0),
    ]
    assert [row.name for row in found.chance] == ["arithmetic (ppl)", "code_next", "arithmetic (generative)"]
    assert any("suites of their own" in note for note in found.table.notes)
    assert "arithmetic by guessing: 25.0 in ppl, 0.0 in generative." in found.table.notes
    assert found.sweep.notes == []
    # The training loss of runs that are one to the end is one line.
    (training, *_) = panels.loss_panels(found.sweep)
    assert [line.label for line in training.lines] == [panels.SHARED_LABEL]
    assert training.lines[0].x[-1] > BRANCH[1]
    assert "–" in page(found)


def test_routers_are_drawn_layer_by_layer_where_there_are_experts(tmp_path: Path) -> None:
    """Nine layers, of which six are shown; the second arm has no experts."""
    store = fabricate(tmp_path, arms=TWO, seeds=(0, 1), items=8)
    assert panels.routing_panels(study(store, "qa_ratio").sweep) == []
    assert 'id="routing"' not in page(study(store, "qa_ratio"))
    with_routers(store, "QA-30%", 9)
    found = study(store, "qa_ratio")
    drawn = panels.routing_panels(found.sweep)
    titles = [
        f"{what}, layer {layer}" for what in ("Busiest expert", "Entropy of choices") for layer in (0, 2, 3, 5, 6, 8)
    ]
    assert [panel.title for panel in drawn] == titles
    for panel, (value, layer) in zip(drawn, itertools.product((2.0, 0.5), (0, 2, 3, 5, 6, 8)), strict=True):
        (line,) = panel.lines
        assert line.label == "QA-30%" and line.x[-1] == LAST
        assert (line.low[-1], line.mean[-1], line.high[-1]) == pytest.approx(
            (value + layer, value + layer + 0.5, value + layer + 1)
        )
    text = page(found)
    assert 'id="routing"' in text and '"Entropy of choices, layer 8"' in text


def test_a_benchmark_asked_twice_with_other_shots_is_not_mixed(tmp_path: Path) -> None:
    store = fabricate(tmp_path, arms={"0 shots": 0.5, "5 shots": 0.5}, seeds=(0,), items=20)
    arms = read_json(store.sweep("qa_ratio") / "launched.json")["arms"]
    for benchmark in arms[1]["config"]["evaluation"]["benchmarks"].values():
        benchmark["num_fewshot"] = 5
    relaunched(store, arms=arms)
    scores = study(store, "qa_ratio").sweep.scores
    assert set(scores.loc[scores["missing"] != "", "arm"]) == {"5 shots"}
    assert (scores.loc[scores["arm"] == "0 shots", "missing"] == "").all()


def test_equal_arms_measure_the_noise_floor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = {"A": 0.5, "A again": 0.5, "A thrice": 0.5}
    store = fabricate(
        tmp_path, arms=arms, question={"text": "Noise?"}, replicates={"A again": 1, "A thrice": 2}, items=20
    )
    relaunched(store, audit={"factor": [], "differing": [], "derived": [], "held_fixed": [], "findings": []})
    found = study(store, "qa_ratio")
    assert found.floor is not None and found.floor.repeats == {"A again": "A", "A thrice": "A"}
    cells = found.main.cells
    differences = [
        cells[arm, LAST, "Overall"].by_seed[seed] - cells["A", LAST, "Overall"].by_seed[seed]
        for arm in ("A again", "A thrice")
        for seed in range(3)
    ]
    assert found.floor.pairs == 6
    assert found.floor.noise["Overall"] == pytest.approx(np.sqrt(np.mean(np.square(differences))))
    assert found.verdict is None and verdict_text(found) is None
    assert main(["report", "qa_ratio", "--store", str(tmp_path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "(A/A comparison)" in printed and "A again, A thrice repeat A with equal configs" in printed
    assert f"Overall {100 * found.floor.noise['Overall']:.1f} points" in printed
    for name in ("report.html", "table.md", "table.tex", "table.json"):
        assert "A/A comparison" in (store.sweep("qa_ratio") / "report" / name).read_text(), name


def test_arms_that_differ_are_no_replicates(tmp_path: Path) -> None:
    assert study(fabricate(tmp_path, arms=TWO, seeds=(0,), items=20), "qa_ratio").floor is None


def test_metrics_are_the_columns_in_their_order(tmp_path: Path) -> None:
    question = QUESTION | {"metrics": ["arithmetic_generative", "overall", "Code"]}
    found = study(fabricate(tmp_path, arms=TWO, question=question, items=20), "qa_ratio")
    names = ["arithmetic_generative", "Overall", "Code"]
    assert [column.name for column in found.main.columns] == names
    assert list(found.table.headers[3:]) == names
    assert found.verdict is not None and found.verdict.word != "unknown"
    cell = found.main.cells["QA-70%", LAST, "arithmetic_generative"]
    assert cell.items == 20 and cell.score is not None and set(cell.by_seed) == {0, 1, 2}
    assert list(dict.fromkeys(row["column"] for row in found.table.data)) == names
    assert page(found).count("".join(f'<th class="n">{name}</th>' for name in names)) == 1


def test_a_metric_that_is_none_is_said(tmp_path: Path) -> None:
    question = QUESTION | {"metrics": ["Chess"], "hypothesis": QUESTION["hypothesis"] | {"metric": "Science"}}
    found = study(fabricate(tmp_path, arms=TWO, question=question, items=20, seeds=(0, 1)), "qa_ratio")
    assert [column.name for column in found.main.columns] == ["General", "Code", "Science", "Overall"]
    assert any("'Chess'" in note for note in found.sweep.notes)


def test_the_hypothesis_may_be_about_a_column_the_table_lacks(tmp_path: Path) -> None:
    question = QUESTION | {"metrics": ["Code"], "hypothesis": QUESTION["hypothesis"] | {"metric": "Science"}}
    found = study(fabricate(tmp_path, arms=TWO, question=question), "qa_ratio")
    assert found.verdict is not None and found.verdict.word == "supported"


def test_rows_by_point(tmp_path: Path) -> None:
    question = QUESTION | {"table": {"rows": "point", "points": "all"}}
    found = study(fabricate(tmp_path, question=question, items=20), "qa_ratio")
    assert found.table.headers[:2] == ("Tokens", "Arm")
    groups = [[row[1].text for row in group if row[1].text] for group in found.table.groups]
    assert groups == [["all arms"], *[["QA-30%", "QA-50%", "QA-70%"]] * len(POINTS)]
    assert [group[0][0].text for group in found.table.groups] == ["s2_1 1.00T", *POINTS.values()]
    rows = list(csv.DictReader(io.StringIO(tables.render_csv(found.table.data))))
    tokens = [int(row["tokens"]) for row in rows]
    assert tokens == sorted(tokens)
    text = page(found)
    assert "<th>Tokens</th><th>Arm</th>" in text
    assert [text.index(f"<span>{label}</span>") for label in POINTS.values()] == sorted(
        text.index(f"<span>{label}</span>") for label in POINTS.values()
    )
    assert "Tokens | Arm" in tables.render_markdown(found.table)


def test_the_last_point_alone(tmp_path: Path) -> None:
    store = fabricate(tmp_path, items=20)
    every = study(store, "qa_ratio")
    question = QUESTION | {"table": {"rows": "point", "points": "last"}}
    relaunched(store, question=load_plan(store, "qa_ratio").question.model_dump(mode="json") | question)
    last = study(store, "qa_ratio")
    assert [(arm, moment.tokens) for arm, moment in last.main.rows] == [
        (arm.label, LAST) for arm in last.sweep.plan.arms
    ]
    assert len(last.table.groups) == 1
    assert any("Holm over the 8 differences of the table" in note for note in last.table.notes)
    for arm in ("QA-50%", "QA-70%"):
        before, after = every.main.cells[arm, LAST, "Science"], last.main.cells[arm, LAST, "Science"]
        assert float(before.score.half_width) == float(after.score.half_width)
        assert after.p_adjusted <= before.p_adjusted
    # The figures still show every point.
    assert curves(panels.score_panels(last.grid, last.main)) == curves(panels.score_panels(every.grid, every.main))


def test_an_arm_is_only_where_it_is_evaluated(tmp_path: Path) -> None:
    """Arms of different budgets meet at the points they have in common."""
    store = fabricate(tmp_path, arms=TWO, items=20)
    runs = read_json(store.sweep("qa_ratio") / "launched.json")["runs"]
    for run in runs:
        if run["arm"] == "QA-70%":
            run["points"].pop()
    relaunched(store, runs=runs)
    found = study(store, "qa_ratio")
    assert ("QA-70%", LAST) not in [(arm, moment.tokens) for arm, moment in found.main.rows]
    assert "at 252B is" in (verdict_text(found) or "")
    assert not any("Missing" in note for note in found.table.notes)
    page(found)


@pytest.mark.parametrize("level", ["warned", "refused"])
def test_an_overridden_audit_stamps_every_output(
    tmp_path: Path, level: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fabricate(tmp_path, arms=TWO, seeds=(0, 1), items=20)
    clean = study(store, "qa_ratio")
    assert all(row["audit"] == "controlled" for row in clean.table.data)
    finding = {"level": level, "text": "optimizer.beta2: 0.95 in QA-30%, 0.99 in QA-70%"}
    audit = {"factor": ["a.factor"], "differing": ["a.factor.b"], "derived": ["a.derived"], "held_fixed": []}
    relaunched(store, audit=audit | {"findings": [finding]})
    drawn: list[str] = []
    from matplotlib.figure import Figure

    original = Figure.text
    monkeypatch.setattr(Figure, "text", lambda self, *a, **k: (drawn.append(str(a[2])), original(self, *a, **k))[1])
    assert main(["report", "qa_ratio", "--store", str(tmp_path)]) == 0
    said = f"control audit is {level}"
    assert said in " ".join(capsys.readouterr().out.split())
    folder = store.sweep("qa_ratio") / "report"
    for name in ("report.html", "table.md", "table.tex", "table.json", "benchmarks.md"):
        assert said in (folder / name).read_text(), name
    for name in ("table.csv", "scores.csv"):
        with (folder / name).open(newline="") as file:
            assert {row["audit"] for row in csv.DictReader(file)} == {level}, name
    assert drawn == [f"control audit: {level}"] * 2  # figure and loss
    text = (folder / "report.html").read_text()
    for word in ("a.factor", "a.factor.b", "a.derived", finding["text"]):
        assert word in text


def test_a_table_too_wide_for_the_terminal_goes_on_below(tmp_path: Path) -> None:
    question = QUESTION | {"metrics": [*BENCHMARKS, "Overall"]}
    found = study(fabricate(tmp_path, arms=TWO, seeds=(0, 1), items=20, question=question), "qa_ratio")
    out = io.StringIO()
    tables.render_terminal(found.table, Console(file=out, width=100))
    lines = out.getvalue().splitlines()
    assert max(len(line) for line in lines) <= 100
    headers = [line for line in lines if line.strip().startswith("Arm")]
    assert len(headers) > 1
    assert [name for name in [*BENCHMARKS, "Overall"] if name in " ".join(headers)] == [*BENCHMARKS, "Overall"]


def test_arms_that_hold_documents_are_compared_after_the_same_documents(tmp_path: Path) -> None:
    """QA-70% takes more tokens for the documents of QA-30%: its last point is compared with the last of that arm."""
    store = fabricate(tmp_path, arms=TWO, seeds=(0, 1), items=20)
    first, second, last = POINTS
    plan = read_json(store.sweep("qa_ratio") / "launched.json")
    for run in plan["runs"]:
        gone = last if run["arm"] == "QA-30%" else second
        run["points"] = [point for point in run["points"] if point["tokens"] != gone]
    text = "same documents, deeper processing: 2 sources"
    claim = {"held": "documents", "text": text}
    audit = {"factor": ["depth"], "differing": [], "derived": [], "held_fixed": ["documents"], "findings": []}
    relaunched(store, runs=plan["runs"], audit=audit | {"claim": claim})
    found = study(store, "qa_ratio")
    cells = found.main.cells
    difference = cells["QA-70%", last, "Overall"].difference
    expected = np.mean(
        [
            cells["QA-70%", last, "Overall"].by_seed[seed] - cells["QA-30%", second, "Overall"].by_seed[seed]
            for seed in (0, 1)
        ]
    )
    assert difference is not None and difference.mean == pytest.approx(expected)
    assert cells["QA-70%", first, "Overall"].difference is not None
    assert found.verdict is not None and found.verdict.moment is not None and found.verdict.moment.tokens == last
    assert any("at equal documents" in note for note in found.table.notes) and f"Claim: {text}." in found.table.notes
    relaunched(store, audit=audit | {"held_fixed": ["tokens"]})
    assert study(store, "qa_ratio").main.cells["QA-70%", last, "Overall"].difference is None
