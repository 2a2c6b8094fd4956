"""Where binaries come from: folders, a library, servers, one after the other."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from symcache.resolve.folders import FolderResolver
from symcache.resolve.model import CacheGuess, ChainResolver, ModuleResolver, Progress, SourceFiles
from symcache.resolve.source_roots import below_roots

if TYPE_CHECKING:
    from symcache.resolve.library import LibraryResolver
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

_LATE = {"BinarySources": "sources", "LibraryResolver": "library", "open_sources": "sources"}
"""What needs the client or a library: LLDB is started before these are imported."""


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(name)
    return getattr(importlib.import_module(f"symcache.resolve.{_LATE[name]}"), name)
