"""Per-item records: what they hold, and that a change of anything a score depends on is evaluated again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from davinci.config import Evaluation, Model, Node, parse
from davinci.evaluation import evaluate, harness, loading, settings, suite
from davinci.evaluation.adapter import DecoderLM, load
from davinci.evaluation.item_records import _DTYPES, SCHEMA, chosen, is_cut, read
from davinci.model.decoder import Decoder
from davinci.model.weights import WEIGHTS
from davinci.store import Store

CONF = Path(__file__).parents[2] / "conf" / "evaluation" / "embedded.yaml"


def small(*names: str, limit: int | None = 8, **changes: Any) -> Evaluation:
    data = yaml.safe_load(CONF.read_text(encoding="utf-8"))
    chosen = {name: {**data["benchmarks"][name], **changes} for name in names}
    return parse(Evaluation, {**data, "benchmarks": chosen, "limit": limit, "probes": None})


def test_a_file_has_the_documented_columns(store: Store, node: Node, save: Callable[[int], Path]) -> None:
    asked = small("code_indentation", "arithmetic_generative")
    first = evaluate.evaluate(save(1), node, asked, store)
    path = evaluate.items_file(store, node, first[0].key)
    file = pq.ParquetFile(path)
    assert file.schema_arrow.remove_metadata() == SCHEMA
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    table = pd.read_parquet(path)
    ranked, written = (table[table["benchmark"] == name] for name in asked.benchmarks)
    assert all(len(row) == 4 and row.dtype == np.float32 for row in ranked["likelihoods"])
    assert list(ranked["chosen"]) == [int(np.argmax(row)) for row in ranked["likelihoods"]]
    assert written["likelihoods"].isna().all() and written["text"].isna().all()
    kept = evaluate.evaluate(save(1), node, asked.model_copy(update={"keep_text": True}), store)
    assert [result.score for result in kept] == [result.score for result in first]
    assert kept[1].frame["text"].map(type).eq(str).all()


@pytest.mark.parametrize("metric", ["acc", "acc_norm", "acc_bytes", "acc_mutual_info"])
def test_the_choice_is_the_one_that_the_metric_ranks_first(metric: str, store: Store) -> None:
    """lm-eval's own task calls the item right exactly where the choice is the right one."""
    name = "science_cloze"
    harness.prepare_environment(small(name), store.root)
    asked = small(name)
    task = loading.load(name, asked.benchmarks[name], asked, store.pool("embedded") / "tasks")["tasks"][name]
    task._metric_fn_list = dict.fromkeys(["acc", metric])
    random = np.random.default_rng(5)
    found = set()
    for doc in list(task.eval_docs)[:40]:
        choices = [choice + "é" * index for index, choice in enumerate(task.doc_to_choice(doc))]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(task, "doc_to_choice", lambda doc, choices=choices: choices)
            values = random.normal(-9, 3, len(choices) * (2 if metric == "acc_mutual_info" else 1))
            right = task.process_results(doc, [(value, False) for value in values])[metric]
            gold = task.doc_to_target(doc)
        assert (chosen(metric, values, choices) == gold) is bool(right)
        found.add(bool(right))
    assert found == {True, False}


@pytest.mark.parametrize(("name", "context"), [("arithmetic_generative", 78), ("science_cloze", 72)])
def test_items_that_do_not_fit_the_context_are_marked(
    name: str, context: int, store: Store, node: Node, save: Callable[[int], Path]
) -> None:
    """The model itself counts requests, of which a ranked item has one a choice."""
    asked, checkpoint = small(name, limit=60, num_fewshot=1), save(1)
    node = node.model_copy(update={"model": node.model.model_copy(update={"max_position_embeddings": context})})
    (result,) = evaluate.evaluate(checkpoint, node, asked, store)
    lm = load([checkpoint / WEIGHTS], node, store)
    harness.run(lambda: lm, store.pool("embedded") / "tasks", asked, store, settings="again", fewshot_seed=1234)
    requests = 1 if name == "arithmetic_generative" else 4
    assert 5 < result.truncated < 55, result.truncated
    assert result.truncated == result.frame["truncated"].sum()
    assert result.truncated <= lm.truncated <= requests * result.truncated


def test_the_longest_text_that_fits_is_not_marked(store: Store, tiny_model: Model) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(store.pool("embedded") / "tokenizer.json"))
    lm = DecoderLM(Decoder(tiny_model, 512), tokenizer)
    fits, long = "1" * (lm.max_length - 1), "1" * lm.max_length
    for text, cut in ((fits, False), (long, True)):
        before = lm.truncated
        lm._loglikelihood_tokens([((text, "12"), *lm._encode_pair(text, "12"))])
        assert (lm.truncated > before) is is_cut(lm, "multiple_choice", [(text, "12")]) is cut
    settings = {"max_gen_toks": 24}
    assert not is_cut(lm, "generate_until", [("1" * (lm.max_length - 24), settings)])
    assert is_cut(lm, "generate_until", [("1" * (lm.max_length - 23), settings)])
    assert not is_cut(lm, "loglikelihood_rolling", [(long,)])


