"""Finished runs that an edit leaves behind, and what of the edit did it."""

import pytest
from planned import FACTOR, make_sweep

from davinci.planning import identity
from davinci.planning.build import build_plan
from davinci.store import Store, write_json


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def replan(make_run, card, store):
    """Plan QA 75% and 50% with `changes` of every arm, or of one by label."""

    def make(changes=None, of=None, seeds=(0, 1), labels=("QA-75%", "QA-50%"), the_card=card):
        configs = {}
        for label in labels:
            share = int(label[3:5]) / 100
            own = {f"{FACTOR}.domains": {"general": 1 - share, "qa": share}}
            configs[label] = make_run({**own, **((changes or {}) if of in (None, label) else {})})
        return build_plan(make_sweep(configs, seeds=seeds), cards={"small": the_card}, store=store)

    return make


@pytest.fixture
def launched(replan, store):
    """The plan as launched, all of it finished."""
    plan = replan()
    write_json(store.sweep(plan.sweep) / "launched.json", plan.model_dump(mode="json"))
    for node in plan.nodes.values():
        write_json(store.node(node.id) / "node.json", node.model_dump(mode="json"))
        write_json(store.node(node.id) / "done.json", {})
    return plan


def test_nothing_is_orphaned_by_planning_again(launched, replan):
    assert replan().orphans == ()
    assert replan({"evaluation.limit": 3, "cluster.workers": 2, "checkpoint_every_tokens": 64}).orphans == ()


def test_an_edit_orphans_exactly_the_runs_it_moves(launched, replan):
    found = replan({"curriculum.stages.second.lr.stop": 0.002}, of="QA-50%").orphans
    assert [(one.arm, one.seed) for one in found] == [("QA-50%", 0), ("QA-50%", 1)]
    assert {one.run for one in found} == {run.id for run in launched.runs if run.arm == "QA-50%"}
    assert found[0].diff == ("curriculum.stages.second.lr.stop: 0.001 -> 0.002",)
    assert len(replan({"optimizer.beta2": 0.9}).orphans) == 4


def test_few_keys_are_shown_of_many(launched, replan):
    many = {f"optimizer.{name}": 0.5 for name in ("beta1", "beta2", "eps", "weight_decay", "gradient_clip")}
    diff = replan(many).orphans[0].diff
    assert len(diff) == identity.SHOWN + 1 and diff[-1] == "and 1 more"


def test_an_arm_or_seed_taken_out_has_no_diff(launched, replan):
    assert [(one.arm, one.seed, one.diff) for one in replan(seeds=(0,), labels=("QA-75%",)).orphans] == [
        ("QA-75%", 1, ()),
        ("QA-50%", 0, ()),
        ("QA-50%", 1, ()),
    ]


def test_a_run_under_another_label_is_no_orphan(make_run, card, store, launched):
    configs = {"renamed": make_run({f"{FACTOR}.domains": {"general": 0.25, "qa": 0.75}})}
    plan = build_plan(make_sweep(configs, seeds=(0, 1), factor=()), cards={"small": card}, store=store)
    assert {one.arm for one in plan.orphans} == {"QA-50%"}


def test_an_unfinished_run_is_no_orphan(launched, replan, store):
    for run in launched.runs[1:]:
        (store.node(run.nodes[-1]) / "done.json").unlink()
    assert [one.run for one in replan({"optimizer.beta2": 0.9}).orphans] == [launched.runs[0].id]


def test_changed_content_is_said(launched, replan, card):
    variants = card.sources["answers"].variants
    other = {level: variant.model_copy(update={"digest": "rewritten-answers"}) for level, variant in variants.items()}
    sources = card.sources | {"answers": card.sources["answers"].model_copy(update={"variants": other})}
    found = replan(the_card=card.model_copy(update={"sources": sources})).orphans
    assert {one.diff for one in found} == {("content of answers@L5: answers-L5 -> rewritten-an",)}


def test_another_scheme_is_said(launched, replan, monkeypatch):
    monkeypatch.setattr(identity, "NUMERICS", identity.NUMERICS + 1)
    assert {one.diff for one in replan().orphans} == {
        ("same config and data: the scheme or the numerics version of ids changed",)
    }
