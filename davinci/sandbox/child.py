"""Runs one program where it can do no harm, and says how it ended. A script of the standard library only.

The package starts it with a request on standard input and reads one line of it: the request's word, then how the
program ended and, after a colon, why. What confines the program, each where the kernel grants it:

- namespaces of its own (user, network, mounts, processes): no interface is up, all that is mounted is read-only but an
  empty memory file system as working folder, no other process is seen;
- a seccomp filter (x86-64, ARM64), which needs no rights: no sockets, no new processes, no signals, no changed owners,
  and, where it could have no mounts of its own, no file opened for writing, made, renamed or removed;
- resource limits, no capabilities, no environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import resource
import signal
import struct
import sys
import types
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)

NEW_MOUNTS, NEW_IPC, NEW_USER, NEW_PROCESSES, NEW_NETWORK = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
PRIVATE, READ_ONLY, RECURSIVE, HERE = 0x44000, 1, 0x8000, -100
SET_DEATH_SIGNAL, SET_SECCOMP, SET_NO_NEW_PRIVILEGES = 1, 22, 38
SET_MOUNT = 442  # mount_setattr, on every architecture

# What a refused call returns tells how a program that ends of it is counted.
REFUSED = {
    "network": (errno.ENETDOWN, "socket io_uring_setup"),
    "processes": (errno.EAGAIN, "fork vfork execve execveat"),
    "files": (errno.EROFS, "chmod fchmod fchmodat chown fchown lchown fchownat shmget msgget"),
    "refused": (
        errno.EPERM,
        "kill tkill tgkill pidfd_send_signal pidfd_open rt_sigqueueinfo rt_tgsigqueueinfo ptrace process_vm_readv "
        "process_vm_writev setsid setpgid mount umount2 unshare setns bpf",
    ),
}
# Refused too where the mounts are the machine's own.
WRITES = (
    "creat openat2 mkdir mkdirat unlink unlinkat rmdir rename renameat renameat2 link linkat symlink symlinkat "
    "truncate mknod mknodat utimensat setxattr removexattr"
)
OPEN_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# AUDIT_ARCH, then call numbers (linux: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h).
CALLS: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (0xC000003E, {
        "socket": 41, "io_uring_setup": 425, "fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "chmod": 90,
        "fchmod": 91, "fchmodat": 268, "chown": 92, "fchown": 93, "lchown": 94, "fchownat": 260, "shmget": 29,
        "msgget": 68, "kill": 62, "tkill": 200, "tgkill": 234, "pidfd_send_signal": 424, "pidfd_open": 434,
        "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "ptrace": 101, "process_vm_readv": 310,
        "process_vm_writev": 311, "setsid": 112, "setpgid": 109, "mount": 165, "umount2": 166, "unshare": 272,
        "setns": 308, "bpf": 321, "clone": 56, "clone3": 435, "prlimit64": 302,
        "open": 2, "openat": 257, "openat2": 437, "creat": 85, "mkdir": 83, "mkdirat": 258, "unlink": 87,
        "unlinkat": 263, "rmdir": 84, "rename": 82, "renameat": 264, "renameat2": 316, "link": 86, "linkat": 265,
        "symlink": 88, "symlinkat": 266, "truncate": 76, "mknod": 133, "mknodat": 259, "utimensat": 280,
        "setxattr": 188, "removexattr": 197,
    }),
    "aarch64": (0xC00000B7, {
        "socket": 198, "io_uring_setup": 425, "execve": 221, "execveat": 281, "fchmod": 52, "fchmodat": 53,
        "fchown": 55, "fchownat": 54, "shmget": 194, "msgget": 186, "kill": 129, "tkill": 130, "tgkill": 131,
        "pidfd_send_signal": 424, "pidfd_open": 434, "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240, "ptrace": 117,
        "process_vm_readv": 270, "process_vm_writev": 271, "setsid": 157, "setpgid": 154, "mount": 40, "umount2": 39,
        "unshare": 97, "setns": 268, "bpf": 280, "clone": 220, "clone3": 435, "prlimit64": 261,
        "openat": 56, "openat2": 437, "mkdirat": 34, "unlinkat": 35, "renameat": 38, "renameat2": 276, "linkat": 37,
        "symlinkat": 36, "truncate": 45, "mknodat": 33, "utimensat": 88, "setxattr": 5, "removexattr": 14,
    }),
}  # fmt: skip
ALLOW, ERRNO, KILL = 0x7FFF0000, 0x50000, 0x80000000


def call(name: str, *arguments: Any) -> int:
    """A function of the C library; OSError where it returns -1."""
    result = int(getattr(LIBC, name)(*arguments))
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def separate() -> bool:
    """Enter new namespaces; False where the kernel does not let us.

    Raises:
        OSError: they were entered, but who we are in them could not be set.
    """
    wanted = NEW_MOUNTS | NEW_IPC | NEW_PROCESSES | NEW_NETWORK
    user, group = os.getuid(), os.getgid()
    try:
        call("unshare", wanted | NEW_USER)
    except OSError:
        try:
            call("unshare", wanted)
        except OSError:
            return False
        return True
    with contextlib.suppress(OSError):
        Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return True


def close_mounts(size: int) -> bool:
    """Make all mounts read-only and the working folder an empty memory file system of `size` bytes."""
    folder = str(Path.cwd()).encode()
    attributes = struct.pack("QQQQ", READ_ONLY, 0, 0, 0)
    try:
        call("mount", None, b"/", None, PRIVATE, None)
        call("syscall", SET_MOUNT, HERE, b"/", RECURSIVE, attributes, len(attributes))
        call("mount", b"tmpfs", folder, b"tmpfs", 6, f"size={size},nr_inodes=256,mode=0700".encode())
    except OSError:
        return False
    os.chdir(folder)
    with contextlib.suppress(OSError):  # a /proc that knows only our processes
        call("mount", b"proc", b"/proc", b"proc", 14, None)
    return True


def filter_calls(writes: bool) -> bool:
    """Seccomp: the calls of `REFUSED` fail, new threads may be made and new processes not; `writes` says if files are
    written."""
    if platform.machine() not in CALLS:
        return False
    architecture, numbers = CALLS[platform.machine()]
    load, equal, bits, end = 0x20, 0x15, 0x45, 0x06

    def refuse(code: int) -> tuple[int, int, int, int]:
        return end, 0, 0, ERRNO | code

    program = [(load, 0, 0, 4), (equal, 1, 0, architecture), (end, 0, 0, KILL), (load, 0, 0, 0)]
    if platform.machine() == "x86_64":  # the x32 calls, which have other numbers
        program += [(0x35, 0, 1, 0x40000000), refuse(errno.ENOSYS)]
    for code, names in REFUSED.values():
        for name in names.split():
            if name in numbers:
                program += [(equal, 0, 1, numbers[name]), refuse(code)]
    program += [(equal, 0, 1, numbers["clone3"]), refuse(errno.ENOSYS)]  # its flags cannot be seen; clone is tried then

    def test(name: str, argument: int, jump: tuple[int, int, int, int], code: int) -> None:
        """Refuse the call unless `jump` skips a line on the low half of its argument."""
        program.extend([(equal, 0, 3, numbers[name]), (load, 0, 0, 16 + 8 * argument), jump, refuse(code)])
        program.append((load, 0, 0, 0))  # the number again

    test("clone", 0, (bits, 1, 0, 0x10000), errno.EAGAIN)  # CLONE_THREAD
    test("prlimit64", 0, (equal, 1, 0, 0), errno.EPERM)  # its own
    if not writes:
        program += [
            line
            for name in WRITES.split()
            if name in numbers
            for line in ((equal, 0, 1, numbers[name]), refuse(errno.EROFS))
        ]
        for name, argument in (("open", 1), ("openat", 2)):
            if name in numbers:
                program.append((equal, 0, 4, numbers[name]))
                program.append((load, 0, 0, 16 + 8 * argument))
                program += [(bits, 0, 1, OPEN_TO_WRITE), refuse(errno.EROFS), (load, 0, 0, 0)]
    program += [(end, 0, 0, ALLOW)]
    packed = b"".join(struct.pack("HBBI", *line) for line in program)
    lines = ctypes.create_string_buffer(packed, len(packed))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(lines))
    try:
        call("prctl", SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        call("prctl", SET_SECCOMP, 2, header, 0, 0)
    except OSError:
        return False
    return True


def limit(request: dict[str, Any], own_users: bool) -> None:
    """Resource limits, and no capabilities; `own_users` says that processes are counted for us alone."""
    limits = {
        resource.RLIMIT_CPU: int(request["seconds"]) + 1,
        resource.RLIMIT_AS: request["memory"],
        resource.RLIMIT_FSIZE: request["disk"],
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    if own_users:
        limits[resource.RLIMIT_NPROC] = 32
    for kind, value in limits.items():
        most = resource.getrlimit(kind)[1]
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (value, value))
    call("capset", struct.pack("Ii", 0x20080522, 0), bytes(24))


def reason(error: BaseException) -> str:
    """How a program that ended with this exception is counted."""
    cause: BaseException | None = error
    while cause is not None:  # what was refused may have been dressed in another exception
        if type(cause).__name__ == "gaierror":  # a name to look up
            return "network"
        if isinstance(cause, OSError):
            if cause.errno in (errno.ENOSPC, errno.EFBIG, errno.EACCES, errno.EMFILE):
                return "files"
            for name, (code, _) in REFUSED.items():
                if code == cause.errno:
                    return name
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, RuntimeError) and "new thread" in str(error):
        return "processes"
    named = {AssertionError: "wrong", SystemExit: "exit", KeyboardInterrupt: "exit", MemoryError: "memory"}
    return next((name for kind, name in named.items() if isinstance(error, kind)), "error")


def execute(program: str) -> str:
    """Run the program as a module of its own; how it ended."""
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    try:
        exec(compile(program, "solution", "exec"), module.__dict__)
    except BaseException as error:
        kind, name = reason(error), type(error).__name__
        del error
        return f"{kind}:{name}"
    return "passed:"


def follow(report: int, word: str) -> None:
    """Fork: the child goes on, we wait for it, say if a signal ended it, and end."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            kind = "time" if number in (signal.SIGXCPU, signal.SIGKILL) else "crash"
            os.write(report, f"{word} {kind}:{signal.Signals(number).name}\n".encode())
        os._exit(0)


def main() -> None:
    """Read the request, confine, run, report."""
    request = json.load(sys.stdin)
    report = os.dup(1)
    os.set_inheritable(report, False)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    try:
        separated = separate()
    except OSError as error:
        os.write(report, f"{request['word']} broken:{error}\n".encode())
        os._exit(0)
    follow(report, request["word"])  # the first process of the new namespace is our child; all of it ends with that one
    call("prctl", SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if separated:
        follow(report, request["word"])  # signals spare a namespace's first process: it only waits
    mounts = separated and close_mounts(request["disk"])
    limit(request, separated)
    filtered = filter_calls(writes=mounts)
    had = {"network": separated or filtered, "files": mounts or filtered, "processes": separated or filtered}
    missing = [name for name, held in had.items() if not held]
    os.write(report, f"{request['word']} ready\n".encode())
    result = "unconfined:" + ", ".join(missing) if missing and request["strict"] else execute(request["program"])
    os.write(report, f"{request['word']} {result}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    main()
