"""From domain proportions to integer weights of the sources, with each source's depth and digest."""

from __future__ import annotations

import math
from dataclasses import dataclass

from davinci.config import Depth, Level, Mixture, Pool, Source, SourceUse
from davinci.data.cards import PoolCard, VariantCard
from davinci.errors import UserError, nearest

# Weights are whole parts of this many: fine enough for a source of 0.0001% of a mixture.
PARTS = 10**9


@dataclass(frozen=True)
class PoolView:
    """A pool as a run sees it: its config, the depth asked for, and its card where it is on this machine."""

    pool: Pool
    depth: Depth
    card: PoolCard | None

    def level(self, source: Source) -> Level:
        """The Darwin Level `source` is read at."""
        wanted: Level | None = getattr(self.depth, source.domain, None)
        if wanted is None:
            return source.depths[-1]
        if wanted not in source.depths:
            raise UserError(
                f"depth.{source.domain}: pool {self.pool.name} holds {source.domain} at {', '.join(source.depths)}, "
                f"not {wanted}"
            )
        return wanted

    def tokens(self, name: str) -> int:
        """Training tokens of a source: counted where it was built, else as the pool's config states."""
        variant, stated = self._variant(name), self.pool.sources[name].tokens
        if variant is not None:
            return variant.tokens
        if stated is None:
            raise UserError(self._unknown_size(name))
        return stated

    def digest(self, name: str) -> str | None:
        """Content digest of a source at its level; None where it is not on this machine."""
        variant = self._variant(name)
        return None if variant is None else variant.digest

    def _variant(self, name: str) -> VariantCard | None:
        """The source at its level as it was built; None where it was not."""
        if self.card is None or name not in self.card.sources:
            return None
        level, built = self.level(self.pool.sources[name]), self.card.sources[name].variants
        if level not in built:
            held = ", ".join(sorted(built))
            raise UserError(f"pool.sources.{name}.depths: pool {self.pool.name} was built with {held}, not {level}")
        return built[level]

    def _unknown_size(self, name: str) -> str:
        if self.card is None:
            return (
                f"pool {self.pool.name} is not built in this store, so the size of its sources is not known; build it "
                f"with: python -m davinci data build {self.pool.name} --store PATH"
            )
        problem = f"pool.sources.{name}: no tokens given, and pool {self.pool.name} was built without this source"
        return problem + nearest(name, self.card.sources)

    def weigh(self, mixture: Mixture, stage: str) -> dict[str, SourceUse]:
        """The sources of `stage` with their integer weights, in name order.

        A domain's proportion is split over its sources by the mixture's weights where it names any of them, else by
        tokens. Weights are whole parts of `PARTS`, divided by their common divisor.

        Raises:
            UserError: if a domain with a positive proportion has no source in this stage.
        """
        parts: dict[str, int] = {}
        for domain, proportion in mixture.domains.items():
            if proportion == 0:
                continue
            shares = self._shares(domain, mixture, stage)
            total = math.fsum(shares.values())
            for name, share in shares.items():
                parts[name] = max(1, round(PARTS * proportion * share / total))
        divisor = math.gcd(*parts.values())
        return {
            name: SourceUse(
                domain=self.pool.sources[name].domain,
                depth=self.level(self.pool.sources[name]),
                digest=self.digest(name),
                weight=parts[name] // divisor,
            )
            for name in sorted(parts)
        }

    def _shares(self, domain: str, mixture: Mixture, stage: str) -> dict[str, float]:
        allowed = {
            name: source
            for name, source in self.pool.sources.items()
            if source.domain == domain and (source.stages is None or stage in source.stages)
        }
        named = {name: weight for name, weight in mixture.sources.items() if name in allowed}
        shares = named or {name: float(self.tokens(name)) for name in allowed}
        shares = {name: share for name, share in shares.items() if share > 0}
        if not shares:
            raise UserError(
                f"curriculum.stages.{stage}.mixture: domain {domain!r} has a positive proportion, but pool "
                f"{self.pool.name} has no source of it in this stage"
            )
        return shares
