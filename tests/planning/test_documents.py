"""The same documents at another depth: budgets are derived, the claim is said, and refused where it is not so."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planned import audited, make_sweep

from davinci.data.cards import PoolCard
from davinci.errors import UserError
from davinci.planning.build import build_plan
from davinci.planning.documents import with_equal_documents
from davinci.planning.epochs import ledger

LEVELS = {"L1": {"general": None, "code": "L1"}, "L2": {"general": None, "code": "L2"}}
LONG = {"curriculum.stages.first.tokens": 64_000, "curriculum.stages.second.tokens": 32_000}
FACTOR = ("depth", "curriculum.stages.first.depth", "curriculum.stages.second.depth")


def at(level):
    depth = {"code": level}
    return {"depth": depth, "curriculum.stages.first.depth": depth, "curriculum.stages.second.depth": depth}


@pytest.fixture
def alike(card):
    """The card with `programs` at L2 as the same documents as at L1, half as long again."""

    def make(longer=1.5, digest="same", documents=10, known=True):
        data = card.model_dump(mode="json")
        for name, source in data["sources"].items():
            for level, one in source["variants"].items():
                one["documents_digest"] = f"{name} {'same' if level != 'L2' or name != 'programs' else digest}"
                if not known:
                    one["documents_digest"] = None
        data["sources"]["programs"]["variants"]["L2"] |= {"tokens": round(2000 * longer), "documents": documents}
        return {"small": PoolCard.model_validate_json(json.dumps(data))}

    return make


@pytest.fixture
def two(make_run):
    def make(changes=None, held=("documents",), deep=None):
        base = LONG | (changes or {})
        arms = {"shallow": make_run(base | at("L1")), "deep": make_run(base | at("L2") | (deep or {}))}
        return make_sweep(arms, factor=FACTOR, held_fixed=held)

    return make


def refused(result):
    return [finding.text for finding in result.findings if finding.level == "refused"]


def epochs(sweep, cards):
    return {(arm, row.stage, row.source): row.epochs for row in ledger(sweep, cards) for arm in row.arms}


def test_the_deeper_arm_gets_the_tokens_of_the_same_documents(two, alike):
    cards = alike()
    sweep = with_equal_documents(two(), cards)
    shallow, deep = sweep.arms
    assert shallow.config.curriculum == two().arms[0].config.curriculum
    # A quarter of the first stage is code: 16,000 tokens that are 24,000 at L2; the second has none.
    first, second = deep.config.curriculum.stages.values()
    assert first.tokens == 48_000 + 24_000 and second == two().arms[1].config.curriculum.stages["second"]
    assert first.mixture.domains == {"general": pytest.approx(2 / 3), "code": pytest.approx(1 / 3)}
    seen = epochs(sweep, cards)
    for stage, source in (("first", "books"), ("first", "web"), ("first", "programs"), ("second", "answers")):
        assert seen["deep", stage, source] == pytest.approx(seen["shallow", stage, source], rel=1e-6)
    result = audited(sweep, cards)
    assert result.verdict == "controlled" and result.held_fixed == ("documents",)
    assert result.claim.held == "documents"
    assert result.claim.text.startswith(
        "same documents, deeper processing: 1 source at another level (programs L1 -> L2), the same documents equally "
        "often in every arm, in 96.0k, 104k training tokens"
    )
    assert "curriculum.stages.first.tokens" in result.derived and set(result.differing) <= {
        "depth.code", "curriculum.stages.first.depth.code", "curriculum.stages.second.depth.code"
    }  # fmt: skip


def test_schedules_and_points_move_with_the_stage(two, alike):
    changes = {
        "curriculum.stages.first.lr": {"shape": "wsd", "start": 0.1, "stop": 0.01, "warmup_tokens": 6400,
                                       "decay_tokens": 3200},
        "curriculum.stages.first.batch_size": [{"from_tokens": 0, "sequences": 2},
                                               {"from_tokens": 32_000, "sequences": 4}],
        "evaluation.at": [{"stage": "first", "tokens": 16_000}, {"stage": "first"}, {"every_tokens": 50_000}],
    }  # fmt: skip
    deep = with_equal_documents(two(changes), alike()).arms[1].config
    first = deep.curriculum.stages["first"]
    assert (first.tokens, first.lr.warmup_tokens, first.lr.decay_tokens) == (72_032, 7200, 3600)  # whole steps of 64
    assert first.batch_size[1].from_tokens == 36_000
    assert [point.tokens for point in deep.evaluation.at] == [18_008, None, None]  # a quarter of the stage
    assert deep.evaluation.at[2].every_tokens == 50_000  # counted since initialisation, in no stage


def test_a_mixture_that_changes_in_the_stage_changes_after_the_same_documents(two, alike):
    later = [{"from_tokens": 32_000, "mixture": {"domains": {"general": 0.5, "code": 0.5}}}]
    cards = alike()
    sweep = with_equal_documents(two({"curriculum.stages.first.mixtures": later}), cards)
    first = sweep.arms[1].config.curriculum.stages["first"]
    assert (first.mixtures[0].from_tokens, first.tokens) == (36_000, 36_000 + 40_000)
    assert audited(sweep, cards).verdict == "controlled"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(longer=st.floats(0.2, 5.0), share=st.floats(0.05, 0.95))
def test_epochs_are_equal_whatever_the_lengths(two, alike, longer, share):
    cards = alike(longer)
    sweep = with_equal_documents(
        two({"curriculum.stages.first.mixture": {"domains": {"general": 1 - share, "code": share}}}), cards
    )
    assert not refused(audited(sweep, cards))


def test_a_sweep_that_holds_tokens_says_so(two, alike):
    cards = alike()
    sweep = with_equal_documents(two(held=("tokens", "flops")), cards)
    assert sweep.arms[1].config.curriculum.stages["first"].tokens == 64_000
    result = audited(sweep, cards)
    assert result.verdict == "controlled" and result.claim.held == "tokens"
    assert result.claim.text == (
        "same tokens, deeper processing: 96.0k training tokens in every arm, 1 source at another level (programs L1 -> "
        "L2); of the same documents"
    )
    other = audited(sweep, alike(digest="other", documents=7)).claim
    assert other.text.endswith(
        "; not the same documents: programs (10 documents at L1, 7 at L2: at least 3 documents differ)"
    )


def test_documents_that_differ_are_refused_with_source_and_number(two, alike):
    cards = alike(digest="other", documents=7)
    (text,) = refused(audited(with_equal_documents(two(), cards), cards))
    assert text == (
        "documents are held fixed, but arms shallow and deep do not read the same ones of 1 source: programs (10 "
        "documents at L1, 7 at L2: at least 3 documents differ)"
    )
    same_number = alike(digest="other")
    (text,) = refused(audited(with_equal_documents(two(), same_number), same_number))
    assert text.endswith("programs (10 documents at L1, 10 at L2: as many, but not the same)")
    old = alike(known=False)
    (text,) = refused(audited(with_equal_documents(two(), old), old))
    assert "built before its documents were recorded" in text


def test_a_pool_that_is_not_built_is_refused(two):
    cards = {"small": None}
    (text,) = refused(audited(with_equal_documents(two(), cards), cards))
    assert text.startswith("documents are held fixed, but pool small is not built in this store")


def test_a_budget_or_mixture_of_an_arm_s_own_is_refused(two, alike):
    cards = alike()
    own = two(deep={"curriculum.stages.first.tokens": 65_536})
    texts = refused(audited(with_equal_documents(own, cards), cards))
    assert "curriculum.stages.first.tokens differs" in texts[0]
    assert "do not see them equally often: books 12 against 12.3 times in first" in texts[1]


def test_nothing_deeper_claims_nothing(two, make_run, alike):
    cards = alike()
    sweep = make_sweep(
        {"a": make_run(LONG), "b": make_run(LONG | {"optimizer.beta2": 0.9})}, factor=("optimizer.beta2",)
    )
    assert audited(sweep, cards).claim is None
    assert with_equal_documents(sweep, cards) is sweep


def test_a_stage_that_cannot_be_as_long_is_one_line(two, alike):
    pieces = [{"from_tokens": 0, "to_tokens": 3, "kind": "constant", "start": 0.1},
              {"from_tokens": 3, "to_tokens": 4, "kind": "constant", "start": 0.2},
              {"from_tokens": 4, "kind": "constant", "start": 0.3}]  # fmt: skip
    changes = {"curriculum.stages.first.lr": {"shape": "pieces", "pieces": pieces},
               "curriculum.stages.first.mixture": {"domains": {"code": 1.0}}}  # fmt: skip
    with pytest.raises(UserError, match="arm deep: curriculum.stages.first, documents held fixed: .*holds no token"):
        with_equal_documents(two(changes), alike(longer=0.1))


def test_the_plan_has_derived_budgets_and_its_own_ids(two, alike):
    cards = alike()
    plan = build_plan(two(), cards=cards)
    shallow, deep = (run for run in plan.runs)
    assert plan.nodes[shallow.nodes[-1]].end == 96_000 and plan.nodes[deep.nodes[-1]].end == 104_000
    assert plan.audit.claim.held == "documents" and not refused(plan.audit)
    assert [point.tokens for point in deep.points] == [72_000 + 96, 104_000]
