"""Pinned package archives: obtained once by pip, verified by hash, read without unpacking."""

from __future__ import annotations

import functools
import importlib.metadata
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from davinci.errors import UserError
from davinci.store import atomic_file, file_digest

_PIN = re.compile(
    r"(?P<name>[\w.-]+)==(?P<version>\S+) --hash=sha256:(?P<sha256>[0-9a-f]{64})  # (?P<kind>source|wheel)"
)
# No text of a pool comes near this.
_MEMBER_LIMIT = 16 << 20
# The same wheel on every machine: the one without compiled code.
_PIP_OPTIONS = {
    "source": ["--no-binary", ":all:"],
    "wheel": [
        *("--only-binary", ":all:", "--platform", "any", "--python-version", "3.11"),
        *("--implementation", "py", "--abi", "none"),
    ],
}


@dataclass(frozen=True)
class Pin:
    """One archive as a file of pins has it. `kind` is ``source`` or ``wheel``."""

    name: str
    version: str
    sha256: str
    kind: str


@dataclass(frozen=True)
class Archive:
    """A verified archive on disk."""

    pin: Pin
    path: Path

    def members(self, wanted: Callable[[str], bool]) -> list[tuple[str, bytes]]:
        """(name, content) of the regular files whose name is `wanted`, in order of name.

        Names are relative to the top folder of a source distribution, and as stored in a wheel. Nothing is written to
        disk.
        """
        return sorted((name, content) for name, content in _contents(self).items() if wanted(name))

    def member(self, name: str) -> bytes | None:
        """The content of one file, without reading on behind it; None where there is no such file."""
        return next((content for _, content in _walk(self, name.__eq__)), None)


@functools.lru_cache(maxsize=2)
def _contents(archive: Archive) -> dict[str, bytes]:
    return dict(_walk(archive, lambda name: True))


def _walk(archive: Archive, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """The regular files whose name is `wanted`, as they stand in the archive; one too large to be text is left out."""
    if archive.pin.kind == "wheel":
        with zipfile.ZipFile(archive.path) as wheel:
            for info in wheel.infolist():
                if not info.is_dir() and info.file_size <= _MEMBER_LIMIT and wanted(info.filename):
                    yield info.filename, wheel.read(info)
        return
    with tarfile.open(archive.path, "r:gz") as source:
        for member in source:
            name = member.name.partition("/")[2]
            if member.isreg() and member.size <= _MEMBER_LIMIT and wanted(name):
                file = source.extractfile(member)
                assert file is not None  # a regular file always opens
                yield name, file.read()


def read_pins(path: Path) -> list[Pin]:
    """Parse a file of pins: pip's requirements format, with a comment that says which kind of archive is meant.

    Raises:
        UserError: it cannot be read, or a line is no pin.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"pins: {path} cannot be read ({error})") from None
    pins = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _PIN.fullmatch(line)
        if match is None:
            raise UserError(f"{path}:{number}: not a pinned archive; name==version --hash=sha256:…  # source|wheel")
        pins.append(Pin(**match.groupdict()))
    return pins


def obtain(pins: list[Pin], folder: Path, log: Callable[[str], None]) -> dict[str, Archive]:
    """Return the pinned archives by name, downloading those that `folder` lacks.

    A file there is an archive if its SHA-256 is pinned, whatever its name; pip is called only for missing ones.

    Raises:
        UserError: pip could not obtain an archive, or obtained other bytes.
    """
    found = present(pins, folder)
    missing = [pin for pin in pins if pin.name not in found]
    if missing:
        log(f"downloading {len(missing)} of {len(pins)} package archives with pip")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download.", dir=folder) as temporary:
            _download(missing, Path(temporary))
            for file in sorted(Path(temporary).glob("*/*")):
                with atomic_file(folder / file.name) as target:
                    file.replace(target)
        found = present(pins, folder)
        for pin in missing:
            if pin.name not in found:
                raise UserError(f"pip obtained no {pin.kind} archive of {pin.name}=={pin.version} with the pinned hash")
    return found


def present(pins: list[Pin], folder: Path) -> dict[str, Archive]:
    """Those of the pinned archives that are in `folder`."""
    files = sorted(path for path in folder.glob("*") if path.is_file() and not path.name.startswith("."))
    found = {}
    for pin in pins:
        likely = sorted(files, key=lambda path: (not path.name.lower().startswith(pin.name.lower()), path))
        path = next((one for one in likely if _digest(one, one.stat().st_mtime_ns) == pin.sha256), None)
        if path is not None:
            found[pin.name] = Archive(pin, path)
    return found


@functools.lru_cache(maxsize=256)
def _digest(path: Path, modified: int) -> str:
    return file_digest(path)


def _setuptools_is_recent() -> bool:
    """Whether the setuptools at hand reads every source distribution's metadata (77 is the first that reads django's).

    pip asks for the metadata of what it downloads; with a setuptools of its own for each, that takes a minute.
    """
    try:
        return int(importlib.metadata.version("setuptools").partition(".")[0]) >= 77
    except importlib.metadata.PackageNotFoundError:
        return False


def _download(pins: list[Pin], folder: Path) -> None:
    """Fetch `pins` into subfolders of `folder`, source distributions and wheels at the same time."""
    running = []
    for kind, options in _PIP_OPTIONS.items():
        chosen = [pin for pin in pins if pin.kind == kind]
        if not chosen:
            continue
        (folder / kind).mkdir()
        requirements = folder / f"{kind}.txt"
        requirements.write_text("".join(f"{pin.name}=={pin.version} --hash=sha256:{pin.sha256}\n" for pin in chosen))
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        if kind == "source" and _setuptools_is_recent():
            command.append("--no-build-isolation")
        command += [*options, "--require-hashes", "--requirement", str(requirements), "--dest", str(folder / kind)]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    outputs = [(process, process.communicate()[0]) for process in running]
    for process, output in outputs:
        if process.returncode:
            errors = [line for line in output.splitlines() if line.startswith("ERROR")] or output.splitlines()[-1:]
            raise UserError(f"pip download failed (exit {process.returncode}): {' '.join(errors)[:600]}")
