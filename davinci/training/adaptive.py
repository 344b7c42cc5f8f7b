"""What a stage decides as it trains: when it ends, and what it reads (docs/adaptive.md).

Decisions are committed to the node's ``realised.json`` before the next step, and a stretch that is trained again takes
them from there: nothing is measured twice. A stage that ends early leaves a gap in the axis of the plan, since all that
comes after it keeps its planned place; the stages behind it start from the state it ended with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from davinci import adaptive
from davinci.config import Node, Until
from davinci.data.cards import heldout_digest, read_card
from davinci.errors import UserError
from davinci.model.decoder import Decoder
from davinci.proportions import integer_weights, source_shares
from davinci.realised import Check, Decisions, Move, Trail, read_decisions, write_decisions
from davinci.store import Store
from davinci.training import heldout
from davinci.training.distributed import Ranks
from davinci.training.placement import Placed

Record = Callable[[str, Mapping[str, Any]], None]


# Scores a whole model on the benchmark that decides where a stage ends: 0 to 1, higher is better.
Benchmark = Callable[[Decoder], float]


class Adaptation:
    """Follows the stage of `node` from `tokens` on. Every rank has one, and all decide alike.

    Args:
        node: as planned.
        store: where decisions are kept, and the held-out text.
        trail: what the state at `tokens` says of the adaptive stages before it; None where there were none.
        tokens: the state's place on the axis of the plan.
        placed: what is measured.
        ranks: who trains together; the first one reads and writes the decisions.
        benchmark: on the first rank, where the stage's end is decided by one.

    Raises:
        ValueError: `benchmark` is lacking there.
        UserError: the decisions recorded are damaged or not this state's, or the held-out text is not what the node was
            planned with.
    """

    def __init__(
        self,
        node: Node,
        store: Store,
        trail: Trail | None,
        tokens: int,
        placed: Placed,
        ranks: Ranks,
        benchmark: Benchmark | None,
    ) -> None:
        place = tokens - node.stage_begin
        self._decisions = Decisions() if trail is None or place == 0 else trail.decisions
        self._done = place if self.ended is None else self.ended
        self._skipped = (trail.skipped if trail else 0) - (place - self._done)
        self._planned, self._store, self._placed, self._ranks = node, store, placed, ranks
        self._benchmark = benchmark
        if node.benchmark is not None and ranks.is_first and benchmark is None:
            raise ValueError(f"node {node.id} ends by a benchmark: one has to be given")
        self.node = node if trail is None else self._as_read(trail, tokens)
        self._recorded: Decisions | None = None
        self._held: dict[tuple[str, int], heldout.HeldOut] = {}
        if node.stage.is_adaptive:
            self._recorded = ranks.share(self._read(tokens) if ranks.is_first else None)
            self._open()
            self._commit()

    @property
    def ended(self) -> int | None:
        """Tokens into the stage at which it ended early."""
        return self._decisions.ended

    @property
    def step(self) -> int:
        """Steps of the stage that were trained."""
        return self._planned.stage.grid.step_at(self._done)

    def skipped(self, tokens: int) -> int:
        """Of `tokens` on the axis of the plan those that were not trained."""
        return self._skipped + tokens - self._planned.stage_begin - self._done

    def trail(self, tokens: int) -> Trail:
        """What a checkpoint at `tokens` says."""
        return Trail(
            skipped=self.skipped(tokens),
            sources=self.node.sources,
            sequences=self._sequences(),
            decisions=self._decisions,
        )

    def after(self, tokens: int, record: Record) -> bool:
        """Make the checks that are due after the step that ends at `tokens`; whether the mixture moved."""
        stage, before = self._planned.stage, self._done
        self._done = tokens - self._planned.stage_begin
        if not stage.is_adaptive or self._done == stage.grid.tokens_used:
            return False
        known = self._decisions
        if stage.until and adaptive.is_due(before, self._done, stage.until.check_every):
            self._check_until(record)
        if stage.adapt and self.ended is None and adaptive.is_due(before, self._done, stage.adapt.every):
            self._check_adapt(record)
        if self._decisions is not known:
            self._commit()
        return self._decisions.moves != known.moves and self._read_as_moved()

    def _check_until(self, record: Record) -> None:
        until = self._planned.stage.until
        assert until is not None
        check = self._replayed("until") or self._watch(until)
        checks = (*self._decisions.until, check)
        values = [(one.tokens, one.losses[until.watched] if one.score is None else -one.score) for one in checks]
        if (recorded := self._recorded_up_to_here("until")) is not None:
            fires = recorded.ended == self._done
        else:
            fires = adaptive.ends(until, values)
        self._decisions = self._decisions.model_copy(update={"until": checks, "ended": self._done if fires else None})
        slope = adaptive.slope(values, until.window, until.check_every)
        said: dict[str, Any] = {"domain": until.domain, "loss": values[-1][1]}
        if until.benchmark is not None and self._planned.benchmark is not None:
            domain = self._planned.benchmark.benchmarks[until.benchmark].domain
            said = {"domain": domain, "benchmark": until.benchmark, "score": check.score}
        record("until", said | {"slope": slope, "ends": fires})

    def _check_adapt(self, record: Record) -> None:
        stage = self._planned.stage
        adapt, own = stage.adapt, stage.mixture.domains
        assert adapt is not None
        domains = sorted(domain for domain, share in own.items() if share > 0)
        check = self._replayed("adapt") or Check(
            tokens=self._done, losses={domain: self._measure(domain, adapt.sequences) for domain in domains}
        )
        checks = (*self._decisions.adapt, check)
        moves = self._decisions.moves
        now = moves[-1].domains if moves else dict(own)
        if (recorded := self._recorded_up_to_here("adapt")) is not None:
            after = next((move.domains for move in recorded.moves if move.tokens == self._done), now)
        else:
            after = adaptive.moved(adapt, own, [(one.tokens, one.losses) for one in checks]) or now
        if after != now:
            moves = (*moves, Move(tokens=self._done, domains=after))
        self._decisions = self._decisions.model_copy(update={"adapt": checks, "moves": moves})
        for domain in domains:
            values = [(one.tokens, one.losses[domain]) for one in checks]
            slope = adaptive.slope(values, adapt.window, adapt.every)
            said = {"domain": domain, "loss": check.losses[domain], "slope": slope, "proportion": after[domain]}
            record("adapt", said)

    def _recorded_up_to_here(self, rule: str) -> Decisions | None:
        """What is recorded, where it holds the present check of `rule`."""
        recorded = self._recorded
        if recorded is None or not any(check.tokens == self._done for check in getattr(recorded, rule)):
            return None
        return recorded

    def _replayed(self, rule: str) -> Check | None:
        recorded = self._recorded_up_to_here(rule)
        checks = getattr(recorded, rule) if recorded else ()
        return next((check for check in checks if check.tokens == self._done), None)

    def _watch(self, until: Until) -> Check:
        """What `until` is decided by, measured now."""
        if until.benchmark is None:
            return Check(tokens=self._done, losses={until.watched: self._measure(until.watched, until.sequences)})
        benchmark, ranks = self._benchmark, self._ranks
        rows = self._placed.scored(lambda model, _: [{"score": benchmark(model)}] if benchmark else [], ranks)
        score = ranks.share(rows[0]["score"] if ranks.is_first else None)
        return Check(tokens=self._done, score=score)

    def _measure(self, domain: str, sequences: int) -> float:
        loss = float(heldout.measure(self._placed.bare, self._held[domain, sequences], self._ranks)["loss"])
        if not math.isfinite(loss):
            raise UserError(
                f"node {self._planned.id}: the held-out loss of {domain} is {loss} at {self._done} tokens into "
                f"{self._planned.stage_name}, so nothing can be decided by it; a lower lr or gradient_clip may help"
            )
        return loss

    def _commit(self) -> None:
        recorded = self._recorded
        if self._ranks.is_first and (recorded is None or recorded.up_to(self._done) != self._decisions):
            write_decisions(self._store, self._planned, self._decisions)

    def _read(self, tokens: int) -> Decisions | None:
        recorded = read_decisions(self._store, self._planned.id)
        if recorded is not None and recorded.up_to(self._done) != self._decisions:
            raise UserError(
                f"{self._store.realised(self._planned.id)}: says other decisions up to {self._done} tokens into "
                f"{self._planned.stage_name} than the checkpoint at {tokens} tokens; move the node's folder away to "
                "train and decide that stretch anew"
            )
        return recorded

    def _open(self) -> None:
        """Load the text that is watched."""
        node, stage = self._planned, self._planned.stage
        card = read_card(self._store, node.pool)
        wanted = set[tuple[str, int]]()
        if stage.until and stage.until.domain is not None:
            wanted.add((stage.until.domain, stage.until.sequences))
        if stage.adapt:
            wanted |= {(domain, stage.adapt.sequences) for domain, share in stage.mixture.domains.items() if share > 0}
        for domain, sequences in sorted(wanted):
            if card is not None and node.watched.get(domain) not in (None, heldout_digest(card, domain)):
                path = self._store.pool(node.pool) / "card.json"
                raise UserError(f"{path}: held-out text of {domain} is not what node {node.id} was planned to watch")
            self._held[domain, sequences] = heldout.load_domain(node, self._store, domain, sequences)

    def _read_as_moved(self) -> bool:
        """Read on in the mixture of the last move, unless that comes to the same weights."""
        weights = _weights(self._planned, self._decisions.moves[-1].domains)
        sources = {
            name: use.model_copy(update={"weight": weights[name]}) for name, use in self._planned.sources.items()
        }
        if sources == self.node.sources:
            return False
        since = {"mixture_begin": self._planned.stage_begin + self._done, "mixture_position": 0}
        self.node = self.node.model_copy(update={"sources": sources} | since)
        return True

    def _as_read(self, trail: Trail, tokens: int) -> Node:
        """The node with the mixture, and the place in its order, in which the state at `tokens` reads on."""
        node, sources, position = self._planned, trail.sources, trail.sequences
        begin = node.stage_begin if node.mixture_begin is None else node.mixture_begin
        if self.ended is None and tokens == begin and sources != node.sources:  # here another mixture begins
            sources, position = node.sources, 0
        since = node.stage_begin + self._done
        return node.model_copy(update={"sources": sources, "mixture_begin": since, "mixture_position": position})

    def _sequences(self) -> int:
        """Sequences consumed of the present mixture's order."""
        node = self.node
        begin = node.stage_begin if node.mixture_begin is None else node.mixture_begin
        read = (node.stage_begin + self._done - begin) // node.stage.sequence_length
        return node.mixture_position + read


def _weights(node: Node, domains: Mapping[str, float]) -> dict[str, int]:
    """Integer weights of the node's sources under other proportions; inside a domain they keep theirs."""
    return integer_weights(domains, source_shares(node.sources))
