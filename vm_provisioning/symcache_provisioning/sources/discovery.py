"""Finds the cryptexes and shared caches of a system, by rules.

A cryptex is whatever lies in the folders that macOS grafts them to, and a shared cache is a file that begins as one and
lies where a system keeps them. Which files belong to a cache is in its header, and what it is known by is its UUID.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar
from uuid import UUID

from symcache.dyld import HEAD_SIZE, cache_arch, companions, is_cache_name, is_main_name, parse_header
from symcache.errors import SharedCacheError, SymcacheError
from symcache.text import excerpt
from symcache_provisioning.remarks import ANOTHER_MAC, CLEAR_THERE
from symcache_provisioning.sources.applications import system_applications
from symcache_provisioning.sources.entries import Entry, RemoteCache, refusal
from symcache_provisioning.sources.locations import (
    BUILT_CACHES,
    CACHE_FOLDERS,
    CRYPTEX_FOLDERS,
    FAMILY_CACHES,
    PENDING_CRYPTEXES,
    SYSTEM_ROOTS,
    SYSTEM_VERSION,
    UNWALKED,
)
from symcache_provisioning.sources.tree import Tree
from symcache_provisioning.ssh.packets import NoSuchFileError, SessionError

__all__ = ["CACHE_MAGIC", "Cryptex", "Discovery"]

_T = TypeVar("_T")

CACHE_MAGIC = b"dyld_v1"
"""The first bytes of every file of a shared cache, but not of translations, maps and atlases."""
_MAX_MAINS = 64
"""Caches in one folder."""
_MAX_PLACES = 256
"""Cryptexes, and families in one of them."""
_MAX_CACHES = 256
"""Caches of one system: no macOS has had ten."""
_HEADS_AT_ONCE = 64
_DARWIN_11 = 20
"""What the builds of macOS 11 begin with: the first that builds no caches on the machine."""
_PLIST_BUILD = re.compile(rb"<key>ProductBuildVersion</key>\s*<string>([A-Za-z0-9]{1,16})</string>")


@dataclass(frozen=True, slots=True)
class Cryptex:
    """A folder that is a system of its own, grafted into the system."""

    path: str
    """Where it really lies."""
    pending: bool
    """It lies in `Incoming`: often a copy of one that is in use, else one of another build."""


class Discovery:
    """Finds what a system consists of, once. What cannot be read becomes a problem of the tree."""

    cryptex_folders: tuple[str, ...] = CRYPTEX_FOLDERS

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.dangling: list[str] = []
        """Cryptexes that are listed and lead nowhere, as on a volume that is not booted."""
        self.cache_folders: set[str] = set()
        """Folders in which `caches` found some, also ones that lie elsewhere, too."""

    @cached_property
    def cryptexes(self) -> list[Cryptex]:
        """Every cryptex that is there, those that are prepared last. Raises SessionError."""
        listed: list[tuple[Entry, bool]] = []
        parents: set[str] = set()
        for location in self.cryptex_folders:
            parent = self._tree.folder(location)
            if parent is None or parent.path in parents:
                continue
            parents.add(parent.path)
            for entry in self._tree.entries(parent.path, needed=True):
                if entry.name != PENDING_CRYPTEXES:
                    listed.append((entry, False))
                elif pending := self._tree.folder(entry.path):
                    listed += [(e, True) for e in self._tree.entries(pending.path, needed=True)]
        found: dict[str, Cryptex] = {}
        # Of a cache that lies in several, the system's own cryptex names the path.
        ordered = sorted(listed, key=lambda e: (e[1], e[0].name != "OS"))
        for entry, pending_too in self._some(ordered, "cryptexes"):
            if target := self._entered(entry):
                found.setdefault(target, Cryptex(target, pending_too))
        return list(found.values())

    def _some(self, things: list[_T], what: str, where: str = "this system") -> list[_T]:
        """Return at most `_MAX_PLACES` of these; more are a problem."""
        if len(things) > _MAX_PLACES:
            self._tree.problems.add(
                f"{excerpt(where)}: has {len(things)} {what}: only {_MAX_PLACES} were looked at", CLEAR_THERE
            )
        return things[:_MAX_PLACES]

    def _entered(self, entry: Entry) -> str | None:
        """Return where a cryptex really lies; None, with a problem or in `dangling`, if it cannot be entered."""
        if not stat.S_ISDIR(entry.mode) and not stat.S_ISLNK(entry.mode):
            return None
        try:
            target = self._tree.resolve(entry.path)
        except SessionError:
            raise
        except SymcacheError as error:
            self._tree.problems.add_error(error)
            return None
        if target is None or not stat.S_ISDIR(target.mode):
            self.dangling.append(entry.path)
            return None
        return target.path

    def roots(self, build: str = "") -> list[str]:
        """Return the folders below which Mach-O files outside of caches are the system's: each cryptex, too.

        Of prepared cryptexes only those that are of `build`. Raises SessionError.
        """
        system = self._tree.folder("/System")
        inner = self._tree.entries(system.path, needed=True) if system else []
        roots = [e.path for e in inner if stat.S_ISDIR(e.mode) and e.path not in UNWALKED]
        own = [c.path for c in self.cryptexes if not c.pending or not self._of_another_build(c, build)]
        roots += [*SYSTEM_ROOTS, *own]
        # Until 12, which has no cryptexes, some of the system's applications are among the user's.
        return roots if self.cryptexes or self.dangling else [*roots, *system_applications(self._tree)]

    @cached_property
    def folders(self) -> dict[str, Cryptex | None]:
        """Every folder of shared caches, by where it really lies, with the cryptex that has it. Raises SessionError."""
        found: dict[str, Cryptex | None] = {}
        bases: list[tuple[str, Cryptex | None]] = [(c.path, c) for c in self.cryptexes if not c.pending]
        bases.append(("", None))
        bases += [(c.path, c) for c in self.cryptexes if c.pending]
        for base, cryptex in bases:
            places = [f"{base}/{place}" for place in CACHE_FOLDERS]
            system = self._tree.folder(f"{base}/System")
            inner = self._tree.entries(system.path, needed=True) if system else []
            families = [e.path for e in inner if stat.S_ISDIR(e.mode) or stat.S_ISLNK(e.mode)]
            places += [f"{path}/{FAMILY_CACHES}" for path in self._some(families, "folders", f"{base}/System")]
            for place in [*places, *([] if base else [BUILT_CACHES])]:
                if folder := self._tree.folder(place):
                    found.setdefault(folder.path, cryptex)
        return found

    def doubles(self, path: str) -> str:
        """Return where a file of a prepared cryptex lies in the cryptex that is in use, else an empty string."""
        for cryptex in self.cryptexes:
            if cryptex.pending and path.startswith(f"{cryptex.path}/"):
                parent, _, name = cryptex.path.rpartition(f"/{PENDING_CRYPTEXES}/")
                return f"{parent}/{name}{path[len(cryptex.path) :]}"
        return ""

    def caches(self, build: str = "") -> list[RemoteCache]:
        """Return all shared caches, each once. Of a prepared cryptex only those that are of `build`.

        Unreadable ones, and what contradicts itself, become problems. Raises SessionError.
        """
        caches: dict[UUID | str, RemoteCache] = {}
        older = self._of_older_macos(build)
        for folder, cryptex in self.folders.items():
            if folder == older:
                continue
            for cache in self.caches_in(folder):
                if len(caches) >= _MAX_CACHES:
                    self._tree.problems.add(
                        f"more than {_MAX_CACHES} shared caches: the rest was not read", CLEAR_THERE
                    )
                    return list(caches.values())
                self.cache_folders.add(folder)
                known = caches.get(cache.uuid or cache.path)
                if known is None:
                    if cryptex and cryptex.pending and self._of_another_build(cryptex, build):
                        self._tree.notes.append(
                            f"{excerpt(cache.path)}: is of an update that is prepared, not of {build or 'this build'}:"
                            " not harvested"
                        )
                        continue
                    caches[cache.uuid or cache.path] = cache
                elif (known.head, known.size) != (cache.head, cache.size) and not (cryptex and cryptex.pending):
                    self._tree.problems.add(
                        f"{excerpt(cache.path)}: has the UUID of {excerpt(known.path)}, and is another cache",
                        ANOTHER_MAC,
                    )
        return list(caches.values())

    def _of_older_macos(self, build: str) -> str:
        """Return the folder of caches that were built on the machine, if it is a leftover; else an empty string."""
        darwin = re.match("[0-9]+", build)
        if darwin is None or int(darwin[0]) < _DARWIN_11 or not (folder := self._tree.folder(BUILT_CACHES)):
            return ""
        if any(is_cache_name(e.name) for e in self._tree.entries(folder.path)):
            self._tree.notes.append(
                f"{excerpt(folder.path)}: has shared caches of a macOS before 11, not of {build}: not harvested"
            )
        return folder.path

    def _of_another_build(self, cryptex: Cryptex, build: str) -> bool:
        """Return whether a prepared cryptex does not say of itself that it is of `build`."""
        try:
            head = self._tree.read_head(f"{cryptex.path}/{SYSTEM_VERSION}", 64 << 10)
        except SessionError:
            raise
        except SymcacheError:
            return True
        named = _PLIST_BUILD.search(head)
        return named is None or named[1].decode() != build

    def caches_in(self, folder: str) -> Iterator[RemoteCache]:
        """Yield the shared caches of one folder; what is wrong with them becomes problems. Raises SessionError."""
        listed = self._tree.entries(folder, needed=True)
        entries = {e.name: e for e in listed if stat.S_ISREG(e.mode)}
        for entry in listed:
            if entry.name not in entries and is_cache_name(entry.name):
                kind = "a link" if stat.S_ISLNK(entry.mode) else "no file"
                self._tree.problems.add(
                    f"{excerpt(entry.path)}: is called a shared cache, and is {kind}",
                    "put the file itself there, or harvest another Mac of the build",
                )
        files, unreadable = self._cache_files(entries)
        entries = {name: entry for name, entry in entries.items() if name not in unreadable}
        claimed: set[str] = set()
        mains = [entry for name, entry in files.items() if is_main_name(name)]
        if len(mains) > _MAX_MAINS:
            self._tree.problems.add(
                f"{excerpt(folder)}: holds more than {_MAX_MAINS} caches: the rest was not read", CLEAR_THERE
            )
        for main in mains[:_MAX_MAINS]:
            try:
                yield self._cache(main, entries, claimed)
            except SessionError:
                raise
            except SymcacheError as error:
                self._tree.problems.add(f"{excerpt(main.path)}: {error}", error.hint or ANOTHER_MAC)
        for name in sorted(files.keys() - claimed - {m.name for m in mains}):
            self._tree.problems.add(
                f"{excerpt(files[name].path)}: is a part of a shared cache, and no main file beside it names it",
                "copy or attach the whole folder again",
            )

    def _cache_files(self, entries: Mapping[str, Entry]) -> tuple[dict[str, Entry], set[str]]:
        """Return those that begin as a file of a shared cache, and names of unreadable ones.

        What is only called a shared cache is a problem, as are these.
        """
        files: dict[str, Entry] = {}
        unreadable: set[str] = set()
        todo = iter(entries.values())
        while batch := list(itertools.islice(todo, _HEADS_AT_ONCE)):
            for entry, head in zip(batch, self._tree.read_heads([e.path for e in batch], 16), strict=True):
                if isinstance(head, NoSuchFileError):
                    continue
                if isinstance(head, SymcacheError):
                    self._tree.problems.add_error(head)
                    unreadable.add(entry.name)
                elif head.startswith(CACHE_MAGIC):
                    files[entry.name] = entry
                elif is_cache_name(entry.name):
                    self._tree.problems.add(
                        f"{excerpt(entry.path)}: is called a shared cache, and begins with {excerpt(head)!r}",
                        ANOTHER_MAC,
                    )
        return files, unreadable

    def _cache(self, main: Entry, entries: Mapping[str, Entry], claimed: set[str]) -> RemoteCache:
        head = self._tree.read_head(main.path, HEAD_SIZE)
        header = parse_header(head, main.name)
        files, missing = [main], []
        for companion in companions(main.name, head):
            if refusal(companion.name.encode()):
                raise SharedCacheError(f"names a companion {excerpt(companion.name)!r}, which is no file name")
            claimed.add(companion.name)
            if companion.name in entries:
                files.append(entries[companion.name])
            elif not companion.optional:
                missing.append(companion.name)
        tables = hashlib.sha256(head).digest()
        return RemoteCache(main.path, cache_arch(header), header.uuid, tuple(files), tuple(missing), tables)
