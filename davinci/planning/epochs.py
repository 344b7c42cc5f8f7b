"""The epoch ledger: tokens demanded from every domain and source in every stage, against what the pool holds.

Epochs of a stage are tokens demanded (whole steps x integer weight share) over tokens held. Since initialisation a
source's epochs add up, also where stages read it at different levels: its levels are versions of the same documents. A
domain's are the mean of its sources' so far, weighted by their tokens: for sources used throughout, all tokens demanded
over all tokens held.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from davinci.config import Pool, Run, Stage
from davinci.data.cards import PoolCard
from davinci.errors import UserError
from davinci.planning.mixtures import PoolView
from davinci.planning.plan import Epochs
from davinci.planning.sweep import Sweep
from davinci.planning.wording import some

# A row without its arms: stage, domain, source, demanded, held, epochs, cumulative.
Line = tuple[str, str, str | None, float, int, float, float]


@dataclass
class _Ledger:
    """The lines of curricula, each distinct one computed once: a sweep of a thousand learning rates has one mixture."""

    cards: Mapping[str, PoolCard | None]
    pools: dict[str, Pool] = field(default_factory=dict)
    uses: dict[tuple[str, str, str, int], dict[str, tuple[str, int, float]]] = field(default_factory=dict)
    lines: dict[tuple[tuple[str, str, str, int], ...], tuple[Line, ...]] = field(default_factory=dict)

    def of(self, run: Run) -> tuple[Line, ...]:
        pool = run.pool.model_dump_json()
        self.pools[pool] = run.pool
        stages = run.curriculum.stages
        key = tuple((pool, name, _reads(stage), stage.grid.tokens_used) for name, stage in stages.items())
        if key not in self.lines:
            self.lines[key] = tuple(_accumulate([(one[1], self._used(one, stages[one[1]])) for one in key]))
        return self.lines[key]

    def _used(self, key: tuple[str, str, str, int], stage: Stage) -> dict[str, tuple[str, int, float]]:
        """Source -> (domain, tokens held, tokens demanded) of one stage."""
        if key not in self.uses:
            pool, name, *_ = key
            view = PoolView(self.pools[pool], stage.depth, self.cards.get(self.pools[pool].name))
            found: dict[str, tuple[str, int, float]] = {}
            for begin, end, mixture in stage.mixture_spans:
                uses = view.weigh(mixture, name)
                parts = sum(use.weight for use in uses.values())
                for source, use in uses.items():
                    before = found[source][2] if source in found else 0.0
                    share = (end - begin) * use.weight / parts
                    found[source] = use.domain, view.tokens(source), before + share
            self.uses[key] = found
        return self.uses[key]


def _reads(stage: Stage) -> str:
    """What of a stage decides how its tokens are spread over sources."""
    mixtures = (f"{begin} {mixture.model_dump_json()}" for begin, _, mixture in stage.mixture_spans)
    return " ".join(mixtures) + stage.depth.model_dump_json()


def _accumulate(stages: Iterable[tuple[str, Mapping[str, tuple[str, int, float]]]]) -> Iterable[Line]:
    """Domain lines, each followed by those of its sources, stage after stage."""
    seen: dict[str, float] = {}
    held_by: dict[str, dict[str, int]] = {}
    for stage, uses in stages:
        for source, (domain, held, demanded) in uses.items():
            if not held:
                raise UserError(f"pool.sources.{source}: stage {stage} draws on it, but it holds no tokens")
            seen[source] = seen.get(source, 0.0) + demanded / held
            held_by.setdefault(domain, {})[source] = held
        for domain in sorted({domain for domain, _, _ in uses.values()}):
            own = {source: use for source, use in uses.items() if use[0] == domain}
            held = sum(use[1] for use in own.values())
            demanded = sum(use[2] for use in own.values())
            known = held_by[domain]
            mean = sum(seen[source] * tokens for source, tokens in known.items()) / sum(known.values())
            yield stage, domain, None, demanded, held, demanded / held, mean
            for source, (_, tokens, wanted) in own.items():
                yield stage, domain, source, wanted, tokens, wanted / tokens, seen[source]


def ledger(sweep: Sweep, cards: Mapping[str, PoolCard | None]) -> tuple[Epochs, ...]:
    """The rows of every arm, seeds left out since they demand the same; arms with equal rows share them.

    Args:
        sweep: the arms.
        cards: pool name -> card, None where the pool is not on this machine (its config's sizes count then).

    Raises:
        UserError: a source whose size is not known, or a domain without a source.
    """
    book = _Ledger(cards)
    agreeing: dict[tuple[Line, ...], list[str]] = {}
    for arm in sweep.arms:
        agreeing.setdefault(book.of(arm.config), []).append(arm.label)
    # Arms part late: the stages before are one row for all of them, so rows are grouped stage by stage.
    arms_of: dict[Line, list[str]] = {}
    for lines, arms in agreeing.items():
        for line in lines:
            arms_of.setdefault(line, []).extend(arms)
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}
    rows = []
    for line, arms in arms_of.items():
        stage, domain, source, demanded, held, epochs, cumulative = line
        labels = tuple(arms)
        rows.append(
            Epochs(
                arms=shared.setdefault(labels, labels),
                stage=stage,
                domain=domain,
                source=source,
                demanded_tokens=demanded,
                pool_tokens=held,
                epochs=epochs,
                cumulative=cumulative,
            )
        )
    return tuple(rows)


def refuse_exhausted(sweep: Sweep, rows: Sequence[Epochs]) -> None:
    """Raise UserError where an arm sees a source more often than its pool allows (`Pool.max_epochs`)."""
    configs = {arm.label: arm.config.pool for arm in sweep.arms}
    for row in rows:
        if row.source is None:
            continue
        for arm in row.arms:
            pool = configs[arm]
            own, limit = pool.sources[row.source].max_epochs, pool.epochs_allowed(row.source)
            if limit is not None and row.cumulative > limit * (1 + 1e-9):
                where = "pool" if own is None else f"pool.sources.{row.source}"
                raise UserError(
                    f"{where}.max_epochs: source {row.source} is exhausted in stage {row.stage} of arm {arm}: by its "
                    f"end {row.cumulative:.3g} epochs are asked for, and {limit:g} allowed; lower its share or the "
                    "stage's tokens, or allow more"
                )


def repetitions(rows: Sequence[Epochs], max_epochs: float) -> tuple[str, ...]:
    """A warning for every source that some arm sees more than `max_epochs` times since initialisation.

    Names the source, the stage that exceeds it first and the epochs by the end of the run. Sources of a domain that are
    seen equally often by the same arms share a line.
    """
    arms = list(dict.fromkeys(arm for row in rows for arm in row.arms))
    first: dict[tuple[str, str], str] = {}
    last: dict[tuple[str, str], tuple[str, float]] = {}
    for row in rows:
        if row.source is not None and row.cumulative > max_epochs:
            for arm in row.arms:
                first.setdefault((row.source, arm), row.stage)
                if row.cumulative > last.get((row.source, arm), ("", 0.0))[1]:
                    last[row.source, arm] = row.domain, row.cumulative
    by_source: dict[tuple[str, str, str, str], list[str]] = {}
    for (source, arm), (domain, cumulative) in last.items():
        by_source.setdefault((domain, source, first[source, arm], f"{cumulative:.2f}"), []).append(arm)
    lines: dict[tuple[str, str, str, tuple[str, ...]], list[str]] = {}
    for (domain, source, stage, seen), who in by_source.items():
        lines.setdefault((domain, stage, seen, tuple(who)), []).append(source)
    return tuple(
        f"{domain} {_seen(sources)} {seen} times since initialisation, more than {max_epochs:g} times from {stage} on, "
        f"in {_whose(who, arms)}"
        for (domain, stage, seen, who), sources in lines.items()
    )


def _seen(sources: Sequence[str]) -> str:
    return f"source {sources[0]} is seen" if len(sources) == 1 else f"sources {', '.join(sources)} are seen"


def _whose(arms: Sequence[str], every: Sequence[str]) -> str:
    if len(arms) == len(every):
        return "every arm" if len(every) > 1 else f"arm {arms[0]}"
    return f"arm{'s' if len(arms) > 1 else ''} {some(arms)}"
