"""A task under the other protocol, or with another prompt: the same data set, splits and documents, so the same items.

What lm-eval's config says of the data is kept; how an item is put and scored is replaced (docs/evaluation.md has the
prompts). The item ids of both protocols are the documents' places, so that their per-item records can be paired.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from davinci.config import Benchmark
from davinci.evaluation.item_sets import Item, ItemSet, item_set

# Kept of lm-eval's config: what says which documents there are, and which of them are examples.
_DATA = (
    "task", "task_alias", "custom_dataset", "dataset_path", "dataset_name", "dataset_kwargs", "training_split",
    "validation_split", "test_split", "fewshot_split", "process_docs", "description", "fewshot_delimiter", "metadata",
)  # fmt: skip
_EXAMPLES = ("sampler", "split", "process_docs", "fewshot_indices")  # texts are the task's own
LIKELIHOOD_METRICS = ("acc", "acc_norm", "acc_bytes", "acc_tokens")
THOUGHTS = 'Reason step by step, then finish with "the answer is (X)", where X is the letter of the right option.\n\n'
_GENERATION = {
    "options": {"until": ["\n"], "max_gen_toks": 16},
    "free": {"until": ["\n\n"], "max_gen_toks": 64},
    "cot": {"until": ["Question:", "\n\n\n"], "max_gen_toks": 512},
}


def native(config: Mapping[str, Any]) -> str:
    """The protocol that lm-eval's task is of."""
    return "generative" if config.get("output_type", "generate_until") == "generate_until" else "ppl"


def is_converted(config: Mapping[str, Any], benchmark: Benchmark) -> bool:
    """Whether the benchmark puts or scores the task's items otherwise than the task does."""
    return benchmark.prompt != "own" or benchmark.protocol != native(config)


def convert(config: dict[str, Any], benchmark: Benchmark) -> dict[str, Any]:
    """lm-eval's config of one task, functions resolved, with the benchmark's protocol and prompt.

    A task without options stays as it is: in a group such as AGIEval's some have them and some are written either way.
    """
    items = item_set(config)
    if items is None or not is_converted(config, benchmark):
        return _with_metric(config, benchmark.metric)
    prompt = "options" if benchmark.prompt == "own" else benchmark.prompt
    kept = {key: config[key] for key in _DATA if key in config}
    if items.description is not None:
        kept["description"] = items.description
    elif native(config) == "generative":
        kept["description"] = ""  # it says how to write the answer
    if prompt == "cot":
        kept["description"] = f"{kept.get('description', '')}{THOUGHTS}"
    examples = config.get("fewshot_config") or {}
    kept["fewshot_config"] = {key: examples[key] for key in _EXAMPLES if key in examples}
    # Texts of choices follow their context as the task has it; letters, and what had no context yet, after a space.
    delimiter = config.get("target_delimiter", " ") if prompt == "free" and not items.bare else " "
    scoring = _likelihood(items, prompt) if benchmark.protocol == "ppl" else _generation(items, prompt)
    return {**kept, "doc_to_text": Ask(items, prompt), "target_delimiter": delimiter, **scoring}


def _likelihood(items: ItemSet, prompt: str) -> dict[str, Any]:
    return {
        "output_type": "multiple_choice",
        "doc_to_choice": Choices(items, prompt),
        "doc_to_target": Right(items),
        "metric_list": [_mean(metric) for metric in LIKELIHOOD_METRICS[:3]],
    }


def _generation(items: ItemSet, prompt: str) -> dict[str, Any]:
    return {
        "output_type": "generate_until",
        "doc_to_target": Answer(items, prompt),
        "generation_kwargs": {**_GENERATION[prompt], "do_sample": False},
        "process_results": ReadChoice(items, prompt),
        "metric_list": [_mean("acc")],
    }


def _mean(metric: str) -> dict[str, Any]:
    return {"metric": metric, "aggregation": "mean", "higher_is_better": True}


def _with_metric(config: dict[str, Any], metric: str) -> dict[str, Any]:
    """The task's own config, and where it ranks choices by lm-eval's rule also the normalisation that is asked for."""
    known = [one["metric"] for one in config.get("metric_list", [])]
    computes = config.get("output_type") == "multiple_choice" and config.get("process_results") is None
    if computes and metric in LIKELIHOOD_METRICS[:3] and metric not in known:
        return {**config, "metric_list": [*config.get("metric_list", []), _mean(metric)]}
    return config


