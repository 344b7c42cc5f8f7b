"""Where runs part: cases by hand, and random curricula against every step boundary compared by its id."""

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planned import make_sweep

from davinci.planning.build import build_plan
from davinci.planning.histories import Histories, history_of
from davinci.planning.identity import history_of_nodes, state_id
from davinci.planning.tree import Tree

STEP = 32
GENERAL = {"general": 1.0}


def constant(value=0.01):
    return {"shape": "constant", "start": value}


def stage(steps, lr=None, mixture=None, batches=((0, 2),), **changes):
    """A stage of `steps` steps of 32 tokens (by default), at a constant rate on general text."""
    return {
        "tokens": steps * STEP,
        "sequence_length": 16,
        "batch_size": [{"from_tokens": begin, "sequences": sequences} for begin, sequences in batches],
        "lr": lr or constant(),
        "mixture": {"domains": mixture or GENERAL, "sources": {}},
        "mask_questions": False,
        "optimizer_state": "carry",
    } | changes


@pytest.fixture
def plan_of(make_run, card):
    """The plan of curricula, each a list of stages, one arm each."""

    def make(*curricula, seeds=(0,), **top):
        configs = {}
        for index, stages in enumerate(curricula):
            named = {f"s{number}": one for number, one in enumerate(stages)}
            changes = {"curriculum.stages": named, "evaluation.at": [], **top}
            configs[f"arm{index}"] = make_run(changes)
        return build_plan(make_sweep(configs, seeds=seeds, factor=("curriculum",)), cards={"small": card})

    return make


def ends(plan, run=0):
    """Where the nodes of a run end, in steps."""
    return [plan.nodes[node].end / STEP for node in plan.runs[run].nodes]


def shared(plan, first=0, second=1):
    """Steps two runs share."""
    both = set(plan.runs[first].nodes) & set(plan.runs[second].nodes)
    return max((plan.nodes[node].end for node in both), default=0) / STEP


def test_a_constant_stage_shares_a_longer_one_s_beginning(plan_of):
    plan = plan_of([stage(4)], [stage(6)])
    assert (ends(plan, 0), ends(plan, 1), shared(plan)) == ([4], [4, 6], 4)
    assert plan.tokens_shared == 6 * STEP
    last = plan.nodes[plan.runs[1].nodes[1]]
    assert (last.stage_begin, last.begin, list(last.steps)) == (0, 4 * STEP, [4, 5])


def test_one_stage_equals_two_of_equal_settings(plan_of):
    plan = plan_of([stage(6)], [stage(4), stage(2)])
    assert plan.runs[0].nodes == plan.runs[1].nodes and ends(plan) == [4, 6]
    assert plan.tokens_shared == 6 * STEP


def test_decay_branches_share_the_trunk(plan_of):
    def wsd(steps):
        return [stage(steps, {"shape": "wsd", "start": 0.01, "stop": 0.001, "decay_tokens": 2 * STEP})]

    plan = plan_of(wsd(6), wsd(10), wsd(20))
    assert [ends(plan, run) for run in range(3)] == [[4, 6], [4, 8, 10], [4, 8, 20]]
    assert plan.tokens_shared == (20 + 2 + 2) * STEP


@pytest.mark.parametrize(
    ("first", "second", "steps"),
    [
        ([stage(8)], [stage(8, batches=((0, 2), (4 * STEP, 4)))], 4),
        ([stage(8)], [stage(8, batches=((0, 2), (4 * STEP + 3, 4)))], 4),  # floored to the step before
        ([stage(8)], [stage(8, batches=((0, 4),))], 0),
        ([stage(8)], [stage(8, {"shape": "wsd", "start": 0.01, "stop": 0.001, "decay_tokens": 70})], 5),
        ([stage(8)], [stage(8, constant(0.02))], 0),
        ([stage(4), stage(4)], [stage(4), stage(4, mask_questions=True)], 4),
        ([stage(4), stage(4)], [stage(4), stage(4, sequence_length=8)], 4),
        ([stage(4), stage(4)], [stage(4), stage(4, mixture={"code": 1.0})], 4),
        ([stage(4), stage(4)], [stage(4), stage(4, optimizer_state="reset")], 4),
        ([stage(8)], [stage(3), stage(5, optimizer_state="reset")], 3),
        ([stage(4), stage(4, {"shape": "linear", "start": 0.01, "stop": 0.001})], [stage(8)], 4),
        (
            [stage(8, {"shape": "cosine", "start": 0.01, "stop": 0.001})],
            [stage(6, {"shape": "cosine", "start": 0.01, "stop": 0.001})],
            0,  # drawn to another end, it is another slope from its first step on
        ),
    ],
)
def test_runs_part_at_the_first_thing_that_differs(plan_of, first, second, steps):
    plan = plan_of(first, second)
    assert shared(plan) == steps
    alone = sum(plan.nodes[run.nodes[-1]].end for run in plan.runs)
    assert plan.tokens_shared == alone - steps * STEP


def test_a_cut_is_every_one_s_who_comes_through(plan_of):
    plan = plan_of([stage(3)], [stage(5)], [stage(9)], [stage(9, constant(0.02))])
    assert [ends(plan, run) for run in range(4)] == [[3], [3, 5], [3, 5, 9], [9]]


