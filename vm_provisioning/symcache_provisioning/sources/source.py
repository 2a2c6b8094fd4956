"""The base class of all sources: walking through the files of a system, however they are read.

Everything that a source lists is hostile until checked: names, links, sizes, and the number and depth of its folders.
What is refused is listed in `problems`, what is skipped in `notes`.
"""

from __future__ import annotations

import itertools
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from uuid import UUID

from symcache.dyld import HEAD_SIZE, companions, is_cache_name
from symcache.errors import RemoteError, SharedCacheError, StorageError, SymcacheError
from symcache.macho import begins_as_macho
from symcache.model import Release
from symcache.text import excerpt
from symcache_provisioning.remarks import Remarks
from symcache_provisioning.sources.entries import Entry, Limits, RemoteCache, refusal
from symcache_provisioning.sources.locations import CACHE_FOLDERS, DEFAULT_ROOTS, SKIPPED_FOLDERS
from symcache_provisioning.ssh.packets import Attributes, NoAccessError, NoSuchFileError, SessionError

__all__ = ["Source"]

_HEAD = 8
"""Magic, and the number of slices in a universal file."""
_HEADS_AT_ONCE = 64
_FOLDERS_AT_ONCE = 32
_MAX_LINKS = 40
_UUID_AT = 0x58
"""dyld_cache_header.uuid"""
_SMALLEST_MACHO = 28
"""sizeof(struct mach_header)"""
_KIND_NAMES = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class Source(ABC):
    """A macOS system that a harvest reads, as a tree of files. Paths are absolute within the system."""

    cache_advice = (
        "since macOS 13 they lie in cryptexes, which only a running system has in place: start it and harvest it over"
        " SSH, or attach cryptex1/current/os.dmg of its Preboot volume and harvest that, too"
    )
    """What to do if there are no shared caches, though the release must have some: here for a system not running."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.problems: list[str] = Remarks()
        """What was refused or could not be read, and may have held an image."""
        self.notes: list[str] = Remarks()
        """What was skipped: files that this user may not read, and what is no file."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the source in records and messages."""

    @abstractmethod
    def identity(self) -> Release:
        """Return its release."""

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
    def fetch(self, entry: Entry, local: Path, progress: Callable[[int], None] | None = None) -> Path:
        """Make a file available on this machine, as a copy at `local` if need be, and return its path."""

    def fetch_all(
        self, wanted: Iterable[tuple[Entry, Path]], progress: Callable[[int], None] | None = None
    ) -> Iterator[tuple[Entry, Path | SymcacheError]]:
        """Fetch many files; yield each, in any order, with its path here or its error.

        Raises SessionError and StorageError, after which no other file could be fetched.
        """
        for entry, local in wanted:
            try:
                yield entry, self.fetch(entry, local, progress)
            except (SessionError, StorageError):
                raise
            except SymcacheError as error:
                yield entry, error

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
                raise RemoteError(f"{excerpt(path)}: more than {_MAX_LINKS} links lead on and on")
            parts = [p for p in target.split(b"/") if p not in {b"", b"."}]
            if any(p != b".." and refusal(p) for p in parts):
                raise RemoteError(f"{excerpt(entry.path)}: links to {excerpt(target)}, which is not a path")
            if target.startswith(b"/"):
                done.clear()
            todo += [p.decode() for p in reversed(parts)]
        resolved = "/" + "/".join(done)
        # After a link's `..` the last lstat may have been of something else.
        return entry if entry.path == resolved else self.lstat(resolved) if done else entry

    def entries(self, folder: str, *, needed: bool = False) -> list[Entry]:
        """Return the entries of a folder, sorted, without names that are refused: those become problems.

        A folder that cannot be listed becomes a problem, too; one that this user may not read only a note, unless
        every user can read it on a Mac (`needed`). Raises SessionError.
        """
        entries: list[Entry] = []
        seen: set[bytes] = set()
        try:
            for count, (name, attributes) in enumerate(self.scan(folder)):
                if count >= self.limits.folder_entries:
                    self.problems.append(f"{excerpt(folder)}: holds more than {count} names: the rest was not read")
                    break
                if name in {b".", b"..", b"Icon\r"}:  # the last is the Finder's, and no file of code
                    continue
                if why := refusal(name):
                    self.problems.append(f"{excerpt(folder)}: the name {excerpt(name)!r} {why}: not followed")
                elif name not in seen:
                    seen.add(name)
                    path = f"{folder.rstrip('/')}/{name.decode()}"
                    if len(path.encode()) > self.limits.path:
                        self.problems.append(f"{excerpt(path)}: is a path longer than macOS allows: not followed")
                        continue
                    entries.append(Entry(path, attributes.mode, attributes.size, attributes.mtime))
        except NoSuchFileError:
            pass  # it went away while we walked
        except SessionError:
            raise
        except SymcacheError as error:
            if isinstance(error, NoAccessError) and not needed:
                self.notes.append(str(error))
            else:
                self.problems.append(_with_hint(error))
        return sorted(entries, key=lambda e: e.path)

    def walk(
        self, roots: Iterable[str] = DEFAULT_ROOTS, *, skip: Iterable[str] = (*CACHE_FOLDERS, *SKIPPED_FOLDERS)
    ) -> Iterator[Entry]:
        """Yield the regular files under `roots`, each once; by default outside the folders of shared caches."""
        skipped = {e.path for f in skip if (e := self._folder(f))}
        tops = {e.path for r in roots if (e := self._folder(r))}
        tops = {t for t in tops if not any(t != o and t.startswith(o.rstrip("/") + "/") for o in tops)}
        seen = 0
        for top in sorted(tops):
            stack = [(top, 0)]
            ready: list[tuple[str, int]] = []
            while stack or ready:
                if not ready:
                    ready, stack = stack[-_FOLDERS_AT_ONCE:], stack[:-_FOLDERS_AT_ONCE]
                    self.prepare([folder for folder, _ in ready])
                folder, depth = ready.pop()
                for entry in self.entries(folder, needed=folder == top):
                    seen += 1
                    if seen > self.limits.entries:
                        self.problems.append(f"{excerpt(top)}: holds more than {seen - 1} names: the rest was not read")
                        return
                    if stat.S_ISDIR(entry.mode):
                        if entry.path in skipped:
                            continue
                        if depth >= self.limits.depth:
                            self.problems.append(
                                f"{excerpt(entry.path)}: lies deeper than {depth} folders: not followed"
                            )
                            continue
                        if len(stack) >= self.limits.pending:
                            self.problems.append(f"{excerpt(entry.path)}: one folder too many: not followed")
                            continue
                        stack.append((entry.path, depth + 1))
                    elif stat.S_ISREG(entry.mode):
                        yield entry
                    elif not stat.S_ISLNK(entry.mode):
                        kind = _KIND_NAMES.get(stat.S_IFMT(entry.mode), "neither file, folder nor link")
                        self.notes.append(f"{excerpt(entry.path)}: is {kind}: not read")

    def mach_o_files(self, roots: Iterable[str] = DEFAULT_ROOTS) -> Iterator[Entry]:
        """Yield those of `walk` that begin with the header of a Mach-O or universal file, and not of a Java class."""
        candidates = (entry for entry in self.walk(roots) if entry.size >= _SMALLEST_MACHO)
        count = 0
        while batch := list(itertools.islice(candidates, _HEADS_AT_ONCE)):
            for entry in self._mach_o(batch):
                count += 1
                if count > self.limits.images:
                    self.problems.append(f"more than {count - 1} Mach-O files: the rest was not read")
                    return
                yield entry

    def _mach_o(self, batch: Sequence[Entry]) -> Iterator[Entry]:
        for entry, head in zip(batch, self.read_heads([e.path for e in batch], _HEAD), strict=True):
            if isinstance(head, NoAccessError):
                self.notes.append(str(head))
            elif isinstance(head, NoSuchFileError):
                pass
            elif isinstance(head, SymcacheError):
                self.problems.append(str(head))
            elif begins_as_macho(head):
                yield entry

    def caches(self) -> list[RemoteCache]:
        """Return the shared caches in all folders that are known, each once. Unreadable ones become problems."""
        caches: list[RemoteCache] = []
        folders: set[str] = set()
        for location in CACHE_FOLDERS:
            folder = self._folder(location)
            if folder is None or folder.path in folders:
                continue
            folders.add(folder.path)
            entries = {e.name: e for e in self.entries(folder.path, needed=True) if stat.S_ISREG(e.mode)}
            for name, entry in entries.items():
                if not is_cache_name(name):
                    continue
                try:
                    cache = self._cache(entry, entries)
                except SessionError:
                    raise
                except SymcacheError as error:
                    self.problems.append(f"{excerpt(entry.path)}: {error}")
                    continue
                # The same cache may lie in two folders, neither of which is a link to the other.
                if not any(c.uuid and (c.name, c.uuid, c.size) == (cache.name, cache.uuid, cache.size) for c in caches):
                    caches.append(cache)
        return caches

    def _cache(self, main: Entry, entries: dict[str, Entry]) -> RemoteCache:
        head = self.read_head(main.path, HEAD_SIZE)
        wanted = companions(main.name, head)
        raw = head[_UUID_AT : _UUID_AT + 16]
        files, missing = [main], []
        for companion in wanted:
            if refusal(companion.name.encode()):
                raise SharedCacheError(f"names a companion {excerpt(companion.name)!r}, which is no file name")
            if companion.name in entries:
                files.append(entries[companion.name])
            elif not companion.optional:
                missing.append(companion.name)
        arch = main.name.partition("shared_cache_")[2].removesuffix(".development")
        uuid = UUID(bytes=raw) if len(raw) == 16 and any(raw) else None
        return RemoteCache(main.path, arch, uuid, tuple(files), tuple(missing))

    def _folder(self, path: str) -> Entry | None:
        """Return one of the folders of macOS, or None if this system has none; an unreadable one is a problem."""
        try:
            entry = self.resolve(path)
        except SessionError:
            raise
        except SymcacheError as error:
            self.problems.append(_with_hint(error))
            return None
        return entry if entry and stat.S_ISDIR(entry.mode) else None


def _with_hint(error: SymcacheError) -> str:
    return f"{error}: {error.hint}" if error.hint else str(error)
