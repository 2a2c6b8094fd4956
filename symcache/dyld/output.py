"""Where extracted images go: paths made safe, files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from symcache.errors import SharedCacheError, StorageError

__all__ = ["safe_parts", "write_file"]

_MAX_PART = 255
_MAX_PARTS = 64
_IOV = 512


def safe_parts(path: str) -> list[str]:
    """Return the components of an image's path. Raises SharedCacheError for any that could leave a folder."""
    parts = [p for p in path.split("/") if p]
    for part in parts:
        if part in {".", ".."} or "\0" in part or len(os.fsencode(part)) > _MAX_PART or not part.isprintable():
            raise SharedCacheError(f"{path!r}: the component {part!r} is not a safe file name")
    if not parts or len(parts) > _MAX_PARTS:
        raise SharedCacheError(f"{path!r}: has {len(parts)} components where 1 to {_MAX_PARTS} were expected")
    return parts


def write_file(root: Path, parts: Sequence[str], pieces: Sequence[bytes | memoryview]) -> Path:
    """Write `pieces` to the file that `parts` name below `root`, following no link. Raises StorageError.

    Every folder on the way is opened by its own name in the one before, so that a link that stands there, or is put
    there meanwhile, is refused and never followed.
    """
    target = root.joinpath(*parts)
    with contextlib.ExitStack() as stack:
        try:
            root.mkdir(parents=True, exist_ok=True)
            folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, folder)
            for part in parts[:-1]:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=folder)
                folder = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                stack.callback(os.close, folder)
            temporary = f".part-{secrets.token_hex(8)}"
            out = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=folder)
            try:
                try:
                    _write_all(out, pieces)
                finally:
                    os.close(out)
                os.rename(temporary, parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise
        except OSError as error:
            raise StorageError(
                f"{target}: {error.strerror or error}", hint="free space, mend permissions or name another folder"
            ) from error
    return target


def _write_all(out: int, pieces: Sequence[bytes | memoryview]) -> None:
    views = [memoryview(p).cast("B") for p in pieces if len(p)]
    while views:
        written = os.writev(out, views[:_IOV])
        while views and written >= len(views[0]):
            written -= len(views[0])
            del views[0]
        if written:
            views[0] = views[0][written:]
