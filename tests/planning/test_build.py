"""The plan: sharing, points, chains, what the store holds, totals."""

import pytest
from planned import FACTOR, make_sweep

from davinci.accounting.flops import train_flops_per_token
from davinci.errors import UserError
from davinci.planning.build import build_plan, build_plans, paper_label, slug
from davinci.planning.plan import Plan
from davinci.store import Store, write_json


@pytest.fixture
def qa_sweep(make_run):
    """A sweep of two arms (QA 75% and 50%) with the given seeds; `changes` by arm label."""

    def make(seeds=(0, 1), changes=None, common=None, **declared):
        configs = {}
        for label, share in (("QA-75%", 0.75), ("QA-50%", 0.5)):
            own = {f"{FACTOR}.domains": {"general": 1 - share, "qa": share}}
            configs[label] = make_run({**own, **(common or {}), **(changes or {}).get(label, {})})
        return make_sweep(configs, seeds=seeds, **declared)

    return make


@pytest.fixture
def make_plan(qa_sweep, card):
    """A plan of such a sweep."""

    def make(seeds=(0, 1), changes=None, common=None, cards=None, store=None, **declared):
        return build_plan(qa_sweep(seeds, changes, common, **declared), cards=cards or {"small": card}, store=store)

    return make


def finish(store, plan, nodes=None):
    """Write what a job leaves of the plan's nodes, but for the training itself."""
    for node in plan.nodes.values() if nodes is None else nodes:
        write_json(store.node(node.id) / "node.json", node.model_dump(mode="json"))
        write_json(store.node(node.id) / "done.json", {})


def test_arms_share_the_trunk_of_their_seed(make_plan):
    plan = make_plan(seeds=(0, 1, 2))
    assert len(plan.runs) == 6
    assert len(plan.nodes) == 3 + 6
    chains = plan.chains()
    assert [len(chain.nodes) for chain in chains if chain.after is None] == [1, 1, 1]
    assert len([chain for chain in chains if chain.after]) == 6
    assert plan.tokens_unshared == 6 * 960
    assert plan.tokens_shared == plan.tokens_left == 3 * 640 + 6 * 320
    assert plan.audit.verdict == "controlled"


def test_one_arm_is_one_chain(make_run, card):
    plan = build_plan(make_sweep({"base": make_run()}, factor=()), cards={"small": card})
    assert [chain.nodes for chain in plan.chains()] == [plan.runs[0].nodes]


def test_points_fall_on_whole_steps(make_plan):
    plan = make_plan()
    run = plan.runs[0]
    assert [(point.stage_tokens, point.tokens) for point in run.points] == [(96, 736), (320, 960)]
    assert run.points[0].label == "100B"
    assert {point.node for point in run.points} == {run.nodes[-1]}


def test_points_of_a_stage_that_is_cut_fall_in_the_part_that_holds_them(make_plan):
    longer = {"curriculum.stages.second.tokens": 640, "evaluation.at": [{"stage": "second", "tokens": 320}]}
    constant = {"curriculum.stages.second.lr": {"shape": "constant", "start": 0.01}, f"{FACTOR}.domains": {"qa": 1.0}}
    plan = make_plan(seeds=(0,), common=constant, changes={"QA-50%": longer})
    short, long = plan.runs
    assert long.nodes[:2] == short.nodes and len(long.nodes) == 3
    assert [point.node for point in long.points] == [short.nodes[1]]
    assert [(point.node, point.tokens) for point in short.points] == [(short.nodes[1], 736), (short.nodes[1], 960)]


def test_a_point_before_the_first_step_is_refused(make_plan):
    with pytest.raises(UserError, match="evaluation.at: 3 tokens into second is before its first step of 32 tokens"):
        make_plan(changes={"QA-75%": {"evaluation.at": [{"stage": "second", "tokens": 3}]}})


