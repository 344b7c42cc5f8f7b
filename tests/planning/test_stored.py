"""What the store holds: cuts of an earlier sweep, nodes that disagree with their id, the plan launched last."""

import pytest
from planned import make_sweep

from davinci.errors import UserError
from davinci.planning.build import build_plan
from davinci.store import Store, read_json, write_json

STEP = 32


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def planned(make_run, card, store):
    """Plan curricula of constant stages, given as steps, against the store."""

    def make(*curricula, changes=None):
        configs = {}
        for index, steps in enumerate(curricula):
            stages = {
                f"s{number}": {
                    "tokens": one * STEP,
                    "sequence_length": 16,
                    "batch_size": [{"from_tokens": 0, "sequences": 2}],
                    "lr": {"shape": "constant", "start": 0.01},
                    "mixture": {"domains": {"general": 1.0}, "sources": {}},
                    "mask_questions": False,
                    "optimizer_state": "carry",
                }
                for number, one in enumerate(steps)
            }
            at = {"curriculum.stages": stages, "evaluation.at": []}
            configs[f"arm{index}"] = make_run(at | (changes or {}))
        return build_plan(make_sweep(configs, factor=("curriculum",)), cards={"small": card}, store=store)

    return make


def finish(store, plan):
    """What jobs leave of a plan's nodes, but for the training."""
    for node in plan.nodes.values():
        write_json(store.node(node.id) / "node.json", node.model_dump(mode="json"))
        write_json(store.node(node.id) / "done.json", {})


def ends(plan, run=0):
    return [plan.nodes[node].end // STEP for node in plan.runs[run].nodes]


def test_a_run_is_cut_where_it_was_cut_before(planned, store):
    finish(store, planned([3], [5], [9]))
    again = planned([9])
    assert ends(again) == [3, 5, 9]
    assert again.tokens_left == 0
    longer = planned([12])
    assert ends(longer) == [12]  # nothing stored ends there: where it was cut does not matter
    both = planned([12], [9])
    assert ends(both, 0) == [3, 5, 9, 12] and both.tokens_left == 3 * STEP


def test_a_cut_that_is_not_this_run_s_is_not_made(planned, store):
    plan = planned([3], [9])
    finish(store, plan)
    leaf = plan.runs[1].nodes[-1]
    path = store.node(leaf) / "node.json"
    write_json(path, read_json(path) | {"parent": "96-v1-000000000000"})
    assert ends(planned([9])) == [9]


def test_nodes_that_say_what_is_planned_are_not_rebuilt(planned, store, monkeypatch):
    finish(store, planned([3], [9]))
    monkeypatch.setattr("davinci.planning.stored.check", None)
    assert planned([3], [9]).tokens_left == 0


def test_what_no_id_depends_on_may_differ(planned, store):
    finish(store, planned([3, 3], changes={"checkpoint_every_tokens": 64}))
    assert planned([6]).tokens_left == 0


def test_a_stored_node_that_does_not_give_its_id_is_refused(planned, store):
    plan = planned([3, 3])
    finish(store, plan)
    path = store.node(plan.runs[0].nodes[0]) / "node.json"
    data = read_json(path)
    data["optimizer"]["beta2"] = 0.5
    write_json(path, data)
    with pytest.raises(UserError) as told:
        planned([3, 3])
    assert str(told.value).startswith(f"{path}: the config there does not give the id {plan.runs[0].nodes[0]}: ")
    assert "optimizer.beta2: 0.5 -> 0.95" in str(told.value)


def test_a_node_among_its_own_parents_is_refused(planned, store):
    plan = planned([3, 3])
    finish(store, plan)
    node = plan.runs[0].nodes[0]
    path = store.node(node) / "node.json"
    write_json(path, read_json(path) | {"parent": node})
    with pytest.raises(UserError, match="is among its own parents"):
        planned([3, 3])


@pytest.mark.parametrize("text", ["{", "[]", '{"id": "x"}'])
def test_a_damaged_node_file_is_named(planned, store, text):
    plan = planned([3, 3])
    finish(store, plan)
    path = store.node(plan.runs[0].nodes[0]) / "node.json"
    path.write_text(text)
    with pytest.raises(UserError, match=str(path)):
        planned([3, 3])


def test_a_launched_plan_that_cannot_be_read_is_none(planned, store):
    path = store.sweep("test") / "launched.json"
    path.parent.mkdir(parents=True)
    for text in ("{", "[]", '{"version": 1, "runs": [{"nodes": ["gone"]}]}'):
        path.write_text(text)
        assert planned([3]).orphans == ()
