"""The embedded benchmarks' items: same bytes every time, only the context tells, none stands in the training text."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from tokenizers import Tokenizer

from davinci.errors import UserError
from davinci.evaluation import embedded
from davinci.evaluation.documents import evenly
from davinci.evaluation.items import read_items
from davinci.evaluation.suite import task_config, task_files
from davinci.store import Store, read_json, write_json

CONF = Path(__file__).parents[2] / "conf" / "evaluation"


@pytest.fixture(scope="module")
def tasks(built_pool: Store) -> Path:
    embedded.make_tasks(built_pool, "embedded")
    return built_pool.pool("embedded") / "tasks"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_same_pool_same_bytes(tasks: Path, built_pool: Store, tmp_path: Path) -> None:
    copy = Store(tmp_path)
    ignore = shutil.ignore_patterns("tasks")
    shutil.copytree(built_pool.pool("embedded"), copy.pool("embedded"), ignore=ignore)
    embedded.make_tasks(copy, "embedded")
    assert contents(copy.pool("embedded") / "tasks") == contents(tasks)


def test_second_call_writes_nothing(tasks: Path, built_pool: Store) -> None:
    before = {path: path.stat().st_mtime_ns for path in tasks.iterdir()}
    embedded.make_tasks(built_pool, "embedded")
    assert {path: path.stat().st_mtime_ns for path in tasks.iterdir()} == before


def test_damaged_items_are_made_again(tasks: Path, built_pool: Store, tmp_path: Path) -> None:
    copy = Store(tmp_path)
    shutil.copytree(built_pool.pool("embedded"), copy.pool("embedded"))
    damaged = copy.pool("embedded") / "tasks" / "general_cloze.jsonl"
    damaged.write_text("{}\n", encoding="utf-8")
    embedded.make_tasks(copy, "embedded")
    assert damaged.read_bytes() == (tasks / "general_cloze.jsonl").read_bytes()


@pytest.mark.parametrize("name", sorted(embedded.MAKERS))
def test_items_are_answerable_and_held_out(name: str, tasks: Path, built_pool: Store) -> None:
    rows = read_items(tasks / f"{name}.jsonl")
    assert [row["id"] for row in rows] == list(range(len(rows)))
    assert len({row["context"] for row in rows}) == len(rows)
    assert sum(row["split"] == "fewshot" for row in rows) == embedded.FEWSHOT_ITEMS
    held_out = {}
    for source in {row["source"] for row in rows}:
        file = built_pool.pool("embedded") / f"{source}@L3" / "heldout.jsonl"
        held_out[source] = {one["id"]: one["text"] for one in map(json.loads, file.open(encoding="utf-8"))}
    for row in rows:
        assert len(row["choices"]) == 4 == len(set(row["choices"]))
        assert row["capability"] == embedded.MAKERS[name].capability and row["grade"] in embedded.MAKERS[name].grades
        text = held_out[row["source"]][row["document"]]
        whole = row["context"] + row["choices"][row["label"]]
        assert " ".join(whole.split()) in " ".join(text.split())
        lengths = [len(choice.encode()) for choice in row["choices"]]
        assert max(lengths) - min(lengths) <= 20 * (name == "code_indentation")


def test_nothing_but_the_context_tells(tasks: Path) -> None:
    manifest = read_json(tasks / "manifest.json")
    assert manifest["generator"] == embedded.GENERATOR
    assert manifest["seed"] == embedded.SEED
    for name, entry in manifest["benchmarks"].items():
        scores = entry["baselines"]
        assert set(scores) == {"chance", "shortest", "longest", "unigram", "bigram"} and scores["chance"] == 0.25
        near = 0.12 if name == "code_indentation" else 0.05  # of which the fabricated code has few
        assert all(abs(score - 0.25) <= near for score in scores.values()), (name, scores)
        labels = [row["label"] for row in read_items(tasks / f"{name}.jsonl")]
        assert max(labels.count(label) for label in range(4)) < 0.4 * len(labels)


def test_the_suite_asks_what_is_made(tasks: Path) -> None:
    """Benchmarks, domains and numbers of items of the suite and of its protocols are the manifest's."""
    made = read_json(tasks / "manifest.json")["benchmarks"]
    asked = yaml.safe_load((CONF / "embedded.yaml").read_text(encoding="utf-8"))["benchmarks"]
    configs = {name: task_config(task_files("embedded")[one["task"]]) for name, one in asked.items()}
    files = {name: config["dataset_kwargs"]["file"] for name, config in configs.items()}
    assert {file.removesuffix(".jsonl") for file in files.values()} == set(made)
    for name, one in asked.items():
        entry = made[files[name].removesuffix(".jsonl")]
        assert one["items"] == entry["items"] == sum(entry["grades"].values())
        assert one["domain"] == ("science" if entry["domain"] == "qa" else entry["domain"])
        assert one["chance"] == (entry["baselines"]["chance"] if one["protocol"] == "ppl" else 0.0)
    domains = Counter(("science" if entry["domain"] == "qa" else entry["domain"]) for entry in made.values())
    assert set(domains) == {"general", "code", "science"} and min(domains.values()) >= 3
    for protocol in ("embedded_ppl", "embedded_generative"):
        one = yaml.safe_load((CONF / "protocol" / f"{protocol}.yaml").read_text(encoding="utf-8"))["benchmarks"]
        assert one["Arithmetic"].items() <= asked[one["Arithmetic"]["task"]].items()


