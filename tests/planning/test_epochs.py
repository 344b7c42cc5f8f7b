"""The epoch ledger, on a small pool and on the paper's own tables."""

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from planned import make_sweep

from davinci.composition import resolvers
from davinci.config import Mixture, Run, parse
from davinci.errors import UserError
from davinci.planning.epochs import ledger, refuse_exhausted, repetitions

SECOND = "curriculum.stages.second.mixture.domains"


@pytest.fixture
def cards(card):
    return {"small": card}


def cells(rows, arm):
    """``(stage, domain, source) -> row`` of one arm."""
    return {(row.stage, row.domain, row.source): row for row in rows if arm in row.arms}


def test_a_stage_divides_its_demand_by_what_the_pool_holds(make_run, cards):
    rows = cells(ledger(make_sweep({"base": make_run()}), cards), "base")
    qa = rows["second", "qa", None]
    assert (qa.demanded_tokens, qa.pool_tokens) == (pytest.approx(320 * 0.75), 500)
    assert qa.epochs == qa.cumulative == pytest.approx(320 * 0.75 / 500)
    books = rows["first", "general", "books"]
    assert books.demanded_tokens == pytest.approx(640 * 0.75 * 3 / 4)
    assert books.epochs == pytest.approx(640 * 0.75 / 4000)


def test_epochs_add_up_over_stages_for_domains_and_sources(make_run, cards):
    rows = cells(ledger(make_sweep({"base": make_run()}), cards), "base")
    both = 640 * 0.75 / 4000 + 320 * 0.25 / 4000
    for source in (None, "books", "web"):
        assert rows["second", "general", source].cumulative == pytest.approx(both)


def test_whole_steps_are_counted(make_run, cards):
    rows = cells(ledger(make_sweep({"base": make_run({"curriculum.stages.second.tokens": 351})}), cards), "base")
    assert rows["second", "qa", None].demanded_tokens == pytest.approx(320 * 0.75)


def test_levels_of_a_source_are_versions_of_the_same_documents(make_run, cards):
    books = cards["small"].sources["books"].variants
    books["L1"] = books["L1"].model_copy(update={"tokens": 6000})
    changes = {"curriculum.stages.first.mixture.sources": {"books": 1.0}}
    changes["curriculum.stages.first.depth"] = {"general": "L1"}
    rows = cells(ledger(make_sweep({"base": make_run(changes)}), cards), "base")
    assert rows["first", "general", "books"].pool_tokens == 6000
    assert rows["second", "general", "books"].pool_tokens == 3000
    seen = 640 * 0.75 / 6000 + 320 * 0.25 / 4000
    assert rows["second", "general", "books"].cumulative == pytest.approx(seen)
    web = 320 * 0.25 / 4000
    assert rows["second", "general", None].cumulative == pytest.approx((3000 * seen + 1000 * web) / 4000)


def test_arms_that_agree_share_rows(make_run, cards):
    arms = {f"QA-{share}": make_run({SECOND: {"general": 1 - share / 100, "qa": share / 100}}) for share in (75, 50)}
    arms["again"] = arms["QA-75"].model_copy(update={"checkpoint_every_tokens": 7})
    rows = ledger(make_sweep(arms), cards)
    assert {row.arms for row in rows if row.stage == "first"} == {("QA-75", "again", "QA-50")}
    assert {row.arms for row in rows if row.stage == "second"} == {("QA-75", "again"), ("QA-50",)}
    for arm in arms:
        own = [(row.stage, row.domain, row.source) for row in rows if arm in row.arms]
        assert len(own) == len(set(own)) == 5 + 5


def test_two_thousand_arms_of_one_mixture_are_one_ledger(make_run, cards):
    base = make_run()
    rates = {f"b{index}": base.model_copy(update={"checkpoint_every_tokens": index}) for index in range(1, 2001)}
    rows = ledger(make_sweep(rates, factor=("checkpoint_every_tokens",)), cards)
    assert len(rows) == 10
    assert all(len(row.arms) == 2000 for row in rows)


def test_a_source_named_but_empty_is_refused(make_run, cards):
    web = cards["small"].sources["web"].variants
    web["L2"] = web["L2"].model_copy(update={"tokens": 0})
    changes = {"curriculum.stages.first.mixture.sources": {"web": 1.0}}
    with pytest.raises(UserError, match="pool.sources.web: stage first draws on it, but it holds no tokens"):
        ledger(make_sweep({"base": make_run(changes)}), cards)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.integers(1, 99), tokens=st.integers(32, 10**6), limit=st.sampled_from((0.5, 1.0, 4.0)))
