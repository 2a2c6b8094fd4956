"""Source files for the frames of one dump: from folders that are known to have them, or else fetched."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from symcache.dump.findings import Frame, ThreadReport
from symcache.images import SourceRequest
from symcache.resolve import SourceFiles

__all__ = ["SourceFinder"]

MAX_FILES = 256
"""Source files that are looked for, for one dump."""
_MAX_FILE = 16 << 20
_MAX_LINE = 500
_MAX_PATH = 4096


class SourceFinder:
    """Knows where sources are. `source_map` are pairs of folders: recorded, and here; the first that fits counts."""

    def __init__(self, source_map: Sequence[Sequence[str]], files: SourceFiles) -> None:
        self._map = [(a.rstrip("/"), b) for a, b in source_map]
        self._files = files
        self._lines: dict[Path, list[str]] = {}

    def map_fetched(self, wanted: Iterable[SourceRequest], folder: Path) -> list[tuple[str, str]]:
        """Fetch what is not on this machine, and return the pairs of folders by which LLDB finds it.

        Below `folder` grows a tree as the compilers recorded it: LLDB maps folders, and fetched files have hashes for
        names. Of two binaries made from different files of one path, the first gets its own.
        """
        usable = [w for w in _usable(wanted) if self._mapped(w.path) is None and not _is_file(Path(w.path))]
        folders: dict[str, str] = {}
        fetched = self._files.fetch(usable) if usable else {}
        for one in usable:
            target = folder / one.path[1:]
            if (file := fetched.get(one)) is None:
                continue
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(file.absolute())
            except OSError:
                continue  # taken, or a file where another one has a folder, or a name too long
            folders[posixpath.dirname(one.path)] = str(target.parent)
        return sorted(folders.items(), key=lambda pair: -len(pair[0]))

    def with_lines(self, threads: Sequence[ThreadReport]) -> tuple[ThreadReport, ...]:
        """Return the threads, their frames with the text of their source lines as far as it was found."""
        wanted = {id(f): _wanted(f) for t in threads for f in t.frames}
        usable = _usable(w for w in wanted.values() if w)
        files = {w: path for w in usable if (path := self._mapped(w.path))}
        left = [w for w in usable if w not in files]
        files |= self._files.fetch(left) if left else {}

        def with_line(frame: Frame) -> Frame:
            source = wanted[id(frame)]
            path = files.get(source) if source else None
            return replace(frame, source_line=self._line(path, frame.line or 0)) if path else frame

        return tuple(replace(t, frames=tuple(with_line(f) for f in t.frames)) for t in threads)

    def _mapped(self, path: str) -> Path | None:
        for recorded, here in self._map:
            for start in (recorded, here.rstrip("/")):  # LLDB may have mapped it already
                if path.startswith(start + "/"):
                    candidate = Path(here, path[len(start) + 1 :])
                    if _is_file(candidate):
                        return candidate
        return None

    def _line(self, path: Path, number: int) -> str:
        if path not in self._lines:
            try:
                with path.open("rb") as file:
                    self._lines[path] = file.read(_MAX_FILE).decode("utf-8", "replace").split("\n")
            except OSError:
                self._lines[path] = []
        lines = self._lines[path]
        return lines[number - 1].strip()[:_MAX_LINE] if 0 < number <= len(lines) else ""


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, for one
        return False


def _wanted(frame: Frame) -> SourceRequest | None:
    uuid = frame.module.loaded.module.uuid if frame.module else None
    return SourceRequest(uuid, frame.file) if uuid and frame.file and frame.line else None


def _usable(wanted: Iterable[SourceRequest]) -> list[SourceRequest]:
    """Return the requests, each once, whose paths are absolute and normalized: they come from untrusted debug info."""
    seen = dict.fromkeys(w for w in wanted if len(w.path) < _MAX_PATH and w.path.isprintable())
    absolute = [w for w in seen if w.path.startswith("/") and w.path != "/"]
    return [w for w in absolute if posixpath.normpath(w.path) == w.path][:MAX_FILES]