def test_what_stands_in_the_training_text_is_dropped(tasks: Path, built_pool: Store, tmp_path: Path) -> None:
    """A cloze's whole sentence, and a sum, planted in a training document of another source, in other case."""
    planted = [read_items(tasks / f"{name}.jsonl")[5] for name in ("general_cloze", "arithmetic")]
    texts = [(row["context"] + row["choices"][row["label"]]).upper() for row in planted]
    copy = Store(tmp_path)
    shutil.copytree(built_pool.pool("embedded"), copy.pool("embedded"), ignore=shutil.ignore_patterns("tasks"))
    with (copy.pool("embedded") / "scripts@L3" / "train.bin").open("ab") as file:
        tokenizer = Tokenizer.from_file(str(copy.pool("embedded") / "tokenizer.json"))
        for text in texts:
            file.write(np.array([*tokenizer.encode(f"x = 1\n\n{text}\ny = 2").ids, 0], dtype="<u2").tobytes())
        tokens = file.tell() // 2
    card = read_json(copy.pool("embedded") / "card.json")
    card["sources"]["scripts"]["variants"]["L3"]["tokens"] = tokens
    write_json(copy.pool("embedded") / "card.json", card)
    embedded.make_tasks(copy, "embedded")
    folder = copy.pool("embedded") / "tasks"
    before, after = (read_json(one / "manifest.json")["benchmarks"] for one in (tasks, folder))
    for name, row in zip(("general_cloze", "arithmetic"), planted, strict=True):
        assert after[name]["in_training_text"] > before[name]["in_training_text"]
        contexts = {one["context"] for one in read_items(folder / f"{name}.jsonl")}
        assert row["context"] not in contexts


def test_missing_training_text_is_named(built_pool: Store, tmp_path: Path) -> None:
    copy = Store(tmp_path)
    shutil.copytree(built_pool.pool("embedded"), copy.pool("embedded"), ignore=shutil.ignore_patterns("tasks"))
    (copy.pool("embedded") / "sums@L3" / "train.bin").unlink()
    with pytest.raises(UserError, match="sums@L3/train.bin: missing; build the pool again"):
        embedded.make_tasks(copy, "embedded")


def test_any_first_items_have_the_same_grades() -> None:
    items = [{"grade": 1 + n % 3, "more_usual": n % 4, "id": n} for n in range(120)]
    some = evenly(items, 24, (1, 1, 2, 3))
    assert [item["grade"] for item in some] == [1, 1, 2, 3] * 6
    assert Counter(item["more_usual"] for item in some if item["grade"] == 1) == {0: 3, 1: 3, 2: 3, 3: 3}
    assert len({item["id"] for item in some}) == 24
    assert len(evenly(items, 500, (1, 2, 3))) == 120, "those of a grade that has run out are left out"


def test_swaps_keep_every_byte(tasks: Path) -> None:
    for name in ("general_word_order", "code_name_order"):
        for row in read_items(tasks / f"{name}.jsonl"):
            assert len({tuple(sorted(choice)) for choice in row["choices"]}) == 1


def test_unbuilt_and_small_pools_are_refused(built_pool: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not built"):
        embedded.make_tasks(Store(tmp_path), "embedded")
    copy = Store(tmp_path)
    ignore = shutil.ignore_patterns("tasks")
    shutil.copytree(built_pool.pool("embedded"), copy.pool("embedded"), ignore=ignore)
    short = copy.pool("embedded") / "scripts@L3" / "heldout.jsonl"
    first = json.loads(short.read_text(encoding="utf-8").splitlines()[0])
    short.write_text(json.dumps(first | {"text": first["text"][:400]}) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="hold out more documents"):
        embedded.make_tasks(copy, "embedded")
