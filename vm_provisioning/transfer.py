"""Copying one file from a host: whole or not at all, bounded, and continued in the middle after a loss."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from symcache.errors import IntegrityError, RemoteError, StorageError
from vm_provisioning.sftp import Attributes, ConnectionLostError, Sftp
from vm_provisioning.text import shown

__all__ = ["MAX_FILE_SIZE", "copy_file"]

MAX_FILE_SIZE = 16 << 30
"""Several times the largest file of any shared cache so far, in bytes."""
_STALL_SECONDS = 60
_STALL_BYTES = 64 << 10
"""A transfer that brings less than this in that time is stuck, however busy it looks."""


def copy_file(
    sftp: Sftp, remote: bytes, expected: Attributes, local: Path, progress: Callable[[int], None] | None = None
) -> None:
    """Copy a regular file of the size and modification time that `expected` says to `local`.

    What has come so far lies beside it under a hidden name that tells size and time, and is continued there; `local`
    appears when the copy is whole, with the remote's modification time. `progress` is told bytes as they come, what
    an earlier run left included.

    Raises IntegrityError when the file is another than expected or changes under way, RemoteError, StorageError.
    """
    name = shown(remote)
    if expected.size > MAX_FILE_SIZE:
        raise IntegrityError(f"{name}: claims {expected.size} bytes, more than any file of macOS has")
    if _is_copy(local, expected):
        if progress:
            progress(expected.size)
        return
    part = local.with_name(f".{local.name}.{expected.size:x}-{expected.mtime:x}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _disk(part, error) from error
    changed = False
    try:
        done = os.lseek(descriptor, 0, os.SEEK_END)
        if done > expected.size:
            os.ftruncate(descriptor, 0)
            done = os.lseek(descriptor, 0, os.SEEK_SET)
        if progress and done:
            progress(done)
        marked, marked_time = done, time.monotonic()
        for attributes, data in sftp.read(remote, done, expected.size):
            if not data:
                changed = not _same(attributes, expected)
                if changed:
                    raise IntegrityError(
                        f"{name}: is not what was listed: {attributes.size} bytes where {expected.size} were expected,"
                        " or changed since",
                        hint="harvest again when nothing writes to it",
                    )
                continue
            _write(descriptor, data, part)
            done += len(data)
            if progress:
                progress(len(data))
            now = time.monotonic()
            if now - marked_time > _STALL_SECONDS:
                if done - marked < _STALL_BYTES:
                    raise ConnectionLostError(f"{name}: only {done - marked} bytes came in {_STALL_SECONDS} seconds")
                marked, marked_time = done, now
        if done != expected.size:
            changed = True
            raise IntegrityError(
                f"{name}: ends after {done} of {expected.size} bytes", hint="harvest again when nothing writes to it"
            )
        os.utime(descriptor, (expected.mtime, expected.mtime))
        part.replace(local)
    except OSError as error:
        raise _disk(part, error) from error
    finally:
        os.close(descriptor)
        if changed:
            part.unlink(missing_ok=True)  # nothing of it can be trusted to belong together


def _same(found: Attributes, expected: Attributes) -> bool:
    return stat.S_ISREG(found.mode) and (found.size, found.mtime) == (expected.size, expected.mtime)


def _is_copy(local: Path, expected: Attributes) -> bool:
    try:
        found = local.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and (found.st_size, int(found.st_mtime)) == (expected.size, expected.mtime)


def _write(descriptor: int, data: bytes, part: Path) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise _disk(part, error) from error


def _disk(part: Path, error: OSError) -> StorageError | RemoteError:
    return StorageError(
        f"{part}: cannot be written: {error.strerror or error}",
        hint="free some space, or name another folder with --staging; then run the same command again",
    )
