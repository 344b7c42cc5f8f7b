"""Weights that children are about to start from, looked at before a launch.

Cut short or in part gone they are removed, so that their node is trained again before its children, instead of being
found damaged by each of them.

Only names and sizes are compared, which takes no time however large the model is. Bits that rotted are found by the
digests when a child starts (see `job`).
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from davinci.errors import UserError
from davinci.launching.lock import Lock
from davinci.launching.reconcile import Remaining
from davinci.planning.plan import Plan
from davinci.store import Store, read_json

# The longest header safetensors accepts.
_HEADER_BYTES = 100_000_000


def remove_damaged(plan: Plan, left: Mapping[str, Remaining], store: Store) -> list[Path]:
    """Remove checkpoints of finished nodes that children would start from and that are not all there; returns them.

    One whose node someone works on, or another user's, is left alone: the jobs say that it is damaged.
    """
    removed = []
    starts = {
        (node.parent, node.begin)
        for node in plan.nodes.values()
        if node.parent and left[node.id].train and left[node.id].start == node.begin and not left[node.parent].train
    }
    for parent, tokens in sorted(starts):
        folder = store.checkpoint(parent, tokens)
        if is_cut_short(folder) and _discard_locked(folder, Lock(store.node(parent))):
            removed.append(folder)
    return removed


def _discard_locked(checkpoint: Path, lock: Lock) -> bool:
    """Remove a checkpoint if its node is free and this user's to change; returns whether it is gone."""
    try:
        if not lock.try_take():
            return False
        try:
            discard(checkpoint)
        finally:
            lock.release()
    except PermissionError:
        return False
    return True


def discard(checkpoint: Path) -> None:
    """Remove a checkpoint; it leaves its name at once."""
    removed = checkpoint.with_name(f".removed-{checkpoint.name}-{uuid.uuid4().hex[:8]}")
    checkpoint.rename(removed)
    shutil.rmtree(removed)


def is_cut_short(checkpoint: Path) -> bool:
    """Whether a checkpoint's files are fewer or shorter than they say themselves."""
    try:
        names = read_json(checkpoint / "state.json").get("digests", {})
        return any(_is_truncated(checkpoint / Path(name).name) for name in names)
    except FileNotFoundError:
        return checkpoint.is_dir()
    except (OSError, UserError, AttributeError):
        return False  # What cannot be read may be read by the job; if not, it says why.


def _is_truncated(path: Path) -> bool:
    """Whether a safetensors file ends before the last of its tensors does; of other files nothing is known."""
    if path.suffix != ".safetensors":
        return False
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        header = int.from_bytes(file.read(8), "little")
        if size < 8 or size < 8 + header <= 8 + _HEADER_BYTES:
            return True
        try:
            tensors = json.loads(file.read(header)) if header <= _HEADER_BYTES else {}
            ends = [one["data_offsets"][1] for name, one in tensors.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
    return size < 8 + header + max(ends, default=0)
