"""Task names are known without a harness, and a wrong one is refused with the nearest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from davinci.config import Evaluation, parse
from davinci.errors import UserError
from davinci.evaluation import suite

CONF = Path(__file__).parents[2] / "conf" / "evaluation"


def load(name: str) -> dict[str, object]:
    data: dict[str, object] = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    data.pop("probes", None)  # its interval is an interpolation, which Hydra resolves
    return data


def test_embedded_suite_covers_every_domain_and_both_protocols() -> None:
    evaluation = parse(Evaluation, load("embedded"))
    suite.check(evaluation)
    domains = [benchmark.domain for benchmark in evaluation.benchmarks.values()]
    assert all(domains.count(domain) >= 2 for domain in ("general", "code", "science"))
    assert {benchmark.protocol for benchmark in evaluation.benchmarks.values()} == {"ppl", "generative"}
    assert {benchmark.task for benchmark in evaluation.benchmarks.values()} == set(suite.known_tasks())


def test_task_says_the_protocol_the_config_says() -> None:
    kinds = {"multiple_choice": "ppl", "generate_until": "generative"}
    for benchmark in parse(Evaluation, load("embedded")).benchmarks.values():
        config = suite.task_config(suite.task_files("embedded")[benchmark.task])
        assert kinds[config["output_type"]] == benchmark.protocol


def test_paper_suite_has_known_tasks() -> None:
    evaluation = parse(Evaluation, load("paper"))
    assert len(evaluation.benchmarks) == 19
    domains = [benchmark.domain for benchmark in evaluation.benchmarks.values()]
    assert {domain: domains.count(domain) for domain in domains} == {"general": 9, "code": 3, "science": 7}
    suite.check(evaluation)


def test_unknown_task_names_the_nearest() -> None:
    data = load("embedded")
    data["benchmarks"]["general_cloze"]["task"] = "general_close"  # type: ignore[index]
    with pytest.raises(UserError) as caught:
        suite.check(parse(Evaluation, data))
    start = (
        "evaluation.benchmarks.general_cloze.task: harness embedded has no task 'general_close'; nearest: general_cloze"
    )
    assert str(caught.value).startswith(start)


WRONG = {
    "general_cloze": (
        {"metric": "bleu"},
        "metric: task general_cloze does not compute 'bleu'; known: acc, acc_bytes, acc_norm, acc_tokens",
    ),
    "general_word_order": (
        {"protocol": "generative", "metric": "acc_norm"},
        "metric: task general_word_order does not compute 'acc_norm'; nearest: acc",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_own_tasks_refuse_what_they_do_not_compute(name: str) -> None:
    data = load("embedded")
    changes, message = WRONG[name]
    data["benchmarks"][name].update(changes)  # type: ignore[index]
    with pytest.raises(UserError) as caught:
        suite.check(parse(Evaluation, data))
    assert str(caught.value) == f"evaluation.benchmarks.{name}.{message}"


def test_names_need_no_heavy_import() -> None:
    code = (
        "import sys; from davinci.evaluation import suite; assert suite.known_tasks();"
        "assert not {'torch', 'lm_eval', 'datasets', 'numpy', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
