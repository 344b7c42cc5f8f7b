"""Greedy generation in a batch is what each prompt would give alone."""

from __future__ import annotations

import pytest
import torch
from test_decoder import VOCAB, decoder, random_tokens

from davinci.model.decoder import Decoder
from davinci.model.generate import generate
from davinci.model.reader import Reader


@pytest.fixture(scope="module")
def model() -> Decoder:
    """Wide random weights: with narrow ones greedy text repeats one token, and no test would notice a wrong one."""
    return decoder(seed=11, initializer_range=0.5)


def alone(model: Decoder, prompt: list[int], count: int) -> list[int]:
    """Greedy continuation by whole forward passes, without a cache."""
    tokens = list(prompt)
    with torch.inference_mode():
        for _ in range(count):
            tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens[len(prompt) :]


def prompts() -> list[list[int]]:
    return [random_tokens(1, length, seed)[0].tolist() for seed, length in enumerate((3, 11, 1, 7, 11))]


def test_a_batch_equals_one_by_one(model: Decoder) -> None:
    wanted = [alone(model, prompt, 12) for prompt in prompts()]
    assert generate(Reader(model), prompts(), 12) == wanted
    assert max(len(set(row)) for row in wanted) > 3


def test_a_beginning_that_all_share_is_read_once(model: Decoder) -> None:
    begun = random_tokens(1, 34, 8)[0].tolist()
    # Enough rows after it for the pass of its own to pay.
    longer = [*([*begun, first, *prompt[:3]] for first in range(3) for prompt in prompts()), begun]
    assert generate(Reader(model), longer, 8) == [alone(model, prompt, 8) for prompt in longer]


def test_stop_tokens_end_a_row_and_are_left_out(model: Decoder) -> None:
    free = [alone(model, prompt, 12) for prompt in prompts()]
    stops = {free[0][4], free[3][2]}
    wanted = []
    for row in free:
        first = next((place for place, token in enumerate(row) if token in stops), len(row))
        wanted.append(row[:first])
    assert generate(Reader(model), prompts(), 12, stop_tokens=stops) == wanted
    assert len({len(row) for row in wanted}) > 1


def test_stop_callback_ends_only_its_row(model: Decoder) -> None:
    free = [alone(model, prompt, 10) for prompt in prompts()]
    ends = [3, 10, 1, 7, 10]
    seen: list[list[int]] = [[] for _ in ends]

    def stop(row: int, tokens: list[int]) -> bool:
        seen[row] = list(tokens)
        return len(tokens) == ends[row]

    got = generate(Reader(model), prompts(), 10, stop=stop)
    assert got == [row[:end] for row, end in zip(free, ends, strict=True)]
    assert [row for row, end in zip(seen, ends, strict=True) if end < 10] == [
        row for row, end in zip(got, ends, strict=True) if end < 10
    ]


def test_generation_ends_at_the_models_last_position(model: Decoder) -> None:
    limit = model.config.max_position_embeddings
    long, short = random_tokens(1, limit - 2)[0].tolist(), [1, 2]
    got = generate(Reader(model), [long, short], 6)
    assert got == [alone(model, long, 3), alone(model, short, 6)]
    assert len(generate(Reader(model), [[1] * limit], 6)[0]) == 1


def test_edges(model: Decoder) -> None:
    assert generate(Reader(model), [], 5) == []
    assert generate(Reader(model), [[1]], 0) == [[]]
    assert generate(Reader(model), [[1]], 5, stop_tokens=range(VOCAB)) == [[]]
    with pytest.raises(ValueError, match="at least one token"):
        generate(Reader(model), [[1], []], 5)
    with pytest.raises(ValueError, match="do not fit"):
        generate(Reader(model), [[1] * (model.config.max_position_embeddings + 1)], 5)
