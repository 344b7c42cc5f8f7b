"""The paper's own averages, recomputed from the figures this project carries."""

from __future__ import annotations

import pytest

from analysis import published
from davinci.errors import UserError

DOMAINS = {row["benchmark"]: row["domain"] for row in published.rows("benchmarks")}
SIZES = {"General": 9, "Code": 3, "Science": 7}
# Each printed average is rounded to 0.01, and so is what it is recomputed from.
ROUNDING = 0.0101


def test_nineteen_benchmarks() -> None:
    assert {name.capitalize(): list(DOMAINS.values()).count(name) for name in ("general", "code", "science")} == SIZES


@pytest.mark.parametrize("model", list(published.rows("table6_models")[0])[1:])
def test_table_6_averages(model: str) -> None:
    scores = {row["benchmark"]: float(row[model]) for row in published.rows("table6_models")}
    benchmarks = {name: score for name, score in scores.items() if name in DOMAINS}
    assert len(benchmarks) == 19
    assert sum(benchmarks.values()) / 19 == pytest.approx(scores["Overall"], abs=ROUNDING)
    for domain in SIZES:
        own = [score for name, score in benchmarks.items() if DOMAINS[name] == domain.lower()]
        assert sum(own) / len(own) == pytest.approx(scores[f"Avg {domain}"], abs=ROUNDING)


@pytest.mark.parametrize(
    ("table", "rounding"),
    [
        ("table7_filtering", ROUNDING),
        ("table8_refinement", ROUNDING),
        ("table9_qa_ratio_stage2_2", ROUNDING),
        ("table10_lr_decay", ROUNDING),
        ("figure11b_qa_ratio", 0.101),
    ],
)
def test_overall_is_the_mean_over_benchmarks(table: str, rounding: float) -> None:
    for row in published.rows(table):
        total = sum(SIZES[name] * float(row.get(name) or row[f"Avg {name}"]) for name in SIZES)
        assert total / 19 == pytest.approx(float(row["Overall"]), abs=rounding)


def test_table_7_code_average() -> None:
    for row in published.rows("table7_filtering"):
        mean = sum(float(row[name]) for name in ("HumanEval", "EvalPlus", "MBPP")) / 3
        assert mean == pytest.approx(float(row["Avg Code"]), abs=ROUNDING)


def test_lookup_by_arm_and_paper_tokens() -> None:
    table = published.read("table9_qa_ratio_stage2_2")
    assert table.at("QA-70%", "Overall", "419B", last=True) == 49.84
    assert table.at("QA-70%", "Overall", "83.9B", last=False) == 48.17
    assert table.at("QA-70%", "Overall", "1.00T", last=False) is None
    assert table.at("QA-40%", "Overall", "419B", last=True) is None
    undated = published.read("table10_lr_decay")
    assert undated.at("Cosine decay", "General", "500B", last=True) == 52.49
    assert undated.at("Cosine decay", "General", "250B", last=False) is None
    assert published.read("figure11b_qa_ratio").values == {}
    assert published.tokens_of("at the end") is None


@pytest.mark.parametrize("name", ["table99", "../published/table10_lr_decay", ""])
def test_unknown_figures_are_a_user_error(name: str) -> None:
    with pytest.raises(UserError, match="no published figures"):
        published.rows(name)
