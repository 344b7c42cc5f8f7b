"""From a run's config to the history its weights are a function of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from davinci.config import Mixture, Model, Run, SourceUse, Stage
from davinci.data.cards import PoolCard, heldout_digest
from davinci.errors import UserError
from davinci.planning.identity import Course, History, StageSpan, average_begin
from davinci.planning.mixtures import PoolView

Object = TypeVar("Object", bound=BaseModel)

# The digest of one benchmark of a run's suite: its task, its items and how they are scored; None where not known here.
BenchmarkDigest = Callable[[Run, str], str | None]


def history_of(run: Run, card: PoolCard | None) -> History:
    """The history of one run."""
    return Histories({run.pool.name: card}).of(run, [run.seed])[0]


class Histories:
    """Histories of many runs; what several arms have in common is computed once and is one object.

    Args:
        cards: pool name -> card, None where the pool is not on this machine.
        benchmark_digest: asked for the benchmarks that policies watch.
    """

    def __init__(
        self, cards: Mapping[str, PoolCard | None], benchmark_digest: BenchmarkDigest = lambda run, name: None
    ) -> None:
        self._cards, self._benchmark_digest = cards, benchmark_digest
        self._seen: dict[int, tuple[BaseModel, BaseModel]] = {}
        self._equal: dict[str, Any] = {}
        self._sources: dict[tuple[int, int, str], dict[str, SourceUse]] = {}
        self._spans: dict[tuple[Any, ...], StageSpan] = {}
        self._courses: dict[tuple[Any, ...], Course] = {}

    def of(self, config: Run, seeds: Iterable[int]) -> list[History]:
        """The histories of `config` with each of `seeds` instead of its own."""
        course = self.course(config)
        own_from = 0
        if config.seeds_from is not None:
            own_from = next(span.begin for span in course.spans if span.name == config.seeds_from)
        found = []
        for seed in seeds:
            own = own_seed(seed, config.replicate)
            first = own if own_from == 0 else config.trunk_seed
            data = ((0, first),) if own == first else ((0, first), (own_from, own))
            found.append(History(course, first, data))
        return found

    def course(self, config: Run) -> Course:
        """Place the stages on the token axis; every stage ends with its last whole step."""
        card = self._cards[config.pool.name]
        spans = []
        position, kept = 0, None
        for name, resolved in config.curriculum.resolved.items():
            stage = self._one(resolved)
            kept = average_begin(stage.averages, position, position, kept)
            theta = stage.rope_theta or config.model.rope_theta
            model = self._one(config.model.model_copy(update={"rope_theta": theta}))
            watched = self._watched(config, card, stage)
            for begin, end, mixture in stage.mixture_spans:
                sources = self._weigh(config, card, name, stage, mixture)
                place = position + begin, position + end
                spans.append(self._span(name, stage, place, sources, position, model, kept, watched))
            position = spans[-1].end
        model, optimizer = spans[0].model, self._one(config.optimizer)
        key = (id(model), id(optimizer), config.pool.name, *map(id, spans))
        if key not in self._courses:
            self._courses[key] = Course(
                model=model,
                optimizer=optimizer,
                vocab_size=_vocabulary(config, card),
                tokenizer_digest=card.tokenizer.digest if card else None,
                spans=tuple(spans),
                end_of_text=card.tokenizer.end_of_text if card else 0,
            )
        return self._courses[key]

    def _span(
        self,
        name: str,
        stage: Stage,
        place: tuple[int, int],
        sources: dict[str, SourceUse],
        begin: int,
        model: Model,
        kept: int | None,
        watched: dict[str, str | None],
    ) -> StageSpan:
        key = name, id(stage), place, id(sources), begin, id(model), kept, str(watched)
        if key not in self._spans:
            self._spans[key] = StageSpan(name, stage, *place, sources, begin, model, kept, watched)
        return self._spans[key]

    def _weigh(
        self, config: Run, card: PoolCard | None, name: str, stage: Stage, mixture: Mixture
    ) -> dict[str, SourceUse]:
        pool, mixture, depth = self._one(config.pool), self._one(mixture), self._one(stage.depth)
        key = id(pool), id(mixture), f"{id(depth)} {name}"
        if key not in self._sources:
            self._sources[key] = PoolView(pool, depth, card).weigh(mixture, name)
        return self._sources[key]

    def _watched(self, config: Run, card: PoolCard | None, stage: Stage) -> dict[str, str | None]:
        """Digests of what the stage's policies watch (see `Node`); None for what is not known here."""
        until, domains = stage.until, set[str]()
        if until is not None and until.domain is not None:
            domains.add(until.domain)
        if stage.adapt is not None:
            domains |= {domain for domain, share in stage.mixture.domains.items() if share > 0}
        found = {domain: heldout_digest(card, domain) if card else None for domain in sorted(domains)}
        if until is not None and until.benchmark is not None:
            found[f"benchmark/{until.benchmark}"] = self._benchmark_digest(config, until.benchmark)
        return found

    def _one(self, value: Object) -> Object:
        """The first of all equal objects. It is kept, so that its address stays its own."""
        if id(value) not in self._seen:
            one = self._equal.setdefault(f"{type(value).__name__} {value.model_dump_json()}", value)
            self._seen[id(value)] = value, one
        return self._seen[id(value)][1]  # type: ignore[return-value]


def own_seed(seed: int, replicate: int) -> int:
    """The seed of a run's own streams: `seed` itself, or for a further replicate of it one that is hashed from both."""
    if replicate == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed} {replicate}".encode()).digest()[:6], "big")


def _vocabulary(config: Run, card: PoolCard | None) -> int:
    """Vocabulary size of the model, checked against the built tokenizer's."""
    if card and card.tokenizer.vocab_size > config.model.vocab_size:
        raise UserError(
            f"model.vocab_size: {config.model.vocab_size} is smaller than the {card.tokenizer.vocab_size} of pool "
            f"{config.pool.name}'s tokenizer"
        )
    return config.model.vocab_size
