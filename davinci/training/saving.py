"""When and in which form the state of a training is saved.

What others read (the end of a node, what is evaluated) is a plain checkpoint. So is what a rolling checkpoint keeps for
a restart, unless each rank has but a part of the weights: then each writes its own, and training goes on meanwhile.
"""

from __future__ import annotations

from pathlib import Path

from davinci.store import Store
from davinci.training import checkpoints as saved
from davinci.training import sharded
from davinci.training.distributed import Ranks
from davinci.training.placement import Placed


class Saver:
    """Saves what is `placed`; every rank makes one, and calls it alike. Only the first writes plain checkpoints."""

    def __init__(self, store: Store, placed: Placed, ranks: Ranks) -> None:
        self._store, self._placed, self._ranks = store, placed, ranks
        self._background = sharded.Background() if placed.in_parts else None

    def save(self, state: saved.State, *, wait: bool) -> None:
        """Save the state of this moment under `state`.

        A rolling checkpoint in parts may be written after this returns, unless `wait`; it is left out where the one
        before is still being written. Any other is there on return, on all ranks.
        """
        folder = self._store.checkpoint(state.node, state.tokens)
        if self._background is not None and state.rolling:
            self._save_parts(self._background, folder, state, wait)
        else:
            self._save_whole(folder, state)

    def close(self) -> None:
        """End what is done in the background; comes last, whatever happened."""
        if self._background is not None:
            self._background.close()

    def _save_parts(self, background: sharded.Background, folder: Path, state: saved.State, wait: bool) -> None:
        if not wait and self._ranks.any(background.is_busy):
            return

        def commit(temporary: Path) -> None:
            sharded.commit(temporary, folder, state)
            saved.remove_rolling(self._store, state.node, state.tokens)

        background.wait()
        background.start(folder, self._placed.tensors(), commit if self._ranks.is_first else None)
        if wait:
            background.wait()
            self._ranks.barrier()

    def _save_whole(self, folder: Path, state: saved.State) -> None:
        if self._background is not None:
            self._background.wait()
        else:
            self._ranks.require_same(self._placed.decoder, f"node {state.node} at {state.tokens} tokens")
        decoder, moments, average = self._placed.whole()
        if self._ranks.is_first:
            saved.write(folder, decoder, moments, state, average)
            saved.remove_rolling(self._store, state.node, state.tokens)
        self._ranks.barrier()  # Nobody ends before the checkpoint stands.
