"""Two runs against each other: numbers of the records, and no uncontrolled comparison unless told."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricated_store import fabricate

from analysis.__main__ import COMMANDS, main
from davinci.launching.manifests import record
from davinci.planning.plan import Plan, load_plan
from davinci.store import Store
from davinci.tracking import records

LAST = 1_342_400
PLAIN = {"text": "?", "hypothesis": None, "paper": None}
A, B = "qa_ratio/QA-30%/0", "qa_ratio/QA-70%/0"


def launched(store: Store, change: Any = None) -> Plan:
    """The manifests of the store's sweep, as a launch leaves them; `change` edits the plan's JSON first."""
    (path,) = store.root.glob("sweeps/*/launched.json")
    if change:
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))
    plan = load_plan(store, path.parent.name)
    record(plan, store)
    return plan


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = fabricate(tmp_path_factory.mktemp("compare"))
    launched(store)
    return store


def compared(store: Store, *arguments: str) -> dict[str, Any]:
    out = store.root / "out"
    assert main(["compare", *arguments, "--store", str(store.root), "--out", str(out)]) == 0
    found: dict[str, Any] = json.loads((out / "compare.json").read_text())
    return found


def test_differences_are_those_of_the_records(whole: Store, capsys: pytest.CaptureFixture[str]) -> None:
    found = compared(whole, A, B)
    assert found["controlled"] and {one["allowed"] for one in found["config"]} == {"factor"}
    assert {one["key"].rpartition(".")[0] for one in found["config"]} == {"curriculum.stages.s2_2.mixture.domains"}
    rows = {one["metric"]: one for one in found["metrics"]}

    def score(dose: float, name: str) -> float:
        made = records.read(whole.records(f"s2_2-v1-dose{dose}-seed0"), "evaluation")
        (row,) = [row for row in made if row["tokens"] == LAST and row["benchmark"] == name]
        return float(row["score"])

    for name in ("science_cloze", "code_next"):
        assert rows[name]["difference"] == pytest.approx(100 * (score(1.0, name) - score(0.0, name)))
        assert rows[name]["covers"] == ["items"] and rows[name]["half_width"] > 0
    science = [rows[name]["difference"] for name in ("science_cloze", "arithmetic_ppl", "arithmetic_generative")]
    assert rows["Science"]["difference"] == pytest.approx(np.mean(science)) and rows["Science"]["told_apart"]
    assert rows["Overall"]["tokens"] == LAST
    kept = [records.read(whole.records(f"s2_2-v1-dose{dose}-seed0"), "heldout") for dose in (0.0, 1.0)]
    held = [np.mean([row["loss"] for row in some if row["tokens"] == 1_344_000]) for some in kept]
    mean = rows["held-out loss, nats per token, mean over domains"]
    assert mean["difference"] == pytest.approx(held[1] - held[0]) and mean["tokens"] == 1_344_000
    for name in ("held-out loss, nats per token, mean over domains", "held-out qa, bits per byte"):
        assert rows[name]["covers"] == ["seeds"] and 0 < rows[name]["half_width"] < 0.1, "pairs scatter by about 0.01"
    printed = capsys.readouterr().out
    assert "UNCONTROLLED" not in printed and "≈" in printed and "the declared factor" in printed


def test_the_interval_is_that_of_paired_items(whole: Store) -> None:
    """One benchmark: the paired t interval over its items."""
    from scipy.stats import ttest_rel

    from analysis.load import load

    sweep = load(whole, "qa_ratio")
    rows = sweep.scores[(sweep.scores["benchmark"] == "code_next") & (sweep.scores["tokens"] == LAST)]
    keys = [rows[rows["run"] == f"dose{dose}-s0"].iloc[0] for dose in (0.0, 1.0)]
    left, right = (sweep.items[row["node"], row["key"], "code_next"].scores for row in keys)
    low, high = ttest_rel(right, left).confidence_interval()
    (row,) = [one for one in compared(whole, A, B)["metrics"] if one["metric"] == "code_next"]
    assert row["half_width"] == pytest.approx(100 * (high - low) / 2)


def test_two_seeds_of_one_arm_differ_in_one_thing(whole: Store) -> None:
    found = compared(whole, A, "qa_ratio/QA-30%/1")
    assert found["controlled"] and [one["key"] for one in found["config"]] == ["seed"]


def test_an_uncontrolled_comparison_is_refused_and_marked_when_told(
    whole: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    other = "qa_ratio/QA-70%/1"
    assert main(["compare", A, other, "--store", str(whole.root)]) == 2
    error = capsys.readouterr().err
    assert "differ in seed (0 against 1); --uncontrolled" in error and error.count("\n") == 1
    found = compared(whole, A, other, "--uncontrolled")
    said = "UNCONTROLLED comparison: seed (0 against 1)"
    assert capsys.readouterr().out.startswith(said)
    assert found["uncontrolled"] == ["seed (0 against 1)"]
    assert (whole.root / "out" / "compare.md").read_text().count(said) == 3  # each table
    with (whole.root / "out" / "compare.csv").open(newline="") as file:
        assert {row["uncontrolled"] for row in csv.DictReader(file)} == {"seed (0 against 1)"}


def test_a_key_beside_the_factor_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = fabricate(tmp_path, arms={"QA-30%": 0.0, "QA-70%": 1.0}, seeds=(0,), items=20, question=PLAIN)

    def other_beta(data: dict[str, Any]) -> None:
        data["arms"][1]["config"]["optimizer"]["beta2"] = 0.99

    launched(store, other_beta)
    assert main(["compare", A, B, "--store", str(tmp_path)]) == 2
    assert "differ in optimizer.beta2 (0.95 against 0.99); --uncontrolled" in capsys.readouterr().err


def test_runs_of_two_sweeps_may_differ_in_one_thing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = fabricate(tmp_path / "a", arms={"QA-30%": 0.0}, seeds=(0,), items=20, question=PLAIN)
    launched(store)
    second = fabricate(tmp_path / "b", sweep="second", arms={"QA-70%": 1.0}, seeds=(0,), items=20, question=PLAIN)
    launched(second)
    shutil.copytree(second.root, store.root, dirs_exist_ok=True)
    found = compared(store, A, "second/QA-70%/0")
    assert found["controlled"] and {one["allowed"] for one in found["config"]} == {"only"}

    data = json.loads((store.sweep("second") / "launched.json").read_text())
    data["arms"][0]["config"]["optimizer"]["beta2"] = 0.99
    (store.sweep("second") / "launched.json").write_text(json.dumps(data))
    assert main(["compare", A, "second/QA-70%/0", "--store", str(store.root)]) == 2
    assert "optimizer.beta2 (0.95 against 0.99)" in capsys.readouterr().err


def test_nothing_recorded_yet_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = {"QA-30%": 0.0, "QA-70%": 1.0}
    store = fabricate(tmp_path, arms=arms, seeds=(0,), items=20, question=PLAIN)
    launched(store)
    for path in store.root.glob("nodes/*/records.jsonl"):
        path.unlink()
    assert main(["compare", A, B, "--store", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == []


MISTAKES = [
    (["qa_ratio/QA-3%/0", B], "sweep 'qa_ratio' has no run 'QA-3%/0'; nearest: QA-30%/0"),
    (["dose0.0-s9", B], "has no run 'dose0.0-s9'; nearest: dose0.0-s"),
    (["qa_ratio", B], "'qa_ratio' is a sweep; name one of its runs"),
    ([A, A], "are one run, dose0.0-s0"),
]


@pytest.mark.parametrize(("runs", "message"), MISTAKES)
def test_mistakes_are_one_line(whole: Store, capsys: pytest.CaptureFixture[str], runs: list[str], message: str) -> None:
    assert main(["compare", *runs, "--store", str(whole.root)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_imports_nothing_heavy(command: str, repository: Path) -> None:
    code = (
        "import sys\nfrom analysis.__main__ import main\n"
        f"try: main([{command!r}, '--help'])\nexcept SystemExit: pass\n"
        "print({'pandas', 'numpy', 'matplotlib', 'torch', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=repository)
    assert f"  python -m analysis {command} " in done.stdout and done.stdout.rstrip().endswith("set()")


def test_what_cannot_be_read_or_written_is_one_line(
    whole: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "way").write_text("in the way")
    copy = Store(tmp_path / "store")
    shutil.copytree(whole.root, copy.root)
    for arguments in (
        ["compare", A, B, "--out", str(tmp_path / "way")],
        ["figure", "qa_ratio", "--figure", "11b", "--out", str(tmp_path / "way")],
    ):
        assert main([*arguments, "--store", str(copy.root)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and "way" in error and error.count("\n") == 1
    copy.runs("qa_ratio").unlink()
    assert main(["compare", A, B, "--store", str(copy.root)]) == 2
    error = capsys.readouterr().err
    assert "runs.json: cannot be read" in error and error.count("\n") == 1
