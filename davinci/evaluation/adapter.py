"""Our decoder as lm-eval sees it: text in, log-likelihoods and greedy text out.

How a text is cut into context and continuation is lm-eval's own (`TemplateLM`, what its Hugging Face models use):
trailing spaces of the context belong to the continuation, context and continuation are encoded together, and an empty
context is the end-of-text token. No hub, no transformers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tokenizers import Tokenizer
from torch import Tensor

from davinci.config import Node
from davinci.errors import UserError
from davinci.evaluation.settings import file_digest_once
from davinci.model.cache import KVCache
from davinci.model.decoder import Decoder
from davinci.model.generate import BATCH_TOKENS, generate
from davinci.model.reader import Reader
from davinci.model.trees import Batch, batches_of, groups_of
from davinci.store import Store

DEFAULT_GENERATION_TOKENS = 256
# Prompts that are continued together: short ones many, so that the last rows' steps are taken seldom.
BATCH_PROMPTS = 512
BATCH_POSITIONS = 1 << 17
# More texts than these are encoded anew for the next checkpoint: their tokens would fill the memory.
KEPT_TEXTS = 50_000
# Scores over the vocabulary that are alive at once.
BATCH_LOGITS = 1 << 26

# lm-eval's: ((context, continuation), context tokens, continuation tokens).
Request = tuple[tuple[str, str], list[int], list[int]]


class DecoderLM(TemplateLM):
    """A decoder and its tokenizer behind lm-eval's interface.

    Args:
        model: on the device to run on; put into evaluation mode. Its ``max_position_embeddings`` is the context length.
        tokenizer: what the model was trained with.
        encoded: token ids of texts by that tokenizer; others are added.
        end_of_text: its token that ends a text.

    `truncated` counts the requests that did not fit and lost their beginning.
    """

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer,
        encoded: dict[str, list[int]] | None = None,
        end_of_text: int = 0,
    ) -> None:
        super().__init__()
        self._end_of_text = end_of_text
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_length = model.config.max_position_embeddings
        self.truncated = 0
        self._device = model.unembedding.device
        self._reader = Reader(self.model)
        self._batch_tokens = BATCH_TOKENS[self._device.type]
        self._encoded = {} if encoded is None else encoded

    @property
    def eot_token_id(self) -> int:
        return self._end_of_text

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids of a text; each text is encoded once, since the choices of an item share their context."""
        if string not in self._encoded:
            self._encode([string])
        return self._encoded[string]

    def _encode(self, strings: Iterable[str]) -> None:
        """Have the token ids of texts at hand; together they are encoded faster than one by one."""
        new = [string for string in dict.fromkeys(strings) if string not in self._encoded]
        encoded = self.tokenizer.encode_batch_fast(new, add_special_tokens=False)
        self._encoded.update((string, one.ids) for string, one in zip(new, encoded, strict=True))

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-probability (nats) of each continuation, and whether greedy decoding would write it."""
        pairs = [request.args for request in requests]
        self._encode(text for context, continuation in pairs for text in (context.rstrip(), context + continuation))
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm)
        return found

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        fitted = [self._fitted(context, continuation) for _, context, continuation in requests]
        inputs = [tuple(tokens[:-1]) for tokens, _ in fitted]
        targets = [tokens[len(tokens) - scored :] for tokens, scored in fitted]
        results: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        for common, rows in groups_of(inputs, [*map(len, targets)], self._reader.worth):
            read = self._read(common)
            for batch in batches_of(rows, self._batch_tokens):
                for number, result in self._score(batch, targets, len(common), read):
                    results[number] = result
        return results

    def _fitted(self, context: list[int], continuation: list[int]) -> tuple[list[int], int]:
        """The end of a request that fits the model, and how many of its tokens are scored."""
        if not continuation:  # the tokenizer merged all of it into the context's last token
            context, continuation = context[:-1] or [self.prefix_token_id], context[-1:]
        tokens = context + continuation
        if len(tokens) > self.max_length + 1:
            self.truncated += 1
            tokens = tokens[-self.max_length - 1 :]
        return tokens, min(len(continuation), len(tokens) - 1)

    def _read(self, tokens: Sequence[int]) -> KVCache | None:
        """A row that has read `tokens`; None for no tokens."""
        if not tokens:
            return None
        cache = KVCache(self.model.config, 1, len(tokens), self._device)
        self._reader.hidden(torch.tensor([tokens], device=self._device), cache)
        return cache

    @torch.inference_mode()
    def _score(
        self, batch: Batch, targets: Sequence[Sequence[int]], start: int, read: KVCache | None
    ) -> list[tuple[int, tuple[float, bool]]]:
        """Of the batch's sequences, by number, how likely their `targets` are after as many last tokens.

        `read` holds the `start` tokens that all of them begin with.
        """
        numbers, rows, paths = zip(*batch.paths(), strict=True)
        mine = [targets[number] for number in numbers]
        spots = [
            row * batch.width + place
            for row, path, one in zip(rows, paths, mine, strict=True)
            for place in path[-len(one) :]
        ]
        asked, owner = np.unique(spots, return_inverse=True)
        wanted = torch.tensor([token for one in mine for token in one], device=self._device)
        tree = batch.tree(start)
        hidden = self._reader.hidden(
            batch.tokens().to(self._device),
            None if read is None else read.repeated(len(batch.rows), batch.width),
            tree and tree.to(self._device),
            torch.from_numpy(asked).to(self._device),
        )
        first = np.cumsum([0, *map(len, mine[:-1])])
        likelihoods, greedy = self._likelihoods(hidden, torch.from_numpy(owner).to(self._device), wanted)
        sums = np.add.reduceat(likelihoods, first)
        matches = np.logical_and.reduceat(greedy, first)
        return list(zip(numbers, zip(sums.tolist(), matches.tolist(), strict=True), strict=True))

    def _likelihoods(self, hidden: Tensor, owner: Tensor, wanted: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Log-probability float64[N] of each token of `wanted` after the state of `hidden` [U, H] that `owner` names,
        and whether it is the likeliest."""
        likelihoods = torch.zeros(len(wanted), device=self._device)
        greedy = torch.zeros(len(wanted), dtype=torch.bool, device=self._device)
        count = max(1, BATCH_LOGITS // self._reader.vocab_size)
        for start in range(0, len(hidden), count):
            logits = self._reader.logits(hidden[start : start + count])
            here = ((owner >= start) & (owner < start + count)).nonzero()[:, 0]
            rows, tokens = owner[here] - start, wanted[here]
            likelihoods[here] = torch.log_softmax(logits, dim=-1)[rows, tokens]
            greedy[here] = logits.argmax(dim=-1)[rows] == tokens
        return likelihoods.double().cpu().numpy(), greedy.cpu().numpy()

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-probability (nats) of whole texts, each token predicted once, in windows of the context length."""
        owners: list[int] = []
        windows: list[Request] = []
        for owner, request in enumerate(requests):
            (text,) = request.args
            pairs = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            for pair in pairs:
                owners.append(owner)
                windows.append((("", text), *make_disjoint_window(pair)))
        totals = [0.0] * len(requests)
        for owner, (likelihood, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[owner] += likelihood
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy text after each context, cut before the first of its ``until`` strings.

        Raises:
            UserError: a task that asks for sampling.
        """
        texts = [""] * len(requests)
        self._encode(request.args[0] for request in requests)
        by_settings: dict[tuple[int, tuple[str, ...]], list[int]] = {}
        for index, request in enumerate(requests):
            settings = request.args[1]
            if settings.get("do_sample") or settings.get("temperature", 0.0) > 0.0:
                raise UserError(f"task {request.task_name}: sampled generation is not supported; set do_sample: false")
            until = settings.get("until", [])
            until = (until,) if isinstance(until, str) else tuple(until)
            limit = settings.get("max_gen_toks", DEFAULT_GENERATION_TOKENS)
            by_settings.setdefault((min(limit, self.max_length - 1), until), []).append(index)
        for (limit, until), indices in by_settings.items():
            prompts = {index: self._prompt(requests[index].args[0], limit) for index in indices}
            order = sorted(indices, key=lambda index: -len(prompts[index]))
            start = 0
            while start < len(order):
                room = BATCH_POSITIONS // (len(prompts[order[start]]) + limit)
                chunk = order[start : start + max(1, min(BATCH_PROMPTS, room))]
                start += len(chunk)
                written = self._generate([prompts[index] for index in chunk], limit, until)
                for index, text in zip(chunk, written, strict=True):
                    texts[index] = text
        return texts

    def _prompt(self, context: str, limit: int) -> list[int]:
        tokens = self.tok_encode(context) or [self.prefix_token_id]
        room = self.max_length - limit
        self.truncated += len(tokens) > room
        return tokens[-room:]

    def _generate(self, prompts: list[list[int]], limit: int, until: tuple[str, ...]) -> list[str]:
        decode = self.tokenizer.decode

        @cache
        def may_end(token: int) -> bool:
            # Part of a character, or a space, may be written otherwise after other tokens.
            text = decode([token])
            return "\ufffd" in text or any(one[-1:] in text or one.endswith(" ") for one in until)

        def stop(row: int, tokens: list[int]) -> bool:
            if not may_end(tokens[-1]):
                return False
            text = decode(tokens)
            return any(one in text for one in until)

        written = generate(self._reader, prompts, limit, stop_tokens={self._end_of_text}, stop=stop if until else None)
        return [_cut(decode(tokens), until) for tokens in written]


def load(weights: Sequence[Path], node: Node, store: Store) -> DecoderLM:
    """The mean of these files of weights of `node` with its pool's tokenizer, on the accelerator where there is one."""
    from davinci.model.weights import load_mean

    model = load_mean(weights, node.model, node.vocab_size)
    file = store.pool(node.pool) / "tokenizer.json"
    digest = file_digest_once(file)
    if node.tokenizer_digest not in (None, digest):
        raise UserError(
            f"{file}: tokenizer {digest[:12]}, but node {node.id} was trained with {node.tokenizer_digest[:12]}"
        )
    tokenizer, encoded = _tokenizer(file, digest)
    if len(encoded) > KEPT_TEXTS:
        encoded.clear()
    there = "cuda" if torch.cuda.is_available() else "cpu"
    return DecoderLM(model.to(there), tokenizer, encoded, node.end_of_text)


@lru_cache(maxsize=1)
def _tokenizer(file: Path, digest: str) -> tuple[Tokenizer, dict[str, list[int]]]:
    """A tokenizer, and what it made of texts: each checkpoint that a process evaluates is asked the same."""
    return Tokenizer.from_file(str(file)), {}


def _cut(text: str, until: tuple[str, ...]) -> str:
    """`text` before the first of the strings it contains."""
    return text[: min((place for one in until if (place := text.find(one)) >= 0), default=len(text))]
