"""A system's files, however they are read: the base of all sources.

Everything that is listed is hostile until checked: names, links and sizes. What is refused is listed in `problems`,
what is skipped in `notes`.
"""

from __future__ import annotations

import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from symcache.errors import RemoteError, SymcacheError
from symcache.text import excerpt
from symcache_provisioning.remarks import ANOTHER_MAC, CLEAR_THERE, Problems, Remarks
from symcache_provisioning.sources.entries import Entry, Limits, closed_by_design, refusal
from symcache_provisioning.ssh.packets import Attributes, NoAccessError, NoSuchFileError, SessionError

__all__ = ["Tree"]

_MAX_LINKS = 40


class Tree(ABC):
    """A macOS system as a tree of files. Paths are absolute within the system."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.problems = Problems()
        """What was refused or could not be read, and may have held an image."""
        self.notes: list[str] = Remarks()
        """What was skipped: what no user may read on any Mac, and what is no file."""
        self.closed: list[str] = Remarks()
        """Folders that were skipped since they are closed to every user but the system's."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the source in records and messages."""

    @abstractmethod
    def lstat(self, path: str) -> Entry | None:
        """Return what is at `path`, or None if nothing is."""

    @abstractmethod
    def readlink(self, path: str) -> bytes:
        """Return where a link points."""

    @abstractmethod
    def scan(self, path: str) -> Iterator[tuple[bytes, Attributes]]:
        """Yield the names in a folder with their attributes, unchecked."""

    def prepare(self, paths: Sequence[str]) -> None:  # noqa: B027 - optional
        """Prepare for the folders that will be scanned next."""

    @abstractmethod
    def read_heads(self, paths: Sequence[str], length: int) -> list[bytes | SymcacheError]:
        """Return the first bytes of each of several files, or the error."""

    @abstractmethod
    def read_range(self, path: str, offset: int, length: int) -> bytes:
        """Return bytes of a file, fewer where it ends. Raises RemoteError."""

    def read_head(self, path: str, length: int) -> bytes:
        """Return the first bytes of one file. Raises RemoteError."""
        head = self.read_heads([path], length)[0]
        if isinstance(head, SymcacheError):
            raise head
        return head

    def resolve(self, path: str) -> Entry | None:
        """Follow the links of `path`, within the system: absolute ones begin at its root.

        Return None if it leads nowhere. Raises RemoteError for a loop.
        """
        todo = [part for part in path.split("/") if part and part != "."][::-1]
        done: list[str] = []
        links = 0
        entry = Entry("/", stat.S_IFDIR, 0, 0)
        while todo:
            part = todo.pop()
            if part == "..":
                del done[-1:]
                continue
            next_entry = self.lstat("/" + "/".join([*done, part]))
            if next_entry is None:
                return None
            entry = next_entry
            if not stat.S_ISLNK(entry.mode):
                done.append(part)
                continue
            links += 1
            target = self.readlink(entry.path)
            if links > _MAX_LINKS:
                raise RemoteError(f"{excerpt(path)}: more than {_MAX_LINKS} links lead on and on", hint=ANOTHER_MAC)
            parts = [p for p in target.split(b"/") if p not in {b"", b"."}]
            if any(p != b".." and refusal(p) for p in parts):
                raise RemoteError(
                    f"{excerpt(entry.path)}: links to {excerpt(target)}, which is not a path", hint=ANOTHER_MAC
                )
            if target.startswith(b"/"):
                done.clear()
            todo += [p.decode() for p in reversed(parts)]
        resolved = "/" + "/".join(done)
        # After a link's `..` the last lstat may have been of something else.
        return entry if entry.path == resolved else self.lstat(resolved) if done else entry

    def entries(self, folder: str, *, needed: bool = False) -> list[Entry]:
        """Return the entries of a folder, sorted, without names that are refused: those become problems.

        A folder that cannot be listed becomes a problem, too; one that is closed to everybody only a note,
        unless every user can read it on a Mac (`needed`). Raises SessionError.
        """
        entries: list[Entry] = []
        seen: set[bytes] = set()
        try:
            for count, (name, attributes) in enumerate(self.scan(folder)):
                if count >= self.limits.folder_entries:
                    self.problems.add(
                        f"{excerpt(folder)}: holds more than {count} names: the rest was not read", CLEAR_THERE
                    )
                    break
                if name in {b".", b"..", b"Icon\r"}:  # the last is the Finder's, and no file of code
                    continue
                if why := refusal(name):
                    self.problems.add(f"{excerpt(folder)}: the name {excerpt(name)!r} {why}: not followed", CLEAR_THERE)
                elif name not in seen:
                    seen.add(name)
                    path = f"{folder.rstrip('/')}/{name.decode()}"
                    if len(path.encode()) > self.limits.path:
                        self.problems.add(
                            f"{excerpt(path)}: is a path longer than macOS allows: not followed", CLEAR_THERE
                        )
                        continue
                    entries.append(Entry(path, *attributes))
        except NoSuchFileError:
            pass  # it went away while we walked
        except SessionError:
            raise
        except SymcacheError as error:
            if isinstance(error, NoAccessError) and not needed and self._closed_to_all(folder):
                self.notes.append(str(error))
                self.closed.append(folder)
            else:
                self.problems.add_error(error)
        return sorted(entries, key=lambda e: e.path)

    def _closed_to_all(self, folder: str) -> bool:
        try:
            entry = self.lstat(folder)
        except SessionError:
            raise
        except SymcacheError:
            return False
        return entry is not None and closed_by_design(entry)

    def folder(self, path: str) -> Entry | None:
        """Return one of the folders of macOS, or None if this system has none; an unreadable one is a problem."""
        try:
            entry = self.resolve(path)
        except SessionError:
            raise
        except SymcacheError as error:
            self.problems.add_error(error)
            return None
        return entry if entry and stat.S_ISDIR(entry.mode) else None
