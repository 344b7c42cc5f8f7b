"""Greedy generation for a batch of prompts of different lengths."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch

from davinci.model.cache import COMMON_TOKENS, KVCache, shared_beginning
from davinci.model.decoder import Decoder


@torch.inference_mode()
def generate(
    model: Decoder,
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
        model: on the device to run on.
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
    device = model.unembedding.device
    limit = model.config.max_position_embeddings
    lengths = [len(prompt) for prompt in prompts]
    common = shared_beginning([prompt[:-1] for prompt in prompts])
    common = common if len(common) >= COMMON_TOKENS else ()
    cache = KVCache(model.config, 1, len(common), device)
    if common:  # the examples of few-shot prompts
        model.hidden(torch.tensor([common], device=device), cache)
    cache = cache.repeated(len(prompts), min(limit, max(lengths) + max_new_tokens) - len(common))
    # Padding stands on the right: a causal model's rows cannot see it, and the next tokens overwrite its keys.
    tokens = torch.zeros(len(prompts), max(lengths) - len(common), dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt) - len(common)] = torch.tensor(prompt[len(common) :])
    hidden = model.hidden(tokens.to(device), cache)
    cache.lengths = torch.tensor(lengths, device=device)
    last = hidden[torch.arange(len(prompts), device=device), cache.lengths - len(common) - 1]
    rows = list(range(len(prompts)))
    while True:
        chosen = model.logits(last).argmax(dim=-1)
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
            kept = torch.tensor(going, device=device)
            cache.keep(kept)
            chosen = chosen[kept]
            rows = [rows[place] for place in going]
        last = model.hidden(chosen[:, None], cache)[:, 0]
