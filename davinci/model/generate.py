"""Greedy generation for a batch of prompts of different lengths."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from davinci.model.cache import KVCache
from davinci.model.reader import Reader
from davinci.model.single_tokens import likeliest
from davinci.model.trees import batches_of, groups_of

# Tokens of a forward pass. On a core larger batches are no faster, and mean more padding.
BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}


@torch.inference_mode()
def generate(
    reader: Reader,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    stop_tokens: Collection[int] = (),
    stop: Callable[[int, list[int]], bool] | None = None,
) -> list[list[int]]:
    """Continue each prompt by the likeliest token until it stops.

    A row is computed from its own tokens only, so it is written as it would be alone (up to the rounding of a matrix
    product, which depends on the batch).

    Args:
        reader: of the model, on the device to run on.
        prompts: token ids, each prompt with at least one.
        max_new_tokens: the most tokens written to a row; rows also end at ``max_position_embeddings``.
        stop_tokens: a row ends before the first of these, which is not returned.
        stop: called with (row, its new tokens) after each token; true ends the row. Stop strings are the caller's: it
            decodes, and cuts its text where the string begins.

    Returns:
        New token ids of each row, in the order of `prompts`.

    Raises:
        ValueError: an empty prompt, or one longer than ``max_position_embeddings``.
    """
    written: list[list[int]] = [[] for _ in prompts]
    if not prompts or max_new_tokens < 1:
        return written
    if not all(prompts):
        raise ValueError("a prompt needs at least one token")
    limit = reader.config.max_position_embeddings
    lengths = [len(prompt) for prompt in prompts]
    last, cache = _read([tuple(prompt) for prompt in prompts], min(limit, max(lengths) + max_new_tokens), reader)
    rows = list(range(len(prompts)))
    while True:
        chosen = likeliest(reader.logits(last))
        going = []
        for place, (row, token) in enumerate(zip(rows, chosen.tolist(), strict=True)):
            if token in stop_tokens:
                continue
            written[row].append(token)
            room = len(written[row]) < max_new_tokens and lengths[row] + len(written[row]) <= limit
            if room and not (stop is not None and stop(row, written[row])):
                going.append(place)
        if not going:
            return written
        if len(going) < len(rows):
            kept = torch.tensor(going, device=reader.device)
            cache.keep(kept)
            chosen = chosen[kept]
            rows = [rows[place] for place in going]
        last = reader.hidden(chosen[:, None], cache)


def _read(prompts: list[tuple[int, ...]], capacity: int, reader: Reader) -> tuple[Tensor, KVCache]:
    """The hidden state after each prompt, [prompts, H], and a cache of `capacity` tokens a row that holds them."""
    device, shape = reader.device, reader.config
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    if int(lengths.max()) > shape.max_position_embeddings:
        raise ValueError(f"{int(lengths.max())} tokens do not fit in {shape.max_position_embeddings} positions")
    cache = KVCache(shape, len(prompts), max(capacity, int(lengths.max())), device)
    cache.lengths = lengths
    last: list[Tensor] = []
    order: list[int] = []
    for common, group in groups_of(prompts, [1] * len(prompts), reader.worth):
        begun = KVCache(shape, 1, len(common), device)
        if common:
            reader.hidden(torch.tensor([common], device=device), begun)
        for batch in batches_of(group, BATCH_TOKENS[device.type], even=shape.is_recurrent):
            read = begun.repeated(len(batch.rows), batch.width)
            tree = batch.tree(len(common))
            numbers, rows, paths = zip(*batch.paths(), strict=True)
            asked = [row * batch.width + path[-1] for row, path in zip(rows, paths, strict=True)]
            last.append(
                reader.hidden(
                    batch.tokens().to(device), read, tree and tree.to(device), torch.tensor(asked, device=device)
                )
            )
            cache.follow(numbers, read, rows, paths, len(common))
            order += numbers
    return torch.cat(last)[torch.tensor(order, device=device).argsort()], cache
