"""The reader gives what the decoder gives, whole or with a cache, in rows or in trees."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_decoder import decoder, random_tokens

from davinci.model.cache import KVCache
from davinci.model.reader import Reader
from davinci.model.single_tokens import likeliest
from davinci.model.trees import Tokens, batches_of, groups_of


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@torch.inference_mode()
def test_it_computes_what_the_decoder_computes(precision: str) -> None:
    model, tokens = decoder(precision=precision), random_tokens(3, 17)
    got = Reader(model).hidden(tokens).view(3, 17, -1)
    assert got.dtype == getattr(torch, precision)
    close = {"rtol": 1e-4, "atol": 1e-5} if precision == "float32" else {"rtol": 0.02, "atol": 0.05}
    torch.testing.assert_close(got, model.hidden(tokens), **close)
    asked = torch.tensor([4, 16, 20, 50])
    torch.testing.assert_close(Reader(model).hidden(tokens, asked=asked), got.flatten(0, 1)[asked], **close)


@torch.inference_mode()
def test_the_cache_gives_what_the_whole_text_gives() -> None:
    model, tokens = decoder(), random_tokens(2, 20)
    reader, cache = Reader(model), KVCache(model.config, 2, 20)
    steps = ((0, 9), (9, 10), (10, 11), (11, 20))
    parts = [reader.hidden(tokens[:, start:stop], cache).view(2, stop - start, -1) for start, stop in steps]
    assert cache.lengths.tolist() == [20, 20]
    torch.testing.assert_close(torch.cat(parts, 1), model.hidden(tokens), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_the_cache_holds_rows_of_different_lengths() -> None:
    model, tokens = decoder(), random_tokens(3, 15)
    reader, cache = Reader(model), KVCache(model.config, 3, 15)
    reader.hidden(tokens[:, :10], cache)
    cache.lengths = torch.tensor([10, 4, 7])  # what stands after them is padding
    cache.keep(torch.tensor([2, 1]))
    got = reader.hidden(torch.stack([tokens[2, 7:9], tokens[1, 4:6]]), cache).view(2, 2, -1)
    torch.testing.assert_close(got[0], model.hidden(tokens[2:3, :9])[0, 7:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got[1], model.hidden(tokens[1:2, :6])[0, 4:], rtol=1e-4, atol=1e-5)


def test_too_many_tokens_are_refused() -> None:
    reader = Reader(decoder())
    with pytest.raises(ValueError, match="49 tokens do not fit in 48"):
        reader.hidden(random_tokens(1, 49))
    cache = KVCache(reader.config, 1, 8)
    with pytest.raises(ValueError, match="9 tokens do not fit in 8"):
        reader.hidden(random_tokens(1, 9), cache)


# Two letters only, so that many sequences share much, are equal, or begin another.
sequences = st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=6).map(tuple), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(sequences, st.integers(0, 400), st.sampled_from([0, 34]), st.data())
@torch.inference_mode()
def test_trees_are_read_like_their_sequences(found: list[Tokens], worth: int, common: int, data: st.DataObject) -> None:
    """Whatever is grouped, shared and read before: the states asked for are those of each sequence alone."""
    begun = tuple(random_tokens(1, common)[0].tolist()) if common else ()
    wholes = [begun + one for one in found]
    asked = [data.draw(st.integers(1, len(one))) for one in wholes]
    model = decoder(layers=2)
    reader = Reader(model)
    seen: set[int] = set()
    for start, rows in groups_of(wholes, asked, worth):
        before = KVCache(model.config, 1, len(start))
        if start:
            reader.hidden(torch.tensor([start]), before)
        for batch in batches_of(rows, 64):
            cache = before.repeated(len(batch.rows), batch.width) if start else None
            states = reader.hidden(batch.tokens(), cache, batch.tree(len(start))).view(len(batch.rows), batch.width, -1)
            for number, row, path in batch.paths():
                alone = model.hidden(torch.tensor([wholes[number]]))[0, -asked[number] :]
                torch.testing.assert_close(states[row, path[-asked[number] :]], alone, rtol=1e-3, atol=1e-4)
                seen.add(number)
    assert seen == set(range(len(wholes)))


def test_what_is_shared_is_read_once() -> None:
    contexts = [(9, 8, 7), (9, 8, 6), (5, 5, 5)]
    wholes = [(*context, choice, 1) for context in contexts for choice in (1, 2)]
    ((common, rows),) = groups_of(wholes, [1] * len(wholes), worth=100)
    assert common == ()
    assert sorted(row.width for row in rows) == [7, 12]  # 3 + 2 x 2, and 2 + 2 x (1 + 2 x 2)


def test_the_likeliest_is_the_first_of_the_highest() -> None:
    generator = torch.Generator().manual_seed(5)
    for vocabulary in (1, 63, 64, 65, 200):
        scores = torch.randint(0, 4, (50, vocabulary), generator=generator).float()
        first = torch.tensor([row.index(max(row)) for row in scores.tolist()])
        assert torch.equal(likeliest(scores), first)
