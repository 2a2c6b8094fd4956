"""What this machine has for a child, and what it can keep it from."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from symcache.confined.inside import has_filter, has_landlock

__all__ = ["is_unconfined", "machine_memory", "sandbox_command", "unconfined_parts"]

UNCONFINED = "SYMCACHE_UNCONFINED"
"""The variable that takes confinement away, for where it goes wrong: limits stay."""
_CGROUPS = Path("/sys/fs/cgroup")
_SANDBOX_EXEC = "/usr/bin/sandbox-exec"


def is_unconfined() -> bool:
    """Return whether the user has taken confinement away."""
    return os.environ.get(UNCONFINED, "") not in {"", "0"}


def unconfined_parts() -> list[str]:
    """Return what a confined child is not kept from on this machine, and why; empty where nothing is missing."""
    if is_unconfined():
        return [f"network, writing, other processes: {UNCONFINED} is set"]
    if sys.platform == "darwin":
        parts = ["memory: macOS enforces no limit", "other processes: what leaves its process group may outlive it"]
        if not _has_sandbox():
            parts.append(f"network, writing: there is no {_SANDBOX_EXEC}")
        return parts
    parts = []
    if not has_landlock():
        parts.append("writing: this kernel has no Landlock, or a container refuses it")
    if not has_filter():
        parts.append("network, other processes, shared memory: no seccomp filter for this kernel and processor")
    return parts


def machine_memory() -> int:
    """Return the bytes of memory that there are for this process: the machine's, or its control group's if fewer."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError):
        for path in _memory_limits(Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()):
            with suppress(OSError, ValueError):  # "max"
                memory = min(memory, int(path.read_text(encoding="ascii")))
    return memory


def _memory_limits(groups: Iterable[str], root: Path = _CGROUPS) -> Iterator[Path]:
    """Yield the files that may limit this process's memory, of cgroup v1 and v2; `groups` as in /proc/self/cgroup.

    In a container, the paths may be those of the host: the root is then the container's own.
    """
    for line in groups:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers == "":
            base, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        inner = base / group.lstrip("/")
        for folder in (inner, *inner.parents):
            if folder.is_relative_to(base):
                yield folder / name


def sandbox_command(writable: Sequence[Path]) -> list[str]:
    """Return what stands before a command on macOS, so that it has no network and writes below `writable` only.

    Written after Apple's profiles in /System/Library/Sandbox/Profiles; has never been run.
    """
    if is_unconfined() or not _has_sandbox():
        return []
    folders = "".join(f"(subpath (param {_parameter(n)}))" for n in range(len(writable)))
    profile = (
        "(version 1)(allow default)(deny network*)(deny file-write*)"
        f'(allow file-write* (literal "/dev/null")(literal "/dev/tty"){folders})'
    )
    parameters = [text for n, path in enumerate(writable) for text in ("-D", f"W{n}={os.path.realpath(path)}")]
    return [_SANDBOX_EXEC, *parameters, "-p", profile]


def _parameter(number: int) -> str:
    return f'"W{number}"'


def _has_sandbox() -> bool:
    return sys.platform == "darwin" and shutil.which(_SANDBOX_EXEC) is not None
