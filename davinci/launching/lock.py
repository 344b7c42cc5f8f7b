"""A lock that survives its holder's death and holds on NFS: no flock, no clock compared between hosts.

The lock of a folder is its highest-numbered ``lock.<n>`` file. It is free when there is none, when that file says it
was released, or when its holder is dead. Taking it means linking ``lock.<n+1>`` into place: a hard link is created by
exactly one of several claimants. Older files are removed by the new holder, so one small file stays behind a lock.

A holder on this machine is dead when no process has its pid and start time. A holder elsewhere touches its file every
`BEAT_SECONDS`; it is dead when the claimant, by its own clock, sees the file unchanged for `SILENCE_SECONDS`.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

BEAT_SECONDS = 10.0
SILENCE_SECONDS = 90.0
POLL_SECONDS = 0.5

_PREFIX = "lock."


class WaitAbandoned(Exception):
    """The caller asked to stop while waiting for a lock."""


@dataclass(frozen=True)
class Owner:
    """Who holds a lock. `machine` tells hosts, boots and pid namespaces apart; `started` is the process's start time in
    clock ticks since boot, which tells a process from a later one with its pid."""

    host: str
    machine: str
    pid: int
    started: str
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def this_process() -> Owner:
    """An `Owner` for the calling process, with a fresh token."""
    host = platform.node()
    return Owner(host, _machine(host), os.getpid(), process_start(os.getpid()) or "", uuid.uuid4().hex)


def _machine(host: str) -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{host} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return host


def process_start(pid: int) -> str | None:
    """Start time of a live process, as an opaque string; None if there is none (a zombie is dead)."""
    try:
        # The command's name, in parentheses, may itself hold spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self").exists():
            return None
        return _start_without_proc(pid)
    return None if fields[0] in "ZXx" else fields[19]


def _start_without_proc(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"


def holder(folder: Path) -> Owner | None:
    """Who holds the lock of `folder`, as far as one look can tell: a holder elsewhere counts as alive."""
    number = _highest(folder)
    if number is None:
        return None
    owner = _read(_file(folder, number))
    if owner is None or (owner.machine == _machine(platform.node()) and process_start(owner.pid) != owner.started):
        return None
    return owner


def is_silent(folder: Path, clock: Path) -> bool:
    """Whether the lock of `folder` is held from another machine, and its file is older than `SILENCE_SECONDS`.

    One look, for those who only show it. What the time is, the file system says: a file is made for it in `clock`, a
    folder on the same one; where none can be made, nothing is silent.
    """
    number, owner = _highest(folder), holder(folder)
    if number is None or owner is None or owner.machine == _machine(platform.node()):
        return False
    try:
        with tempfile.TemporaryFile(dir=clock) as file:
            now = os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return False
    return now - _modified(_file(folder, number)) > SILENCE_SECONDS * 1e9


def beats(folder: Path, patience: float) -> bool:
    """Whether a live process holds the lock of `folder`; one elsewhere is given `patience` seconds for a beat."""
    owner = holder(folder)
    if owner is None:
        return False
    if owner.machine == _machine(platform.node()):
        return True  # `holder` has seen its process.
    number = _highest(folder)
    before = number and _modified(_file(folder, number))
    until = time.monotonic() + patience
    while time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        number = _highest(folder)
        if before != (number and _modified(_file(folder, number))):
            return holder(folder) is not None
    return False


class Lock:
    """Context manager around the lock of `folder` (created when missing).

    Args:
        folder: what is locked.
        on_wait: called once, with the holder, when the lock must be waited for.
        should_stop: polled while waiting; when true, `WaitAbandoned` is raised.
    """

    def __init__(
        self,
        folder: Path,
        on_wait: Callable[[Owner], None] = lambda owner: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._folder = folder
        self._on_wait = on_wait
        self._should_stop = should_stop
        self._me = this_process()
        self._path: Path | None = None
        self._released = threading.Event()
        self._lost = threading.Event()
        # What the last look saw, since when, and who held it.
        self._seen: tuple[int, int, str] | None = None
        self._changed = 0.0
        self._holder: Owner | None = None

    @property
    def lost(self) -> bool:
        """Whether someone took the lock over, believing this process dead (a machine that slept, say); known within
        `BEAT_SECONDS`."""
        return self._lost.is_set()

    def __enter__(self) -> Self:
        told = False
        while not self.try_take():
            if not told and self._holder is not None:
                self._on_wait(self._holder)
                told = True
            if self._should_stop():
                raise WaitAbandoned(f"stopped waiting for {self._holder}")
            time.sleep(POLL_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def try_take(self) -> bool:
        """Take the lock if it is free. A holder elsewhere is known to be dead only by calls that span its silence."""
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            number = _highest(self._folder)
            if number is None:
                if self._claim(1):
                    return True
                continue
            path = _file(self._folder, number)
            self._holder = owner = _read(path)
            seen = (number, _modified(path), owner.token if owner else "")
            if seen != self._seen:
                self._seen, self._changed = seen, time.monotonic()
            if not self._is_dead(owner, silent=time.monotonic() - self._changed):
                return False
            if self._claim(number + 1):
                return True

    def release(self) -> None:
        """Give the lock back."""
        self._released.set()
        if self._path is not None and self._is_mine(self._path):
            try:
                self._write_temporary({"released": True}).replace(self._path)
            except OSError:  # The disk is full: an empty file says the same.
                os.truncate(self._path, 0)
        self._path = None

    def _is_mine(self, path: Path) -> bool:
        owner = _read(path)
        return owner is not None and owner.token == self._me.token and _highest(self._folder) == _number(path)

    def _is_dead(self, owner: Owner | None, silent: float) -> bool:
        if owner is None:
            return True
        if owner.machine == self._me.machine:
            return process_start(owner.pid) != owner.started
        return silent > SILENCE_SECONDS

    def _claim(self, number: int) -> bool:
        """Try to become the holder with file `number`; False if someone else was first."""
        path = _file(self._folder, number)
        temporary = self._write_temporary(asdict(self._me))
        try:
            os.link(temporary, path)
        except FileExistsError:
            # Over NFS a link may succeed while its reply is lost and the retry fails: the link count tells.
            if temporary.stat().st_nlink != 2:
                return False
        finally:
            temporary.unlink(missing_ok=True)
        if _highest(self._folder) != number:
            # The file judged dead was replaced and cleaned away meanwhile: a higher one rules.
            path.unlink(missing_ok=True)
            return False
        for old in _numbers(self._folder):
            if old < number:
                _file(self._folder, old).unlink(missing_ok=True)
        self._path = path
        self._released.clear()
        self._lost.clear()
        threading.Thread(target=self._beat, args=(path,), name="lock-heartbeat", daemon=True).start()
        return True

    def _beat(self, path: Path) -> None:
        while not self._released.wait(BEAT_SECONDS):
            try:
                if not self._is_mine(path):
                    self._lost.set()
                    return
                os.utime(path)
            except OSError:
                continue  # A hiccup of the file system: the next beat tells.

    def _write_temporary(self, content: dict[str, object]) -> Path:
        temporary = self._folder / f".lock-{uuid.uuid4().hex}"
        try:
            temporary.write_text(json.dumps(content))
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        return temporary


def _file(folder: Path, number: int) -> Path:
    return folder / f"{_PREFIX}{number:06d}"


def _number(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))


def _numbers(folder: Path) -> list[int]:
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except FileNotFoundError:
        return []
    digits = [name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX)]
    return sorted(int(text) for text in digits if text.isdigit())


def _highest(folder: Path) -> int | None:
    numbers = _numbers(folder)
    return numbers[-1] if numbers else None


def _read(path: Path) -> Owner | None:
    """The holder named in a lock file; None if it was released, is gone, or was torn by a power cut.

    Any other failure to read is raised: it must not pass for a free lock.
    """
    try:
        return Owner(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _modified(path: Path) -> int:
    try:
        with path.open("rb") as file:  # Opening makes an NFS client ask the server for fresh attributes.
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return 0
