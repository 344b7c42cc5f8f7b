"""The same items under both protocols and every prompt: ids agree, answers are read as stated, scores are lm-eval's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from benchmark_rows import write_rows
from tokenizers import Tokenizer

from davinci.config import Evaluation, Model, parse
from davinci.errors import UserError
from davinci.evaluation import embedded, harness, suite
from davinci.evaluation.adapter import DecoderLM
from davinci.evaluation.item_sets import ItemSet
from davinci.evaluation.protocols import Answer, Ask, ReadChoice
from davinci.model.decoder import Decoder
from davinci.store import Store

CONF = Path(__file__).parents[2] / "conf" / "evaluation"
WAYS = [("ppl", "own"), ("ppl", "options"), ("ppl", "free"), ("generative", "options"), ("generative", "free")]
WAYS += [("generative", "cot")]

DOCUMENT = {"q": "Which is a fruit?", "c": ["iron", "a pear", "a pear tree"], "a": 1, "r": "Trees bear it."}
ITEMS = ItemSet("q", "c", "a", rationale="r", bare=True)


def test_prompts_are_the_documented_ones() -> None:
    listed = "Question: Which is a fruit?\nA. iron\nB. a pear\nC. a pear tree\nAnswer:"
    assert Ask(ITEMS, "options")(DOCUMENT) == listed
    assert Ask(ITEMS, "cot")(DOCUMENT) == f"{listed} Let's think step by step."
    assert Ask(ITEMS, "free")(DOCUMENT) == "Question: Which is a fruit?\nAnswer:"
    said = [Answer(ITEMS, prompt)(DOCUMENT) for prompt in ("options", "free", "cot")]
    assert said == ["B", "a pear", "Trees bear it. The answer is (B)."]
    own = ItemSet("q", "c", "a")
    assert Ask(own, "options")({**DOCUMENT, "q": "Fruit?\nAnswer:"}) == listed.replace(
        "Question: Which is a fruit?", "Fruit?"
    )
    assert Ask(own, "free")({**DOCUMENT, "q": "A fruit is"}) == "A fruit is"


@pytest.mark.parametrize(
    ("prompt", "text", "chosen"),
    [
        ("options", " B", 1), ("options", "(C) since", 2), ("options", "Is B. Not A.", 1), ("options", "D", None),
        ("options", "Because", None), ("options", " a pear", 1), ("options", "", None), ("options", "B's", None),
        ("cot", "A or B? The answer is (C).", 2), ("cot", "the answer is B. No, the answer is: a", 0),
        ("cot", "B", None), ("cot", "The answer is unclear", None),
        ("free", " A  Pear\nand more", 1), ("free", "a pear tree", 2), ("free", "the pear", None), ("free", "", None),
    ],
)  # fmt: skip
def test_answers_are_read_as_stated(prompt: str, text: str, chosen: int | None) -> None:
    read = ReadChoice(ITEMS, prompt)
    assert read.chosen(DOCUMENT, text) == chosen
    assert read(DOCUMENT, [text]) == {"acc": float(chosen == 1)}
    assert read({**DOCUMENT, "a": [1, 2]}, [text]) == {"acc": float(chosen in (1, 2))}


def test_numbers_and_words_are_read_whole() -> None:
    numbers = {"q": "?", "c": ["1", "12", "Pear"], "a": 1}
    texts = ("12", "1", "123", "1.", "pear!", "pears")
    assert [ReadChoice(ITEMS, "free").chosen({**DOCUMENT, **numbers}, text) for text in texts] == [
        1,
        0,
        None,
        0,
        2,
        None,
    ]


def test_options_that_differ_in_indentation_stay_apart() -> None:
    document = {**DOCUMENT, "q": "if x:", "c": ["\ny = 1", "\n    y = 1", "\n        y = 1"]}
    assert (
        Ask(ItemSet("q", "c", "a"), "options")(document) == "if x:\nA. y = 1\nB.     y = 1\nC.         y = 1\nAnswer:"
    )
    texts = ["\n    y = 1\nz", "\ny = 1", "y = 1", "\n  y = 1"]
    assert [ReadChoice(ITEMS, "free").chosen(document, text) for text in texts] == [1, 0, None, None]


def test_an_answer_that_is_no_choice_is_refused() -> None:
    for answer in (3, -1, "B", "iron ore", None):
        with pytest.raises(UserError, match="none of its 3 choices"):
            ITEMS.item({**DOCUMENT, "a": answer})
    assert ITEMS.item({**DOCUMENT, "a": "iron"}).answers == (0,)


@pytest.fixture(scope="module")
def lm(tiny_model: Model, built_pool: Store) -> DecoderLM:
    torch.set_num_threads(1)
    model = Decoder(tiny_model.model_copy(update={"max_position_embeddings": 512}), 512)
    model.initialise(11)
    lm = DecoderLM(model, Tokenizer.from_file(str(built_pool.pool("embedded") / "tokenizer.json")))
    written = lm.generate_until

    def brief(requests: Any, disable_tqdm: bool = False) -> list[str]:
        for request in requests:
            request.arguments = (request.args[0], {**request.args[1], "max_gen_toks": 6})
        return written(requests)

    lm.generate_until = brief  # type: ignore[method-assign]
    return lm


def run(lm: DecoderLM, evaluation: Evaluation, folder: Path) -> Any:
    settings = json.dumps(evaluation.model_dump(mode="json"))
    return harness.run(lambda: lm, folder, evaluation, Store(folder), settings=settings, fewshot_seed=1)


def crossed(config: dict[str, Any], task: str, **changes: Any) -> Evaluation:
    """One task, each way, as benchmarks of one suite."""
    one = {"domain": "science", "task": task, "num_fewshot": 2, "metric": "acc"}
    ways = {f"{protocol} {prompt}": {**one, "protocol": protocol, "prompt": prompt} for protocol, prompt in WAYS}
    return parse(Evaluation, {**config, "probes": None, "benchmarks": ways, "limit": 4, "keep_text": True, **changes})


def paired(found: Any) -> None:
    _, frame = found
    ids = {name: list(rows["item"]) for name, rows in frame.groupby("benchmark")}
    assert set(ids) == {f"{protocol} {prompt}" for protocol, prompt in WAYS}
    assert len({tuple(one) for one in ids.values()}) == 1
    for name, rows in frame.groupby("benchmark"):
        assert rows["likelihoods"].notna().all() == rows["text"].isna().all() == name.startswith("ppl")


EMBEDDED = list(yaml.safe_load((CONF / "embedded.yaml").read_text(encoding="utf-8"))["benchmarks"])


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_benchmarks_pair(name: str, lm: DecoderLM, built_pool: Store) -> None:
    embedded.make_tasks(built_pool, "embedded")
    data = yaml.safe_load((CONF / "embedded.yaml").read_text(encoding="utf-8"))
    evaluation = crossed(data, data["benchmarks"][name]["task"])
    suite.check(evaluation)
    paired(run(lm, evaluation, built_pool.pool("embedded") / "tasks"))


@pytest.mark.parametrize(
    "task", ["mmlu_astronomy", "mmlu_pro_math", "gpqa_main_n_shot", "hellaswag", "winogrande", "race"]
)
def test_benchmarks_of_the_paper_pair(task: str, lm: DecoderLM, tmp_path: Path) -> None:
    folder = write_rows(tmp_path)
    groups = {"mmlu_astronomy": "mmlu", "mmlu_pro_math": "mmlu_pro"}
    data = yaml.safe_load((CONF / "paper.yaml").read_text(encoding="utf-8"))
    where = {task: str(folder / groups.get(task, task))}
    shots = 0 if task in ("hellaswag", "winogrande", "race") else 2
    evaluation = crossed(data, task, data=where)
    ways = {name: one.model_copy(update={"num_fewshot": shots}) for name, one in evaluation.benchmarks.items()}
    evaluation = evaluation.model_copy(update={"benchmarks": ways})
    suite.check(evaluation)
    paired(run(lm, evaluation, tmp_path))


def items_of_ones_own(folder: Path) -> dict[str, Any]:
    """The paper's suite, with items whose choices have quite different lengths in tokens, characters and bytes."""
    rows = [
        {"question": f"What is {n} + 1?", "choices": [f"{n}" * 6, f"{n}ééé", str(n + 1), f"{n} plus one"],
         "answer": str(n + 1), "rationale": ""}
        for n in range(40)
    ]  # fmt: skip
    for split in ("test", "fewshot"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = yaml.safe_load((CONF / "paper.yaml").read_text(encoding="utf-8"))
    return {**data, "data": {"davinci_items": str(folder)}}


def test_items_of_ones_own_pair(lm: DecoderLM, tmp_path: Path) -> None:
    evaluation = crossed(items_of_ones_own(tmp_path), "davinci_items")
    suite.check(evaluation)
    paired(run(lm, evaluation, tmp_path))


LENGTHS = {
    "acc": lambda choice, tokens: 1,
    "acc_norm": lambda choice, tokens: len(choice),
    "acc_bytes": lambda choice, tokens: len(choice.encode()),
    "acc_tokens": lambda choice, tokens: tokens,
}


def test_each_normalisation_ranks_by_its_own_lengths(lm: DecoderLM, tmp_path: Path) -> None:
    data = items_of_ones_own(tmp_path)
    one = {"domain": "science", "task": "davinci_items", "protocol": "ppl", "num_fewshot": 0}
    asked = {metric: {**one, "metric": metric} for metric in LENGTHS}
    scores, frame = run(lm, parse(Evaluation, {**data, "limit": None, "benchmarks": asked}), tmp_path)
    documents = [json.loads(line) for line in (tmp_path / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    for metric, length in LENGTHS.items():
        rows = frame[frame["benchmark"] == metric]
        for (_, row), document in zip(rows.iterrows(), documents, strict=True):
            context, choices = f"Question: {document['question']}\nAnswer:", document["choices"]
            start = len(lm.tok_encode(context))
            sizes = [length(one, len(lm.tok_encode(f"{context} {one}")) - start) for one in choices]
            best = int(np.argmax(row["likelihoods"] / np.array(sizes)))
            assert row["chosen"] == best
            assert row["score"] == float(best == choices.index(document["answer"]))
        assert scores[metric] == pytest.approx(rows["score"].mean())
    assert len({tuple(rows["chosen"]) for _, rows in frame.groupby("benchmark")}) >= 3


def test_what_cannot_be_asked_is_refused() -> None:
    data = yaml.safe_load((CONF / "paper.yaml").read_text(encoding="utf-8"))

    def refused(task: str, **changes: Any) -> str:
        one = {"domain": "science", "task": task, "num_fewshot": 0, "metric": "acc", **changes}
        with pytest.raises(UserError) as caught:
            suite.check(parse(Evaluation, {**data, "benchmarks": {"X": one}}))
        return str(caught.value)

    said = "computes exact_match as exact_match,strict-match, exact_match,flexible-extract; 'exact_match"
    for metric in ("exact_match", "exact_match,strict"):
        assert said in refused("gsm8k", protocol="generative", metric=metric)
    assert "task gsm8k is generative and its items have no options" in refused("gsm8k", protocol="ppl")
    assert "no protocol generative, prompt cot" in refused("gsm8k", protocol="generative", prompt="cot")
    assert "prompt: the questions of task agieval list their options" in refused(
        "agieval", protocol="ppl", prompt="free"
    )
    assert "a chain of thought is written" in refused("mmlu", protocol="ppl", prompt="cot")