Change = Callable[[Any], Any]


def _data(world: Any) -> None:
    with (world.store.pool("embedded") / "tasks" / "arithmetic.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")


def _tokenizer(world: Any) -> None:
    path = world.store.pool("embedded") / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")


def _generation_limit(world: Any) -> None:
    original = suite.task_config

    def changed(file: Path) -> dict[str, Any]:
        config = original(file)
        return {**config, "generation_kwargs": {**config.get("generation_kwargs", {}), "max_gen_toks": 7}}

    world.patch.setattr(suite, "task_config", changed)
    settings._definition.cache_clear()


def _dtype(world: Any) -> None:
    model = world.node.model.model_copy(update={"precision": "bfloat16"})
    world.node = world.node.model_copy(update={"model": model})


CHANGES: dict[str, Change] = {
    "weights": lambda world: setattr(world, "checkpoint", world.save(2)),
    "shots": lambda world: setattr(world, "asked", small("arithmetic_generative", num_fewshot=1)),
    "fewshot seed": lambda world: world.patch.setattr(settings, "FEWSHOT_SEED", 99),
    "data file": _data,
    "limit": lambda world: setattr(world, "asked", small("arithmetic_generative", limit=9)),
    "protocol": lambda world: setattr(world, "asked", small("arithmetic_ppl")),
    "dtype": _dtype,
    "harness version": lambda world: world.patch.setattr(settings, "_version", lambda package: "0.5.0"),
    "evaluation code": lambda world: world.patch.setattr(settings, "EVALUATION_VERSION", 0),
    "tokenizer": _tokenizer,
    "generation limit": _generation_limit,
    "texts asked for": lambda world: setattr(world, "asked", world.asked.model_copy(update={"keep_text": True})),
}


class World:
    """What one evaluation is made of, counting how often the model runs."""

    def __init__(self, store: Store, node: Node, save: Callable[[int], Path], patch: pytest.MonkeyPatch) -> None:
        self.store, self.node, self.save, self.patch = store, node, save, patch
        self.checkpoint, self.asked, self.runs = save(1), small("arithmetic_generative"), 0
        patch.setattr(harness, "run", self._run)

    def _run(self, load: object, folder: Path, asked: Evaluation, *_: object, **__: object) -> Any:
        self.runs += 1
        rows = [(name, item, 1.0, None, None, False, None, None) for name in asked.benchmarks for item in range(8)]
        frame = pd.DataFrame(rows, columns=SCHEMA.names).astype(_DTYPES)
        return dict.fromkeys(asked.benchmarks, 1.0), frame

    def evaluate(self) -> int:
        """How often the model has run after one more evaluation."""
        evaluate.evaluate(self.checkpoint, self.node, self.asked, self.store)
        return self.runs


@pytest.fixture
def world(store: Store, node: Node, save: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch) -> Any:
    yield World(store, node, save, monkeypatch)
    settings._definition.cache_clear()


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_evaluated_and_nothing_else_is(change: str, world: World) -> None:
    assert [world.evaluate(), world.evaluate()] == [1, 1]
    CHANGES[change](world)
    assert [world.evaluate(), world.evaluate()] == [2, 2]


def _older(path: Path) -> None:
    pq.write_table(pq.read_table(path).drop_columns(["truncated"]), path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: path.write_bytes(b""),
        Path.unlink,
        _older,
    ],
    ids=["cut short", "empty", "gone", "other columns"],
)
def test_a_damaged_file_is_evaluated_again(damage: Callable[[Path], Any], world: World) -> None:
    assert world.evaluate() == 1
    (path,) = (world.store.node(world.node.id) / "evaluations").glob("*.parquet")
    damage(path)
    assert [world.evaluate(), world.evaluate()] == [2, 2]


def test_no_flipped_byte_changes_what_is_served(world: World) -> None:
    """Wherever one byte is wrong, the file is refused or says what it said."""
    world.evaluate()
    (path,) = (world.store.node(world.node.id) / "evaluations").glob("*.parquet")
    whole, data = read(path), path.read_bytes()
    assert whole is not None
    refused = 0
    for place in range(0, len(data), 37):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :])
        found = read(path)
        refused += found is None
        assert found is None or (found[0] == whole[0] and found[1].equals(whole[1])), place
    assert refused > 5
