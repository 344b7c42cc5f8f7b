"""One dial from 1M to 7B: shapes of one family, budgets by published rules."""

from __future__ import annotations

import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from davinci.accounting.flops import train_flops_per_token
from davinci.accounting.ladder import derived, rung
from davinci.accounting.shapes import parameters
from davinci.config import Model, parse
from davinci.errors import UserError

SHAPE = ("layers", "hidden_size", "attention_heads", "kv_heads", "head_dim", "mlp_intermediate_size")
QWEN2, EMBEDDED = 151_936, 2_048


def model_of(target: float, vocab_size: int, repository) -> Model:
    """The model of conf/ with the shape of a rung."""
    given = yaml.safe_load((repository / "conf/model/3b.yaml").read_text())
    shape = {key: getattr(rung(target, vocab_size), key) for key in SHAPE}
    return parse(Model, {**given, **shape, "vocab_size": vocab_size})


def test_the_papers_model_is_its_3_09b_rung(repository):
    paper = yaml.safe_load((repository / "conf/model/3b.yaml").read_text())
    found = rung(3.09e9, QWEN2)
    assert {key: getattr(found, key) for key in SHAPE} == {key: paper[key] for key in SHAPE}
    assert found.parameters == pytest.approx(3.09e9, rel=2e-3)


@settings(max_examples=30, deadline=None)
@given(st.floats(6, math.log10(7e9)))
def test_every_target_has_a_shape_near_it(exponent):
    target = 10**exponent
    found = rung(target, EMBEDDED)
    assert found.parameters == pytest.approx(target, rel=0.05)
    assert found.attention_heads % found.kv_heads == 0 and found.attention_heads * found.head_dim == found.hidden_size
    assert 0.5 < found.hidden_size / found.layers / (2048 / 36) < 2.5 or found.layers <= 2


@pytest.mark.parametrize("target", [1e6, 2e7, 1.5e8, 7e9])
def test_a_rung_counts_as_planning_counts(target, repository):
    assert parameters(model_of(target, EMBEDDED, repository), EMBEDDED) == rung(target, EMBEDDED).parameters


def test_rates_and_batches_follow_the_published_fits():
    found = derived(1e8, QWEN2, 20.0, None)
    compute = 6 * rung(1e8, QWEN2).parameters ** 2 * 20
    assert found["peak_lr"] == pytest.approx(0.3118 * compute**-0.125)
    assert found["final_lr"] == pytest.approx(found["peak_lr"] / 10)
    batch = found["sequences_per_1024"] * 4 * found["sequence_length"]
    assert batch == pytest.approx(0.2920 * compute**0.3271, rel=0.02)


def test_larger_rungs_learn_slower_from_larger_batches():
    rungs = [derived(target, EMBEDDED, 20.0, None) for target in (1e6, 1e7, 1e8, 1e9, 7e9)]
    for key, sign in (("peak_lr", -1), ("tokens_per_trillion", 1), ("sequence_length", 1)):
        values = [sign * one[key] for one in rungs]
        assert values == sorted(values)


@pytest.mark.parametrize("flops", [1e15, 3e16])
def test_an_isoflop_line_costs_the_same_everywhere(flops, repository):
    for target in (1e6, 3e6, 1e7):
        one = derived(target, EMBEDDED, 20.0, flops)
        model = model_of(target, EMBEDDED, repository)
        each = train_flops_per_token(model, EMBEDDED, int(one["sequence_length"]))
        assert 8 * one["tokens_per_trillion"] * each == pytest.approx(flops, rel=1e-6)


@pytest.mark.parametrize(
    ("target", "vocab_size", "flops", "message"),
    [
        (1e3, EMBEDDED, None, "scale.parameters: 1,000 is off the ladder; 500,000 to 10,000,000,000 are accepted"),
        (1e12, EMBEDDED, None, "10,000,000,000 are accepted, and the nearest shape has 9,9"),
        (1e6, QWEN2, None, "the nearest shape has 9,795,968 (1 layer of 64)"),
        (1e9, EMBEDDED, 1e15, "scale.flops: 1,0"),
    ],
)
def test_what_cannot_be_is_one_line(target, vocab_size, flops, message):
    with pytest.raises(UserError) as error:
        derived(target, vocab_size, 20.0, flops)
    assert message in str(error.value) and "\n" not in str(error.value)
