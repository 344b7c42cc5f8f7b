"""Training that begins with imported weights."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from training_nodes import tiny_model, tiny_node, tiny_stage

from davinci.errors import UserError
from davinci.imported import WEIGHTS
from davinci.model.decoder import Decoder
from davinci.store import Store, file_digest
from davinci.training import positions


def given_weights(store: Store) -> dict[str, object]:
    """Imported weights of the tiny model's shape, as `model.pretrained` names them."""
    decoder = Decoder(tiny_model(), tiny_model().vocab_size)
    decoder.initialise(77)
    path = store.imported("theirs") / WEIGHTS
    path.parent.mkdir(parents=True)
    save_file(dict(decoder.named_parameters()), path)
    return {"name": "theirs", "digest": file_digest(path)}


def test_a_first_node_begins_with_them_and_no_other(store: Store) -> None:
    model = tiny_model(pretrained=given_weights(store)).model_dump(mode="json")
    node = tiny_node(model=model, stage=tiny_stage(4))
    position = positions.find(node, store, [node.end])
    assert position is not None and position.step == 0 and not position.has_moments
    decoder, moments, average = positions.load(position, node)
    wanted = load_file(store.imported("theirs") / WEIGHTS)
    assert not moments and average is None
    assert all(torch.equal(one, wanted[name]) for name, one in decoder.named_parameters())


def test_other_weights_under_the_name_are_refused(store: Store) -> None:
    pretrained = given_weights(store) | {"digest": "0" * 64}
    node = tiny_node(model=tiny_model(pretrained=pretrained).model_dump(mode="json"), stage=tiny_stage(4))
    with pytest.raises(UserError, match="not 000000000000 that the run begins with"):
        positions.find(node, store, [node.end])
    (store.imported("theirs") / WEIGHTS).unlink()
    with pytest.raises(UserError, match="missing; python -m davinci import DIR --as theirs"):
        positions.find(node, store, [node.end])
