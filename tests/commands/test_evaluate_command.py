"""``evaluate RUN``: any checkpoint that is there, on any suite, once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.load import load
from davinci.__main__ import main
from davinci.launching.demands import demanded, suites
from davinci.launching.lock import Lock
from davinci.launching.reconcile import asked_of, is_settled, plan_remaining
from davinci.planning.plan import load_plan
from davinci.store import Store
from davinci.tracking.records import read


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The token counts at which a state is really evaluated."""
    import sys

    made: list[int] = []
    stand_in = sys.modules["davinci.evaluation.evaluate"]
    original = stand_in.evaluate

    def counted(checkpoint: Any, *rest: Any) -> Any:
        made.append(int(checkpoint.name))
        return original(checkpoint, *rest)

    monkeypatch.setattr(stand_in, "evaluate", counted)
    return made


def said(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    assert main(["evaluate", *words]) == status
    captured = capsys.readouterr()
    return captured.err if status else captured.out


def test_what_is_evaluated_is_only_shown(
    store: Store, evaluations: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(said(capsys, "arm0-s0", "--json", "--store", str(store.root)))["evaluations"]
    assert [(one["tokens"], one["served"], one["node"]) for one in found] == [(240, True, "c0-s0")]
    assert evaluations == []


def test_every_checkpoint_once(store: Store, evaluations: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    words = ("arm0-s0", "--checkpoint", "all", "--json", "--store", str(store.root))
    first = json.loads(said(capsys, *words))["evaluations"]
    tokens = [one["tokens"] for one in first]
    assert {168, 192, 200, 216, 240} <= set(tokens)
    assert set(evaluations) == set(tokens) - {200, 240} and len(evaluations) == len(set(evaluations))
    again = json.loads(said(capsys, *words))["evaluations"]
    assert all(one["served"] for one in again) and len(evaluations) == len(tokens) - 2
    assert [one["scores"] for one in again] == [one["scores"] for one in first]


def test_the_run_stays_done_and_its_marks_vouch(
    store: Store, evaluations: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    before = read(store.records("c0-s0"))
    said(capsys, "arm0-s0", "--checkpoint", "216,192", "--limit", "3", "--store", str(store.root))
    assert evaluations == [192, 216]
    rows = read(store.records("c0-s0"))
    assert [row for row in rows if row in before] == before
    plan = load_plan(store, "fake")
    node = plan.nodes["c0-s0"]
    asked = asked_of(node, demanded(plan)["c0-s0"], suites(plan), store, {})
    assert is_settled(node, asked, store), "done.json vouches for all rows, the new ones too"
    assert plan_remaining(plan, store)["c0-s0"].finished


def test_a_sweep_and_a_suite_of_ones_own(
    store: Store, tmp_path: Any, evaluations: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "suite: mine\nharness: embedded\nbenchmarks:\n"
        "  cloze: {domain: general, task: general_cloze, protocol: ppl, num_fewshot: 0, metric: acc, chance: 0.25}\n"
    )
    text = said(capsys, "fake/arm0/0", "--suite", str(file), "--store", str(store.root))
    assert "arm0-s0 at 240, suite mine" in text and "cloze" in text and "Overall" in text
    assert evaluations == [240]
    (kept,) = (store.root / "suites").glob("*.json")
    assert json.loads(kept.read_text())["suite"] == "mine"


def test_keys_of_a_suite_can_be_set(store: Store, evaluations: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["arm0-s0", "--suite", "embedded", "--set", "evaluation.keep_text=true", "--set", "evaluation.limit=2"]
    said(capsys, *words, "--store", str(store.root))
    (kept,) = (store.root / "suites").glob("*.json")
    assert (json.loads(kept.read_text())["keep_text"], json.loads(kept.read_text())["limit"]) == (True, 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["arm7-s0"], "has no run or sweep 'arm7-s0'; nearest: arm1-s0, arm0-s0"),
        (["arm1-s0", "--checkpoint", "240"], "run arm1-s0 has no checkpoint there"),
        (["arm0-s0", "--checkpoint", "195"], "--checkpoint 195: run arm0-s0 has no checkpoint there; those there: "),
        (["arm0-s0", "--checkpoint", "newest"], "accepted are all, last, and tokens"),
        (["arm0-s0", "--suite", "embeded"], "conf/evaluation has no 'embeded'; nearest: embedded"),
        (["arm0-s0", "--suite", "no/such.yaml"], "--suite no/such.yaml: No such file or directory; known suites: "),
        (["arm0-s0", "--set", "evaluation.limit=3"], "evaluation.limit=3: changes a suite of conf/evaluation; name it"),
        (["arm0-s0", "--suite", "embedded", "--set", "seed=3"], "seed=3: accepted are keys of the suite"),
        (
            ["arm0-s0", "--suite", "embedded", "--set", "evaluation.limt=3"],
            "evaluation.limt: unknown key; nearest: limit",
        ),
        (["arm0-s0", "--limit", "0"], "--limit 0: accepted are whole numbers from 1"),
    ],
)
def test_mistakes_are_said_on_one_line(
    words: list[str], message: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    error = said(capsys, *words, "--store", str(store.root), status=2)
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error, error


def test_a_pruned_checkpoint_is_said_to_be(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    main(["gc", "--yes", "--store", str(store.root)])
    capsys.readouterr()
    error = said(capsys, "arm0-s0", "--checkpoint", "200", "--store", str(store.root), status=2)
    assert "any more, or not yet" in error and "those there: 80, 160, 240" in error


def test_a_file_with_a_mistake_names_itself(store: Store, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    for text, message in (
        ("benchmarks: {}\nharness: embedded\n", "benchmarks: at least 1 is needed"),
        ("- a\n", "not a suite"),
        ("harness: embedded\nbenchmarkz: {}\n", "benchmarkz: unknown key; nearest: benchmarks"),
        (
            "harness: embedded\nbenchmarks:\n"
            "  x: {domain: code, task: general_close, protocol: ppl, num_fewshot: 0, metric: acc}\n",
            "has no task 'general_close'; nearest: general_cloze",
        ),
    ):
        file.write_text(text)
        error = said(capsys, "arm0-s0", "--suite", str(file), "--store", str(store.root), status=2)
        assert str(file) in error and message in error, error


def test_what_someone_works_on_is_evaluated_and_recorded_later(
    store: Store, evaluations: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("arm0-s0", "--checkpoint", "216", "--store", str(store.root))
    before = store.records("c0-s0").read_bytes()
    with Lock(store.node("c0-s0")):
        text = said(capsys, *words)
    assert "Overall" in text and "not in the records yet: process " in text
    assert store.records("c0-s0").read_bytes() == before and evaluations == [216]
    assert "not in the records" not in said(capsys, *words)
    assert [row["tokens"] for row in read(store.records("c0-s0"), "evaluation")].count(216) > 0


def test_averaged_weights_have_scores_of_their_own(
    store: Store, evaluations: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("arm0-s0", "--store", str(store.root))
    error = said(capsys, *words, "--weights", "average", status=2)
    assert error.startswith("error: --weights average: no checkpoint of run arm0-s0 has averaged weights; a stage ")
    (store.checkpoint("c0-s0", 216) / "average.safetensors").write_text("their mean")
    all_averaged = (*words, "--weights", "average", "--checkpoint", "all")
    (averaged,) = json.loads(said(capsys, *all_averaged, "--json"))["evaluations"]
    (trained,) = json.loads(said(capsys, *words, "--checkpoint", "216", "--json"))["evaluations"]
    assert (averaged["tokens"], averaged["weights"], trained["weights"]) == (216, "average", "trained")
    assert averaged["suite_key"] == f"{trained['suite_key']}-average"
    assert trained["scores"][0]["key"] != averaged["scores"][0]["key"]
    assert "at 216, averaged weights, suite" in said(capsys, *all_averaged)
    assert evaluations == [216, 216], "each once"
    rows = [row for row in read(store.records("c0-s0"), "evaluation") if row["tokens"] == 216]
    assert {row["suite"] for row in rows} == {trained["suite_key"], averaged["suite_key"]}
    points = [run.points for run in load(store, "fake", averaged["suite_key"]).plan.runs if run.points]
    assert [(one.tokens, one.weights) for (one,) in points] == [(216, "average")]


def test_without_slurm_one_line_says_so(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text("#!/bin/sh\necho 'sbatch: error: first' >&2\necho 'sbatch: error: last' >&2\nexit 1\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sbatch.parent}:/bin")
    words = ["evaluate", "arm0-s0", "--checkpoint", "216", "--cluster", "slurm", "--store", str(store.root)]
    assert main(words) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: cluster=slurm: ") and error.count("\n") == 1, error
    assert "sbatch: error: last" in error and "cluster=local runs on this machine" in error


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    assert "hf:models/" in capsys.readouterr().out
