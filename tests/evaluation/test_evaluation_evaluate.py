"""A checkpoint through lm-eval: scores, items, cache, and nothing from the network."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from davinci.config import Evaluation, Node, parse
from davinci.errors import UserError
from davinci.evaluation import harness, loading, suite
from davinci.evaluation.evaluate import cache_key, evaluate
from davinci.evaluation.settings import settings_digest
from davinci.model.weights import WEIGHTS, load_mean, load_model
from davinci.store import Store

CONF = Path(__file__).parents[2] / "conf" / "evaluation" / "embedded.yaml"
TASKS = Path(suite.__file__).parent / "tasks"

Suite = Callable[..., Evaluation]


@pytest.fixture
def small() -> Suite:
    """The embedded suite reduced to some benchmarks, with changes."""

    def make(*names: str, limit: int | None = 8, **changes: Any) -> Evaluation:
        data = yaml.safe_load(CONF.read_text(encoding="utf-8"))
        chosen = {name: {**data["benchmarks"][name], **changes} for name in names or data["benchmarks"]}
        return parse(Evaluation, {**data, "benchmarks": chosen, "limit": limit, "probes": None})

    return make


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
def test_items_and_scores_agree(store: Store, node: Node, save: Callable[[int], Path], small: Suite) -> None:
    evaluation = small(limit=12).model_copy(update={"keep_text": True})
    results = evaluate(save(1), node, evaluation, store)
    assert [result.benchmark for result in results] == list(evaluation.benchmarks)
    for result in results:
        assert result.items == len(result.frame) == 12
        assert list(result.frame["item"]) == list(range(12))
        assert result.score == pytest.approx(result.frame["score"].mean())
        if result.protocol == "ppl":
            benchmark = evaluation.benchmarks[result.benchmark]
            rows = loading.load(result.benchmark, benchmark, evaluation, store.pool("embedded") / "tasks")
            labels = [row["label"] for row in rows["tasks"][result.benchmark].dataset["test"][:12]]
            assert np.array_equal(result.frame["score"] == 1.0, result.frame["chosen"] == labels)
            assert result.frame["text"].isna().all()
        else:
            assert result.frame["chosen"].isna().all()
            assert result.frame["text"].map(type).eq(str).all()


def test_second_evaluation_is_served_from_the_file(
    store: Store, node: Node, save: Callable[[int], Path], small: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = save(1)
    first = evaluate(checkpoint, node, small("code_indentation", "arithmetic_generative"), store)
    monkeypatch.setattr(harness, "run", lambda *_, **__: pytest.fail("the model ran again"))
    second = evaluate(checkpoint, node, small("code_indentation", "arithmetic_generative"), store)
    for one, other in zip(first, second, strict=True):
        assert (one.score, one.items, one.key) == (other.score, other.items, other.key)
        assert one.seconds == other.seconds and (one.seconds or 0) > 0, "the time it took is kept with it"
        assert one.frame.equals(other.frame)


def test_key_changes_with_what_a_score_depends_on(
    store: Store, node: Node, save: Callable[[int], Path], small: Suite
) -> None:
    checkpoint = save(1)
    keys = {"first": cache_key([checkpoint / WEIGHTS], node, small("code_indentation"), store)}
    keys["weights"] = cache_key([save(2) / WEIGHTS], node, small("code_indentation"), store)
    keys["shots"] = cache_key([checkpoint / WEIGHTS], node, small("code_indentation", num_fewshot=1), store)
    keys["limit"] = cache_key([checkpoint / WEIGHTS], node, small("code_indentation", limit=9), store)
    keys["task"] = cache_key([checkpoint / WEIGHTS], node, small("code_indentation", task="code_name_order"), store)
    shape = node.model_copy(update={"model": node.model.model_copy(update={"rope_theta": 500.0})})
    keys["shape"] = cache_key([checkpoint / WEIGHTS], shape, small("code_indentation"), store)
    with (store.pool("embedded") / "tasks" / "code_indentation.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")
    keys["items"] = cache_key([checkpoint / WEIGHTS], node, small("code_indentation"), store)
    (store.pool("embedded") / "tokenizer.json").write_text("{}", encoding="utf-8")
    keys["tokenizer"] = cache_key([checkpoint / WEIGHTS], node, small("code_indentation"), store)
    assert len(set(keys.values())) == len(keys)


@pytest.mark.parametrize("change", [{"chance": 0.5, "domain": "general"}, {"items": 7, "tokens_per_item": 9}])
def test_labels_and_prices_leave_the_key_alone(store: Store, node: Node, small: Suite, change: dict[str, Any]) -> None:
    plain, changed = small("code_indentation"), small("code_indentation", **change)
    assert changed != plain and changed.key == plain.key
    assert settings_digest(node, plain, store) == settings_digest(node, changed, store)


def test_shots_stand_before_the_question(store: Store, node: Node, save: Callable[[int], Path], small: Suite) -> None:
    for benchmark in ("arithmetic_ppl", "arithmetic_generative"):
        evaluate(save(1), node, small(benchmark, limit=2, num_fewshot=2), store)
    settings = settings_digest(node, small("arithmetic_generative", limit=2, num_fewshot=2), store)
    task = loading._LOADED[settings, "arithmetic_generative"]["tasks"]["arithmetic_generative"]
    shots = task.instances[0].args[0].split("\n\n")
    assert len(shots) == 3
    assert all(shot.startswith("Question: ") and " = " in shot.split("Answer: ")[1] for shot in shots[:2])
    assert shots[2].endswith("Answer:")


def test_mistakes_are_named(store: Store, node: Node, save: Callable[[int], Path], small: Suite) -> None:
    with pytest.raises(UserError, match="task code_indentation does not compute 'acc_nrm'; nearest: acc"):
        evaluate(save(1), node, small("code_indentation", metric="acc_nrm"), store)
    with pytest.raises(UserError, match="has no task 'code_indent'; nearest: code_indentation"):
        evaluate(save(1), node, small("code_indentation", task="code_indent"), store)
    (store.pool("embedded") / "tasks" / "code_indentation.jsonl").unlink()
    with pytest.raises(UserError, match="data build"):
        evaluate(save(1), node, small("code_indentation"), store)


@pytest.mark.parametrize("file", sorted(path.name for path in TASKS.glob("[!_]*.yaml")))
def test_every_task_file_loads_in_lm_eval(file: str, store: Store, small: Suite) -> None:
    name = file.removesuffix(".yaml")
    asked = small(name)
    tasks = loading.load(name, asked.benchmarks[name], asked, store.pool("embedded") / "tasks")["tasks"]
    assert list(tasks) == [name]
    assert len(tasks[name].eval_docs) > 50


def test_the_mean_of_several_checkpoints(store: Store, node: Node, save: Callable[[int], Path], small: Suite) -> None:
    files = [save(seed) / WEIGHTS for seed in (1, 2, 3)]
    parts = [dict(load_model(file.parent, node.model, 512).named_parameters()) for file in files]
    for name, parameter in load_mean(files, node.model, 512).named_parameters():
        mean = sum(part[name].double() for part in parts) / 3
        torch.testing.assert_close(parameter.double(), mean, rtol=1e-6, atol=1e-8)
    found = evaluate(files[0].parent, node, small("code_indentation", limit=4), store, files)
    alone = evaluate(files[0].parent, node, small("code_indentation", limit=4), store)
    assert found[0].key != alone[0].key and found[0].items == 4
