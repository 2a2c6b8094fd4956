"""Where binaries come from: folders, a library, servers, one after the other."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from symcache.resolve.model import (
    CacheGuess,
    ChainResolver,
    FolderResolver,
    ModuleResolver,
    Progress,
    SourceFiles,
    header_address,
)
from symcache.resolve.source_roots import below_roots

if TYPE_CHECKING:
    from symcache.resolve.servers import LibraryResolver, ServerResolver, ServerSources, Sources, open_sources

__all__ = [
    "CacheGuess",
    "ChainResolver",
    "FolderResolver",
    "LibraryResolver",
    "ModuleResolver",
    "Progress",
    "ServerResolver",
    "ServerSources",
    "SourceFiles",
    "Sources",
    "below_roots",
    "header_address",
    "open_sources",
]

_LATE = {"LibraryResolver", "ServerResolver", "ServerSources", "Sources", "open_sources"}
"""What needs the client or threads: LLDB is started before these are imported."""


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(name)
    return getattr(importlib.import_module("symcache.resolve.servers"), name)
