"""Our decoder as lm-eval sees it: text in, log-likelihoods and greedy text out.

How a text is cut into context and continuation is lm-eval's own (`TemplateLM`, what its Hugging Face models use):
trailing spaces of the context belong to the continuation, context and continuation are encoded together, and an empty
context is the end-of-text token. No hub, no transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tokenizers import Tokenizer

from davinci.config import Node
from davinci.errors import UserError
from davinci.evaluation.trees import Batch, batches_of, rows_of
from davinci.model.cache import KVCache
from davinci.model.decoder import Decoder, Tree
from davinci.model.generate import generate
from davinci.store import Store

END_OF_TEXT = 0
DEFAULT_GENERATION_TOKENS = 256
# Tokens of a forward pass. On a core larger batches are no faster, and mean more padding.
BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}
BATCH_PROMPTS = 256

# lm-eval's: ((context, continuation), context tokens, continuation tokens).
Request = tuple[tuple[str, str], list[int], list[int]]


class DecoderLM(TemplateLM):
    """A decoder and its tokenizer behind lm-eval's interface.

    Args:
        model: on the device to run on; put into evaluation mode. Its ``max_position_embeddings`` is the context length.
        tokenizer: its token 0 ends a text.

    `truncated` counts the requests that did not fit and lost their beginning.
    """

    def __init__(self, model: Decoder, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_length = model.config.max_position_embeddings
        self.truncated = 0
        self._device = model.unembedding.device
        self._batch_tokens = BATCH_TOKENS[self._device.type]
        self._encoded: dict[str, list[int]] = {}

    @property
    def eot_token_id(self) -> int:
        return END_OF_TEXT

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids of a text; each text is encoded once, since the choices of an item share their context."""
        if string not in self._encoded:
            self._encoded[string] = self.tokenizer.encode(string, add_special_tokens=False).ids
        return self._encoded[string]

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """Log-probability (nats) of each continuation, and whether greedy decoding would write it."""
        fitted = [self._fitted(context, continuation) for _, context, continuation in requests]
        results: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        cache = None
        for batch in batches_of(rows_of(fitted, self._batch_tokens), self._batch_tokens):
            if cache is None or batch.common != cache[0]:
                cache = batch.common, self._read(batch.common)
            for tail, result in zip(batch.tails, self._score(batch, cache[1]), strict=True):
                results[tail.request] = result
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

    @torch.inference_mode()
    def _read(self, tokens: Sequence[int]) -> KVCache | None:
        """A row that has read `tokens`; None for no tokens."""
        if not tokens:
            return None
        cache = KVCache(self.model.config, 1, len(tokens), self._device)
        self.model.hidden(torch.tensor([tokens], device=self._device), cache)
        return cache

    @torch.inference_mode()
    def _score(self, batch: Batch, read: KVCache | None) -> list[tuple[float, bool]]:
        """Of each tail of the batch, whose common beginning is `read`."""
        cache = None if read is None else read.repeated(len(batch.rows), batch.width)
        tree = None
        if cache is not None or any(len(row.tails) > 1 for row in batch.rows):
            places, mask = batch.layout()
            tree = Tree(places.to(self._device), mask.to(self._device))
        hidden = self.model.hidden(batch.tokens().to(self._device), cache, tree=tree)
        targets = batch.targets().to(self._device)
        logits, wanted = self.model.logits(hidden[targets >= 0]), targets[targets >= 0]
        losses = functional.cross_entropy(logits, wanted, reduction="none")
        greedy = logits.argmax(dim=-1) == wanted
        sizes = [len(tail.targets) for tail in batch.tails]
        found = zip(losses.split(sizes), greedy.split(sizes), strict=True)
        return [(-loss.sum().item(), bool(match.all())) for loss, match in found]

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
            for start in range(0, len(order), BATCH_PROMPTS):
                chunk = order[start : start + BATCH_PROMPTS]
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

        def stop(row: int, tokens: list[int]) -> bool:
            text = decode(tokens)
            return any(one in text for one in until)

        written = generate(self.model, prompts, limit, stop_tokens={END_OF_TEXT}, stop=stop if until else None)
        return [_cut(decode(tokens), until) for tokens in written]


def load(weights: Sequence[Path], node: Node, store: Store) -> DecoderLM:
    """The mean of these files of weights of `node` with its pool's tokenizer, on the accelerator where there is one."""
    from davinci.model.weights import load_mean

    model = load_mean(weights, node.model, node.vocab_size)
    tokenizer = Tokenizer.from_file(str(store.pool(node.pool) / "tokenizer.json"))
    return DecoderLM(model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer)


def _cut(text: str, until: tuple[str, ...]) -> str:
    """`text` before the first of the strings it contains."""
    return text[: min((place for one in until if (place := text.find(one)) >= 0), default=len(text))]
