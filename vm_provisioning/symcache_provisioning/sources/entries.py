"""Files and shared caches as a source lists them, and the limits for what is listed."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass, field
from uuid import UUID

from symcache_provisioning.sources.locations import DATA_TEMPLATE
from symcache_provisioning.ssh.packets import Attributes

__all__ = ["Entry", "Limits", "RemoteCache", "closed_by_design", "refusal"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a source may list before the rest is ignored: a hostile one could go on for ever."""

    folder_entries: int = 100_000
    entries: int = 3_000_000
    """All names in all folders together."""
    pending: int = 200_000
    """Folders that are still to be listed."""
    images: int = 200_000
    """Mach-O files outside the caches."""
    depth: int = 48
    """Folders below a root."""
    path: int = 1024
    """Bytes: PATH_MAX of macOS."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, folder or link by absolute path. `mode` is st_mode, `size` in bytes, `mtime` in seconds since 1970."""

    path: str
    mode: int
    size: int
    mtime: int

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def attributes(self) -> Attributes:
        """Mode, size and time."""
        return Attributes(self.mode, self.size, self.mtime)


@dataclass(frozen=True, slots=True)
class RemoteCache:
    """One shared cache as a source has it: main file first, then the companions that its header names."""

    path: str
    arch: str
    """As Apple's toolchain spells what its header says."""
    uuid: UUID | None
    files: tuple[Entry, ...]
    missing: tuple[str, ...] = ()
    """Companions that the header names and the source lacks."""
    head: bytes = field(default=b"", repr=False)
    """SHA-256 of the main file's header and tables."""

    @property
    def name(self) -> str:
        """Name of the main file."""
        return self.path.rpartition("/")[2]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(f.size for f in self.files)


def closed_by_design(entry: Entry) -> bool:
    """Return whether a file or folder is its owner's alone, as many of macOS are, or protected on every Mac.

    The mode of what privacy protection closes says otherwise, and no file of macOS is closed to its owner, too.
    """
    mode, wanted = entry.mode, 0o5 if stat.S_ISDIR(entry.mode) else 0o4
    protected = entry.path.startswith(f"{DATA_TEMPLATE}/")
    return mode & 0o700 != 0 and (protected or mode & wanted != wanted)


def refusal(name: bytes) -> str:
    """Return why a name in a folder is not followed, or an empty string when it may be."""
    if not name or b"/" in name or b"\0" in name or name in {b".", b".."}:
        return "is not the name of a file"
    if len(name) > 255:
        return "is longer than 255 bytes"
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return "is not UTF-8"
    return "has control characters" if re.search(r"[\x00-\x1f\x7f-\x9f]", text) else ""