def test_seeds_share_the_trunk_they_are_told_to(plan_of):
    stages = [stage(4), stage(4)]
    plan = plan_of(stages, seeds=(0, 1, 2), seeds_from="s1")
    assert len({run.nodes[0] for run in plan.runs}) == 1
    assert plan.tokens_shared == (4 + 3 * 4) * STEP
    # The trunk's own seed needs no cut of its own, but the others part from it there.
    assert [ends(plan, run) for run in range(3)] == [[4, 8]] * 3
    assert plan_of(stages, seeds=(0, 1, 2)).tokens_shared == 3 * 8 * STEP


def test_a_cut_within_a_stage_goes_on_in_the_same_order(plan_of):
    plan = plan_of([stage(4), stage(4)], [stage(4), stage(2)])
    assert [plan.nodes[node].mixture_position for node in plan.runs[0].nodes] == [0, 8, 8]
    assert [plan.nodes[node].stage_begin for node in plan.runs[0].nodes] == [0, 4 * STEP, 4 * STEP]


LENGTHS = st.sampled_from([8, 16])
RATES = st.one_of(
    st.just(constant()),
    st.builds(
        lambda steps: {"shape": "warmup_constant", "start": 0.01, "warmup_tokens": steps * 20}, st.integers(1, 2)
    ),
    st.builds(
        lambda decay: {"shape": "wsd", "start": 0.01, "stop": 0.001, "decay_tokens": decay * 25}, st.integers(1, 2)
    ),
    st.just({"shape": "cosine", "start": 0.01, "stop": 0.001}),
    st.just({"shape": "linear", "start": 0.01, "stop": 0.01}),
)


@st.composite
def stages(draw):
    ramp = draw(st.lists(st.tuples(st.integers(1, 12).map(lambda one: one * 17), st.integers(1, 3)), max_size=2))
    steps = {0: draw(st.sampled_from([2, 2, 1])), **dict(ramp)}
    return stage(
        draw(st.integers(2, 8)),
        draw(RATES),
        draw(st.sampled_from([GENERAL, GENERAL, {"code": 1.0}])),
        sorted(steps.items()),
        sequence_length=draw(LENGTHS),
        mask_questions=draw(st.booleans()) and draw(st.booleans()),
        optimizer_state=draw(st.sampled_from(["carry", "carry", "reset"])),
    )


@st.composite
def curricula(draw):
    """A few curricula that often begin alike, as the arms of a sweep do."""
    drawn = draw(st.lists(st.lists(stages(), min_size=1, max_size=3), min_size=1, max_size=3))
    kept = draw(st.lists(st.integers(0, 3), min_size=len(drawn), max_size=len(drawn)))
    found = [drawn[0][:count] + one for count, one in zip(kept, drawn, strict=True)]
    if draw(st.booleans()):  # the same training, written as two stages
        found.append([stage(3), stage(4)])
        found.append([stage(7)])
    return found


def boundaries(history):
    """Every step of a run: the tokens after it, and its own."""
    for span in history.spans:
        grid = span.stage.grid
        for step in range(grid.steps):
            yield span.begin + grid.tokens_at(step + 1), grid.batch_at(step) * span.stage.sequence_length


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=curricula(), seeds=st.sampled_from([(0,), (0, 1)]), data=st.data())
def test_sharing_equals_comparing_every_step(make_run, card, drawn, seeds, data):
    configs = {}
    for index, one in enumerate(drawn):
        named = {f"s{number}": each for number, each in enumerate(one)}
        configs[f"arm{index}"] = make_run({"curriculum.stages": named, "evaluation.at": []})
    sweep = make_sweep(configs, seeds=seeds, factor=("curriculum",))
    plan = build_plan(sweep, cards={"small": card})
    histories = Histories({"small": card})
    runs = [history for arm in sweep.arms for history in histories.of(arm.config, seeds)]
    distinct, node_at = {}, {}
    for history, run in zip(runs, plan.runs, strict=True):
        nodes = [plan.nodes[node] for node in run.nodes]
        assert nodes[0].begin == 0 and nodes[0].parent is None and nodes[-1].end == history.end
        for before, after in pairwise(nodes):
            assert after.begin == before.end and after.parent == before.id
        for node in nodes:
            assert node.id == state_id(history, node.end)
            assert node.stage_begin <= node.begin < node.end
        for tokens, size in boundaries(history):
            node = next(node for node in nodes if node.begin < tokens <= node.end)
            grid = node.stage.grid
            assert grid.tokens_at(grid.step_at(tokens - node.stage_begin)) == tokens - node.stage_begin
            state = state_id(history, tokens)
            distinct[state] = size
            # Two runs have the same state exactly where they have the same node.
            assert node_at.setdefault(state, node.id) == node.id
        for index in range(len(nodes)):  # what the nodes say is what the run is
            chain = history_of_nodes(nodes[: index + 1])
            assert state_id(chain, nodes[index].end) == nodes[index].id
    assert plan.tokens_shared == sum(distinct.values())
    turned = dict(data.draw(st.permutations(list(configs.items()))))
    again = build_plan(make_sweep(turned, seeds=seeds, factor=("curriculum",)), cards={"small": card})
    assert skeleton(again) == skeleton(plan)


def skeleton(plan):
    """What of the nodes does not depend on whose stage speaks for a shared one."""
    return {(node.id, node.parent, node.begin, node.end, node.data_seed) for node in plan.nodes.values()}


def test_more_cuts_move_no_id(make_run, card):
    run = make_run({"curriculum.stages": {"s0": stage(8)}, "evaluation.at": []})
    history = history_of(run, card)
    tree = Tree([history])
    (end,) = tree.states(0)
    tree.cut(0, 5 * STEP + 1)
    assert tree.states(0) == [(5 * STEP, state_id(history, 5 * STEP)), end]
