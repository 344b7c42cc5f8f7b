"""The plan: sharing, points, chains, weights, epochs, audit, cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davinci.accounting.flops import train_flops_per_token
from davinci.config import Depth, Mixture, Pool, parse
from davinci.errors import UserError
from davinci.planning.build import build_plan, slug
from davinci.planning.mixtures import PARTS, PoolView
from davinci.planning.plan import Arm, Plan, Question

FACTOR = "curriculum.stages.second.mixture"
POOL = {
    "name": "small",
    "tokenizer": "small",
    "vocab_size": 64,
    "sources": {
        "books": {"domain": "general", "depths": ["L2"], "tokens": 3000},
        "web": {"domain": "general", "depths": ["L2"], "tokens": 1000},
        "programs": {"domain": "code", "depths": ["L2"], "tokens": 2000},
    },
}


@pytest.fixture
def make_plan(make_run, card):
    """A plan of two arms (QA 75% and 50%) with the given seeds."""

    def make(seeds=(0, 1), changes=None, cards=None, **options):
        runs = []
        for label, share in (("QA-75%", 0.75), ("QA-50%", 0.5)):
            arm_changes = {f"{FACTOR}.domains": {"general": 1 - share, "qa": share}, **(changes or {}).get(label, {})}
            runs += [make_run(arm_changes, arm=label, seed=seed, trunk_seed=seed) for seed in seeds]
        arms = [Arm(label=label, overrides=(), is_baseline=label == "QA-75%") for label in ("QA-75%", "QA-50%")]
        return build_plan(
            runs,
            question=Question(text="?"),
            arms=arms,
            factor=options.pop("factor", [FACTOR]),
            cards=cards or {"small": card},
            **options,
        )

    return make


def test_arms_share_the_trunk_of_their_seed(make_plan):
    plan = make_plan(seeds=(0, 1, 2))
    assert len(plan.runs) == 6
    assert len(plan.nodes) == 3 + 6
    chains = plan.chains()
    assert [len(chain.nodes) for chain in chains if chain.after is None] == [1, 1, 1]
    assert len([chain for chain in chains if chain.after]) == 6
    assert plan.cost.tokens_unshared == 6 * 960
    assert plan.cost.tokens_shared == 3 * 640 + 6 * 320
    assert plan.audit.verdict == "controlled"


def test_one_arm_is_one_chain(make_run, card):
    arm = Arm(label="base", overrides=(), is_baseline=True)
    plan = build_plan([make_run()], question=Question(text="?"), arms=[arm], factor=[], cards={"small": card})
    assert [chain.nodes for chain in plan.chains()] == [plan.runs[0].nodes]


def test_points_fall_on_whole_steps(make_plan):
    plan = make_plan()
    run = plan.runs[0]
    assert [(point.stage_tokens, point.tokens) for point in run.points] == [(96, 736), (320, 960)]
    assert run.points[0].label == "100B"
    assert plan.demands(run.nodes[-1]) == [736, 960]
    assert plan.demands(run.nodes[0]) == []


def test_a_point_before_the_first_step_is_refused(make_plan):
    with pytest.raises(UserError, match="evaluation.at: 3 tokens into second is before its first step of 32 tokens"):
        make_plan(changes={"QA-75%": {"evaluation.at": [{"stage": "second", "tokens": 3}]}})


def test_finished_nodes_cost_nothing(make_plan):
    plan = make_plan()
    trunks = frozenset(run.nodes[0] for run in plan.runs)
    assert make_plan(done=trunks).cost.tokens_left == 4 * 320


def test_the_plan_survives_json(make_plan):
    plan = make_plan()
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_a_source_without_a_digest_is_named(make_plan):
    plan = make_plan(cards={"small": None})
    assert plan.missing_sources == ("answers", "books", "programs", "web")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer.beta2", 0.99),
        ("curriculum.stages.first.lr.start", 0.02),
        ("model.layers", 2),
        ("depth", {"code": "L1"}),
    ],
)
def test_an_undeclared_difference_is_refused_by_name(make_plan, key, value):
    audit = make_plan(changes={"QA-50%": {key: value}}).audit
    assert audit.verdict == "refused"
    assert any(key in finding.text and "QA-50%" in finding.text for finding in audit.findings)
    warned = make_plan(changes={"QA-50%": {key: value}}, warn_only=True).audit
    assert warned.verdict == "warned"


def test_a_factor_no_arm_changes_is_refused(make_plan):
    audit = make_plan(factor=[FACTOR, "optimizer.beta1"]).audit
    assert [finding.text for finding in audit.findings if finding.level == "refused"] == [
        "factor key optimizer.beta1 is changed by no arm"
    ]


def test_unequal_budgets_are_refused(make_plan):
    change = {"QA-50%": {"curriculum.stages.second.tokens": 640}}
    audit = make_plan(changes=change, factor=[FACTOR, "curriculum.stages.second.tokens"]).audit
    assert any("training tokens differ" in finding.text for finding in audit.findings)


def test_epochs_add_up_over_stages(make_plan):
    rows = {(row.arm, row.stage, row.name): row for row in make_plan().epochs}
    qa = rows["QA-75%", "second", "qa"]
    assert qa.epochs == pytest.approx(320 * 0.75 / 500)
    general = rows["QA-75%", "second", "general"]
    assert general.cumulative == pytest.approx(640 * 0.75 / 4000 + 320 * 0.25 / 4000)


def test_cost_follows_the_formula(make_plan):
    plan = make_plan()
    node = next(iter(plan.nodes.values()))
    flops = plan.cost.tokens_shared * train_flops_per_token(node.model, 64, 16)
    assert plan.cost.flops_shared == pytest.approx(flops)
    assert plan.cost.gpu_hours_shared == pytest.approx(flops / (1e11 * 0.5 * 3600))


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


def test_a_domain_without_a_source_in_the_stage_is_refused(make_plan):
    change = {"curriculum.stages.first.mixture.domains": {"general": 0.5, "qa": 0.5}}
    with pytest.raises(UserError, match=r"curriculum.stages.first.mixture: domain 'qa' .* no source of it"):
        make_plan(changes={"QA-75%": change, "QA-50%": change})


def test_a_depth_the_pool_lacks_is_refused(make_plan):
    with pytest.raises(UserError, match="depth.code: pool small holds code at L1, L2, not L4"):
        make_plan(changes={"QA-75%": {"depth": {"code": "L4"}}})


def test_an_unknown_factor_key_names_the_nearest(make_plan):
    audit = make_plan(factor=[FACTOR.replace("mixture", "mixtur")]).audit
    assert audit.findings[0].text.startswith(
        "factor key curriculum.stages.second.mixtur is changed by no arm; nearest: "
    )
    assert FACTOR in audit.findings[0].text


def test_a_pool_that_is_not_built_says_how_to_build_it(make_run):
    pool = make_run({"pool.sources.web": {"domain": "general", "depths": ["L2"]}}).pool
    with pytest.raises(UserError, match="pool small is not built in this store.* davinci data build small"):
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


def test_slug():
    assert slug("QA-30%") == "qa-30"
    assert slug("depth=l2 model=20m") == "depth-l2-model-20m"
