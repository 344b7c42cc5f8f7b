"""Level 3: a classifier trained on labels, and grades that a model gives."""

import json
import random

import numpy as np
import pytest
from stub_model import StubModel, completion

from davinci.__main__ import main
from davinci.data.documents import Document
from davinci.data.l3_model_filter import classifier_model
from davinci.data.l3_model_filter.training import Labelled, read_labels, split_of, train
from davinci.data.operations import Places, _read_step
from davinci.data.tally import Tally
from davinci.errors import UserError

TOPICS = {
    "maths": "theorem proof integer prime lemma field ring group matrix root",
    "novel": "she walked home quietly while rain fell over old river town",
    "shop": "buy price cheap offer click cart sale discount order now",
}
COMMON = "the of and a to in is it that with"


def rows(count=300, labels=tuple(TOPICS), mixed=0.0):
    chance = random.Random(5)
    made = []
    for place in range(count):
        label = labels[place % len(labels)]
        topic = chance.choice(labels) if chance.random() < mixed else label
        words = chance.choices(TOPICS[topic].split(), k=8) + chance.choices(COMMON.split(), k=12)
        chance.shuffle(words)
        made.append(Labelled(" ".join(words), label, f"d{place}"))
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    train(rows()).save(folder)
    return folder


def test_it_tells_labels_apart_and_says_how_well(trained):
    classifier = classifier_model.load(trained)
    report = classifier.about["report"]
    assert classifier.labels == ("maths", "novel", "shop") and report["accuracy"] == 1.0
    assert report["labels"]["maths"]["auc"] == 1.0 and report["calibration_error"] < 0.2
    at_half = report["labels"]["shop"]["thresholds"][4]
    assert at_half == {"threshold": 0.5, "precision": 1.0, "recall": 1.0, "kept": pytest.approx(1 / 3, abs=0.2)}
    probabilities = classifier.probabilities(["a proof of the lemma in a ring", ""])
    assert (
        probabilities.shape == (2, 3) and np.allclose(probabilities.sum(axis=1), 1) and probabilities[0].argmax() == 0
    )


def test_noisy_labels_are_reported_as_such_and_calibrated():
    """Labels that are wrong in a known share: accuracy and the probabilities say so."""
    classifier = train(rows(900, ("maths", "novel"), mixed=0.4))
    report = classifier.about["report"]
    assert 0.7 < report["accuracy"] < 0.9  # one in five is wrong
    assert report["calibration_error"] < 0.12
    confidence = classifier.probabilities([row.text for row in rows(200, ("maths", "novel"))]).max(axis=1).mean()
    assert 0.65 < confidence < 0.95


def test_splits_are_by_document():
    assert {split_of("one document") for _ in range(3)} == {split_of("one document")}
    shares = [split_of(str(one)) for one in range(4000)]
    assert 0.67 < shares.count("train") / 4000 < 0.73 and 0.13 < shares.count("heldout") / 4000 < 0.17
    leaking = [Labelled(row.text, row.label, "same") for row in rows()]
    with pytest.raises(UserError, match="documents in the split"):
        train(leaking)


