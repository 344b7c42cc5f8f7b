"""Checkpoints: a folder with weights, optimizer moments and the state of training, whole or not there at all.

``model.safetensors`` (float32, Qwen2's names), ``optimizer.safetensors`` (see `optimizer.state_tensors`), where the
stage keeps an average of the weights ``average.safetensors``, and ``state.json`` (`State`), which is written last and
holds the SHA-256 of the others. Rolling checkpoints of ranks that each have a part of the weights have another form
(see `sharded`).
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

from pydantic_core import from_json
from safetensors.torch import load_file, save_file
from torch import Tensor

from davinci.config import Frozen
from davinci.errors import UserError
from davinci.model.decoder import Decoder
from davinci.model.weights import AVERAGE, STATE, WEIGHTS
from davinci.realised import Trail
from davinci.store import Store, file_digest, link, sync, write_json
from davinci.training.spikes import Recent

VERSION = 1
_OPTIMIZER = "optimizer.safetensors"
# Index of a checkpoint in parts, by which it is known.
_INDEX = ".metadata"


class State(Frozen):
    """Everything a resumed training needs beside tensors.

    `tokens` and `global_step` count from initialisation. `cursors` are the draws of each source so far. `window` holds
    nats and target counts of each domain since the last train record. A `rolling` checkpoint goes once a later one
    stands. `numerics` describes the process that wrote it. `average_begin` are the tokens at which the average of the
    weights began, null where none is kept. `recent` is what
    spikes are told by; `read` the tokens read of each source (null in a checkpoint from before it was counted). `trail`
    is there from the first adaptive stage on.
    """

    version: int
    node: str
    tokens: int
    global_step: int
    cursors: dict[str, int]
    window: dict[str, tuple[float, int]]
    rolling: bool
    numerics: dict[str, str | int | bool]
    digests: dict[str, str]
    average_begin: int | None = None
    recent: Recent = Recent()
    read: dict[str, int] | None = None
    trail: Trail | None = None


class NewerCheckpoint(UserError):
    """Written by a version of the program that this one cannot read: neither damaged nor superfluous."""


def write(
    folder: Path, model: Decoder, optimizer: dict[str, Tensor], state: State, average: Decoder | None = None
) -> None:
    """Write a checkpoint to `folder`, with the `average` of the weights if one is kept; `state.digests` is filled in.

    Raises:
        UserError: `folder` already holds a valid checkpoint with other weights, so a replay was not exact.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        tensors = {WEIGHTS: model.state_dict(), _OPTIMIZER: optimizer}
        if average is not None:
            tensors[AVERAGE] = average.state_dict()
        for name, content in tensors.items():
            save_file(content, temporary / name)
        digests = {name: file_digest(temporary / name) for name in tensors}
        state = state.model_copy(update={"digests": digests})
        for name in tensors:
            sync(temporary / name)
        if is_valid(folder):
            before = read_state(folder)
            _require_same(folder, before, state)
            state = state.model_copy(update={"rolling": before.rolling and state.rolling})
        write_state(temporary, state)
        if folder.exists():  # damaged, or the same but perhaps marked rolling: move it out of the way
            folder.rename(Path(tempfile.mkdtemp(prefix=".old.", dir=folder.parent)) / folder.name)
        temporary.chmod(0o755)
        temporary.rename(folder)
        sync(folder.parent)
    finally:
        remove_leftovers(folder.parent)


