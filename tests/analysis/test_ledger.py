"""Transparency cards: they say what the records show, and all of them fit the schema."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from fabricated_store import QUESTION, fabricate

from analysis.__main__ import main
from analysis.findings import study
from analysis.ledger import run_card, sweep_card
from analysis.ledger.card import Card
from analysis.ledger.compute import Supply
from analysis.ledger.markdown import render
from davinci.config import parse
from davinci.errors import UserError
from davinci.store import Store, read_json, write_json

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = DOCS / "ledger.schema.json"
LEAF = "s2_2-v1-dose{}-seed{}"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A finished sweep with its pool's card, its last weights, and where they were trained."""
    made = fabricate(tmp_path_factory.mktemp("whole"), items=20)
    variant = {
        **{"digest": "0" * 64, "tokens": 10**6, "documents": 500, "bytes": 4 * 10**6},
        **{"heldout_tokens": 10**4, "heldout_documents": 5, "heldout_bytes": 4 * 10**4},
        "chain": [{"level": "L2", "operation": "rules", "documents": 510, "dropped": {"too short": 10}}],
    }
    source = {
        "domain": "qa",
        "licence": {"spdx": "MIT", "note": "made for a test", "files": {}},
        "archive": {"asked": {"kind": "wheel", "version": "1.2", "sha256": "1" * 64}},
        "variants": {"L2": variant},
    }
    tokenizer = {"file": "tokenizer.json", "digest": "0" * 64, "vocab_size": 1024}
    card = {"name": "embedded", "tokenizer": tokenizer, "sources": {"qa_text": source}}
    write_json(made.pool("embedded") / "card.json", card)
    for folder in (made.root / "nodes").iterdir():
        mark = read_json(folder / "done.json")
        state = made.checkpoint(folder.name, mark["end"])
        state.mkdir(parents=True)
        (state / "model.safetensors").write_bytes(b"")
        write_json(
            state / "state.json", {"numerics": {"device": "cpu", "torch": "2.9", "threads": 1, "compile": False}}
        )
    return made


@pytest.fixture(scope="module")
def card(store: Store) -> Card:
    return sweep_card(study(store, "qa_ratio"))


def rows(card: Card) -> dict[str, str]:
    return {row.name: row.state for row in card.openness}


def fits(card: Card) -> None:
    """The card's JSON is what the schema says: by the classes and, where it is installed, by jsonschema."""
    text = card.model_dump_json()
    assert Card.model_validate_json(text) == card
    if find_spec("jsonschema"):
        from jsonschema import Draft202012Validator

        Draft202012Validator(read_json(SCHEMA)).validate(json.loads(text))


def test_the_schema_is_that_of_the_classes() -> None:
    assert read_json(SCHEMA) == Card.model_json_schema(), "docs/report.md says how to write it anew"


def test_a_whole_sweep(card: Card) -> None:
    fits(card)
    found = rows(card)
    assert found["Final weights"] == found["Intermediate checkpoints"] == found["Training data"] == "yes"
    assert found["Sources and licences"] == found["Processing"] == found["Environment"] == "yes"
    assert found["Ablations"] == found["Negative results"] == found["Hypothesis beforehand"] == "yes"
    assert found["Training code"] == "no"  # no record says which program it was
    (source,) = card.data.sources
    assert (source.licence, source.archives[0].version, source.matches_pool) == ("MIT", "1.2", True)
    assert [step.text for step in source.processing] == ["L2 rules: 510 documents; dropped: too short 10"]
    assert source.epochs == {"QA-30%": 0.06, "QA-50%": 0.1, "QA-70%": pytest.approx(0.14)}
    (place,) = card.environment.runs
    assert place.stretches == 15 and place.values["compile"] == "false" and place.code is None
    assert len(card.mixture.mixtures) == 5 and card.mixture.mixtures[-1].domains["qa"] == 0.7
    assert [one.parameters for one in card.architecture] == [870_528]
    assert card.negatives.supported is not None and card.negatives.troubles == ()
    assert card.compute.tokens_recorded == card.compute.tokens_planned - 9 * 1600 - 3 * 576 - 3 * 2432


