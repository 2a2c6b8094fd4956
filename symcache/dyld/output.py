"""Where extracted images go: paths made safe, files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

from symcache.dyld.images import Image
from symcache.errors import SharedCacheError, StorageError

__all__ = ["file_names", "folds_case", "safe_parts", "write_file"]

_OCCUPIED = {errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTEMPTY, errno.EEXIST, errno.EMLINK}
_MAX_PART = 255
_MAX_PARTS = 64
_IOV = 512
_WRITE_BYTES = 1 << 30
"""At once: macOS refuses 2 GiB and more."""


def safe_parts(path: str) -> list[str]:
    """Return the components of an image's path. Raises SharedCacheError for any that could leave a folder."""
    parts = [p for p in path.split("/") if p]
    for part in parts:
        if part in {".", ".."} or any(
            ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in part
        ):
            raise SharedCacheError(f"{path!r}: the component {part!r} is not a safe file name")
        if len(part.encode()) > _MAX_PART:
            raise SharedCacheError(f"{path!r}: a component is longer than {_MAX_PART} bytes")
    if not parts or len(parts) > _MAX_PARTS:
        raise SharedCacheError(f"{path!r}: has {len(parts)} components where 1 to {_MAX_PARTS} were expected")
    return parts


def file_names(images: Sequence[Image], *, fold_case: bool = False) -> list[str]:
    """Return the path to write each image to: its own, or with `~2`, `~3`, … appended where an earlier one has it.

    With `fold_case`, paths that differ in case only are the same: macOS's own file systems cannot hold both.
    """
    last: dict[str, int] = {}  # of each name that is taken, the number that was last appended to it
    names = []
    for image in images:
        path = "/" + "/".join(part for part in image.path.split("/") if part)
        name, key = path, path.casefold() if fold_case else path
        first = key
        while key in last:
            last[first] += 1
            name = f"{path}~{last[first]}"
            key = name.casefold() if fold_case else name
        last[key] = 1
        names.append(name)
    return names


def folds_case(root: Path) -> bool:
    """Return whether names below `root` that differ in case only are the same file. Raises StorageError."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=".part-case-", dir=root) as probe:
            return Path(probe.name).with_name(Path(probe.name).name.upper()).exists()
    except OSError as error:
        raise _refused(root, error) from error


def write_file(root: Path, parts: Sequence[str], pieces: Sequence[bytes | memoryview]) -> Path:
    """Write `pieces` to the file that `parts` name below `root`, following no link.

    Raises SharedCacheError where the name is taken by something that is no ordinary file or folder, StorageError when
    the disk refuses.
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
                    if hasattr(os, "posix_fadvise"):
                        # Starts the transfer to the disk at once, while the next image is made; nothing is dropped.
                        os.posix_fadvise(out, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(out)
                os.rename(temporary, parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise
        except OSError as error:
            if error.errno in _OCCUPIED:
                raise SharedCacheError(f"{target}: a link, file or folder is in its way ({error.strerror})") from error
            raise _refused(target, error) from error
    return target


def _refused(target: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{target}: {error.strerror or error}", hint="free space, mend permissions or name another folder"
    )


def _write_all(out: int, pieces: Sequence[bytes | memoryview]) -> None:
    views = []
    for piece in pieces:
        whole = memoryview(piece).cast("B")
        views += [whole[n : n + _WRITE_BYTES] for n in range(0, len(whole), _WRITE_BYTES)]
    while views:
        count = size = 0
        while count < min(len(views), _IOV) and size + len(views[count]) <= _WRITE_BYTES:
            size += len(views[count])
            count += 1
        written = os.writev(out, views[:count])
        while views and written >= len(views[0]):
            written -= len(views[0])
            del views[0]
        if written:
            views[0] = views[0][written:]