def copy(source: Path, folder: Path, *, node: str, rolling: bool) -> bool:
    """Give the checkpoint `source` of another node a second home at `folder`, which must not exist, as one of `node`.

    Returns whether it worked: `source` may go at any moment, since the caller does not hold its node.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        state = read_state(source).model_copy(update={"node": node, "rolling": rolling})
        for name in {WEIGHTS, _OPTIMIZER, AVERAGE} & state.digests.keys():
            link(source / name, temporary / name)
        write_state(temporary, state)
        if not is_valid(temporary):
            return False
        temporary.chmod(0o755)
        temporary.rename(folder)
        sync(folder.parent)
        return True
    except (FileNotFoundError, UserError):
        return False
    finally:
        remove_leftovers(folder.parent)


def write_state(folder: Path, state: State) -> None:
    """What is at its default is left out, so that programs from before it was there read the rest."""
    write_json(folder / STATE, state.model_dump(mode="json", exclude_defaults=True))


def _require_same(folder: Path, before: State, state: State) -> None:
    if before.digests[WEIGHTS] != state.digests[WEIGHTS]:
        raise UserError(
            f"{folder}: training this stretch again gave other weights. The checkpoint was written with "
            f"{_numerics(before)}, this process has {_numerics(state)}. Use the same settings, or another store"
        )


def _numerics(state: State) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(state.numerics.items()))


def read_state(folder: Path) -> State:
    """The state of a checkpoint. Raises UserError where it cannot be read, NewerCheckpoint where it is whole."""
    path = folder / STATE
    try:
        content = path.read_bytes()
        version = from_json(content).get("version")  # First: a newer one may have keys that this one does not know.
        if type(version) is int and version > VERSION:
            raise NewerCheckpoint(
                f"{path}: written by a newer daVinci (checkpoint version {version}, this one reads up to {VERSION}); "
                "update daVinci, or use another store"
            )
        return State.model_validate_json(content)
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not a checkpoint's state ({str(error).splitlines()[0]})") from None


def is_valid(folder: Path) -> bool:
    """Whether `folder` is a whole checkpoint whose files match their digests. Raises NewerCheckpoint where only a newer
    program can tell."""
    try:
        digests = read_state(folder).digests
        return digests.keys() - {AVERAGE} == {WEIGHTS, _OPTIMIZER} and all(
            file_digest(folder / name) == digest for name, digest in digests.items()
        )
    except NewerCheckpoint:
        raise
    except (UserError, OSError):
        return False


def is_sharded(folder: Path) -> bool:
    """Whether a checkpoint is in parts (see `sharded`). Raises UserError where its state cannot be read."""
    return _INDEX in read_state(folder).digests


def can_resume(folder: Path) -> bool:
    """Whether training can go on from `folder`: a whole checkpoint of either form. Raises NewerCheckpoint."""
    if is_valid(folder):
        return True
    try:
        digests = read_state(folder).digests
        if _INDEX not in digests or any(Path(name).name != name for name in digests):
            return False
        require_own(folder)
        return all(file_digest(folder / name) == digest for name, digest in digests.items())
    except (UserError, OSError):
        return False


def require_own(folder: Path) -> None:
    """Raise UserError unless a checkpoint in parts is this user's own: reading its index runs what is in it."""
    for path in (folder, folder / _INDEX):
        found = path.lstat()
        if found.st_uid != os.geteuid() or stat.S_ISLNK(found.st_mode) or found.st_mode & stat.S_IWOTH:
            raise UserError(f"{path}: belongs to user {found.st_uid}, or anyone may change it; not loaded")


def load_optimizer(folder: Path) -> dict[str, Tensor]:
    """The optimizer's named tensors."""
    tensors: dict[str, Tensor] = load_file(folder / _OPTIMIZER)
    return tensors


def newest(store: Store, node: str, above: int, below: int) -> Path | None:
    """The newest valid checkpoint of `node` with more than `above` and fewer than `below` tokens; damaged ones are
    passed over."""
    for tokens in sorted(_tokens(store, node), reverse=True):
        folder = store.checkpoint(node, tokens)
        if above < tokens < below and can_resume(folder):
            return folder
    return None


def remove_rolling(store: Store, node: str, below: int) -> None:
    """Remove the rolling checkpoints of `node` with fewer than `below` tokens."""
    for tokens in _tokens(store, node):
        folder = store.checkpoint(node, tokens)
        if tokens < below and is_rolling(folder):
            shutil.rmtree(folder)


def is_rolling(folder: Path) -> bool:
    """Whether a later checkpoint makes this one superfluous; a damaged state says no, so that nothing kept is lost."""
    try:
        return read_state(folder).rolling
    except UserError:
        return False


def remove_leftovers(parent: Path) -> None:
    """Remove what a killed writer left in a node's checkpoint folder (one process at a time works on a node)."""
    for path in parent.glob(".*"):
        shutil.rmtree(path, ignore_errors=True)


def _tokens(store: Store, node: str) -> list[int]:
    parent = store.checkpoint(node, 0).parent
    return [int(path.name) for path in parent.glob("[0-9]*") if path.name.isdigit()] if parent.is_dir() else []