def test_imported_weights_are_named_with_source_and_licence(tmp_path: Path) -> None:
    made = fabricate(tmp_path, items=20)
    path = made.sweep("qa_ratio") / "launched.json"
    plan = read_json(path)
    for arm in plan["arms"]:
        arm["config"]["model"]["pretrained"] = {"name": "small", "digest": "a" * 64}
    write_json(path, plan)
    lost = sweep_card(study(made, "qa_ratio"))
    assert rows(lost)["Weights it begins with"] == "no"
    model = {key: value for key, value in plan["arms"][0]["config"]["model"].items() if key != "pretrained"}
    record = {"model": model, "architecture": "LlamaForCausalLM", "dtypes": {"model.norm.weight": "F32"}}
    record |= {"digest": "a" * 64, "tokenizer_digest": None, "licence": "apache-2.0", "source": "Small-135M"}
    write_json(made.imported("small") / "imported.json", record)
    card = sweep_card(study(made, "qa_ratio"))
    fits(card)
    assert rows(card)["Weights it begins with"] == "partial"
    text = "small, LlamaForCausalLM from Small-135M, licence apache-2.0 (aaaaaaaaaaaa)"
    assert card.architecture[0].begins_with is not None and card.architecture[0].begins_with.text == text
    assert "begins with" in render(card) and "Small-135M, licence apache" in render(card)


def test_one_run(store: Store) -> None:
    found = study(store, "qa_ratio")
    card = run_card(found, "QA-50%/1")
    fits(card)
    assert card.run is not None and card.run.id == "dose0.5-s1" == run_card(found, "dose0.5-s1").run.id  # type: ignore[union-attr]
    assert [one.node for one in card.run.stretches] == ["s1_1-v1-seed1", "s2_1-v1-seed1", LEAF.format(0.5, 1)]
    assert [one.shared_with for one in card.run.stretches] == [2, 2, 0]
    assert card.arms == ("QA-50%",) and card.compute.tokens_planned == 1_344_000
    assert len(card.run.scores) == 4 * 7 and all(one.score is not None for one in card.run.scores)
    for name, message in (("dose0", "names 6 runs"), ("QA-50%/11", "no run 'QA-50%/11'; nearest: QA-50%/1")):
        with pytest.raises(UserError, match=message):
            run_card(found, name)


def test_energy_is_the_formula(store: Store) -> None:
    found = study(store, "qa_ratio")
    energy = sweep_card(found, Supply(watts=250.0, pue=1.2, carbon=0.5)).compute.energy
    assert energy is not None
    hours = sum(spent.seconds for spent in found.sweep.spent.values()) / 3600
    assert energy.kwh == pytest.approx(hours * 250 * 1.2 / 1000) and energy.kg_co2e == pytest.approx(0.5 * energy.kwh)
    default = sweep_card(found).compute.energy
    assert default is not None and (default.watts, default.pue, default.kg_co2e) == (10.0, 1.56, None)
    plan = found.sweep.plan
    found.sweep.plan = plan.model_copy(update={"cost": plan.cost.model_copy(update={"gpu": "tpu_v6e"})})
    nobody_knows = sweep_card(found)
    fits(nobody_knows)
    assert nobody_knows.compute.energy is None and "--watts" in render(nobody_knows)


