"""A copy of the program in the store, so that a queued job runs what was submitted whatever is edited meanwhile."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import davinci
from davinci.store import Store, sync


def snapshot(store: Store) -> str:
    """Copy the package to ``code/<digest>/`` unless it is there; returns the digest of its files' names and bytes."""
    contents = _contents()
    key = _digest(contents)
    target = code_folder(store, key)
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".code-", dir=target.parent))
        try:
            for name, content in contents.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                (temporary / name).write_bytes(content)
            temporary.chmod(0o755)
            temporary.rename(target)
            sync(target.parent)
        except OSError:
            if not target.is_dir():  # else another launcher was first
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return key


@cache
def program() -> str:
    """The digest of the program that runs here, by which `snapshot` would keep it."""
    return _digest(_contents())


def _contents() -> dict[Path, bytes]:
    package = Path(davinci.__file__).parent
    files = sorted(path for path in package.rglob("*") if path.is_file() and _belongs(path.relative_to(package)))
    return {path.relative_to(package.parent): path.read_bytes() for path in files}


def _digest(contents: Mapping[Path, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def code_folder(store: Store, digest: str) -> Path:
    """What goes on PYTHONPATH to run the snapshot `digest`."""
    return store.root / "code" / digest


def _belongs(name: Path) -> bool:
    return not any(part == "__pycache__" or part.startswith(".") for part in name.parts)
