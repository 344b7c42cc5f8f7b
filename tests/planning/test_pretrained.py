"""Arms that begin with imported weights: what they are a function of, and what is refused."""

import json

import pytest
from planned import audited, make_sweep

from davinci.errors import UserError
from davinci.planning.histories import Histories
from davinci.planning.identity import state_id
from davinci.planning.pretrained import notes, require
from davinci.store import Store, write_json

BEGINS = {"model.pretrained": {"name": "theirs", "digest": "d1"}}


@pytest.fixture
def store(tmp_path, make_run):
    """A store that has the weights ``d1`` of the runs' own shape."""
    store = Store(tmp_path / "store")
    shape = make_run().model.model_dump(mode="json", exclude_defaults=True)
    record = {"model": shape, "architecture": "LlamaForCausalLM", "dtypes": {"a": "F32"}, "digest": "d1"}
    write_json(store.imported("theirs") / "imported.json", record | {"tokenizer_digest": None, "licence": None})
    return store


def require_all(store, run, card):
    require([make_sweep({"base": run})], {run.pool.name: card}, store)


def id_of(run, card):
    history = Histories({run.pool.name: card}).of(run, [0])[0]
    return state_id(history, history.end)


def test_the_digest_is_part_of_an_id_and_the_name_is_not(make_run, card):
    same = {"model.pretrained": {"name": "other", "digest": "d1"}}
    others = {"model.pretrained": {"name": "theirs", "digest": "d2"}}
    ids = [id_of(make_run(changes), card) for changes in ({}, {"model.pretrained": None}, BEGINS, same, others)]
    assert ids[0] == ids[1] and ids[2] == ids[3] and len(set(ids)) == 3


def test_what_is_there_and_fits_is_taken(make_run, card, store):
    require_all(store, make_run(BEGINS), card)
    require_all(store, make_run(BEGINS | {"model.precision": "bfloat16"}), card)
    require_all(store, make_run(), card)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.pretrained": {"name": "their", "digest": "d1"}}, "no imported model 'their'; nearest: theirs"),
        ({"model.pretrained": {"name": "theirs", "digest": "d2"}}, "has the weights d1, not d2"),
        (BEGINS | {"model.mlp_intermediate_size": 7}, "model.mlp_intermediate_size: 7, but the imported weights"),
        (BEGINS | {"model.norm": {"kind": "layernorm"}}, "model.norm.kind: layernorm, but the imported weights"),
    ],
)
def test_what_does_not_fit_is_refused(make_run, card, store, changes, message):
    with pytest.raises(UserError, match=message):
        require_all(store, make_run(changes), card)


def test_another_tokenizer_is_refused(make_run, card, store):
    path = store.imported("theirs") / "imported.json"
    write_json(path, json.loads(path.read_text()) | {"tokenizer_digest": "another"})
    with pytest.raises(UserError, match="another tokenizer than the imported weights theirs; tokenise text with"):
        require_all(store, make_run(BEGINS), card)


def test_the_audit_says_where_weights_come_from(make_run, card):
    sweep = make_sweep({"scratch": make_run(), "going on": make_run(BEGINS)}, factor=("model.pretrained",))
    assert "going on: training begins with the imported weights theirs (d1)" in notes(sweep)[0]
    assert not [one for one in audited(sweep, {"small": card}).findings if one.level == "refused"]
