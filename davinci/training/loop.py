"""Training of one node, from the state before it to its end.

A node may be stopped at any step, killed at any moment, resumed or forked: the weights at its end are the same bits
(for one instruction set, one thread count and one number of ranks). What makes it so: the state at a step boundary is
all in the checkpoint, the data of a step is a function of the step, and nothing depends on when checkpoints or records
are written.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from davinci.config import Execution, Node
from davinci.errors import UserError
from davinci.model.decoder import Decoder
from davinci.schedules import value_at
from davinci.store import Store
from davinci.tracking.records import Writer
from davinci.training import checkpoints as saved
from davinci.training import heldout, numerics, positions
from davinci.training.adaptive import Adaptation, Benchmark
from davinci.training.distributed import ALONE, Ranks, require_rows
from davinci.training.instruments import Speed, routing, update_ratios, utilisation
from davinci.training.placement import Placed, place
from davinci.training.positions import Position
from davinci.training.reading import Reading
from davinci.training.saving import Saver
from davinci.training.spikes import Detector
from davinci.training.step import Outcome, Window, gradients, move

# Steps from one train record to the next, counted from initialisation.
RECORD_EVERY = 10
# Seconds between two progress reports.
PROGRESS_EVERY = 0.25

# Nothing compiled, nothing computed again.
DEFAULT = Execution()

Progress = Callable[[int, float, float], None]


class Probe(Protocol):
    """What is scored while a node trains, whenever a step passes a multiple of `every_tokens`.

    `lacking` are token counts, below the node's end, at which it must be scored though a checkpoint stands there.
    """

    @property
    def every_tokens(self) -> int: ...
    @property
    def lacking(self) -> Sequence[int]: ...
    def score(self, model: Decoder, ranks: Ranks) -> Sequence[Mapping[str, Any]]:
        """The values of each row of kind ``probe``; every rank takes part."""
        ...


class Stopped(Exception):
    """Training was asked to stop: a checkpoint of the step it had reached is written."""


class TrainingFailed(UserError):
    """The loss or its gradient is no longer a number."""


def train(
    node: Node,
    store: Store,
    *,
    checkpoints: Sequence[int],
    attempt: int,
    progress: Progress,
    should_stop: Callable[[], bool],
    heldout_sequences: int = 64,
    probes: Sequence[Probe] = (),
    benchmark: Benchmark | None = None,
    ranks: Ranks = ALONE,
    execution: Execution = DEFAULT,
) -> None:
    """Train `node` to its end, leaving a checkpoint and held-out losses there and at each of `checkpoints`.

    Starts from the newest checkpoint before the first one that is missing; does nothing where none is. A damaged
    checkpoint counts as missing. A stretch trained again must give the weights already there. Every rank calls it with
    the same arguments; the first alone reads and writes plain checkpoints, and writes the records.

    Args:
        checkpoints: tokens since initialisation, on step boundaries in (node.begin, node.end].
        attempt: stamped on the records.
        progress: called a few times a second with tokens since initialisation, tokens a second, loss; on the first
            rank only.
        should_stop: asked after each step; one rank that says so stops all, at the same step.
        heldout_sequences: sequences a domain of the held-out loss.
        probes: scored on the way; where one is lacking, training starts before that.
        benchmark: on the first rank, where it decides where the stage ends.
        ranks: the processes that train this node together.
        execution: how they do.

    Raises:
        Stopped: `should_stop` said so.
        TrainingFailed: loss or gradient is not finite; nothing of that step is kept.
        UserError: no parent checkpoint to start from, a replay that is not exact, more ranks than sequences a step, or
            why another rank gave up.
        RankLost: another rank is gone.
        ValueError: `checkpoints` off the step grid.
    """
    due = sorted({*checkpoints, node.end})
    for tokens in due:
        if not node.begin < tokens <= node.end or _tokens_at(node, _step_at(node, tokens)) != tokens:
            raise ValueError(f"node {node.id}: {tokens} tokens is no step boundary in ({node.begin}, {node.end}]")
    require_rows(node, ranks.world)
    with ranks.blamed():
        lacking = [tokens for probe in probes for tokens in probe.lacking]
        position = ranks.share(positions.find(node, store, due, lacking) if ranks.is_first else None)
        if position is None:
            return
        writer = Writer(store.records(node.id), attempt) if ranks.is_first else nullcontext()
        with writer as records:
            placed = place(node, position, ranks, execution)
            training = _Training(
                node, store, set(due), records, heldout_sequences, probes, benchmark, position, placed, ranks, execution
            )
            training.run(progress, should_stop)


def _step_at(node: Node, tokens: int) -> int:
    return node.stage.grid.step_at(tokens - node.stage_begin)


def _tokens_at(node: Node, step: int) -> int:
    return node.stage_begin + node.stage.grid.tokens_at(step)


class _Training:
    """`records` is None on every rank but the first."""

    def __init__(
        self,
        node: Node,
        store: Store,
        due: set[int],
        records: Writer | None,
        heldout_sequences: int,
        probes: Sequence[Probe],
        benchmark: Benchmark | None,
        position: Position,
        placed: Placed,
        ranks: Ranks,
        execution: Execution,
    ) -> None:
        self._node, self._store, self._due, self._records, self._at = node, store, due, records, position
        self._placed, self._ranks, self._execution = placed, ranks, execution
        self._adaptation: Adaptation | None = None
        begin, end = _step_at(node, position.tokens), node.steps.stop
        if node.stage.is_adaptive or position.trail is not None:
            adaptation = Adaptation(node, store, position.trail, position.tokens, placed, ranks, benchmark)
            self._adaptation, node = adaptation, adaptation.node
            begin, end = adaptation.step, end if adaptation.ended is None else adaptation.step
        self._steps = range(begin, end)
        self._reading = Reading(node, store, position, self._steps, ranks)
        self._heldout = heldout.load(node, store, heldout_sequences)
        self._probes = probes
        self._window, self._spikes = Window(dict(position.window)), Detector.of(position.recent)
        self._unread, self._loss, self._is_skipped = list[_Step](), math.nan, False
        self._pieces = node.stage.lr_pieces(node.stage_begin)

    def run(self, progress: Progress, should_stop: Callable[[], bool]) -> None:
        with self._reading, closing(Saver(self._store, self._placed, self._ranks)) as saver:
            self._run(progress, should_stop, saver)

    def _run(self, progress: Progress, should_stop: Callable[[], bool], saver: Saver) -> None:
        node, at = self._node, self._at
        every, rolled = node.checkpoint_every_tokens, at.tokens // node.checkpoint_every_tokens
        reported, speed = 0.0, Speed()
        if at.tokens == 0:
            self._probe(None)
        for step in self._steps:
            if self._adaptation is not None:
                self._require_unexhausted(step, saver)
            started, waited = time.perf_counter(), self._reading.waited
            begun = at.tokens
            done = self._step(step)
            seconds, waited = time.perf_counter() - started, self._reading.waited - waited
            speed.add(node.stage.grid.batch_at(step) * node.stage.sequence_length, seconds, waited)
            has_ended = self._adapt(step)
            is_end = has_ended or at.tokens == node.end
            if at.step % RECORD_EVERY == 0 or is_end:
                self._read()
                values = {"lr": done.lr, "grad_norm": done.outcome.gradient_norm, "batch": done.size}
                values |= self._window.losses() | {"tokens_per_second": round(speed.rate(), 1)}
                values["data_wait"] = round(speed.waiting(), 4)
                if node.stage.mask_questions:
                    values["targets"] = self._window.targets
                self._record("train", values | self._instruments(step, speed.rate(), done.outcome))
                self._window, speed = Window(), Speed()
            if self._ranks.is_first and (is_end or time.monotonic() - reported > PROGRESS_EVERY):
                reported = time.monotonic()
                progress(at.tokens, speed.last, self._loss)
            self._probe(begun)
            is_stopping = not is_end and self._ranks.any(should_stop())
            if at.tokens in self._due:
                self._measure()
                saver.save(self._state(rolling=False), wait=True)
            elif is_stopping or at.tokens // every > rolled:
                saver.save(self._state(rolling=True), wait=is_stopping)
            rolled = at.tokens // every
            if is_stopping:
                raise Stopped(f"node {node.id} stopped after {at.tokens} tokens")
            if has_ended:
                break
        self._skip_to_end(saver)

    def _adapt(self, step: int) -> bool:
        """Decide what is due after `step`; whether the stage ended with it, before its last step."""
        adaptation = self._adaptation
        if adaptation is None:
            return False
        if adaptation.after(self._at.tokens, self._record):
            self._reading.turn(adaptation.node, step + 1)
        return adaptation.ended is not None

    def _require_unexhausted(self, step: int, saver: Saver) -> None:
        """Stop before a step for which a source does not suffice; what was trained is kept."""
        try:
            self._reading.require_unexhausted(step)
        except UserError:
            if self._at.tokens > self._node.begin:
                saver.save(self._state(rolling=True), wait=True)
            raise

    def _skip_to_end(self, saver: Saver) -> None:
        """Leave the state in which the stage ended early at the places of the plan that come later in it."""
        for probe in self._probes:
            later = [tokens for tokens in self._node.probed_at(probe.every_tokens) if tokens > self._at.tokens]
            rows = self._placed.scored(probe.score, self._ranks) if later else ()
            if self._records is not None:
                for tokens in later:
                    for values in rows:
                        self._records.write("probe", tokens, self._at.step, **values)
        for tokens in sorted(tokens for tokens in self._due if tokens > self._at.tokens):
            if self._placed.average is not None:  # which counts what was seen since it began
                self._placed.average.begin += tokens - self._at.tokens
            self._at.tokens = tokens
            self._measure()
            saver.save(self._state(rolling=False), wait=True)

    def _step(self, step: int) -> _Step:
        """Train one step of the stage."""
        node, at, placed = self._node, self._at, self._placed
        batch = self._reading.take(step)
        lr = value_at(self._pieces, at.tokens)
        size, clip = node.stage.grid.batch_at(step), node.optimizer.gradient_clip
        outcome = gradients(placed.objective, batch, clip, self._ranks, size, self._execution.micro_tokens)
        done = _Step(outcome, at.step + 1, at.tokens, _tokens_at(node, step + 1), lr, size)
        self._unread.append(done)
        # Here, if a record is due: the time it takes is the step's.
        if not placed.runs_ahead or node.optimizer.spikes == "skip" or done.number % RECORD_EVERY == 0:
            self._read()
        if not self._is_skipped:
            move(placed.adamw, lr)
            if node.model.experts.bias_rate and outcome.loads is not None:
                for one, counts in zip(placed.decoder.experts, outcome.loads, strict=True):
                    one.rebalance(counts)
        if placed.average is not None:
            placed.average.update(placed.decoder, done.before, done.after)
        at.tokens, at.step = done.after, done.number
        return done

    def _read(self) -> None:
        """Look at what the steps since the last look came to; a GPU is waited for. Leaves whether the last of them is a
        spike to skip."""
        unread, self._unread = self._unread, []
        for one in unread:
            outcome = one.outcome
            if not outcome.is_finite:
                raise TrainingFailed(
                    f"node {self._node.id}: loss {outcome.loss}, gradient norm {outcome.gradient_norm} at step "
                    f"{one.number} ({one.before} tokens, learning rate {one.lr:g}); a lower lr or gradient_clip may "
                    "help"
                )
            spike = self._spikes.see(outcome.loss, outcome.gradient_norm)
            self._is_skipped = spike is not None and self._node.optimizer.spikes == "skip"
            if spike is not None:
                self._record("spike", asdict(spike) | {"skipped": self._is_skipped}, one)
            self._window.add(outcome, self._reading.domains)
            self._loss = outcome.loss

    def _instruments(self, step: int, speed: float, outcome: Outcome) -> dict[str, float]:
        """What a record says after `step` beside losses; costs some passes over the weights."""
        decoder = self._placed.decoder
        moved = {} if self._is_skipped else update_ratios(decoder, self._placed.adamw)
        busy = utilisation(self._node, speed, decoder.unembedding.device, self._ranks.world)
        return moved | routing(decoder, outcome) | busy | self._reading.epochs(step + 1)

    def _record(self, kind: str, values: Mapping[str, Any], of: _Step | None = None) -> None:
        """Write a row: of the present, or of the moment after the step `of`."""
        if self._records is not None:
            tokens, step = (self._at.tokens, self._at.step) if of is None else (of.after, of.number)
            world = {"world": self._ranks.world} if self._ranks.world > 1 else {}
            skipped = self._adaptation.skipped(tokens) if self._adaptation else 0
            seen = {"seen": tokens - skipped} if skipped else {}
            self._records.write(kind, tokens, step, **values, **world, **seen)

    def _probe(self, begun: int | None) -> None:
        """Score the probes that the step from `begun` on (None: initialisation) makes due."""
        for probe in self._probes:
            if begun is None or self._at.tokens // probe.every_tokens > begun // probe.every_tokens:
                for values in self._placed.scored(probe.score, self._ranks):
                    self._record("probe", values)

    def _measure(self) -> None:
        placed = self._placed
        for held in self._heldout:
            self._record("heldout", {"domain": held.domain} | heldout.measure(placed.bare, held, self._ranks))
            if placed.bare_average is not None:
                found = heldout.measure(placed.bare_average, held, self._ranks)
                self._record("heldout_average", {"domain": held.domain} | found)

    def _state(self, *, rolling: bool) -> saved.State:
        """What a checkpoint of this moment says beside tensors. It promises the records up to it."""
        self._read()
        if self._records is not None:
            self._records.commit()
        node, at, adaptation, average = self._node, self._at, self._adaptation, self._placed.average
        step = _step_at(node, at.tokens) if adaptation is None else adaptation.step
        return saved.State(
            version=saved.VERSION,
            node=node.id,
            tokens=at.tokens,
            global_step=at.step,
            cursors=self._reading.cursors(step),
            window=self._window.sums,
            rolling=rolling,
            numerics=numerics.description(self._ranks.world, self._execution),
            digests={},
            average_begin=None if average is None else average.begin,
            recent=self._spikes.recent,
            read=self._reading.read(step),
            trail=adaptation.trail(at.tokens) if adaptation else None,
        )


@dataclass
class _Step:
    """A step taken: its number from 1, the tokens `before` and `after` it, its learning rate and sequences."""

    outcome: Outcome
    number: int
    before: int
    after: int
    lr: float
    size: int
