"""What a training reads: its batches, made ahead of the steps, and how far each source was read."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from davinci.config import Node
from davinci.data.batches import Batch, Batches
from davinci.data.cards import read_card
from davinci.data.prefetch import Prefetch
from davinci.errors import UserError
from davinci.store import Store
from davinci.training.distributed import Ranks
from davinci.training.positions import Position

# Sequences by which a mixture may be ahead of its shares (see `data.order`).
_AHEAD = 2


class Reading:
    """This rank's rows of the batches of `steps`, which count from the beginning of the stage, from `position` on.

    A context, in which the next batches are made in the background.
    """

    def __init__(self, node: Node, store: Store, position: Position, steps: range, ranks: Ranks) -> None:
        self._node, self._store, self._ranks, self._stop = node, store, ranks, steps.stop
        self._cursors = dict(position.cursors)
        self._epochs = Epochs(node, store, position.read, position.cursors)
        self._batches = self._from(node, steps.start)
        self._ahead = Prefetch(self._batches.batch, steps)

    def __enter__(self) -> Self:
        self._ahead.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ahead.__exit__(kind, error, trace)

    @property
    def domains(self) -> list[str]:
        """What `Batch.domain` counts."""
        return self._batches.domains

    @property
    def waited(self) -> float:
        """Seconds spent waiting for batches."""
        return self._ahead.waited

    def take(self, step: int) -> Batch:
        """The batch of the next step."""
        return self._ahead.take(step)

    def turn(self, node: Node, step: int) -> None:
        """Read on from `step` on in the mixture of `node`."""
        self._cursors |= self._batches.cursors_at(step)
        self._batches = self._from(node, step)
        self._ahead.turn(self._batches.batch, range(step, self._stop))

    def cursors(self, step: int) -> dict[str, int]:
        """Draws of each source since initialisation, once `step` steps of the stage are taken."""
        return self._cursors | self._batches.cursors_at(step)

    def read(self, step: int) -> dict[str, int]:
        """Tokens read of each source, of all depths and sequence lengths, once `step` steps are taken."""
        return self._epochs.read_at(self.cursors(step))

    def epochs(self, step: int) -> dict[str, float]:
        """``epochs/<source>`` once `step` steps are taken: tokens read over what the source has at this depth."""
        return self._epochs.at(self.cursors(step))

    def require_unexhausted(self, step: int) -> None:
        """Raise UserError where the stage's `step`-th step (from 0) would read a source more often than is allowed.

        Planning refuses what it can foresee; here is what it cannot, a mixture that has moved.
        """
        if not self._node.max_epochs:
            return
        read, slack = self.read(step + 1), _AHEAD * self._node.stage.sequence_length
        for name, limit in self._node.max_epochs.items():
            if read.get(name, 0) > limit * self._epochs.sizes.get(name, 0) + slack:
                raise UserError(
                    f"node {self._node.id}: the mixture moved, and source {name} is exhausted "
                    f"{self._node.stage.grid.tokens_at(step)} tokens into {self._node.stage_name}: {limit:g} epochs of "
                    "it are allowed (pool.max_epochs); allow more to go on from here, or lower adapt.bound or its share"
                )

    def _from(self, node: Node, step: int) -> Batches:
        """Batches of which each source has been drawn from `cursors` times before `step`.

        Batches counts from the start of the stage; a checkpoint counts from initialisation, so that it does not depend
        on how the history before it was cut into stages.
        """
        drawn = Batches(node, self._store, {}).cursors_at(step)
        before = {name: self._cursors.get(name, 0) - drawn.get(name, 0) for name in self._cursors | drawn}
        return Batches(node, self._store, before, self._ranks.rank, self._ranks.world)


class Epochs:
    """Passes over each source's training tokens since initialisation.

    Args:
        node: whose stage's sources are told.
        store: where the pool's card is, with the sources' sizes at the node's depths.
        read: tokens read of each source before `cursors`.
        cursors: draws of each source at that moment.
    """

    def __init__(self, node: Node, store: Store, read: Mapping[str, int], cursors: Mapping[str, int]) -> None:
        card = read_card(store, node.pool)
        variants = {name: card.sources[name].variants[use.depth] for name, use in node.sources.items()} if card else {}
        self.sizes = {name: variant.tokens for name, variant in sorted(variants.items())}
        self._length = node.stage.sequence_length
        self._read, self._cursors = dict(read), dict(cursors)

    def read_at(self, cursors: Mapping[str, int]) -> dict[str, int]:
        """Tokens read of every source, of all depths and sequence lengths, once the draws are `cursors`."""
        return {
            name: self._read.get(name, 0) + self._length * (cursors.get(name, 0) - self._cursors.get(name, 0))
            for name in sorted(self._read.keys() | cursors.keys())
        }

    def at(self, cursors: Mapping[str, int]) -> dict[str, float]:
        """``epochs/<source>``: tokens read over the tokens the source has at this stage's depth."""
        read = self.read_at(cursors)
        return {f"epochs/{name}": round(read.get(name, 0) / size, 6) for name, size in self.sizes.items() if size}
