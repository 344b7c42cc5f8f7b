"""What operations that ask a model have in common: requests at a time, answers from the cache, failures, cost."""

from __future__ import annotations

import functools
import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field

from davinci.config.base import Frozen, NotNegativeFloat, Positive, PositiveFloat
from davinci.data.documents import Document
from davinci.data.llm.cache import AnswerCache, key_of
from davinci.data.llm.client import Answer, Client, ServerGone
from davinci.data.llm.prompts import Prompt, read_prompt
from davinci.data.operations import Places, StreamOperation
from davinci.data.ordered import in_order
from davinci.data.tally import Tally
from davinci.errors import UserError

BROKEN_FORMAT = "broken format"


class Price(Frozen):
    """What a million tokens cost, in any currency."""

    prompt: NotNegativeFloat
    completion: NotNegativeFloat


@dataclass
class Asked:
    """What asking about one document came to: the answers accepted, why others were not, and what all of them took."""

    accepted: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class AsksModel(StreamOperation):
    """An operation that asks a model about each document.

    Up to `samples` answers are asked for, one after the other, until `wanted` of them keep the prompt's format and are
    accepted (`reject` finds nothing wrong). A document without an accepted answer stays as it was or is dropped, as
    `on_failure` says; both are counted by the reason of the last rejection.

    Which server, how many requests at a time, how long to wait and what it costs do not decide what comes out. Answers
    are kept by what was asked, in the cache that outlives builds: a build that was stopped goes on from there.
    """

    neutral: ClassVar[frozenset[str]] = frozenset(
        {"endpoint", "key_variable", "concurrency", "timeout_s", "attempts", "first_wait_s", "price", "prompt"}
    )

    endpoint: str
    model: str
    prompt: str
    temperature: NotNegativeFloat = 0.0
    top_p: PositiveFloat = 1.0
    max_tokens: Positive = 1024
    extra: dict[str, Any] = Field(default={})
    """More of the request's body, as a server knows it (``chat_template_kwargs`` and the like)."""
    samples: Positive = 2
    longest: Positive = 16_000
    """Characters; about longer documents nothing is asked."""
    on_failure: Literal["keep", "drop"] = "keep"
    key_variable: str = "OPENAI_API_KEY"
    concurrency: Positive = 8
    timeout_s: PositiveFloat = 120.0
    attempts: Positive = 8
    first_wait_s: PositiveFloat = 0.5
    price: Price | None = None

    @property
    def wanted(self) -> int:
        """How many accepted answers are enough."""
        return 1

    @abstractmethod
    def reject(self, document: Document, answer: str) -> str | None:
        """Why an answer (what the prompt's format keeps of it) is not accepted, or None."""

    @abstractmethod
    def accept(self, document: Document, answers: list[str], tally: Tally) -> Iterable[Document]:
        """What becomes of a document whose answers these are."""

    def described(self) -> dict[str, Any]:
        prompt = read_prompt(self.prompt)
        known = {"name": prompt.name, "version": prompt.version, "digest": prompt.digest}
        return {**super().described(), "prompt": known}

    def located(self, places: Places) -> Self:
        own = self.prompt.endswith(".yaml")
        read_prompt(prompt := str(places.root / self.prompt) if own else self.prompt)
        return self.model_copy(update={"prompt": prompt})

    def run(self, documents: Iterator[Document], tally: Tally, places: Places) -> Iterator[Document]:
        prompt = read_prompt(self.prompt)
        series = key_of([self.model, prompt.digest, self.temperature, self.top_p, self.max_tokens, self.extra])
        cache = _opened(places.cache / "llm" / series[:16], os.getpid())
        client = Client(
            self.endpoint,
            self.key_variable,
            connections=self.concurrency,
            timeout=self.timeout_s,
            attempts=self.attempts,
            first_wait=self.first_wait_s,
        )
        done = 0
        asked = in_order(lambda document: self._ask(document, prompt, client, cache), documents, self.concurrency)
        try:
            for document, one in asked:
                yield from self._conclude(document, one, tally)
                done += 1
        except ServerGone as error:
            raise UserError(
                f"{self.name}: {self.endpoint} gives no answers ({error}); {done} documents of this part are done and "
                "all answers so far kept: start the server, then the same command goes on from there"
            ) from None
        finally:
            tally.count("requests repeated", client.retries)
            client.close()
            asked.close()

    def _ask(self, document: Document, prompt: Prompt, client: Client, cache: AnswerCache) -> Asked:
        """Ask until enough answers are accepted (in a thread of the pool)."""
        asked = Asked()
        if len(document.text) > self.longest:
            asked.rejected.append("longer than is asked about")
            return asked
        for sample in range(self.samples):
            body = {
                "model": self.model,
                "messages": prompt.messages(document.text),
                "temperature": self.temperature,
                "top_p": self.top_p,
                "max_tokens": self.max_tokens,
                "seed": sample,
                **self.extra,
            }
            key = key_of({**body, "prompt": prompt.digest})
            known = cache.get(key)
            answer = Answer(**known) if known is not None else client.ask(body)
            if known is None and answer.lasts:
                cache.put(key, vars(answer))
            self._pay(asked.counts, answer, known is not None)
            text = None if answer.text is None else prompt.read(answer.text)
            if text is None:
                asked.rejected.append(answer.failure or BROKEN_FORMAT)
            elif (reason := self.reject(document, text)) is not None:
                asked.rejected.append(reason)
            elif text not in asked.accepted:
                asked.accepted.append(text)
                if len(asked.accepted) == self.wanted:
                    break
        return asked

    def _pay(self, counts: Counter[str], answer: Answer, known: bool) -> None:
        counts["answers"] += 1
        counts["answers from the cache"] += known
        counts["prompt tokens"] += answer.prompt_tokens
        counts["completion tokens"] += answer.completion_tokens
        if self.price is not None:
            cost = answer.prompt_tokens * self.price.prompt + answer.completion_tokens * self.price.completion
            counts["cost in millionths"] += round(cost)

    def _conclude(self, document: Document, asked: Asked, tally: Tally) -> Iterable[Document]:
        for what, number in asked.counts.items():
            tally.count(what, number)
        for reason in asked.rejected:
            tally.count(f"rejected: {reason}")
        if asked.accepted:
            tally.count("documents accepted")
            yield from self.accept(document, asked.accepted, tally)
        elif self.on_failure == "drop":
            tally.drop(document, asked.rejected[-1])
        else:
            tally.count("documents kept as they were")
            yield document


@functools.lru_cache(maxsize=8)
def _opened(folder: Path, process: int) -> AnswerCache:
    """The cache of a series, opened once a process (a forked one opens its own)."""
    return AnswerCache(folder)
