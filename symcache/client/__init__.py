"""Fetching binaries by UUID over HTTP: many at a time, checked before anything else can see them, kept locally."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from symcache.client.client import SymbolClient
from symcache.client.local_cache import LocalCache
from symcache.client.model import FetchedImage, LayoutMatch, LookupResponse, StoredImage
from symcache.client.urls import split_tokens

if TYPE_CHECKING:
    from symcache.client.fetch import Fetcher
    from symcache.client.uploading import PushedFile, push

__all__ = [
    "FetchedImage",
    "Fetcher",
    "LayoutMatch",
    "LocalCache",
    "LookupResponse",
    "PushedFile",
    "StoredImage",
    "SymbolClient",
    "push",
    "split_tokens",
]

_LATE = {"Fetcher": "fetch", "PushedFile": "uploading", "push": "uploading"}
"""What needs an HTTP library, which takes longer to import than a dump takes to open from a warm cache."""


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(name)
    return getattr(importlib.import_module(f"symcache.client.{_LATE[name]}"), name)
