"""Where binaries come from: folders, a library, servers, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from symcache.late_imports import late_imports

if TYPE_CHECKING:
    from symcache.resolve.folders import FolderResolver
    from symcache.resolve.library import LibraryResolver
    from symcache.resolve.model import CacheGuess, ChainResolver, ModuleResolver, Progress, SourceFiles
    from symcache.resolve.source_roots import below_roots
    from symcache.resolve.sources import BinarySources, open_sources

__all__ = [
    "BinarySources",
    "CacheGuess",
    "ChainResolver",
    "FolderResolver",
    "LibraryResolver",
    "ModuleResolver",
    "Progress",
    "SourceFiles",
    "below_roots",
    "open_sources",
]

# What needs the client or a library: LLDB is started before these are imported.
__getattr__ = late_imports(
    __name__,
    {
        "folders": ("FolderResolver",),
        "library": ("LibraryResolver",),
        "model": ("CacheGuess", "ChainResolver", "ModuleResolver", "Progress", "SourceFiles"),
        "source_roots": ("below_roots",),
        "sources": ("BinarySources", "open_sources"),
    },
)
