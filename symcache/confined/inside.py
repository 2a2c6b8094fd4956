"""Runs inside the child: gives up the rights that hostile work must not have, then runs a script.

Started as `python -P inside.py BOUNDS SCRIPT ARGUMENTS…` or with `-I`, where BOUNDS is `Bounds.to_json`, and SCRIPT a
file, or `-m` with a module behind it. The Python may be another one than ours, the one that LLDB was made for: standard
library only, Python 3.9.

Linux does it by Landlock (files) and seccomp (system calls), which need no privileges and cannot be undone by the
process or by what it starts. Structures and constants are of linux/landlock.h, linux/seccomp.h, linux/filter.h.
"""

from __future__ import annotations

import ctypes
import json
import os
import runpy
import signal
import struct
import sys
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["FAILED", "confine", "has_filter", "has_landlock"]

FAILED = 70
"""Exit code where the system refuses what it was thought to grant; why is the last line of standard error."""

_CALLS = {
    # name: number on x86_64, on aarch64; of <asm/unistd_64.h> and <asm-generic/unistd.h>
    # Other machines and other processes.
    "socket": (41, 198),
    "io_uring_setup": (425, 425),
    "fork": (57, None),
    "vfork": (58, None),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    # What belongs to files without being in them, which Landlock leaves open.
    "truncate": (76, 45),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
    # Memory that no limit counts.
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    # The kernel itself.
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
}
"""Refused with any arguments."""
_CLONE, _CLONE3, _KILL, _TGKILL = (56, 220), (435, 435), (62, 129), (234, 131)
_MMAP, _IOCTL = (9, 222), (16, 29)
_CLONE_THREAD = 0x10000
_SHARED_ANONYMOUS = 0x01 | 0x20  # MAP_SHARED | MAP_ANONYMOUS
_INJECTING = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: typing into the terminal that we were given
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Column of the tables above, and AUDIT_ARCH_…"""
_X32 = 0x40000000
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_LOAD, _AND, _RETURN, _IF_EQUAL, _IF_ANY = 0x20, 0x54, 0x06, 0x15, 0x45
_ARGUMENTS = 16
"""Where they begin in struct seccomp_data, eight bytes each."""

_WRITE_FILE, _TRUNCATE = 1 << 1, 1 << 14
_WRITING = (_WRITE_FILE | sum(1 << bit for bit in range(4, 13)), 1 << 13, _TRUNCATE)
"""LANDLOCK_ACCESS_FS_… that change files, by the version that brought them: all from WRITE_FILE to MAKE_SYM but those
that read; REFER; TRUNCATE."""
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF, _SECCOMP, _CAPGET, _CAPSET = 444, 445, 446, (317, 277), (125, 90), (126, 91)
_SET_DEATH_SIGNAL, _SET_SECCOMP, _NO_NEW_PRIVILEGES = 1, 22, 38
_ANY_FILE_READABLE = 1 << 2  # CAP_DAC_READ_SEARCH


def confine(bounds: dict[str, Any]) -> None:
    """Give up all rights that `bounds` does not grant; see `Bounds`. Raises OSError where the system refuses.

    To be called before there are threads: Landlock binds only that which calls.
    """
    _limit(bounds)
    if bounds["unconfined"] or not sys.platform.startswith("linux"):
        return
    _prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != bounds["parent"]:
        os.kill(os.getpid(), signal.SIGKILL)  # it ended before this asked to end with it
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:  # noqa: PTH123
            file.write("1000")  # if the machine's memory ends nevertheless, the system is to end this process
    except OSError:
        pass
    _prctl(_NO_NEW_PRIVILEGES, 1)
    _drop_capabilities()
    if has_landlock():
        _restrict_writing(bounds["writable"])
    if has_filter():
        _filter_calls()


def has_landlock() -> bool:
    """Return whether this kernel can keep a process from writing."""
    return _landlock_version() > 0


def has_filter() -> bool:
    """Return whether this kernel can refuse system calls, and we know their numbers on this machine."""
    if not sys.platform.startswith("linux") or os.uname().machine not in _MACHINES or struct.calcsize("P") != 8:
        return False
    action = ctypes.c_uint32(_ERRNO)
    return bool(_libc().syscall(_number(_SECCOMP), 2, 0, ctypes.byref(action)) == 0)  # SECCOMP_GET_ACTION_AVAIL


def _limit(bounds: dict[str, Any]) -> None:
    import resource  # noqa: PLC0415 (not on every system)

    # Not RLIMIT_AS: a core of gigabytes is mapped, and takes memory only as far as it is read. RLIMIT_DATA counts what
    # is private and can be written, on Linux.
    wanted = [("CORE", 0), ("DATA", bounds["memory"]), ("NOFILE", bounds["descriptors"])]
    if bounds["file_bytes"] is not None:
        wanted.append(("FSIZE", bounds["file_bytes"]))
    if bounds["cpu_seconds"] is not None:
        wanted.append(("CPU", bounds["cpu_seconds"]))
    for name, most in wanted:
        which = getattr(resource, "RLIMIT_" + name)
        hard = resource.getrlimit(which)[1]
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(which, (value, value))
        except (ValueError, OSError):
            if sys.platform.startswith("linux"):
                raise
            # macOS refuses some values of some limits


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _number(numbers: tuple[int, int]) -> int:
    return numbers[_MACHINES[os.uname().machine][0]]


def _check(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result


def _prctl(option: int, value: int, more: Any = 0) -> None:
    _check(_libc().prctl(option, ctypes.c_ulong(value), more, 0, 0), f"prctl {option}")


def _drop_capabilities() -> None:
    """Leave root what any user has, and reading."""
    if os.uname().machine not in _MACHINES:
        return
    header, none = struct.pack("=Ii", 0x20080522, 0), b"\0" * 24
    granted = ctypes.create_string_buffer(none)
    _check(_libc().syscall(_number(_CAPGET), header, granted), "capget")
    left = struct.unpack_from("=I", granted, 4)[0] & _ANY_FILE_READABLE
    _check(_libc().syscall(_number(_CAPSET), header, struct.pack("=6I", left, left, 0, 0, 0, 0)), "capset")


def _landlock_version() -> int:
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, int(_libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)))


def _restrict_writing(writable: Iterable[str]) -> None:
    """Have the kernel refuse to change any file but those below `writable`; what is open already stays so."""
    libc = _libc()
    rights = sum(_WRITING[: _landlock_version()])
    attributes = struct.pack("=Q", rights)
    rules = _check(libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0), "Landlock")
    for path in ("/dev/null", "/dev/tty", *writable):
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        granted = rights if os.path.isdir(path) else rights & (_WRITE_FILE | _TRUNCATE)  # noqa: PTH112
        beneath = struct.pack("=Qi", granted, place)
        _check(libc.syscall(_ADD_RULE, rules, 1, beneath, 0), f"Landlock: {path}")
        os.close(place)
    _check(libc.syscall(_RESTRICT_SELF, rules, 0), "Landlock")
    os.close(rules)


def _filter_calls() -> None:
    """Have the kernel refuse network, other processes, and what `_CALLS` lists."""
    steps = list(_steps(os.getpid()))
    program = b"".join(struct.pack("=HBBI", *step) for step in steps)
    kept = ctypes.create_string_buffer(program)
    described = struct.pack("@HP", len(steps), ctypes.addressof(kept))  # struct sock_fprog
    _prctl(_SET_SECCOMP, 2, described)


def _steps(pid: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the filter's instructions: (code, jump if so, jump if not, operand), as struct sock_filter has them."""

    def refuse(error: int = _EPERM) -> tuple[int, int, int, int]:
        return _RETURN, 0, 0, _ERRNO | error

    def load(offset: int) -> tuple[int, int, int, int]:
        return _LOAD, 0, 0, offset

    def argument(position: int) -> tuple[int, int, int, int]:
        return load(_ARGUMENTS + 8 * position)  # its lower half; both machines are little-endian

    def when(numbers: tuple[int, int], *then: tuple[int, int, int, int]) -> Iterator[tuple[int, int, int, int]]:
        yield _IF_EQUAL, 0, len(then), numbers[column]
        yield from then

    column, architecture = _MACHINES[os.uname().machine]
    allow = (_RETURN, 0, 0, _ALLOW)
    yield load(4)
    yield _IF_EQUAL, 1, 0, architecture
    yield refuse(_ENOSYS)  # the calls of another architecture have other numbers
    yield load(0)
    if column == 0:
        yield _IF_ANY, 0, 1, _X32
        yield refuse(_ENOSYS)
    for numbers in _CALLS.values():
        if numbers[column] is not None:
            yield from when(numbers, refuse())  # type: ignore[arg-type]
    # Its flags lie where no filter can read them; without it, the C library takes `clone`.
    yield from when(_CLONE3, refuse(_ENOSYS))
    yield from when(_CLONE, argument(0), (_IF_ANY, 0, 1, _CLONE_THREAD), allow, refuse())
    for numbers in (_KILL, _TGKILL):
        yield from when(numbers, argument(0), (_IF_EQUAL, 0, 1, pid), allow, refuse())
    yield from when(
        *(_MMAP, argument(3), (_AND, 0, 0, _SHARED_ANONYMOUS), (_IF_EQUAL, 0, 1, _SHARED_ANONYMOUS), refuse(), allow)
    )
    yield from when(_IOCTL, argument(1), *((_IF_EQUAL, 2 - n, 0, r) for n, r in enumerate(_INJECTING)), allow, refuse())
    yield allow


def main(bounds: str, script: str, *arguments: str) -> None:
    """Confine this process and run `script` in it, as if Python had been started with that."""
    try:
        confine(json.loads(bounds))
    except OSError as error:
        sys.stderr.write(f"{error.strerror or error}\n")
        raise SystemExit(FAILED) from None
    if script == "-m":
        sys.argv = list(arguments)
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [script, *arguments]
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
