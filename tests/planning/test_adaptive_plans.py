"""Adaptive stages in a plan: what their id says, what it does not, and what is said of them."""

import json

import pytest

from davinci.data.cards import PoolCard
from davinci.errors import UserError
from davinci.planning.build import build_plan
from davinci.planning.histories import history_of
from davinci.planning.identity import canonical, canonical_text, encode, history_of_nodes, state_id

UNTIL = {"domain": "code", "check_every": 64, "window": 3, "min_slope": 0.01, "sequences": 8}
ADAPT = {"every": 64, "window": 2}
FIRST = "curriculum.stages.first"


def ids(run, card):
    history = history_of(run, card)
    for span in history.spans:
        assert canonical_text(history, span.end) == encode(canonical(history, span.end))
    return [state_id(history, span.end) for span in history.spans]


def changed(card, heldout):
    data = json.loads(card.model_dump_json())
    data["sources"]["programs"]["variants"][heldout]["digest"] = "another"
    return PoolCard.model_validate_json(json.dumps(data))


@pytest.mark.parametrize("key", ["until", "adapt"])
def test_the_policy_is_in_the_id_from_its_stage_on(make_run, card, key):
    rule = {"until": UNTIL, "adapt": ADAPT}[key]
    plain, with_rule = ids(make_run(), card), ids(make_run({f"{FIRST}.{key}": rule}), card)
    assert not set(plain) & set(with_rule)
    for field, value in (("sequences", 16), ("window", 4)):
        assert not set(ids(make_run({f"{FIRST}.{key}": rule | {field: value}}), card)) & set(with_rule)
    second = ids(make_run({f"curriculum.stages.second.{key}": rule | {"window": 2}, **CONSTANT}), card)
    assert second[0] == plain[0]


CONSTANT = {"curriculum.stages.second.lr": {"shape": "constant", "start": 0.01}}


def test_the_text_it_watches_is_in_the_id(make_run, card):
    run = make_run({f"{FIRST}.until": UNTIL, f"{FIRST}.depth": {"code": "L1"}})
    assert not set(ids(run, card)) & set(ids(run, changed(card, "L2")))  # read at L1, measured at L2
    plain = make_run({f"{FIRST}.depth": {"code": "L1"}})
    assert ids(plain, card) == ids(plain, changed(card, "L2"))


def test_the_maximum_is_not_in_the_id(make_run, card):
    longer = make_run({f"{FIRST}.until": UNTIL, f"{FIRST}.tokens": 960})
    shorter = make_run({f"{FIRST}.until": UNTIL})
    history = history_of(longer, card)
    assert state_id(history, 640) == ids(shorter, card)[0]


def test_arms_of_one_policy_share_their_nodes_and_the_nodes_give_their_ids(make_run, card, tmp_path):
    from planned import make_sweep

    configs = {
        "a": make_run({f"{FIRST}.until": UNTIL, f"{FIRST}.adapt": ADAPT}),
        "b": make_run({f"{FIRST}.until": UNTIL, f"{FIRST}.adapt": ADAPT, "curriculum.stages.second.lr.stop": 0.002}),
        "c": make_run({f"{FIRST}.until": UNTIL | {"min_slope": 0.02}, f"{FIRST}.adapt": ADAPT}),
    }
    sweep = make_sweep(configs, factor=("curriculum",))
    plan = build_plan(sweep, cards={"small": card})
    first = {run.arm: run.nodes[0] for run in plan.runs}
    assert first["a"] == first["b"] != first["c"]
    for run in plan.runs:
        nodes = [plan.nodes[node] for node in run.nodes]
        assert state_id(history_of_nodes(nodes), nodes[-1].end) == nodes[-1].id
    notes = [finding.text for finding in plan.audit.findings if "at most" in finding.text]
    assert len(notes) == 2 and all("budgets are compared at their maximum" in note for note in notes)
    assert plan.audit.verdict == "controlled"


def test_a_mixture_that_moves_in_a_stage_is_one_node_a_stretch(make_run, card):
    """And a move to the same mixture is none."""
    same, other = {"general": 0.75, "code": 0.25}, {"general": 0.5, "code": 0.5}
    moves = [{"from_tokens": 200, "mixture": {"domains": other}}]
    run = make_run({f"{FIRST}.mixtures": moves})
    spans = history_of(run, card).spans
    assert [(span.begin, span.end) for span in spans] == [(0, 224), (224, 640), (640, 960)]
    stays = make_run({f"{FIRST}.mixtures": [{"from_tokens": 200, "mixture": {"domains": same}}]})
    assert ids(stays, card)[1:] == ids(make_run(), card)
    split = {
        "one": make_run().curriculum.stages["first"].model_dump(mode="json") | {"tokens": 224},
        "two": make_run().curriculum.stages["first"].model_dump(mode="json")
        | {"tokens": 416, "mixture": {"domains": other}},
        "second": make_run().curriculum.stages["second"].model_dump(mode="json"),
    }
    plain = make_run({"curriculum.stages": split, "evaluation.at": []})
    assert ids(plain, card) == ids(make_run({f"{FIRST}.mixtures": moves, "evaluation.at": []}), card)


def test_an_unknown_domain_is_named(make_run):
    with pytest.raises(UserError, match="first.until.domain: pool small has no domain 'cod'; nearest: code"):
        make_run({f"{FIRST}.until": UNTIL | {"domain": "cod"}})
