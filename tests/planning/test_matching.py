"""Arms made as large, or as dear, as the baseline."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planned import audited, make_sweep

from davinci.accounting.flops import train_flops_per_token
from davinci.accounting.shapes import parameters
from davinci.errors import UserError
from davinci.planning.matching import KEY, NEAR, STATED, notes, with_matched_models

WIDE = {"model.hidden_size": 64, "model.mlp_intermediate_size": 512, "model.attention_heads": 8, "model.head_dim": 8}
FACTOR = ("model.attention",)


@pytest.fixture
def sweep_of(make_run):
    def make(match, **changes):
        arms = {"base": make_run(WIDE), "other": make_run(WIDE | {f"model.{key}": one for key, one in changes.items()})}
        return make_sweep(arms, factor=FACTOR, match=match, held_fixed=("tokens",))

    return make


def models(sweep):
    return [arm.config.model for arm in sweep.arms]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["grouped", "multi_head", "multi_query"]),
    st.sampled_from(["swiglu", "geglu", "relu2", "gelu"]),
    st.sampled_from([{"count": 0}, {"count": 4}, {"count": 6, "chosen": 2, "shared": 1}]),
    st.sampled_from(["parameters", "flops"]),
)
def test_what_is_matched_is_equal(sweep_of, attention, mlp, experts, match):
    found = with_matched_models(sweep_of(match, attention={"kind": attention}, mlp={"kind": mlp}, experts=experts))
    base, other = models(found)
    assert base.mlp_intermediate_size == 512
    if match == "parameters":
        measured = [parameters(model, 64) for model in (base, other)]
    else:
        measured = [train_flops_per_token(model, 64, 16) for model in (base, other)]
    step = 3 * 64 * 6 * (6 if match == "flops" else 1) * max(1, experts["count"])  # of the narrowest width there is
    assert abs(measured[1] - measured[0]) <= max(NEAR * measured[0], step)


def test_the_audit_says_what_and_how_closely(sweep_of, card):
    found = with_matched_models(sweep_of("parameters", attention={"kind": "multi_head"}))
    assert found.derived["other"] >= {KEY}
    result = audited(found, {"small": card})
    assert not [one for one in result.findings if one.level == "refused"]
    (said,) = notes(found)
    assert said in [one.text for one in result.findings] and "other " in said and "wide)" in said


def test_nothing_is_changed_where_nothing_is_asked(sweep_of):
    sweep = sweep_of(None, mlp={"kind": "gelu"})
    assert with_matched_models(sweep) is sweep and notes(sweep) == []


def test_an_arm_that_is_dear_without_a_perceptron_is_refused(sweep_of):
    sweep = sweep_of("parameters", vocab_size=100_000)
    with pytest.raises(UserError, match=r"match: parameters: arm 'other' cannot be matched to .*; with a perceptron 1"):
        with_matched_models(sweep)


@pytest.mark.parametrize("match", ["parameters", "flops"])
@pytest.mark.parametrize(
    "changes",
    [{"mlp": {"kind": "kan"}}, {"mixers": {"pattern": ["linear"]}}, {"mixers": {"pattern": ["ssm"], "state": 16}}],
    ids=str,
)
def test_other_perceptrons_and_mixers_are_matched_too(sweep_of, changes, match):
    base, other = models(with_matched_models(sweep_of(match, **changes)))
    assert other.mlp_intermediate_size != 512
    if match == "parameters":
        measured, step = [parameters(model, 64) for model in (base, other)], other.mlp.matrices * 64 * other.layers
    else:
        measured = [train_flops_per_token(model, 64, 16) for model in (base, other)]
        step = 6 * other.mlp.matrices * 64 * other.layers
    assert abs(measured[1] - measured[0]) <= max(NEAR * measured[0], step)


def test_an_arm_without_a_width_is_refused(sweep_of):
    with pytest.raises(UserError, match=r"arm 'other' has no width to match by \(mlp\.kind ista\)"):
        with_matched_models(sweep_of("flops", mlp={"kind": "ista"}))


def test_experts_of_a_stated_width_have_none_to_match_by(sweep_of):
    experts = {"count": 4, "chosen": 2, "width": 8}
    with pytest.raises(UserError, match=r"has no width to match by \(model\.experts\.width 8 is stated\) and is -"):
        with_matched_models(sweep_of("parameters", experts=experts, mlp_intermediate_size=64))


def test_an_arm_without_a_width_is_matched_by_the_shape_it_states(sweep_of):
    # The perceptron that CRATE's step replaces is made up for by the width of its heads.
    step = {"mlp": {"kind": "ista"}, "attention": {"kind": "subspace"}, "positions": {"rotary": 0.0}}
    base = models(sweep_of("flops", **step))[0]
    wanted = train_flops_per_token(base, 64, 16)

    def off(head_dim):
        model = models(sweep_of("flops", **step, head_dim=head_dim))[1]
        return abs(train_flops_per_token(model, 64, 16) / wanted - 1)

    near = min(range(8, 200), key=off)
    assert off(near) <= STATED < off(near + 8)
    found = with_matched_models(sweep_of("flops", **step, head_dim=near))
    assert models(found)[1].mlp_intermediate_size == 512 and KEY not in found.derived.get("other", ())
    assert "(by its own shape)" in notes(found)[0]
    with pytest.raises(UserError, match=r"no width to match by .* come within 1%"):
        with_matched_models(sweep_of("flops", **step, head_dim=near + 8))
