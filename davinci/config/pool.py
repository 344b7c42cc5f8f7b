"""What a run may draw on, at which depth and in which proportions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from davinci.config.base import Frozen, NotNegativeFloat, Positive, PositiveFloat, Words

Level = Literal["L0", "L1", "L2", "L3", "L4", "L5", "L6", "L7", "L8", "L9"]
PROPORTION_TOLERANCE = 1e-9


class Licence(Frozen):
    """Of a source: SPDX identifier, what else a reader should know, and its files (relative to the pool's file)."""

    spdx: str
    note: str = ""
    files: tuple[str, ...] = ()


class Source(Frozen):
    """One dataset of a pool.

    `chain` is how it is made, where this program makes it: operations as `davinci.data.operations.read_chain` reads
    them; `heldout_fraction` of its split keys are held out. `tokens_from` is, instead of a chain, where another program
    wrote its tokens, at each of its depths (`davinci.data.token_files`); `heldout_fraction` of its documents are held
    out. A plan takes the built content's digest, not these.

    `depths` are the Darwin Levels it exists at, shallow to deep. `tokens` is its size where the pool is not on this
    machine (a built pool's card knows better). `substages` are the substages whose mixtures draw on it (see
    `Mixture.substage`); null allows all. `max_epochs` is how often a run may see it (see `Pool`).
    """

    domain: str
    depths: Annotated[tuple[Level, ...], Field(min_length=1)]
    tokens: Positive | None = None
    substages: tuple[str, ...] | None = None
    max_epochs: PositiveFloat | None = None
    chain: tuple[str | dict[str, Any], ...] = ()
    tokens_from: Annotated[dict[Level, dict[str, Any]], Field(default={})]
    licence: Licence | None = None
    heldout_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.03

    @model_validator(mode="after")
    def _made_in_one_way(self) -> Self:
        if self.chain and self.tokens_from:
            raise ValueError("chain and tokens_from: a source has one of the two")
        if self.tokens_from and set(self.tokens_from) != set(self.depths):
            raise ValueError(f"tokens_from: is of {', '.join(self.tokens_from)}, depths are {', '.join(self.depths)}")
        return self

    @field_validator("licence", mode="before")
    @classmethod
    def _named(cls, licence: Any) -> Any:
        if isinstance(licence, Mapping):  # what follows takes no list
            return {**licence, "files": tuple(licence.get("files", ()))}
        return {"spdx": licence} if isinstance(licence, str) else licence


class Pool(Frozen):
    """The sources a run may draw on. `name` is also its folder in the store; `vocab_size` is its tokenizer's.

    `tokenizer` is the pool's own name for one trained on the pool, ``qwen2``, a JSON file of the tokenizers library, or
    a Hugging Face tokenizer's folder.

    A run that sees a source more than `max_epochs` times (the source's own, if it has one) is refused when planned, or
    ends where a mixture that moves as it trains has exhausted one; 1 allows no repetition, null any.
    """

    name: str
    tokenizer: str
    vocab_size: Words
    max_epochs: PositiveFloat | None = None
    sources: Annotated[dict[str, Source], Field(min_length=1)]

    def epochs_allowed(self, source: str) -> float | None:
        """How often a run may see `source`; None where that is not limited."""
        own = self.sources[source].max_epochs
        return self.max_epochs if own is None else own

    @property
    def domains(self) -> list[str]:
        return sorted({source.domain for source in self.sources.values()})


class Depth(Frozen):
    """The Darwin Level of each domain's sources; null takes each source at its deepest."""

    general: Level | None = None
    code: Level | None = None
    science: Level | None = None
    qa: Level | None = None


class Mixture(Frozen):
    """Domain proportions, and optional relative weights of the sources inside their domain (default: their tokens).

    `substage` names the column of the pool's `substages` whose sources are drawn on; null means the stage's own name. A
    source named in `sources` is drawn on whatever its substages.
    """

    domains: Annotated[dict[str, NotNegativeFloat], Field(min_length=1)]
    sources: Annotated[dict[str, NotNegativeFloat], Field(default={})]
    substage: str | None = None

    @field_validator("domains")
    @classmethod
    def _sums_to_one(cls, domains: dict[str, float]) -> dict[str, float]:
        total = math.fsum(domains.values())
        if abs(total - 1.0) > PROPORTION_TOLERANCE:
            parts = " + ".join(f"{name} {value:g}" for name, value in domains.items())
            raise ValueError(f"proportions must sum to 1, but {parts} = {total:.6g} ({total:.2%})")
        return domains