def test_demands_are_a_stage_s_tokens_and_repetitions_name_every_excess(make_run, share, tokens, limit):
    changes = {SECOND: {"general": 1 - share / 100, "qa": share / 100}, "curriculum.stages.second.tokens": tokens}
    changes["curriculum.stages.second.lr"] = {"shape": "constant", "start": 0.01}
    changes["evaluation.at"] = []
    rows = ledger(make_sweep({"base": make_run(changes)}), {"small": None})
    for stage, budget in (("first", 640), ("second", tokens - tokens % 32)):
        for of_sources in (True, False):
            read = [
                row.demanded_tokens for row in rows if row.stage == stage and (row.source is not None) is of_sources
            ]
            assert sum(read) == pytest.approx(budget)
    excess = {row.source for row in rows if row.source is not None and row.cumulative > limit}
    warned = " ".join(repetitions(rows, limit)).replace(",", "").split()
    assert {"books", "web", "programs", "answers"} & set(warned) == excess


def test_repetition_names_sources_stage_epochs_and_arms(make_run, cards):
    arms = {
        f"QA-{share}": make_run(
            {SECOND: {"general": 1 - share / 100, "qa": share / 100}, "curriculum.stages.second.tokens": 3200}
        )
        for share in (75, 100, 20)
    }
    rows = ledger(make_sweep(arms), cards)
    assert repetitions(rows, 4) == (
        "qa source answers is seen 4.80 times since initialisation, more than 4 times from second on, in arm QA-75",
        "qa source answers is seen 6.40 times since initialisation, more than 4 times from second on, in arm QA-100",
    )
    assert repetitions(rows, 7) == ()


# The paper's tables at its own size.


@pytest.fixture(scope="module")
def paper(repository):
    """The paper's curriculum (Table 5) on its pool (Table 2), as conf/ composes it."""
    resolvers.register()
    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        config = compose("config", overrides=["scale=paper"])
    data = OmegaConf.to_container(config, resolve=True)
    kept = {key: value for key, value in data.items() if key in Run.model_fields}
    return parse(Run, kept | {"sweep": "paper"})


def test_the_paper_s_epochs(paper):
    rows = cells(ledger(make_sweep({"QA-70%": paper}), {"davinci": None}), "QA-70%")
    first, second = rows["s2_1", "qa", None], rows["s2_2", "qa", None]
    assert first.pool_tokens == second.pool_tokens == 242_400_000_000
    assert f"{first.epochs:.2f} {second.epochs:.2f} {second.cumulative:.2f}" == "1.24 2.89 4.13"
    answers = [row for (stage, domain, source), row in rows.items() if (stage, domain) == ("s2_2", "qa") and source]
    assert [f"{row.cumulative:.2f}" for row in answers] == ["4.13"] * 9


def test_the_paper_s_repeated_sources_are_all_named(paper):
    (warning,) = repetitions(ledger(make_sweep({"QA-70%": paper}), {"davinci": None}), 4)
    ticked = [name for name, one in paper.pool.sources.items() if one.domain == "qa" and one.substages]
    assert len(ticked) == 9
    assert warning == (
        f"qa sources {', '.join(sorted(ticked))} are seen 4.13 times since initialisation, "
        "more than 4 times from s2_2 on, in arm QA-70%"
    )


def test_the_printed_row_of_stage_2_2_is_refused():
    """Table 2 prints science as 8.85% beside 85.5B of 1T: that row sums to 100.30%, the one with 8.55% to 100%."""
    printed = {"domains": {"general": 0.1884, "code": 0.0261, "science": 0.0885, "qa": 0.7}}
    with pytest.raises(UserError, match=r"domains: proportions must sum to 1, .* science 0\.0885 .* \(100\.30%\)"):
        parse(Mixture, printed)
    parse(Mixture, {"domains": printed["domains"] | {"science": 0.0855}})


@pytest.mark.parametrize("key", ["pool.max_epochs", "pool.sources.books.max_epochs"])
def test_a_source_that_must_not_repeat_is_refused_when_exhausted(make_run, card, key):
    """The two stages take a good fifth of the books."""
    allowed = make_sweep({"base": make_run({key: 0.5})})
    refuse_exhausted(allowed, ledger(allowed, {"small": card}))
    sweep = make_sweep({"base": make_run({key: 0.1})})
    with pytest.raises(UserError) as told:
        refuse_exhausted(sweep, ledger(sweep, {"small": card}))
    assert str(told.value).startswith(f"{key}: source ") and "is exhausted in stage first of arm base" in str(
        told.value
    )
    assert "\n" not in str(told.value)
