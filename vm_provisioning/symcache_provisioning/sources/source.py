"""The base class of all sources: a system's files, its release, its shared caches, and the walk through all it has.

The number and depth of folders is the source's, and bounded here.
"""

from __future__ import annotations

import itertools
import stat
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path

from symcache.dyld import is_main_name
from symcache.errors import StorageError, SymcacheError
from symcache.macho import begins_as_macho
from symcache.model import Release
from symcache.text import excerpt
from symcache_provisioning.remarks import CLEAR_THERE
from symcache_provisioning.sources.discovery import CACHE_MAGIC, Discovery
from symcache_provisioning.sources.entries import Entry, RemoteCache, closed_by_design
from symcache_provisioning.sources.locations import SKIPPED_FOLDERS, SYSTEM_ROOTS
from symcache_provisioning.sources.tree import Tree
from symcache_provisioning.ssh.packets import NoAccessError, NoSuchFileError, SessionError

__all__ = ["Source"]

_HEAD = 8
"""Magic, and the number of slices in a universal file."""
_HEADS_AT_ONCE = 64
_FOLDERS_AT_ONCE = 32
_OF_SYSTEM = ("/System/", *(f"{root}/" for root in SYSTEM_ROOTS))
_SMALLEST_MACHO = 28
"""sizeof(struct mach_header)"""
_KIND_NAMES = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class Source(Tree):
    """A macOS system that a harvest reads."""

    cache_advice = (
        "since macOS 13 they lie in cryptexes, which only a running system has in place: start it and harvest it over"
        " SSH, or attach cryptex1/current/os.dmg of its Preboot volume and harvest that, too"
    )
    """What to do if there are no shared caches, though the release must have some: here for a system not running."""
    what = "system"
    """What it is, in words."""
    lacks = ""
    """What of a release it never has, by what it is. Its harvests are never sealed then."""
    in_place = False
    """Whether its files are on this machine, and are read where they lie."""
    extracted_by = ""
    """Who has extracted its loose libraries from shared caches; nobody, if empty."""

    @cached_property
    def discovery(self) -> Discovery:
        """Its cryptexes, and its folders of shared caches."""
        return Discovery(self)

    def caches(self, build: str = "") -> list[RemoteCache]:
        """Return its shared caches, each once: all that belong to `build`. Unreadable ones become problems."""
        return self.discovery.caches(build)

    def host(self) -> str:
        """Return the model identifier of the Mac, e.g. `Mac14,8`; empty if it is not known."""
        return ""

    def during_harvest(self) -> AbstractContextManager[object]:
        """Return what a harvest runs within: here nothing."""
        return nullcontext()

    @abstractmethod
    def identity(self) -> Release | None:
        """Return its release; None if nobody says which one it is."""

    @abstractmethod
    def fetch(
        self,
        entry: Entry,
        local: Path,
        progress: Callable[[int], None] | None = None,
        growing: Callable[[Path], None] | None = None,
    ) -> Path:
        """Make a file available on this machine, as a copy at `local` if need be, and return its path.

        `growing` is told the path of a copy that is being made, and grows at its end; again, where it is resumed.
        """

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

    def walk(self, roots: Iterable[str] | None = None, *, skip: Iterable[str] | None = None) -> Iterator[Entry]:
        """Yield the regular files under `roots`, each once; by default of the whole system, without its caches."""
        if skip is None:
            skip = (*self.discovery.folders, *SKIPPED_FOLDERS)
        skipped = {e.path for f in skip if (e := self.folder(f))}
        tops = {e.path for r in (self.discovery.roots() if roots is None else roots) if (e := self.folder(r))}
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
                        self.problems.add(
                            f"{excerpt(top)}: holds more than {seen - 1} names: the rest was not read", CLEAR_THERE
                        )
                        return
                    if stat.S_ISDIR(entry.mode):
                        if entry.path in skipped:
                            continue
                        if depth >= self.limits.depth:
                            self.problems.add(
                                f"{excerpt(entry.path)}: lies deeper than {depth} folders: not followed", CLEAR_THERE
                            )
                            continue
                        if len(stack) >= self.limits.pending:
                            self.problems.add(f"{excerpt(entry.path)}: one folder too many: not followed", CLEAR_THERE)
                            continue
                        stack.append((entry.path, depth + 1))
                    elif stat.S_ISREG(entry.mode):
                        yield entry
                    elif not stat.S_ISLNK(entry.mode):
                        kind = _KIND_NAMES.get(stat.S_IFMT(entry.mode), "neither file, folder nor link")
                        self.notes.append(f"{excerpt(entry.path)}: is {kind}: not read")

    def mach_o_files(self, roots: Iterable[str] | None = None) -> Iterator[Entry]:
        """Yield those of `walk` that begin with the header of a Mach-O or universal file, and not of a Java class."""
        candidates = (entry for entry in self.walk(roots) if entry.size >= _SMALLEST_MACHO)
        count = 0
        while batch := list(itertools.islice(candidates, _HEADS_AT_ONCE)):
            for entry in self._mach_o(batch):
                count += 1
                if count > self.limits.images:
                    self.problems.add(f"more than {count - 1} Mach-O files: the rest was not read", CLEAR_THERE)
                    return
                yield entry

    def _mach_o(self, batch: Sequence[Entry]) -> Iterator[Entry]:
        for entry, head in zip(batch, self.read_heads([e.path for e in batch], _HEAD), strict=True):
            if isinstance(head, NoAccessError) and closed_by_design(entry):
                self.notes.append(str(head))
            elif isinstance(head, NoSuchFileError):
                pass
            elif isinstance(head, SymcacheError):
                self.problems.add_error(head)
            elif begins_as_macho(head):
                yield entry
            elif head.startswith(CACHE_MAGIC) and is_main_name(entry.name) and entry.path.startswith(_OF_SYSTEM):
                self.problems.add(
                    f"{excerpt(entry.path)}: is a shared cache in a place where none is looked for: not harvested",
                    "bring symcache up to date; until then, harvest a copy of that system with the cache's folder as"
                    " /System/Library/dyld",
                )