@dataclass(frozen=True)
class Ask:
    """The text that asks an item, without its answer."""

    items: ItemSet
    prompt: str

    def __call__(self, document: Mapping[str, Any]) -> str:
        item = self.items.item(document)
        if self.prompt == "free":
            return f"{self.items.stem(item)}\nAnswer:" if self.items.bare else item.question
        if self.items.listed:
            asked = item.question.rstrip()
        else:
            texts = [choice.strip() for choice in item.choices]
            if len(set(texts)) < len(texts):  # they differ in how far they are indented
                texts = [choice.strip("\n") for choice in item.choices]
            listed = "".join(f"{letter}. {text}\n" for letter, text in zip(item.letters, texts, strict=True))
            asked = f"{self.items.stem(item)}\n{listed}Answer:"
        return f"{asked} Let's think step by step." if self.prompt == "cot" else asked


@dataclass(frozen=True)
class Choices:
    """What is ranked: the options' letters, or their texts."""

    items: ItemSet
    prompt: str

    def __call__(self, document: Mapping[str, Any]) -> list[str]:
        item = self.items.item(document)
        return item.choices if self.prompt == "free" else item.letters


@dataclass(frozen=True)
class Right:
    """The index of the right choice, or a list of them where several are right."""

    items: ItemSet

    def __call__(self, document: Mapping[str, Any]) -> int | list[int]:
        answers = self.items.item(document).answers
        return answers[0] if len(answers) == 1 else list(answers)


@dataclass(frozen=True)
class Answer:
    """What should be written: in an example after its question."""

    items: ItemSet
    prompt: str

    def __call__(self, document: Mapping[str, Any]) -> str:
        item = self.items.item(document)
        right = item.answers[0]
        if self.prompt == "free":
            return item.choices[right]
        if self.prompt == "options":
            return item.letters[right]
        said = f"The answer is ({item.letters[right]})."
        thoughts = item.rationale.removeprefix("A:").strip().removeprefix("Let's think step by step.").strip()
        return thoughts if "answer is (" in thoughts.lower() else f"{thoughts} {said}".strip()


@dataclass(frozen=True)
class ReadChoice:
    """Which option a text settles on, and whether it is right: lm-eval's ``process_results``.

    - ``options``: the first letter of an option that stands by itself; without one, the option the text begins with.
    - ``cot``: the letter after the last "answer is".
    - ``free``: the option the text begins with, the longest of several; case and white space count only where options
      differ in nothing else.
    """

    items: ItemSet
    prompt: str

    def __call__(self, document: Mapping[str, Any], results: list[str]) -> dict[str, float]:
        item = self.items.item(document)
        return {"acc": float(self._read(item, results[0]) in item.answers)}

    def chosen(self, document: Mapping[str, Any], text: str) -> int | None:
        """The index of the option that `text` settles on; None where it says none."""
        return self._read(self.items.item(document), text)

    def _read(self, item: Item, text: str) -> int | None:
        letters = "".join(item.letters)
        if self.prompt == "cot":
            found = re.findall(rf"answer is:?\s*\(?([{letters}])\b", text, re.IGNORECASE)
            return letters.index(found[-1].upper()) if found else None
        if self.prompt == "options":
            letter = re.search(rf"(?<![A-Za-z0-9])[{letters}](?![A-Za-z0-9'])", text)
            if letter:
                return letters.index(letter.group())
        choices = [_plain(choice) for choice in item.choices]
        written = _plain(text)
        if len(set(choices)) < len(choices):  # white space tells them apart
            choices, written = [choice.rstrip() for choice in item.choices], text
        fitting = [index for index, choice in enumerate(choices) if _begins(written, choice)]
        return max(fitting, key=lambda index: len(choices[index]), default=None)


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _begins(text: str, choice: str) -> bool:
    """Whether `text` begins with `choice`, and not with a longer word or number."""
    after = text[len(choice) : len(choice) + 1]
    return bool(choice) and text.startswith(choice) and not (choice[-1].isalnum() and after.isalnum())
