"""Writing a file whole or not at all: under another name in the same folder, then renamed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["atomic_write", "atomic_write_bytes", "file_lock", "is_named", "nearest_existing"]

_PRIVATE = 0o600
"""What a new temporary file has."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What only writing fails with."""


@contextlib.contextmanager
def atomic_write(target: Path, *, mode: int = 0o644, sync: bool = False) -> Iterator[Path]:
    """Yield an empty file beside `target`, to be filled; it takes that name, and `mode`, when the block ends well.

    Whatever ends the block otherwise, the file is removed and what `target` was before stays. With `sync`, the content
    has reached the disk before the name has. The folder must be there; a link at `target` is replaced, not followed.
    A device or pipe, such as /dev/stdout, stays what it is, and is written to. Raises OSError.
    """
    if _is_stream(target):
        with tempfile.TemporaryDirectory(prefix="symcache-part-") as folder:
            part = Path(folder, "part")
            part.touch()
            yield part
            with part.open("rb") as whole, target.open("wb") as stream:
                shutil.copyfileobj(whole, stream)
        return
    descriptor, name = tempfile.mkstemp(prefix=".part-", dir=target.parent)
    os.close(descriptor)
    part = Path(name)
    try:
        yield part
        part.chmod(mode)
        if sync:
            with part.open("rb") as written:
                os.fsync(written.fileno())
        part.replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        _name(error, target)
        raise


def atomic_write_bytes(target: Path, data: bytes) -> None:
    """As `atomic_write`, for bytes in memory and the user alone (mode 0600); cheap enough for hundreds of files.

    Raises OSError.
    """
    part = f"{target.parent}/.part-{os.urandom(8).hex()}"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor is no path
            file.write(data)
        os.replace(part, target)  # noqa: PTH105 - part of what makes it quick
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(part)  # noqa: PTH108
        _name(error, target)
        raise


def _is_stream(target: Path) -> bool:
    """Return whether this is no name to give to a file: what it names, or the descriptor that it is, is written to."""
    if target.is_symlink() and target.readlink().parent.name == "fd":  # also where it is of a regular file
        return True
    return target.exists() and not (target.is_file() or target.is_dir())


def _name(error: BaseException, target: Path) -> None:
    """Have a full disk say which file found no room: writing tells none, and copying that which is copied."""
    if isinstance(error, OSError) and error.errno in _FULL:
        error.filename, error.filename2 = str(target), None


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock while the block runs, waiting for other processes and threads that hold it.

    `path` is a file for this lock only: made if need be, and never removed, or two could hold locks of its name. Raises
    OSError.
    """
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_named(path: Path, descriptor: int, *, follow_symlinks: bool = True) -> bool:
    """Return whether an open file is still the one at `path`.

    Who got the lock of a file that others remove or rename has to ask: it may be nobody's by now, or somebody else's.
    """
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=follow_symlinks))
    return False


def nearest_existing(path: Path) -> Path:
    """Return a path if it exists, else its nearest parent that does: on the same disk, with the rights that count."""
    return next(p for p in (path, *path.absolute().parents) if p.exists())
