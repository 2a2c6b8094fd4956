"""Copying files from a host: whole or not at all, bounded, and resumed after a lost connection."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from symcache.errors import IntegrityError, StorageError, SymcacheError
from symcache.text import excerpt
from symcache_provisioning.ssh.packets import Attributes, ConnectionLostError
from symcache_provisioning.ssh.sftp import Sftp, WholeFile

__all__ = ["MAX_FILE_SIZE", "SMALL_FILE_SIZE", "Copy", "copy_file", "copy_small_files"]

MAX_FILE_SIZE = 16 << 30
"""Several times the largest file of any shared cache so far, in bytes."""
SMALL_FILE_SIZE = 4 << 20
"""Up to this, a file is started over after a loss, in bytes."""
_WRITERS = 4
_UNWRITTEN = 16 << 20
"""Most bytes that are received but not yet written, in addition to those of one file."""
_STALL_SECONDS, _STALL_BYTES = 60, 64 << 10
"""A transfer of fewer bytes in so many seconds has stalled."""
_HINT = "harvest again when nothing writes to it"


def copy_file(
    sftp: Sftp,
    remote: bytes,
    expected: Attributes,
    local: Path,
    progress: Callable[[int], None],
    growing: Callable[[Path], None] | None = None,
) -> None:
    """Copy a regular file of the size and modification time that `expected` says to `local`.

    A partial copy lies beside it under a hidden name with size and time, and is resumed; `local` appears when the copy
    is whole, with the remote's modification time. `progress` is called with the number of bytes as they arrive,
    including those of an earlier run; `growing` with the path of the partial copy, before it grows at its end.

    Raises IntegrityError when the file is not as expected or changes meanwhile, RemoteError, StorageError.
    """
    name = excerpt(remote)
    if expected.size > MAX_FILE_SIZE:
        raise IntegrityError(f"{name}: claims {expected.size} bytes, more than any file of macOS has")
    if _is_copy(local, expected):
        progress(expected.size)
        return
    part = local.with_name(f".{local.name}.{expected.size:x}-{expected.mtime:x}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _write_error(part, error) from error
    changed = False
    try:
        done = os.lseek(descriptor, 0, os.SEEK_END)
        if done > expected.size:
            os.ftruncate(descriptor, 0)
            done = os.lseek(descriptor, 0, os.SEEK_SET)
        if growing:
            growing(part)
        progress(done)
        marked, marked_time = done, time.monotonic()
        for attributes, data in sftp.read(remote, done, expected.size):
            if not data:
                changed = not _same(attributes, expected)
                if changed:
                    raise _changed_error(name, attributes, expected)
                continue
            _write(descriptor, data, part)
            done += len(data)
            progress(len(data))
            now = time.monotonic()
            if now - marked_time > _STALL_SECONDS:
                if done - marked < _STALL_BYTES:
                    raise ConnectionLostError(f"{name}: only {done - marked} bytes came in {_STALL_SECONDS} seconds")
                marked, marked_time = done, now
        if done != expected.size:
            changed = True
            raise _short_error(name, done, expected)
        os.utime(descriptor, (expected.mtime, expected.mtime))
        part.replace(local)
    except OSError as error:
        raise _write_error(part, error) from error
    finally:
        os.close(descriptor)
        if changed:
            part.unlink(missing_ok=True)  # nothing of it can be trusted to belong together


@dataclass(frozen=True, slots=True)
class Copy:
    """One file to be copied: from the path `remote`, where it is what `expected` says, to `local`."""

    remote: bytes
    expected: Attributes
    local: Path


def copy_small_files(sftp: Sftp, copies: Sequence[Copy]) -> Iterator[tuple[Copy, SymcacheError | None]]:
    """Copy files of up to SMALL_FILE_SIZE bytes, many at a time; yield each with its error or None.

    As `copy_file`, but no partial copies are kept.
    """
    wanted = [c for c in copies if not _is_copy(c.local, c.expected)]
    results = sftp.whole([(c.remote, c.expected.size) for c in wanted])
    missing = {id(c) for c in wanted}
    writing: deque[tuple[Copy, Future[IntegrityError | None]]] = deque()
    unwritten = 0
    # Creating files takes as long as fetching them, so other threads do it while the next files arrive.
    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="staging") as pool, contextlib.closing(results):
        for copy in copies:
            result = next(results) if id(copy) in missing else None
            if not isinstance(result, WholeFile):
                yield copy, result  # an error, or copied before
                continue
            writing.append((copy, pool.submit(_store, copy, result)))
            unwritten += copy.expected.size  # which is the most that `result` has
            while unwritten > _UNWRITTEN:
                written, future = writing.popleft()
                unwritten -= written.expected.size
                yield written, future.result()
        for written, future in writing:
            yield written, future.result()


def _store(copy: Copy, file: WholeFile) -> IntegrityError | None:
    """Write one file. Raises StorageError."""
    for attributes in (file.before, file.after):
        if not _same(attributes, copy.expected):
            return _changed_error(excerpt(copy.remote), attributes, copy.expected)
    if len(file.data) != copy.expected.size:
        return _short_error(excerpt(copy.remote), len(file.data), copy.expected)
    part = copy.local.with_name(f".{copy.local.name}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            _write(descriptor, file.data, part)
            os.utime(descriptor, (copy.expected.mtime, copy.expected.mtime))
        finally:
            os.close(descriptor)
        part.replace(copy.local)
    except OSError as error:
        raise _write_error(part, error) from error
    return None


def _changed_error(name: str, actual: Attributes, expected: Attributes) -> IntegrityError:
    return IntegrityError(
        f"{name}: is not what was listed: {actual.size} bytes where {expected.size} were expected, or changed since",
        hint=_HINT,
    )


def _short_error(name: str, size: int, expected: Attributes) -> IntegrityError:
    return IntegrityError(f"{name}: ends after {size} of {expected.size} bytes", hint=_HINT)


def _same(actual: Attributes, expected: Attributes) -> bool:
    return stat.S_ISREG(actual.mode) and (actual.size, actual.mtime) == (expected.size, expected.mtime)


def _is_copy(local: Path, expected: Attributes) -> bool:
    try:
        status = local.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and (status.st_size, int(status.st_mtime)) == (expected.size, expected.mtime)


def _write(descriptor: int, data: bytes | memoryview, part: Path) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise _write_error(part, error) from error


def _write_error(part: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{part}: cannot be written: {error.strerror or error}",
        hint="free some space, or name another folder with --staging; then run the same command again",
    )
