"""The interface of sources that a harvest uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from symcache.errors import SymcacheError
from symcache.model import Release
from symcache_provisioning.sources.entries import Entry, RemoteCache
from symcache_provisioning.sources.locations import DEFAULT_ROOTS

__all__ = ["Source"]


class Source(Protocol):
    """Where a harvest reads from. Paths are absolute within the system that is read."""

    problems: list[str]
    notes: list[str]
    cache_advice: str
    """What to do if it has no shared caches, though its release must have some."""

    @property
    def name(self) -> str:
        """Name of the source in records and messages."""

    def identity(self) -> Release:
        """Return its release."""

    def caches(self) -> list[RemoteCache]:
        """Return its shared caches."""

    def walk(self, roots: Iterable[str] = DEFAULT_ROOTS) -> Iterator[Entry]:
        """Yield its regular files outside the caches."""

    def mach_o_files(self, roots: Iterable[str] = DEFAULT_ROOTS) -> Iterator[Entry]:
        """Yield those of `walk` that begin with a Mach-O or universal header."""

    def read_head(self, path: str, length: int) -> bytes:
        """Return the first bytes of a file."""

    def fetch(self, entry: Entry, local: Path, progress: Callable[[int], None] | None = None) -> Path:
        """Make a file available on this machine."""

    def fetch_all(
        self, wanted: Iterable[tuple[Entry, Path]], progress: Callable[[int], None] | None = None
    ) -> Iterator[tuple[Entry, Path | SymcacheError]]:
        """Make many files available on this machine."""
