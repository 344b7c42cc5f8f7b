"""Training of one node, from the state before it to its end.

A node may be stopped at any step, killed at any moment, resumed or forked: the weights at its end are the same bits
(for one instruction set, one thread count and one number of ranks). What makes it so: the state at a step boundary is
all in the checkpoint, the data of a step is a function of the step, and nothing depends on when checkpoints or records
are written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch.optim import AdamW

from davinci.config import Node
from davinci.data.batches import Batches
from davinci.data.prefetch import Prefetch
from davinci.errors import UserError
from davinci.model.decoder import Decoder
from davinci.model.weights import load_weights
from davinci.realised import Trail
from davinci.schedules import value_at
from davinci.store import Store
from davinci.tracking.records import Writer
from davinci.training import averaging, heldout, numerics, optimizer
from davinci.training import checkpoints as saved
from davinci.training.adaptive import Adaptation
from davinci.training.averaging import Average
from davinci.training.distributed import ALONE, Ranks, require_rows
from davinci.training.instruments import Epochs, update_ratios, utilisation
from davinci.training.spikes import Detector
from davinci.training.step import EXAMPLE, Objective, Window, gradients, move, separator_of

# Steps from one train record to the next, counted from initialisation.
RECORD_EVERY = 10
# Seconds between two progress reports.
PROGRESS_EVERY = 0.25

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
    ranks: Ranks = ALONE,
) -> None:
    """Train `node` to its end, leaving a checkpoint and held-out losses there and at each of `checkpoints`.

    Starts from the newest checkpoint before the first one that is missing; does nothing where none is. A damaged
    checkpoint counts as missing. A stretch trained again must give the weights already there. Every rank calls it with
    the same arguments; the first alone reads checkpoints, and writes them and the records.

    Args:
        checkpoints: tokens since initialisation, on step boundaries in (node.begin, node.end].
        attempt: stamped on the records.
        progress: called a few times a second with tokens since initialisation, tokens a second, loss; on the first
            rank only.
        should_stop: asked after each step; one rank that says so stops all, at the same step.
        heldout_sequences: sequences a domain of the held-out loss.
        probes: scored on the way; where one is lacking, training starts before that.
        ranks: the processes that train this node together.

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
    position = _shared(_start(node, store, due, probes) if ranks.is_first else None, node, ranks)
    if position is None:
        return
    writer = Writer(store.records(node.id), attempt) if ranks.is_first else nullcontext()
    with writer as records, ranks.blamed():
        _Training(node, store, set(due), records, heldout_sequences, probes, position, ranks).run(progress, should_stop)


def _stands(folder: Path) -> bool:
    return saved.is_valid(folder) and not saved.is_rolling(folder)


def _step_at(node: Node, tokens: int) -> int:
    return node.stage.grid.step_at(tokens - node.stage_begin)


def _tokens_at(node: Node, step: int) -> int:
    return node.stage_begin + node.stage.grid.tokens_at(step)


@dataclass
class _Position:
    """A state of training in memory, at a step boundary."""

    model: Decoder
    adamw: AdamW
    tokens: int
    step: int
    cursors: dict[str, int]
    window: Window
    average: Average | None = None
    read: dict[str, int] = field(default_factory=dict)
    spikes: Detector = field(default_factory=Detector)
    trail: Trail | None = None


