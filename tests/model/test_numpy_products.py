"""What numpy multiplies where a text is written token by token is what torch would give."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
from test_decoder import decoder, random_tokens

from davinci.model import numpy_products
from davinci.model.attention import attend_once
from davinci.model.generate import generate
from davinci.model.norm import RMSNorm, for_reading
from davinci.model.packed import Product
from davinci.model.reader import Reader
from davinci.model.rotary import angles, rotate_neighbours_, rotate_part, side_by_side


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Numpy serves on one thread only."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_they_serve_float32_on_one_thread_of_a_processor(threads: int) -> None:
    assert numpy_products.serve(torch.ones(1)) == (threads == 1)
    assert not numpy_products.serve(torch.ones(1, dtype=torch.bfloat16))
    assert not numpy_products.serve(torch.ones(1, device="meta"))


@pytest.mark.parametrize("heads", [1, 3])
@torch.inference_mode()
def test_attention_of_one_token_is_softmax_attention(threads: int, heads: int) -> None:
    torch.manual_seed(1)
    queries, keys, values = torch.randn(5, 2, heads, 8), torch.randn(5, 2, 20, 8), torch.randn(5, 2, 20, 6)
    keys, values = keys[:, :, :17], values[:, :, :17]  # as a cache that is not full gives them
    mask = torch.zeros(5, 1, 1, 17).masked_fill_(torch.rand(5, 1, 1, 17) < 0.3, float("-inf"))
    for masked, scale in ((None, None), (mask, 0.2)):
        weights = queries @ keys.mT * (scale or 8**-0.5) + (0 if masked is None else masked)
        wanted = weights.softmax(dim=-1) @ values
        torch.testing.assert_close(attend_once(queries, keys, values, masked, scale), wanted, rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_one_row_is_multiplied_like_many(threads: int) -> None:
    torch.manual_seed(2)
    parts = [torch.nn.Linear(40, width) for width in (24, 8)]
    order = torch.randperm(32)
    product, x = Product(parts, torch.float32, order), torch.randn(4, 40)
    wanted = torch.cat([part(x) for part in parts], dim=-1)[:, order]
    for _ in range(2):
        torch.testing.assert_close(product(x[:1]), wanted[:1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(product(x), wanted, rtol=1e-4, atol=1e-5)


def test_one_text_is_written_alike_on_any_number_of_threads(threads: int) -> None:
    model = decoder(seed=11, initializer_range=0.5)
    prompt = random_tokens(1, 9)[0].tolist()
    wanted = list(prompt)
    with torch.no_grad():
        for _ in range(12):
            wanted.append(int(model(torch.tensor([wanted]))[0, -1].argmax()))
    assert generate(Reader(model), [prompt], 12) == [wanted[9:]]


@torch.inference_mode()
def test_weights_that_diverged_give_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = numpy_products.multiply(torch.full((1, 4), float("inf")), torch.tensor([[1.0], [-1.0], [0.0], [2e38]]))
    assert found.isnan().all()


@pytest.mark.parametrize(("width", "turned"), [(8, 8), (8, 4), (8, 0), (9, 4)])
def test_neighbours_are_turned_like_halves(width: int, turned: int) -> None:
    torch.manual_seed(3)
    x, order = torch.randn(2, 5, 3, width), side_by_side(width, turned)
    cosines, sines = (table.unsqueeze(-2) for table in angles(turned, 5, 100.0))
    heads = torch.cat((x[..., order], x), dim=2)  # of which the first are turned
    rotate_neighbours_(heads[:, :, :3], torch.complex(cosines, sines))
    torch.testing.assert_close(heads[:, :, :3], rotate_part(x, cosines, sines)[..., order])
    assert torch.equal(heads[:, :, 3:], x)


@torch.inference_mode()
def test_a_norm_for_reading_is_the_norm() -> None:
    torch.manual_seed(4)
    norm, x, order = RMSNorm(12, 1e-5), torch.randn(6, 12), torch.randperm(12)
    norm.weight.normal_()
    x[0] = 0.0
    x[1] *= 1e-4
    torch.testing.assert_close(for_reading(norm)(x), norm(x))
    torch.testing.assert_close(for_reading(norm, order)(x[:, order]), norm(x)[:, order])
    other = torch.nn.LayerNorm(12)
    assert torch.equal(for_reading(other)(x), other(x))
