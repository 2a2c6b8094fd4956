"""Where binaries come from: folders, a library, servers, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from symcache.late_imports import late_imports

if TYPE_CHECKING:
    from symcache.resolve.folders import FolderResolver
    from symcache.resolve.library import LibraryResolver
    from symcache.resolve.model import CacheGuess, ChainResolver, ModuleResolver, Progress, SourceFiles, find_variants
    from symcache.resolve.names import FileNamer, SourceNamer
    from symcache.resolve.source_roots import below_roots
    from symcache.resolve.sources import BinarySources, open_sources

__all__ = [
    "BinarySources",
    "CacheGuess",
    "ChainResolver",
    "FileNamer",
    "FolderResolver",
    "LibraryResolver",
    "ModuleResolver",
    "Progress",
    "SourceFiles",
    "SourceNamer",
    "below_roots",
    "find_variants",
    "open_sources",
]

# What needs the client, a library or tables of names: LLDB is started before these are imported.
__getattr__ = late_imports(
    __name__,
    {
        "folders": ("FolderResolver",),
        "library": ("LibraryResolver",),
        "model": ("CacheGuess", "ChainResolver", "ModuleResolver", "Progress", "SourceFiles", "find_variants"),
        "names": ("FileNamer", "SourceNamer"),
        "source_roots": ("below_roots",),
        "sources": ("BinarySources", "open_sources"),
    },
)
