"""The data card of a source: what is in it at each Darwin Level, what each step of its chain did, why documents went.

`docs/data_card.schema.json` is the JSON Schema of `DataCard`; ``python -m davinci data card POOL`` prints it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import Field

from davinci.config import Frozen, Level, NotNegative
from davinci.data.cards import PoolCard, VariantCard


class Sample(Frozen):
    """A document that a step dropped: the beginning of its text, and where it came from."""

    id: str
    text: str
    origin: Annotated[dict[str, str | int], Field(default={})]


class Step(Frozen):
    """One operation of a chain. `dropped` counts documents by reason, `samples` shows some of each, `counted` is
    whatever else it did; `report` what it says of itself, such as a classifier's precision. Counts are of training and
    held-out documents together, and null where they were not recorded."""

    operation: str
    level: Level
    version: NotNegative = 1
    parameters: Annotated[dict[str, Any], Field(default={})]
    documents_in: NotNegative | None = None
    documents: NotNegative | None = None
    bytes_in: NotNegative | None = None
    bytes: NotNegative | None = None
    dropped: Annotated[dict[str, NotNegative], Field(default={})]
    counted: Annotated[dict[str, NotNegative], Field(default={})]
    samples: Annotated[dict[str, tuple[Sample, ...]], Field(default={})]
    report: Annotated[dict[str, Any], Field(default={})]

    @property
    def text(self) -> str:
        """``L2 plain_rules: 7,063 documents, dropped: too short 3,435``."""
        parts = [] if self.documents is None else [f"{self.documents:,} documents"]
        for what, counts in (("dropped", self.dropped), ("", self.counted)):
            if counts:
                said = ", ".join(f"{name} {number:,}" for name, number in counts.items())
                parts.append(f"{what}: {said}" if what else said)
        return f"{self.level} {self.operation}" + (f": {'; '.join(parts)}" if parts else "")


class LevelCard(Frozen):
    """A source at one level. Sizes are of the training split; `digest` is of its content, `documents_digest` of the
    set of its documents' ids, and `same_documents` are the other levels that hold just these."""

    level: Level
    digest: str
    documents_digest: str | None
    same_documents: tuple[Level, ...]
    documents: NotNegative
    tokens: NotNegative
    bytes: NotNegative
    heldout_documents: NotNegative
    heldout_tokens: NotNegative
    heldout_bytes: NotNegative
    chain: tuple[Step, ...]


class DataCard(Frozen):
    """One source of a pool as built. `origin` says what was read: packages with their digests, files, a data set."""

    version: Literal[1] = 1
    pool: str
    source: str
    domain: str
    licence: dict[str, Any]
    origin: dict[str, Any]
    tokenizer_digest: str
    vocab_size: NotNegative
    levels: tuple[LevelCard, ...]


def data_cards(card: PoolCard, sources: Iterable[str] = ()) -> list[DataCard]:
    """The cards of `sources` (all, if there are none), in order of domain and name."""
    wanted = set(sources) or set(card.sources)
    found = []
    for name, source in sorted(card.sources.items(), key=lambda item: (item[1].domain, item[0])):
        if name in wanted:
            found.append(
                DataCard(
                    pool=card.name,
                    source=name,
                    domain=source.domain,
                    licence=source.licence,
                    origin={**({"packages": source.archive} if source.archive else {}), **source.provenance},
                    tokenizer_digest=card.tokenizer.digest,
                    vocab_size=card.tokenizer.vocab_size,
                    levels=tuple(_level(level, source.variants) for level in sorted(source.variants)),
                )
            )
    return found


def _level(level: str, variants: Mapping[str, VariantCard]) -> LevelCard:
    own = variants[level]
    sizes = own.model_dump(include=set(LevelCard.model_fields) - {"chain"})
    more = {"level": level, "same_documents": same_documents(variants, level), "chain": steps(own.chain)}
    return LevelCard.model_validate(sizes | more, strict=False)


def same_documents(variants: Mapping[str, VariantCard], level: str) -> tuple[Level, ...]:
    """The other levels of a source that are known to hold the same documents as `level`."""
    own = variants[level].documents_digest
    found = [other for other, one in sorted(variants.items()) if own is not None and one.documents_digest == own]
    return tuple(cast(Level, other) for other in found if other != level)


def steps(chain: Iterable[Mapping[str, Any]]) -> tuple[Step, ...]:
    """The steps as the pool's card has them; what this does not know of one goes into its report."""
    known = set(Step.model_fields)
    found = []
    for one in chain:
        own = {key: value for key, value in one.items() if key in known}
        other = {key: value for key, value in one.items() if key not in known}
        report = {**own.pop("report", {}), **other}
        found.append(Step.model_validate({"operation": "", **own, "report": report}, strict=False))
    return tuple(found)