def _start(node: Node, store: Store, due: Sequence[int], probes: Sequence[Probe] = ()) -> _Position | None:
    """The node's own newest checkpoint before the first of `due` that is missing and the first probe that is lacking,
    else its parent's end, else initialisation; None where nothing is missing.

    The folder may hold some from before its begin, of a plan that did not cut the stage there: those do not count.
    """
    missing = [next((tokens for tokens in due if not _stands(store.checkpoint(node.id, tokens))), None)]
    missing += [min(probe.lacking, default=None) for probe in probes]
    before = min((tokens for tokens in missing if tokens is not None), default=None)
    if before is None:
        return None
    saved.remove_leftovers(store.checkpoint(node.id, 0).parent)
    model = Decoder(node.model, node.vocab_size)
    adamw = optimizer.build(model, node.optimizer)
    folder = saved.newest(store, node.id, node.begin, before)
    own = folder is not None
    if folder is None and node.parent is not None:
        folder = store.checkpoint(node.parent, node.begin)
        if not saved.is_valid(folder):
            raise UserError(
                f"node {node.id} starts from {folder}, which is missing or damaged; launch the sweep again to train "
                f"node {node.parent} again"
            )
    if folder is None:
        model.initialise(node.initialisation_seed)
        average = averaging.start(node, model, node.begin, None, None)
        return _Position(model, adamw, node.begin, 0, {}, Window(), average)
    state = saved.read_state(folder)
    load_weights(model, folder)
    begins = state.tokens == node.stage_begin
    if not (begins and node.stage.optimizer_state == "reset"):
        optimizer.load_state_tensors(model, adamw, saved.load_optimizer(folder))
    cursors = {} if begins and node.stage.data_cursors == "reset" else dict(state.cursors)
    window = Window(dict(state.window)) if own else Window()
    average = averaging.start(node, model, state.tokens, folder, state.average_begin)
    read = {name: draws * node.stage.sequence_length for name, draws in state.cursors.items()}
    read = read if state.read is None else state.read
    spikes = Detector.of(state.recent)
    at = state.tokens, state.global_step
    return _Position(model, adamw, *at, cursors, window, average, read, spikes, state.trail)


