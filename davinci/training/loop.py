"""Training of one node, from the state before it to its end.

A node may be stopped at any step, killed at any moment, resumed or forked: the weights at its end are the same bits
(for one instruction set and one thread count). What makes it so: the state at a step boundary is all in the checkpoint,
the data of a step is a function of the step, and nothing depends on when checkpoints or records are written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.optim import AdamW

from davinci.config import Node
from davinci.data.batches import Batches
from davinci.errors import UserError
from davinci.model.decoder import Decoder
from davinci.model.weights import load_weights
from davinci.schedules import value_at
from davinci.store import Store
from davinci.tracking.records import Writer
from davinci.training import checkpoints as saved
from davinci.training import heldout, numerics, optimizer
from davinci.training.step import Window, gradients, move

# Steps from one train record to the next, counted from initialisation.
RECORD_EVERY = 10
# Seconds between two progress reports.
PROGRESS_EVERY = 0.25

Progress = Callable[[int, float, float], None]


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
) -> None:
    """Train `node` to its end, leaving a checkpoint and held-out losses there and at each of `checkpoints`.

    Starts from the newest checkpoint before the first one that is missing; does nothing where none is. A damaged
    checkpoint counts as missing. A stretch trained again must give the weights already there.

    Args:
        checkpoints: tokens since initialisation, on step boundaries in (node.begin, node.end].
        attempt: stamped on the records.
        progress: called a few times a second with tokens since initialisation, tokens a second, loss.
        should_stop: asked after each step.
        heldout_sequences: sequences a domain of the held-out loss.

    Raises:
        Stopped: `should_stop` said so.
        TrainingFailed: loss or gradient is not finite; nothing of that step is kept.
        UserError: no parent checkpoint to start from, or a replay that is not exact.
        ValueError: `checkpoints` off the step grid.
    """
    due = sorted({*checkpoints, node.end})
    missing = [tokens for tokens in due if not _stands(store.checkpoint(node.id, tokens))]
    for tokens in due:
        if not node.begin < tokens <= node.end or _tokens_at(node, _step_at(node, tokens)) != tokens:
            raise ValueError(f"node {node.id}: {tokens} tokens is no step boundary in ({node.begin}, {node.end}]")
    if not missing:
        return
    saved.remove_leftovers(store.checkpoint(node.id, 0).parent)
    with Writer(store.records(node.id), attempt) as records:
        _Training(node, store, set(due), records, heldout_sequences, _start(node, store, missing[0])).run(
            progress, should_stop
        )


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


def _start(node: Node, store: Store, before: int) -> _Position:
    """The node's own newest checkpoint with fewer than `before` tokens, else its parent's end, else initialisation.

    The folder may hold some from before its begin, of a plan that did not cut the stage there: those do not count.
    """
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
        return _Position(model, adamw, node.begin, 0, {}, Window())
    state = saved.read_state(folder)
    load_weights(model, folder)
    is_reset = not own and node.begin == node.stage_begin and node.stage.optimizer_state == "reset"
    if not is_reset:
        optimizer.load_state_tensors(model, adamw, saved.load_optimizer(folder))
    window = Window(dict(state.window)) if own else Window()
    return _Position(model, adamw, state.tokens, state.global_step, dict(state.cursors), window)


class _Training:
    def __init__(
        self, node: Node, store: Store, due: set[int], records: Writer, heldout_sequences: int, position: _Position
    ) -> None:
        self._node, self._store, self._due, self._records, self._at = node, store, due, records, position
        self._steps = range(_step_at(node, position.tokens), node.steps.stop)
        self._batches = _batches(node, store, position.cursors, self._steps.start)
        self._heldout = heldout.load(node, store, heldout_sequences)
        self._pieces = node.stage.lr_pieces(node.stage_begin)

    def run(self, progress: Progress, should_stop: Callable[[], bool]) -> None:
        node, at = self._node, self._at
        every, rolled = node.checkpoint_every_tokens, at.tokens // node.checkpoint_every_tokens
        reported, speed = 0.0, _Speed()
        for step in self._steps:
            started = time.perf_counter()
            loss, values = self._step(step)
            speed.add(node.stage.grid.batch_at(step) * node.stage.sequence_length, time.perf_counter() - started)
            is_end = at.tokens == node.end
            if at.step % RECORD_EVERY == 0 or is_end:
                values |= at.window.losses() | {"tokens_per_second": round(speed.rate(), 1)}
                self._records.write("train", at.tokens, at.step, **values)
                at.window, speed = Window(), _Speed()
            if is_end or time.monotonic() - reported > PROGRESS_EVERY:
                reported = time.monotonic()
                progress(at.tokens, speed.last, loss)
            is_stopping = not is_end and should_stop()
            if at.tokens in self._due:
                self._measure()
                self._save(rolling=False)
            elif is_stopping or at.tokens // every > rolled:
                self._save(rolling=True)
            rolled = at.tokens // every
            if is_stopping:
                raise Stopped(f"node {node.id} stopped after {at.tokens} tokens")

    def _step(self, step: int) -> tuple[float, dict[str, float]]:
        """Train one step of the stage; its loss, and what a record says of it."""
        node, at = self._node, self._at
        batch = self._batches.batch(step)
        lr = value_at(self._pieces, at.tokens)
        outcome = gradients(at.model, batch, node.optimizer.gradient_clip)
        if not outcome.is_finite:
            raise TrainingFailed(
                f"node {node.id}: loss {outcome.loss}, gradient norm {outcome.gradient_norm} at step {at.step + 1} "
                f"({at.tokens} tokens, learning rate {lr:g}); a lower lr or gradient_clip may help"
            )
        move(at.adamw, lr)
        at.tokens, at.step = _tokens_at(node, step + 1), at.step + 1
        at.window.add(outcome, batch.domain, self._batches.domains)
        return outcome.loss, {"lr": lr, "grad_norm": outcome.gradient_norm, "batch": len(batch.tokens)}

    def _measure(self) -> None:
        for held in self._heldout:
            values = heldout.measure(self._at.model, held)
            self._records.write("heldout", self._at.tokens, self._at.step, domain=held.domain, **values)

    def _save(self, *, rolling: bool) -> None:
        node, at = self._node, self._at
        # A checkpoint promises the records up to it.
        self._records.commit()
        state = saved.State(
            version=saved.VERSION,
            node=node.id,
            tokens=at.tokens,
            global_step=at.step,
            cursors=at.cursors | self._batches.cursors_at(_step_at(node, at.tokens)),
            window=at.window.sums,
            rolling=rolling,
            numerics=numerics.description(),
            digests={},
        )
        folder = self._store.checkpoint(node.id, at.tokens)
        saved.write(folder, at.model, optimizer.state_tensors(at.model, at.adamw), state)
        saved.remove_rolling(self._store, node.id, at.tokens)


def _batches(node: Node, store: Store, cursors: dict[str, int], step: int) -> Batches:
    """The stage's batches, so that before `step` each source has been drawn from `cursors` times.

    Batches counts from the start of the stage; a checkpoint counts from initialisation, so that it does not depend on
    how the history before it was cut into stages.
    """
    drawn = Batches(node, store, {}).cursors_at(step)
    return Batches(node, store, {name: cursors.get(name, 0) - drawn.get(name, 0) for name in cursors | drawn})


class _Speed:
    """Tokens a second of the steps alone, without what is written between them."""

    def __init__(self) -> None:
        self._tokens, self._seconds, self.last = 0, 0.0, 0.0

    def add(self, tokens: int, seconds: float) -> None:
        self._tokens += tokens
        self._seconds += seconds
        self.last = tokens / seconds

    def rate(self) -> float:
        return self._tokens / self._seconds
