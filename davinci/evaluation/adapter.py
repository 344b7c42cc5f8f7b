"""Our decoder as lm-eval sees it: text in, log-likelihoods and greedy text out.

How a text is cut into context and continuation is lm-eval's own (`TemplateLM`, what its Hugging Face models use):
trailing spaces of the context belong to the continuation, context and continuation are encoded together, and an empty
context is the end-of-text token. No hub, no transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from davinci.model.cache import KVCache
from davinci.model.decoder import Decoder
from davinci.model.generate import generate
from davinci.store import Store

END_OF_TEXT = 0
DEFAULT_GENERATION_TOKENS = 256
# Tokens of a forward pass. On a core larger batches are no faster, and mean more padding.
BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}
BATCH_PROMPTS = 256

# lm-eval's: ((context, continuation), context tokens, continuation tokens).
Request = tuple[tuple[str, str], list[int], list[int]]


@dataclass(frozen=True)
class Tail:
    """The scored end of one request: the model reads `inputs` after the group's prefix and should say `targets`."""

    request: int
    inputs: list[int]
    targets: list[int]


@dataclass(frozen=True)
class Group:
    """Requests that share their beginning, such as the choices of an item: `prefix` is read once for all."""

    prefix: tuple[int, ...]
    tails: list[Tail]

    @property
    def tail_width(self) -> int:
        return max(len(tail.inputs) for tail in self.tails)


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
        results: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        for batch in self._batches(self._groups(requests)):
            for request, result in self._score(batch):
                results[request] = result
        return results

    def _groups(self, requests: list[Request]) -> list[Group]:
        """Requests by shared prefix. Longest tail first: most tokens, so most padding, are in tails."""
        found: dict[tuple[int, ...], list[Tail]] = {}
        for index, (_, context, continuation) in enumerate(requests):
            if not continuation:  # the tokenizer merged all of it into the context's last token
                context, continuation = context[:-1] or [self.prefix_token_id], context[-1:]
            tokens = context + continuation
            if len(tokens) > self.max_length + 1:
                self.truncated += 1
                tokens = tokens[-self.max_length - 1 :]
            start = max(0, len(tokens) - len(continuation) - 1)
            tail = Tail(index, tokens[start:-1], tokens[start + 1 :])
            found.setdefault(tuple(tokens[:start]), []).append(tail)
        groups = [Group(prefix, tails) for prefix, tails in found.items()]
        return sorted(groups, key=lambda group: (-group.tail_width, -len(group.prefix)))

    def _batches(self, groups: list[Group]) -> Iterator[list[Group]]:
        """Groups in order, cut where a pass would be too large or its padding the context length."""
        batch: list[Group] = []
        for group in groups:
            wider = [*batch, group]
            prefix = max(len(one.prefix) for one in wider)
            tail = max(one.tail_width for one in wider)
            tokens = max(len(wider) * prefix, sum(len(one.tails) for one in wider) * tail)
            if batch and (prefix + tail > self.max_length or tokens > self._batch_tokens):
                yield batch
                wider = [group]
            batch = wider
        if batch:
            yield batch

    @torch.inference_mode()
    def _score(self, batch: list[Group]) -> Iterator[tuple[int, tuple[float, bool]]]:
        device = self._device
        prefix = max(len(group.prefix) for group in batch)
        width = max(group.tail_width for group in batch)
        cache = None
        if prefix:
            # Padding stands on the right, where a causal model cannot see it; the tails overwrite it in the cache.
            cache = KVCache(self.model.config, len(batch), prefix + width, device)
            self.model.hidden(_padded([list(group.prefix) for group in batch], prefix).to(device), cache)
            cache.lengths = torch.tensor([len(group.prefix) for group in batch], device=device)
            owners = [row for row, group in enumerate(batch) for _ in group.tails]
            cache.keep(torch.tensor(owners, device=device))
        tails = [tail for group in batch for tail in group.tails]
        inputs = _padded([tail.inputs for tail in tails], width)
        targets = _padded([tail.targets for tail in tails], width, -1)
        hidden = self.model.hidden(inputs.to(device), cache)
        scored = (targets >= 0).to(device)
        logits = self.model.logits(hidden[scored])
        wanted = targets.to(device)[scored]
        losses = functional.cross_entropy(logits, wanted, reduction="none")
        greedy = logits.argmax(dim=-1) == wanted
        sizes = [len(tail.targets) for tail in tails]
        for tail, loss, match in zip(tails, losses.split(sizes), greedy.split(sizes), strict=True):
            yield tail.request, (-loss.sum().item(), bool(match.all()))

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


def _padded(rows: list[list[int]], width: int, fill: int = 0) -> torch.Tensor:
    """int64[rows, width], each row filled up on the right."""
    return torch.tensor([row + [fill] * (width - len(row)) for row in rows], dtype=torch.int64)


def _cut(text: str, until: tuple[str, ...]) -> str:
    """`text` before the first of the strings it contains."""
    return text[: min((place for one in until if (place := text.find(one)) >= 0), default=len(text))]