def test_evaluation_is_counted_where_records_say_how_long_it_took(tmp_path: Path) -> None:
    store = fabricate(tmp_path, items=20)
    old = sweep_card(study(store, "qa_ratio")).compute
    assert old.evaluation_hours_recorded == 0 and old.evaluations_untimed == old.evaluations > 0
    assert "do not say how long" in render(sweep_card(study(store, "qa_ratio")))
    for path in (store.root / "nodes").glob("*/records.jsonl"):
        found = [json.loads(line) for line in path.read_text().splitlines()]
        timed = [row | ({"seconds": 1.5} if row["kind"] == "evaluation" else {}) for row in found]
        path.write_text("".join(json.dumps(row) + "\n" for row in timed))
    new = sweep_card(study(store, "qa_ratio"))
    assert new.compute.evaluations_untimed == 0 and new.compute.evaluations == old.evaluations
    assert new.compute.evaluation_hours_recorded == pytest.approx(1.5 * old.evaluations / 3600)
    assert new.compute.energy is not None and old.energy is not None
    assert new.compute.energy.accelerator_hours == pytest.approx(
        new.compute.hours_recorded + new.compute.evaluation_hours_recorded
    )
    assert new.compute.hours_recorded == pytest.approx(old.hours_recorded)
    assert "do not say how long" not in render(new)


def test_what_is_lacking_is_said(tmp_path: Path) -> None:
    gone = ["dose1.0-s2"]
    store = fabricate(tmp_path, items=20, without=gone)
    failed = {"state": "failed", "error": "UserError: loss nan at step 9", "log": "x"}
    write_json(store.jobs("qa_ratio") / f"{LEAF.format('1.0', 2)}.failed.json", failed)
    mark = store.node(LEAF.format("0.5", 0)) / "done.json"
    write_json(mark, read_json(mark) | {"replay_differs": True})
    write_json(mark, read_json(mark) | {"environment": {"device": "NVIDIA H100", "code": "abc"}})
    (store.root / "code" / "abc").mkdir(parents=True)
    card = sweep_card(study(store, "qa_ratio"))
    fits(card)
    found = rows(card)
    assert found["Final weights"] == found["Training data"] == "no" and found["Training code"] == "partial"
    assert found["Negative results"] == found["Training records"] == "partial"
    kinds = {one.kind: one for one in card.negatives.troubles}
    assert kinds["failed"].text == "failed: UserError: loss nan at step 9" and kinds["failed"].runs == tuple(gone)
    assert kinds["incomplete"].runs == tuple(gone) and kinds["replay differs"].runs == ("dose0.5-s0",)
    assert card.data.sources[0].licence is None and card.environment.unrecorded == 13
    assert card.negatives.not_told_apart and len(card.negatives.not_told_apart) <= card.negatives.tested == 8


def test_planted_names_stay_text(tmp_path: Path) -> None:
    evil = '<script>alert("1")</script> `x` | \\'
    question = QUESTION | {"text": evil, "hypothesis": {**QUESTION["hypothesis"], "text": evil, "arm": evil}}
    store = fabricate(tmp_path, arms={"=base": 0.0, evil: 1.0}, seeds=(0, 1), items=20, question=question)
    card = sweep_card(study(store, "qa_ratio"))
    fits(card)
    assert card.title == evil and "<script" not in render(card)


def test_the_command(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "qa_ratio", "--store", str(store.root)]) == 0
    printed = capsys.readouterr().out
    assert "Intermediate checkpoints" in printed and "kWh" in printed
    assert max(len(line) for line in printed.splitlines() if "/" not in line) <= 100
    folder = store.sweep("qa_ratio") / "report"
    assert parse(Card, read_json(folder / "ledger.json")).kind == "sweep"
    assert "| data | Sources and licences | **yes** |" in (folder / "ledger.md").read_text()
    assert main(["ledger", "qa_ratio", "--store", str(store.root), "--run", "dose1.0-s0"]) == 0
    assert parse(Card, read_json(folder / "ledger-dose1.0-s0.json")).kind == "run"
    capsys.readouterr()
    assert main(["ledger", "qa_ratio", "--store", str(store.root), "--run", "dose9"]) == 2
    assert capsys.readouterr().err.startswith("error: --run: sweep 'qa_ratio' has no run 'dose9'")