def test_a_replicate_has_streams_of_its_own(make_run, card):
    configs = {"a": make_run(), "b": make_run(replicate=1), "c": make_run(replicate=2)}
    plan = build_plan(make_sweep(configs, factor=(), seeds=(0, 1)), cards={"small": card})
    first = [plan.nodes[run.nodes[0]] for run in plan.runs]
    assert len({node.data_seed for node in first}) == len({node.initialisation_seed for node in first}) == 6
    assert [node.data_seed for node in first[:2]] == [0, 1]
    trunk = {"seeds_from": "second", "trunk_seed": 0}
    configs = {"a": make_run(**trunk), "b": make_run(replicate=1, **trunk)}
    plan = build_plan(make_sweep(configs, factor=(), seeds=(0, 1)), cards={"small": card})
    assert len({run.nodes[0] for run in plan.runs}) == 1
    assert len({run.nodes[1] for run in plan.runs}) == 4


def test_finished_nodes_cost_nothing(make_plan, tmp_path):
    store = Store(tmp_path)
    plan = make_plan(store=store)
    finish(store, plan, [plan.nodes[run.nodes[0]] for run in plan.runs])
    again = make_plan(store=store)
    assert again.tokens_left == 4 * 320
    assert again.flops_left == pytest.approx(again.flops * again.tokens_left / again.tokens_shared)
    assert again.nodes == plan.nodes


def test_sweeps_planned_together_share_nodes_and_cuts(qa_sweep, card):
    constant = {"curriculum.stages.second.lr": {"shape": "constant", "start": 0.01}}
    short = qa_sweep(common=constant, name="short")
    long = qa_sweep(common=constant | {"curriculum.stages.second.tokens": 640}, name="long")
    first, second = build_plans([short, long], cards={"small": card})
    assert (first.sweep, second.sweep) == ("short", "long")
    assert set(first.nodes) < set(second.nodes)
    alone = build_plan(long, cards={"small": card})
    assert set(alone.nodes) < set(second.nodes) and alone.tokens_shared == second.tokens_shared


def test_the_plan_survives_json(make_plan):
    plan = make_plan()
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_what_a_plan_remembers_is_not_part_of_it(make_plan):
    plan, other = make_plan(), make_plan()
    before = plan.model_dump_json()
    plan.config(plan.runs[0])
    plan.chains()
    assert plan == other and plan.model_dump_json() == before
    fewer = plan.model_copy(
        update={"runs": plan.runs[:1], "nodes": {node: plan.nodes[node] for node in plan.runs[0].nodes}}
    )
    assert len(fewer.chains()) == 1


def test_every_run_has_its_own_config(make_plan):
    plan = make_plan()
    assert [(plan.config(run).arm, plan.config(run).seed) for run in plan.runs] == [
        (run.arm, run.seed) for run in plan.runs
    ]


def test_a_source_without_a_digest_is_named(make_plan):
    plan = make_plan(cards={"small": None})
    assert plan.missing_sources == ("answers", "books", "programs", "web")


def test_totals_follow_the_formula(make_plan):
    plan = make_plan()
    rate = train_flops_per_token(plan.arms[0].config.model, 64, 16)
    assert plan.flops == pytest.approx(plan.tokens_shared * rate)
    assert plan.flops_unshared == pytest.approx(plan.tokens_unshared * rate)


def test_sources_are_warned_of_past_max_epochs(qa_sweep, card):
    sweep = qa_sweep(seeds=(0,))
    assert build_plan(sweep, cards={"small": card}).warnings == ()
    assert any("answers" in text for text in build_plan(sweep, cards={"small": card}, max_epochs=0.4).warnings)


@pytest.mark.parametrize(("tokens", "label"), [(84e9, "84B"), (1e12, "1T"), (7.42e12, "7.42T"), (8.5e9, "8.5B")])
def test_points_are_labelled_as_the_paper_prints_them(tokens, label):
    assert paper_label(tokens) == label


def test_slug():
    assert slug("QA-30%") == "qa-30"
    assert slug("depth=l2 model=20m") == "depth-l2-model-20m"
