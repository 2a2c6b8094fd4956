"""Writing the files of an export: over nothing that is there, and all of it beside its place first."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from symcache.errors import StorageError, SymcacheError, UsageError
from symcache.files import nearest_existing
from symcache.library.library import Library
from symcache.scratch import ScratchFolder

__all__ = ["Exported", "ExportedFile", "Progress", "placing", "write_files"]

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""
_RESERVE = 64 << 20
"""Bytes that stay free."""


@dataclass
class Exported:
    """What was written."""

    folders: list[Path] = field(default_factory=list)
    files: int = 0
    size: int = 0
    problems: list[str] = field(default_factory=list)
    """What could not be written, or is missing: what is there is right all the same."""


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """One content and where it goes, relative to the folder."""

    place: Path
    sha256: str
    size: int


@contextmanager
def placing(target: Path, places: Sequence[Path], size: int) -> Iterator[Path]:
    """Yield a folder to write to; what lies at each of `places` in it comes to the same in `target` at the end.

    Raises UsageError for what is there already, StorageError where `size` bytes have no room or nothing can be written.
    """
    for place in places:
        _refuse_existing(target / place)
    _require_space(target, size)
    try:
        target.mkdir(parents=True, exist_ok=True)
        scratch = ScratchFolder("export", target)  # beside what comes of it, so that the last step is a rename
    except OSError as error:
        raise StorageError(f"{target}: cannot be written: {error.strerror}", hint="name another folder") from error
    with scratch as name:
        folder = Path(name) / "files"
        yield folder
        for place in places:
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            _refuse_existing(target / place)
            (folder / place).rename(target / place)


def write_files(
    library: Library,
    folder: Path,
    files: Sequence[ExportedFile],
    result: Exported,
    progress: Progress | None,
    total: int,
) -> int:
    """Write files below a folder; return how many could not be, each a problem."""

    def write(file: ExportedFile) -> str:
        place = folder / file.place
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            library.materialize(file.sha256, file.size, place)
        except StorageError:
            raise
        except SymcacheError as error:
            return f"{file.place}: {error}"
        return ""

    lost = 0
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="export") as pool:
        for file, problem in zip(files, pool.map(write, files), strict=True):
            if problem:
                lost += 1
                result.problems.append(problem)
            else:
                result.files += 1
                result.size += file.size
            if progress:
                progress(result.size, total)
    return lost


def _refuse_existing(place: Path) -> None:
    if os.path.lexists(place):
        raise UsageError(
            f"{place}: is there already, and nothing was written over", hint="remove it, or name another -o"
        )


def _require_space(target: Path, size: int) -> None:
    need, free = size + _RESERVE, shutil.disk_usage(nearest_existing(target)).free
    if free < need:
        raise StorageError(
            f"{target}: {free >> 20} MiB are free where {(need >> 20) + 1} MiB are needed",
            hint="free some space, or narrow it with --arch",
        )
