"""A sweep's records as one archive, from which someone else makes every table without its checkpoints.

``SWEEP.tar.gz`` holds, laid out as the store is: the plan as launched, the runs' manifests, each node's definition,
records, mark and per-item results, the cards of the pools, suites that were evaluated on demand, and the models that
stand beside the arms; and ``archive.json``, with the versions it was made with and the digest of every file. The same
records make the same bytes. Folders outside the store are not named in it: absolute paths are cut to their last part.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import IO, Any

from davinci.errors import UserError
from davinci.planning.plan import Plan, load_plan
from davinci.store import Store, atomic_file, file_digest, read_json

SUFFIX = ".tar.gz"
MANIFEST = "archive.json"
FORMAT = 1
PACKAGES = ("davinci", "lm_eval", "numpy", "pandas", "pyarrow", "scipy", "torch")
_NODE_FILES = ("node.json", "records.jsonl", "done.json", "realised.json")
_MARK = "unpacked.json"
_SECRETS = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")


@dataclass(frozen=True)
class Viewed(Store):
    """A store of which the numbers are read from `source`: its records, or a mirror of them."""

    source: str = "store"


def pack(store: Store, sweep: str, target: Path, externals: Sequence[str] = ()) -> int:
    """Write the archive of `sweep` to `target`, with the models `externals` of ``external/`` beside those that the
    sweep declares; returns how many files are in it.

    Raises:
        UserError: the sweep was never launched from this store, there is no such model, or a file holds a secret of
            the environment.
    """
    plan = load_plan(store, sweep)
    files: dict[str, bytes] = {}
    for path in _members(store, plan, externals):
        name = path.relative_to(store.root).as_posix()
        files[name] = _cleaned(path, store)
        _refuse_secrets(name, files[name])
    about = {
        "format": FORMAT,
        "sweep": sweep,
        "versions": {"python": platform.python_version()} | _versions(),
        "files": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
        },
    }
    members = {MANIFEST: (json.dumps(about, indent=1, sort_keys=True) + "\n").encode()} | dict(sorted(files.items()))
    with (
        atomic_file(target) as path,
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, data in members.items():
            member = tarfile.TarInfo(name)  # of nobody, at the beginning of time: the same bytes everywhere
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return len(files)


def opened(path: Path, source: str = "store") -> Store:
    """The store at `path`, its numbers read from `source` (`analysis.load`).

    An archive is unpacked beside itself, once, into a folder without its suffix.

    Raises:
        UserError: the archive is damaged or none of ours, or its folder is in the way or cannot be made.
    """
    if not path.is_file():
        return Viewed(path, source)
    digest = file_digest(path)
    folder = path.with_name(path.name.removesuffix(SUFFIX) if path.name.endswith(SUFFIX) else f"{path.name}.unpacked")
    if folder.exists():
        mark = folder / _MARK
        if mark.is_file() and read_json(mark) == {"archive": digest}:
            return Viewed(folder, source)
        raise UserError(f"{path}: cannot be unpacked, since {folder} is there and holds something else; move it away")
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            unpack(path, temporary)
            (temporary / _MARK).write_text(json.dumps({"archive": digest}))
            temporary.chmod(0o755)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be unpacked beside itself ({error.strerror or error})") from None
    return Viewed(folder, source)


def unpack(path: Path, folder: Path) -> None:
    """Unpack the archive `path` into the empty `folder`; every file is checked against its digest.

    Raises:
        UserError: it is damaged, cut short, or no archive of `pack`; a member that would leave `folder` is that too.
    """
    try:
        with gzip.open(path) as packed, tarfile.open(fileobj=packed, mode="r:") as archive:
            members = iter(archive)
            first = next(members, None)
            if first is None or first.name != MANIFEST:
                raise UserError(f"{path}: not an archive that python -m analysis export made ({MANIFEST} is not in it)")
            about = json.loads(_content(archive, first, 1 << 30))
            if about["format"] != FORMAT:
                raise UserError(f"{path}: of format {about['format']}; this version reads format {FORMAT}")
            wanted: dict[str, dict[str, Any]] = dict(about["files"])
            for member in members:
                said = wanted.pop(member.name, None)
                if said is None or not _stays_inside(member.name) or not member.isreg():
                    raise UserError(f"{path}: {member.name!r} does not belong into such an archive")
                data = _content(archive, member, said["bytes"])
                if hashlib.sha256(data).hexdigest() != said["sha256"]:
                    raise UserError(f"{path}: damaged ({member.name} is not what {MANIFEST} says); copy it again")
                target = folder / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
            while packed.read(1 << 20):  # to the checksum at its end
                pass
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged, or no archive ({error or type(error).__name__}); copy it again") from None
    if wanted:
        raise UserError(f"{path}: cut short ({len(wanted)} files are missing); copy it again")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> bytes:
    file: IO[bytes] | None = archive.extractfile(member)
    data = b"" if file is None else file.read(most + 1)
    if len(data) > most or len(data) != member.size:
        raise tarfile.ReadError(f"{member.name} has not the size it should")
    return data


def _stays_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts and "\\" not in name


def _members(store: Store, plan: Plan, externals: Sequence[str]) -> Iterator[Path]:
    sweep = store.sweep(plan.sweep)
    yield from (path for path in (sweep / "launched.json", sweep / "runs.json") if path.is_file())
    for node in plan.nodes:
        yield from _recorded(store.node(node))
    pools = {arm.config.pool.name for arm in plan.arms}
    cards = (store.pool(pool) / "card.json" for pool in sorted(pools))
    yield from (path for path in cards if path.is_file())
    yield from sorted((store.root / "suites").glob("*.json"))
    for name in dict.fromkeys([*plan.question.table.external, *externals]):
        folders = [path for path in sorted((store.root / "external").glob("*")) if _is_model(path, name)]
        if not folders and name in externals:
            raise UserError(f"--external {name}: {store.root / 'external'} holds no such model")
        for folder in folders:
            yield from _recorded(folder)


def _is_model(folder: Path, name: str) -> bool:
    return folder.name == name or folder.name.rpartition("-")[0] == name


def _recorded(folder: Path) -> Iterator[Path]:
    yield from (path for name in (*_NODE_FILES, "model.json") if (path := folder / name).is_file())
    yield from sorted((folder / "evaluations").glob("*.parquet"))


def _cleaned(path: Path, store: Store) -> bytes:
    """The file's content without absolute paths."""
    data = path.read_bytes()
    if path.suffix == ".json":
        value = read_json(path)
        cleaned = _relative(value, str(store.root.resolve()))
        # In the order it has: that of a plan's benchmarks and arms is the order of its tables.
        return data if cleaned == value else (json.dumps(cleaned, indent=1) + "\n").encode()
    if path.suffix == ".jsonl":
        for place in (store.root.resolve(), Path.home()):
            if len(place.parts) > 1:
                data = data.replace(f"{place}/".encode(), b"")
    return data


def _relative(value: Any, root: str) -> Any:
    match value:
        case dict():
            return {key: _relative(one, root) for key, one in value.items()}
        case list():
            return [_relative(one, root) for one in value]
        case str() if value.startswith(("/", "~/")) and not value.endswith("/"):
            return PurePosixPath(value).name
        case str():
            return value.replace(f"{root}/", "")
        case _:
            return value


def _refuse_secrets(name: str, data: bytes) -> None:
    for variable, value in os.environ.items():
        if variable.endswith(_SECRETS) and len(value) >= 16 and value.encode() in data:
            raise UserError(f"{name} holds the value of ${variable}; nothing was packed")


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
