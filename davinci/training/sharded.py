"""Checkpoints of which every rank writes its part while training goes on: torch.distributed.checkpoint (DCP).

A folder with DCP's files, each rank's ``*.distcp`` and the index ``.metadata``, and the same ``state.json`` as of any
checkpoint, written last, with the SHA-256 of the others. It can be read by any number of ranks, and by a process alone.
The index is a pickle: it is loaded from the store's own folders alone, where this user owns it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load as load_parts
from torch.distributed.checkpoint.state_dict_saver import async_save

from davinci.store import file_digest, sync
from davinci.training import checkpoints as saved
from davinci.training.distributed import PATIENCE


class Background:
    """Writes one checkpoint at a time; all ranks make one, and use it alike."""

    def __init__(self) -> None:
        # Of its own: what a thread says on it does not get between what the training says.
        self._group = dist.new_group(backend="gloo", timeout=PATIENCE)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    @property
    def is_busy(self) -> bool:
        return self._pending is not None and not self._pending.done()

    def start(self, folder: Path, tensors: dict[str, Tensor], commit: Callable[[Path], None] | None) -> None:
        """Copy `tensors`, and begin to write them for `folder`.

        Args:
            commit: called with the folder in which they are once all ranks have written; on the first rank only.
        """
        temporary = folder.with_name(f".{folder.name}.parts")
        writer = FileSystemWriter(temporary)
        written = async_save(tensors, storage_writer=writer, process_group=self._group)
        self._pending = self._thread.submit(_finish, cast("Future[Any]", written), commit, temporary)

    def wait(self) -> None:
        """Wait for the checkpoint that is being written. Raises OSError where a rank could not write its part."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait, and say nothing of what went wrong: the checkpoint before stands."""
        with suppress(Exception):
            self.wait()
        self._thread.shutdown()
        with suppress(Exception):  # The group is gone where this rank has left the others.
            dist.destroy_process_group(self._group)


def _finish(written: Future[Any], commit: Callable[[Path], None] | None, temporary: Path) -> None:
    try:
        written.result()
    except CheckpointException as error:
        rank, (cause, _) = next(iter(error.failures.items()))
        raise OSError(f"{temporary}: rank {rank} could not write its part ({cause})") from None
    if commit is not None:
        commit(temporary)


def commit(temporary: Path, folder: Path, state: saved.State) -> None:
    """Make what all ranks have written to `temporary` the checkpoint `folder`, unless a whole one stands there."""
    if saved.is_valid(folder):
        shutil.rmtree(temporary)
        return
    digests = {path.name: file_digest(path) for path in sorted(temporary.iterdir())}
    saved.write_state(temporary, state.model_copy(update={"digests": digests}))
    if folder.exists():
        folder.rename(Path(tempfile.mkdtemp(prefix=".old.", dir=folder.parent)) / folder.name)
    temporary.rename(folder)
    sync(folder.parent)


def load(folder: Path, tensors: dict[str, Tensor], *, alone: bool) -> None:
    """Fill `tensors`, whole or in parts, from a checkpoint that `saved.can_resume`; all ranks, or this one `alone`."""
    saved.require_own(folder)
    load_parts(tensors, storage_reader=FileSystemReader(folder), no_dist=alone)
