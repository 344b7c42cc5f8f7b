"""From proportions to integer weights, and which sources a stage draws on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davinci.config import Depth, Mixture, Pool, parse
from davinci.errors import UserError
from davinci.planning.histories import history_of
from davinci.planning.mixtures import PoolView
from davinci.proportions import PARTS

POOL = {
    "name": "small",
    "tokenizer": "small",
    "vocab_size": 64,
    "sources": {
        "books": {"domain": "general", "depths": ["L2"], "tokens": 3000},
        "web": {"domain": "general", "depths": ["L2"], "tokens": 1000},
        "programs": {"domain": "code", "depths": ["L2"], "tokens": 2000},
        "early": {"domain": "code", "depths": ["L2"], "tokens": 2000, "substages": ["s1_1"]},
        "late": {"domain": "code", "depths": ["L2"], "tokens": 2000, "substages": ["s2_1", "s2_2"]},
    },
}


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=2).filter(any), st.booleans())
def test_weights_follow_proportions_and_tokens(shares, named):
    view = PoolView(parse(Pool, POOL), Depth(), None)
    total = sum(shares)
    mixture = Mixture(
        domains={"general": shares[0] / total, "code": 1 - shares[0] / total},
        sources={"web": 1.0} if named else {},
    )
    uses = view.weigh(mixture, "first")
    weight = sum(use.weight for use in uses.values())
    for name, use in uses.items():
        share = {"books": 0.75, "web": 0.25, "programs": 1.0}[name]
        if named:
            share = {"web": 1.0, "programs": 1.0}[name]
        wanted = mixture.domains[use.domain] * share
        assert abs(use.weight / weight - wanted) < 5 / PARTS
    assert ("books" in uses) == (shares[0] > 0 and not named)


@pytest.mark.parametrize(
    ("fields", "stage", "drawn"),
    [
        ({}, "s1_1", {"programs", "early"}),
        ({}, "s2_1", {"programs", "late"}),
        ({}, "another", {"programs"}),
        ({"substage": "s2_2"}, "another", {"programs", "late"}),
        ({"substage": "s1_1"}, "s2_1", {"programs", "early"}),
        ({"sources": {"early": 1.0, "programs": 3.0}}, "s2_1", {"programs", "early"}),
        ({"sources": {"web": 1.0}}, "s2_1", {"programs", "late"}),  # of another domain
    ],
)
def test_a_substage_says_which_sources_are_drawn_on(fields, stage, drawn):
    view = PoolView(parse(Pool, POOL), Depth(), None)
    assert set(view.weigh(Mixture(domains={"code": 1.0}, **fields), stage)) == drawn


def test_a_domain_without_a_source_in_the_substage_is_refused(make_run, card):
    run = make_run({"curriculum.stages.first.mixture.domains": {"general": 0.5, "qa": 0.5}})
    with pytest.raises(UserError) as told:
        history_of(run, card)
    assert str(told.value) == (
        "curriculum.stages.first.mixture: domain 'qa' has a positive proportion, but pool small has no source of it in "
        "substage 'first'; known: second"
    )


def test_a_depth_the_pool_lacks_is_refused_by_its_stage(make_run, card):
    run = make_run({"curriculum.stages.first.depth": {"code": "L4"}})
    with pytest.raises(UserError) as told:
        history_of(run, card)
    assert str(told.value) == "curriculum.stages.first.depth.code: pool small holds code at L1, L2, not L4"
    # A domain the stage does not read may be asked for at any depth.
    history_of(make_run({"curriculum.stages.second.depth": {"code": "L4"}}), card)


def test_stages_may_read_a_source_at_different_depths(make_run, card):
    second = {"curriculum.stages.second.mixture.domains": {"general": 0.5, "code": 0.5}}
    run = make_run(second | {"curriculum.stages.first.depth": {"code": "L1"}})
    depths = [span.sources["programs"].depth for span in history_of(run, card).spans]
    assert depths == ["L1", "L2"]


def test_a_pool_that_is_not_built_says_how_to_build_it(make_run):
    pool = make_run({"pool.sources.web": {"domain": "general", "depths": ["L2"]}}).pool
    with pytest.raises(UserError, match=r"pool small is not built in this store.* davinci data build small"):
        PoolView(pool, Depth(), None).weigh(Mixture(domains={"general": 1.0}), "first")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"wab": {"domain": "general", "depths": ["L2"]}}, "pool.sources.wab: .* without this source; nearest: web"),
        ({"web": {"domain": "general", "depths": ["L3"]}}, "pool.sources.web.depths: .* built with L2, not L3"),
    ],
)
def test_a_source_the_built_pool_lacks_is_refused(make_run, run_data, card, source, message):
    pool = make_run({"pool.sources": run_data["pool"]["sources"] | source}).pool
    with pytest.raises(UserError, match=message):
        PoolView(pool, Depth(), card).weigh(Mixture(domains={"general": 1.0}), "first")


def test_a_tokenizer_larger_than_the_model_is_refused(make_run, card):
    with pytest.raises(UserError, match=r"model.vocab_size: 32 is smaller than the 64 of pool small's tokenizer"):
        history_of(make_run({"model.vocab_size": 32}), card)
