"""From domain proportions to integer weights of the sources, with each source's depth and digest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from davinci.config import Depth, Level, Mixture, Pool, Source, SourceUse
from davinci.data.cards import PoolCard, VariantCard
from davinci.errors import UserError, nearest
from davinci.proportions import integer_weights


@dataclass(frozen=True)
class PoolView:
    """A pool as a stage sees it: its config, the stage's depth, and its card where it is on this machine."""

    pool: Pool
    depth: Depth
    card: PoolCard | None

    def level(self, source: Source, where: str = "depth") -> Level:
        """The Darwin Level `source` is read at; `where` is the config key of the depth, for the message.

        Raises:
            UserError: the source does not exist at the level its domain is asked for.
        """
        wanted: Level | None = getattr(self.depth, source.domain, None)
        if wanted is None:
            return source.depths[-1]
        if wanted not in source.depths:
            raise UserError(
                f"{where}.{source.domain}: pool {self.pool.name} holds {source.domain} at {', '.join(source.depths)}, "
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
            raise UserError(
                f"pool.sources.{name}.depths: pool {self.pool.name} was built with {held}, not {level}; build it anew "
                f"(python -m davinci data build {self.pool.name} --store PATH) or ask for another depth"
            )
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

        A domain's proportion is split over its sources by the mixture's weights where it names any of them, else by the
        tokens of those its substage draws on; see `proportions.integer_weights`.

        Raises:
            UserError: if a domain with a positive proportion has no source in this stage, or none at its depth.
        """
        shares = {
            domain: self._shares(domain, mixture, stage) for domain, proportion in mixture.domains.items() if proportion
        }
        weights = integer_weights(mixture.domains, shares)
        return {
            name: SourceUse(
                domain=self.pool.sources[name].domain,
                depth=self.level(self.pool.sources[name]),
                digest=self.digest(name),
                weight=weight,
            )
            for name, weight in weights.items()
        }

    def _shares(self, domain: str, mixture: Mixture, stage: str) -> dict[str, float]:
        """Relative weights of the sources of one domain."""
        where = f"curriculum.stages.{stage}"
        substage = mixture.substage or stage
        own = {name: source for name, source in self.pool.sources.items() if source.domain == domain}
        weights = {name: weight for name, weight in mixture.sources.items() if name in own}
        drawn = weights or [
            name for name, source in own.items() if source.substages is None or substage in source.substages
        ]
        for name in drawn:
            self.level(own[name], f"{where}.depth")
        shares = weights or {name: float(self.tokens(name)) for name in drawn}
        shares = {name: share for name, share in shares.items() if share > 0}
        if not shares:
            raise UserError(
                f"{where}.mixture: domain {domain!r} has a positive proportion, but pool {self.pool.name} has no "
                f"source of it in substage {substage!r}{_known_substages(own.values(), substage)}"
            )
        return shares


def _known_substages(sources: Iterable[Source], substage: str) -> str:
    """The substages that some of `sources` are drawn on in."""
    known = {name for source in sources for name in source.substages or ()}
    return nearest(substage, known) if known else ""
