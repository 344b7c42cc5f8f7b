"""Sequences whose tokens attend only within their document: as if each document stood alone."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from training_nodes import LENGTH, boundary, tiny_model, tiny_node, tiny_stage

from davinci.model.decoder import Decoder
from davinci.store import Store
from davinci.tracking.records import read
from davinci.training import heldout
from davinci.training.loop import Stopped, train
from davinci.training.step import Objective, documents_of, separator_of

VOCAB = 40
SEPARATOR = 0


def decoder(**changes: Any) -> Decoder:
    made = Decoder(tiny_model(**changes), VOCAB)
    made.initialise(0)
    with torch.no_grad():  # wide enough that attention matters
        for one in made.parameters():
            one.mul_(8.0 if one.ndim == 2 else 1.0)
    return made


def rows(*lengths: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Rows of documents of these lengths, each opened by a separator but a row's first where its length is negative."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.randint(1, VOCAB, (len(lengths), sum(abs(one) for one in lengths[0])), generator=generator)
    for row, parts in enumerate(lengths):
        place = 0
        for part in parts:
            if part > 0:
                made[row, place] = SEPARATOR
            place += abs(part)
    return made


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@given(
    cuts=st.lists(st.integers(1, 31), min_size=0, max_size=6, unique=True), opened=st.booleans(), seed=st.integers(0, 9)
)
@settings(max_examples=15, deadline=None)
def test_logits_are_those_of_each_document_alone(kv_heads: int, cuts: list[int], opened: bool, seed: int) -> None:
    """Though its positions count on: rotary attention depends on their differences."""
    model, edges = decoder(kv_heads=kv_heads), [0, *sorted(cuts), 32]
    parts = [end - begin for begin, end in pairwise(edges)]
    tokens = rows((parts[0] if opened else -parts[0], *parts[1:]), seed=seed)
    with torch.inference_mode():
        packed = model.logits(model.hidden(tokens, documents=documents_of(tokens, SEPARATOR)))
        alone = torch.cat([model(part) for part in tokens.split(parts, dim=1)], dim=1)
    assert torch.allclose(packed, alone, atol=1e-5, rtol=1e-5)


def test_without_boundaries_nothing_changes() -> None:
    model, tokens = decoder(), rows((-32,), (-32,))
    with torch.inference_mode():
        masked = model.hidden(tokens, documents=documents_of(tokens, SEPARATOR))
        assert torch.allclose(masked, model.hidden(tokens), atol=1e-5)
    assert documents_of(tokens, None) is None


def test_gradients_reach_only_their_own_document() -> None:
    """Causal, and blind across a boundary: the loss of the second document does not depend on the first or third."""
    model, tokens = decoder(), rows((-10, 12, 10))
    found: list[torch.Tensor] = []
    model.model.embed_tokens.register_forward_hook(lambda module, given, out: found.append(out))
    hidden = model.hidden(tokens, documents=documents_of(tokens, SEPARATOR))
    seen = torch.autograd.grad(hidden[0, 15].sum(), found[0])[0][0].abs().sum(dim=1)
    assert (seen[:10] == 0).all() and (seen[16:] == 0).all() and (seen[10:16] > 0).all()


def test_a_separator_opens_the_document_after_it() -> None:
    tokens = torch.tensor([[5, 6, 0, 7, 0, 0, 8]])
    documents = documents_of(tokens, SEPARATOR)
    assert documents is not None and documents.tolist() == [[0, 0, 1, 1, 2, 3, 3]]


def test_the_loss_is_the_sum_over_documents_alone() -> None:
    model, tokens = decoder(), rows((-9, 11, 13))
    share = torch.full((1, 32), 1 / 32)
    total, losses = Objective(model, SEPARATOR)(tokens, share)
    parts = []
    for begin, end in ((0, 9), (9, 20), (20, 32)):
        part = tokens[:, begin : end + 1]
        parts.append(Objective(model)(part, torch.ones(1, end - begin))[1])
    assert torch.allclose(losses, torch.cat(parts), atol=1e-5)
    assert torch.allclose(total, losses.mean())


def run(store: Store, node: Any, stop_after: int | None = None) -> None:
    asked = iter(range(1, 10**6))
    train(
        node,
        store,
        checkpoints=(),
        attempt=1,
        progress=lambda *_: None,
        should_stop=lambda: next(asked) == stop_after,
        heldout_sequences=8,
    )


def test_a_stage_trains_measures_and_resumes_so(store: Store) -> None:
    """The option reaches training and the held-out loss, and an interrupted run ends in the same bits."""
    masked = tiny_node(id="masked", stage=tiny_stage(12, attention="documents"))
    packed = tiny_node(id="packed", stage=tiny_stage(12))
    again = tiny_node(id="again", stage=tiny_stage(12, attention="documents"))
    run(store, masked)
    run(store, packed)
    with pytest.raises(Stopped):
        run(store, again, stop_after=5)
    assert store.checkpoint("again", boundary(again, 5)).is_dir()
    run(store, again)
    weights = {
        one.id: load_file(store.checkpoint(one.id, one.end) / "model.safetensors") for one in (masked, packed, again)
    }
    assert all(torch.equal(value, weights["again"][name]) for name, value in weights["masked"].items())
    assert any(not torch.equal(value, weights["packed"][name]) for name, value in weights["masked"].items())
    held = {one.domain: one for one in heldout.load(masked, store, 8)}
    model = Decoder(masked.model, masked.vocab_size)
    model.load_state_dict(weights["masked"])
    told = [row for row in read(store.records("masked")) if row["kind"] == "heldout"]
    assert {row["domain"]: row["loss"] for row in told} == {
        domain: heldout.measure(Objective(model, SEPARATOR), one)["loss"] for domain, one in held.items()
    }
    assert any((one.tokens[:, :-1] == SEPARATOR).any() for one in held.values())
    assert all(one.tokens.shape[1] == LENGTH + 1 for one in held.values())


def test_the_separator_is_the_tokenizer_s_end_of_text() -> None:
    node = tiny_node(stage=tiny_stage(attention="documents")).model_copy(update={"end_of_text": 7})
    assert separator_of(node) == 7
    assert separator_of(tiny_node()) is None
