"""A training as one of several ranks sees it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from davinci.config import Node
from davinci.errors import UserError
from davinci.store import Store


class Trained:
    """What a rank saw of a training: digests of the rows it read in each step, and how it ended."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []
        self.progress: list[tuple[int, float, float]] = []
        self.error: tuple[str, str] | None = None


def train(ranks: Any, node: Node, root: Path, attempt: int, stop: tuple[int, int] | None) -> Trained:
    """Train on this rank; `stop` is the rank that asks to stop, and after how many steps."""
    from davinci.training import loop

    seen, asked = Trained(), 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return (ranks.rank, asked) == stop

    def watched(objective: Any, batch: Any, *rest: Any) -> Any:
        seen.rows.append([hashlib.sha256(row.tobytes()).hexdigest() for row in batch.tokens])
        return plain(objective, batch, *rest)

    plain, loop.gradients = loop.gradients, watched
    try:
        loop.train(
            node,
            Store(root),
            checkpoints=(),
            attempt=attempt,
            progress=lambda *values: seen.progress.append(values),
            should_stop=should_stop,
            heldout_sequences=4,
            ranks=ranks,
        )
    except (loop.Stopped, UserError) as error:  # on every rank alike
        seen.error = type(error).__name__, str(error)
    finally:
        loop.gradients = plain
    return seen