def test_saved_files_hold_no_pickle_and_their_damage_is_found(trained, tmp_path):
    with np.load(trained / "weights.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"coefficients", "intercepts", "calibration"}
    train(rows()).save(tmp_path)
    assert classifier_model.digest_of(tmp_path) == classifier_model.digest_of(
        trained
    )  # the same labels, the same model
    data = bytearray((tmp_path / "weights.npz").read_bytes())
    data[-40] ^= 1
    (tmp_path / "weights.npz").write_bytes(data)
    classifier_model.load.cache_clear()
    with pytest.raises(UserError, match="not the weights that classifier.json names"):
        classifier_model.load(tmp_path)
    with pytest.raises(UserError, match="no classifier.*train-classifier"):
        classifier_model.load(tmp_path / "nowhere")


def step(folder, keep, **more):
    return _read_step({"classifier": {"model": folder.name, "keep": keep, **more}}, "chain").located(
        Places(*[folder.parent] * 4)
    )


def test_the_operation_keeps_a_label_and_counts_the_rest(trained):
    documents = [Document(str(place), "k", row.text) for place, row in enumerate(rows(30))]
    tally = Tally()
    kept = list(step(trained, "maths", note="maths").run(iter(documents), tally, Places(*[trained] * 4)))
    assert len(kept) == 10 and sum(tally.dropped.values()) == 20
    assert set(tally.dropped) == {f"maths below 0.5, likeliest {label}" for label in ("novel", "shop")}
    assert all(500 <= one.origin["maths"] <= 1000 for one in kept)
    strict = step(trained, {"label": "maths", "at_least": 1.0})
    assert not list(strict.run(iter(documents), Tally(), Places(*[trained] * 4)))
    described = step(trained, "maths").described()
    assert described["report"]["accuracy"] == 1.0 and "model" not in described["parameters"]
    with pytest.raises(UserError, match="has no label 'poems'; it has maths, novel, shop"):
        step(trained, "poems")


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_command_trains_from_numbers(tmp_path, capsys):
    labels = [{"id": row.key, "text": row.text, "label": 4.5 if row.label == "maths" else 1} for row in rows(200)]
    path = write(tmp_path / "labels.jsonl", labels)
    assert main(["data", "train-classifier", str(path), "-o", str(tmp_path / "c"), "--at-least", "3", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["labels"] == ["high", "low"] and set(said["documents"]) == {"train", "calibration", "heldout"}
    assert classifier_model.load(tmp_path / "c").probabilities(["theorem proof lemma"])[0, 0] > 0.5
    assert main(["data", "train-classifier", str(path), "-o", str(tmp_path / "d"), "--at-least", "3"]) == 0
    assert "precision" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "at_least", "said"),
    [
        ("{", None, ":2: not JSON"),
        ('{"text": "a"}', None, ':2: a row has the keys "text" and "label"'),
        ('{"text": "a", "label": 3}', None, "--at-least X makes high and low of numbers"),
        ('{"text": "a", "label": "x"}', 3.0, "'x' is no number"),
        ('{"text": "a", "label": null}', None, "None is no name"),
    ],
)
def test_labels_that_are_none_are_named_by_line(tmp_path, line, at_least, said):
    path = tmp_path / "labels.jsonl"
    good = json.dumps({"text": "good", "label": "x" if at_least is None else 3})
    path.write_text(f"{good}\n{line}\n")
    with pytest.raises(UserError, match=said):
        read_labels(path, at_least)


def test_too_little_to_learn_from(tmp_path, capsys):
    with pytest.raises(UserError, match="two labels or more, not 1"):
        train(rows(30, ("maths",)))
    path = write(tmp_path / "few.jsonl", [{"text": row.text, "label": row.label} for row in rows(6)])
    assert main(["data", "train-classifier", str(path), "-o", str(tmp_path / "c")]) == 2
    assert "at least 5 are needed" in capsys.readouterr().err and not (tmp_path / "c").exists()


def test_grades_are_read_counted_and_kept(tmp_path):
    def answer(body, index):
        text = body["messages"][-1]["content"]
        score = "Score: 4" if "proof" in text else "I cannot." if "walked" in text else "Poor.\nScore: 1"
        return 200, {}, completion(score)

    documents = [Document("a", "k", "a proof"), Document("b", "k", "buy now"), Document("c", "k", "she walked")]
    with StubModel(answer) as server:
        base = {"endpoint": server.endpoint, "model": "stub", "first_wait_s": 0.01}
        one = _read_step({"graded_by_llm": base | {"keep": 3}}, "c").located(Places(*[tmp_path] * 4))
        tally = Tally()
        kept = list(one.run(iter(documents), tally, Places(*[tmp_path] * 4)))
    assert [(doc.id, doc.origin.get("grade")) for doc in kept] == [("a", "4"), ("c", None)]
    assert tally.dropped == {"grade below 3": 1} and tally.counted["rejected: broken format"] == 2
    assert tally.counted["graded 4"] == 1 == tally.counted["graded 1"]


def test_a_sample_is_graded_and_trained_on(tmp_path, capsys):
    """From a pool to a model's grades to a classifier, by the commands; held-out documents are not graded."""

    def answer(body, index):
        return 200, {}, completion("Score: 4" if "maths" in body["messages"][-1]["content"] else "Score: 1")

    write(tmp_path / "notes.jsonl", [{"id": row.key, "text": f"{row.text} {row.label}"} for row in rows(240)])
    chain = [{"jsonl": {"paths": ["notes.jsonl"]}}]
    source = {"domain": "general", "depths": ["L0"], "chain": chain}
    pool = {"name": "notes", "tokenizer": "notes", "vocab_size": 300, "sources": {"notes": source}}
    (tmp_path / "notes.yaml").write_text(json.dumps(pool))
    labels, store = tmp_path / "labels.jsonl", ["--store", str(tmp_path / "store")]
    with StubModel(answer) as server:
        asked = ["--endpoint", server.endpoint, "--model", "stub", "-o", str(labels), *store, "--depth", "l0"]
        assert main(["data", "grade", f"{tmp_path}/notes.yaml/notes", "--sample", "200", *asked]) == 0
        assert len(server.requests) == 200 and "answers 200" in capsys.readouterr().out
        assert main(["data", "grade", f"{tmp_path}/notes.yaml/notes", "--sample", "100", *asked, "--json"]) == 0
        assert len(server.requests) == 200  # a part of the larger sample
        said = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert said["counted"]["answers from the cache"] == 100
        assert main(["data", "grade", f"{tmp_path}/notes.yaml/nites", *asked]) == 2
        assert "nearest: notes" in capsys.readouterr().err
        assert main(["data", "grade", f"{tmp_path}/notes.yaml/notes", "--sample", "200", *asked]) == 0
    graded = [json.loads(line) for line in labels.read_text().splitlines()]
    assert len(graded) == 200 and not any(Document("x", row["split_key"], "").is_heldout(0.03) for row in graded)
    assert main(["data", "train-classifier", str(labels), "-o", str(tmp_path / "c"), "--at-least", "3"]) == 0
