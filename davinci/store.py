"""Where everything lives, and how a file is written so that a crash never leaves half of one.

STORE/
  archives/                     package archives the embedded pool is built from
  pools/<pool>/                 card.json, tokenizer.json, <source>@<depth>/, tasks/,
                                build/ (documents between the steps of a chain, and what steps decided)
  cache/                        what operations keep by content: answers of models
  nodes/<node id>/              node.json, records.jsonl, done.json, checkpoints/<tokens>/, evaluations/,
                                realised.json (what an adaptive stage came to)
  external/<name>-<digest>/     another's model as evaluated: model.json, records.jsonl, evaluations/
  imported/<name>/              another's model as training begins with it: model.safetensors, imported.json, hf/
  suites/<key>.json             suites that were evaluated on demand
  sweeps/<sweep>/               plan.json (as planned last), launched.json (as launched last), report/,
                                runs.json (its runs by id: each a manifest of node ranges)
  jobs/<sweep>/                 frozen job files and their logs; on Slurm also the book of job ids, deaths and places
  code/<digest>/                the program as it was when jobs were submitted
  wandb/                        offline W&B runs
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import orjson

from davinci.errors import UserError

Made = TypeVar("Made")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@%+=-]*")


def checked_name(name: str, what: str) -> str:
    """Return `name` if it can be one path component inside the store, else raise UserError."""
    if not _NAME.fullmatch(name):
        raise UserError(f"{what} {name!r} cannot name a folder: letters, digits and . _ @ % + = - are accepted")
    return name


@dataclass(frozen=True)
class Store:
    """Paths below one root folder."""

    root: Path

    def require_writable(self) -> None:
        """Make the root folder if there is none; UserError where nothing can be written in it."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise UserError(f"store={self.root}: cannot write there ({error.strerror})") from None

    @property
    def archives(self) -> Path:
        return self.root / "archives"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def pool(self, name: str) -> Path:
        return self.root / "pools" / checked_name(name, "pool")

    @lru_cache(maxsize=1 << 14)  # noqa: B019  a store is its root: nothing else is kept alive
    def node(self, node_id: str) -> Path:
        return self.root / "nodes" / checked_name(node_id, "node")

    def records(self, node_id: str) -> Path:
        return self.node(node_id) / "records.jsonl"

    def realised(self, node_id: str) -> Path:
        return self.node(node_id) / "realised.json"

    def checkpoint(self, node_id: str, tokens: int) -> Path:
        """Folder of the checkpoint taken `tokens` tokens after initialisation (run-cumulative)."""
        return self.node(node_id) / "checkpoints" / f"{tokens:015d}"

    def sweep(self, name: str) -> Path:
        return self.root / "sweeps" / checked_name(name, "sweep")

    def runs(self, sweep: str) -> Path:
        return self.sweep(sweep) / "runs.json"

    def jobs(self, sweep: str) -> Path:
        return self.root / "jobs" / checked_name(sweep, "sweep")

    def external(self, name: str) -> Path:
        return self.root / "external" / checked_name(name, "model")

    def imported(self, name: str) -> Path:
        return self.root / "imported" / checked_name(name, "model")

    def suite(self, key: str) -> Path:
        return self.root / "suites" / f"{checked_name(key, 'suite')}.json"

    @property
    def wandb(self) -> Path:
        return self.root / "wandb"


def sync(path: Path) -> None:
    """Flush a file, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _beside(path: Path, make: Callable[..., Made]) -> Made:
    """A temporary beside `path`; an OSError names `path`, and what of it is no folder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return make(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        there = next(one for one in path.absolute().parents if one.exists())
        raise OSError(error.errno, error.strerror if there.is_dir() else f"{there} is no folder", str(path)) from None


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, which must be new or empty; on success it is renamed to `path`, on error
    removed."""
    temporary = Path(_beside(path, tempfile.mkdtemp))
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.replace(path)
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed over `path`, on error removed."""
    handle, name = _beside(path, tempfile.mkstemp)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        sync(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented, key-sorted JSON, atomically."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; a file that is not JSON (or not text) is a UserError naming it."""
    try:
        return from_json(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None


def from_json(content: bytes | str) -> Any:
    """`json.loads`, in a fraction of its time where it is JSON by the letter: without NaN."""
    try:
        return orjson.loads(content)
    except ValueError:
        return json.loads(content)


def link(source: Path, target: Path) -> None:
    """Give a file that is never written again a second name; a copy where the file system knows no hard links."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
        sync(target)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