def _shared(position: _Position | None, node: Node, ranks: Ranks) -> _Position | None:
    """The first rank's `position` on every rank, but for the weights, which the wrapper of the model hands out."""
    told = ranks.share(
        position
        and (
            position.tokens,
            position.step,
            position.cursors,
            position.window.sums,
            position.spikes.recent,
            position.trail,
            bool(position.adamw.state),
        )
    )
    if told is None or ranks.world == 1:
        return position
    tokens, step, cursors, sums, recent, trail, has_moments = told
    if position is None:
        model = Decoder(node.model, node.vocab_size)
        position = _Position(
            model,
            optimizer.build(model, node.optimizer),
            tokens,
            step,
            cursors,
            Window(sums),
            spikes=Detector.of(recent),
            trail=trail,
        )
    if has_moments:
        ours = optimizer.state_tensors(position.model, position.adamw) or optimizer.empty_tensors(position.model)
        ranks.broadcast(ours)
        if not ranks.is_first:
            optimizer.load_state_tensors(position.model, position.adamw, ours)
    position.average = averaging.shared(position.average, node, ranks)
    return position


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
        position: _Position,
        ranks: Ranks,
    ) -> None:
        self._node, self._store, self._due, self._records, self._at = node, store, due, records, position
        self._ranks = ranks
        self._objective = ranks.wrap(Objective(position.model, separator_of(node.stage)), EXAMPLE)
        self._adaptation: Adaptation | None = None
        begin, end = _step_at(node, position.tokens), node.steps.stop
        if node.stage.is_adaptive or position.trail is not None:
            adaptation = Adaptation(node, store, position.trail, position.tokens, position.model, ranks)
            self._adaptation, node = adaptation, adaptation.node
            begin, end = adaptation.step, end if adaptation.ended is None else adaptation.step
        self._steps = range(begin, end)
        self._batches = _batches(node, store, position.cursors, begin, ranks)
        self._ahead = Prefetch(self._batches.batch, self._steps)
        self._epochs = Epochs(node, store, position.read, position.cursors)
        self._heldout = heldout.load(node, store, heldout_sequences)
        self._probes = probes
        self._is_skipped = False
        self._pieces = node.stage.lr_pieces(node.stage_begin)

    def run(self, progress: Progress, should_stop: Callable[[], bool]) -> None:
        with self._ahead:
            self._run(progress, should_stop)

    def _run(self, progress: Progress, should_stop: Callable[[], bool]) -> None:
        node, at = self._node, self._at
        every, rolled = node.checkpoint_every_tokens, at.tokens // node.checkpoint_every_tokens
        reported, speed = 0.0, _Speed()
        if at.tokens == 0:
            self._probe(None)
        for step in self._steps:
            started, waited = time.perf_counter(), self._ahead.waited
            begun = at.tokens
            loss, values = self._step(step)
            seconds, waited = time.perf_counter() - started, self._ahead.waited - waited
            speed.add(node.stage.grid.batch_at(step) * node.stage.sequence_length, seconds, waited)
            has_ended = self._adapt(step)
            is_end = has_ended or at.tokens == node.end
            if at.step % RECORD_EVERY == 0 or is_end:
                values |= at.window.losses() | {"tokens_per_second": round(speed.rate(), 1)}
                values["data_wait"] = round(speed.waiting(), 4)
                self._record("train", values | self._instruments(step, speed.rate()))
                at.window, speed = Window(), _Speed()
            if self._ranks.is_first and (is_end or time.monotonic() - reported > PROGRESS_EVERY):
                reported = time.monotonic()
                progress(at.tokens, speed.last, loss)
            self._probe(begun)
            is_stopping = not is_end and self._ranks.any(should_stop())
            if at.tokens in self._due:
                self._measure()
                self._save(rolling=False)
            elif is_stopping or at.tokens // every > rolled:
                self._save(rolling=True)
            rolled = at.tokens // every
            if is_stopping:
                raise Stopped(f"node {node.id} stopped after {at.tokens} tokens")
            if has_ended:
                break
        self._skip_to_end()

    def _adapt(self, step: int) -> bool:
        """Decide what is due after `step`; whether the stage ended with it, before its last step."""
        at, adaptation = self._at, self._adaptation
        if adaptation is None:
            return False
        if adaptation.after(at.tokens, self._record):
            at.cursors |= self._batches.cursors_at(step + 1)
            self._batches = _batches(adaptation.node, self._store, at.cursors, step + 1, self._ranks)
            self._ahead.turn(self._batches.batch, range(step + 1, self._steps.stop))
        return adaptation.ended is not None

    def _skip_to_end(self) -> None:
        """Leave the state in which the stage ended early at the places of the plan that come later in it."""
        for probe in self._probes:
            later = [tokens for tokens in self._node.probed_at(probe.every_tokens) if tokens > self._at.tokens]
            rows = probe.score(self._at.model, self._ranks) if later else ()
            if self._records is not None:
                for tokens in later:
                    for values in rows:
                        self._records.write("probe", tokens, self._at.step, **values)
        for tokens in sorted(tokens for tokens in self._due if tokens > self._at.tokens):
            if self._at.average is not None:  # which counts what was seen since it began
                self._at.average.begin += tokens - self._at.tokens
            self._at.tokens = tokens
            self._measure()
            self._save(rolling=False)

    def _step(self, step: int) -> tuple[float, dict[str, float]]:
        """Train one step of the stage; its loss, and what a record says of it."""
        node, at = self._node, self._at
        batch = self._ahead.take(step)
        lr = value_at(self._pieces, at.tokens)
        size = node.stage.grid.batch_at(step)
        outcome = gradients(self._objective, batch, node.optimizer.gradient_clip, self._ranks, size)
        if not outcome.is_finite:
            raise TrainingFailed(
                f"node {node.id}: loss {outcome.loss}, gradient norm {outcome.gradient_norm} at step {at.step + 1} "
                f"({at.tokens} tokens, learning rate {lr:g}); a lower lr or gradient_clip may help"
            )
        spike = at.spikes.see(outcome.loss, outcome.gradient_norm)
        is_skipped = spike is not None and node.optimizer.spikes == "skip"
        if not is_skipped:
            move(at.adamw, lr)
        before, at.tokens, at.step = at.tokens, _tokens_at(node, step + 1), at.step + 1
        if at.average is not None:
            at.average.update(at.model, before, at.tokens)
        at.window.add(outcome, self._batches.domains)
        if spike is not None:
            self._record("spike", asdict(spike) | {"skipped": is_skipped})
        self._is_skipped = is_skipped
        return outcome.loss, {"lr": lr, "grad_norm": outcome.gradient_norm, "batch": size}

    def _instruments(self, step: int, speed: float) -> dict[str, float]:
        """What a record says after `step` beside losses; costs some passes over the weights."""
        node, at = self._node, self._at
        moved = {} if self._is_skipped else update_ratios(at.model, at.adamw)
        device = at.model.unembedding.device
        busy = utilisation(node, speed, device, self._ranks.world)
        return moved | busy | self._epochs.at(self._batches.cursors_at(step + 1))

    def _record(self, kind: str, values: Mapping[str, Any]) -> None:
        if self._records is not None:
            world = {"world": self._ranks.world} if self._ranks.world > 1 else {}
            skipped = self._adaptation.skipped(self._at.tokens) if self._adaptation else 0
            seen = {"seen": self._at.tokens - skipped} if skipped else {}
            self._records.write(kind, self._at.tokens, self._at.step, **values, **world, **seen)

    def _probe(self, begun: int | None) -> None:
        """Score the probes that the step from `begun` on (None: initialisation) makes due."""
        for probe in self._probes:
            if begun is None or self._at.tokens // probe.every_tokens > begun // probe.every_tokens:
                for values in probe.score(self._at.model, self._ranks):
                    self._record("probe", values)

    def _measure(self) -> None:
        for held in self._heldout:
            self._record("heldout", {"domain": held.domain} | heldout.measure(self._at.model, held, self._ranks))
            if (average := self._at.average) is not None:
                found = heldout.measure(average.model, held, self._ranks)
                self._record("heldout_average", {"domain": held.domain} | found)

    def _save(self, *, rolling: bool) -> None:
        self._ranks.require_same(self._at.model, f"node {self._node.id} at {self._at.tokens} tokens")
        if self._records is not None:
            self._write(self._records, rolling)
        self._ranks.barrier()  # Nobody ends before the checkpoint stands.

    def _write(self, records: Writer, rolling: bool) -> None:
        node, at = self._node, self._at
        # A checkpoint promises the records up to it.
        records.commit()
        adaptation = self._adaptation
        step = _step_at(node, at.tokens) if adaptation is None else adaptation.step
        cursors = at.cursors | self._batches.cursors_at(step)
        state = saved.State(
            version=saved.VERSION,
            node=node.id,
            tokens=at.tokens,
            global_step=at.step,
            cursors=cursors,
            window=at.window.sums,
            rolling=rolling,
            numerics=numerics.description(self._ranks.world),
            digests={},
            average_begin=None if at.average is None else at.average.begin,
            recent=at.spikes.recent,
            read=self._epochs.read_at(cursors),
            trail=adaptation.trail(at.tokens) if adaptation else None,
        )
        folder = self._store.checkpoint(node.id, at.tokens)
        average = None if at.average is None else at.average.model
        saved.write(folder, at.model, optimizer.state_tensors(at.model, at.adamw), state, average)
        saved.remove_rolling(self._store, node.id, at.tokens)


def _batches(node: Node, store: Store, cursors: dict[str, int], step: int, ranks: Ranks) -> Batches:
    """This rank's rows of the stage's batches, so that before `step` each source has been drawn from `cursors` times.

    Batches counts from the start of the stage; a checkpoint counts from initialisation, so that it does not depend on
    how the history before it was cut into stages.
    """
    drawn = Batches(node, store, {}).cursors_at(step)
    before = {name: cursors.get(name, 0) - drawn.get(name, 0) for name in cursors | drawn}
    return Batches(node, store, before, ranks.rank, ranks.world)


class _Speed:
    """Tokens a second of the steps alone, without what is written between them, and the share of it spent waiting for
    data."""

    def __init__(self) -> None:
        self._tokens, self._seconds, self._waited, self.last = 0, 0.0, 0.0, 0.0

    def add(self, tokens: int, seconds: float, waited: float) -> None:
        self._tokens += tokens
        self._seconds += seconds
        self._waited += waited
        self.last = tokens / seconds

    def rate(self) -> float:
        return self._tokens / self._seconds

    def waiting(self) -> float:
        return self._waited / self._seconds
