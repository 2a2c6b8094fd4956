"""Fetching binaries by UUID over HTTP: many at a time, checked before anything else can see them, kept locally."""

from __future__ import annotations

from typing import TYPE_CHECKING

from symcache.late_imports import late_imports

if TYPE_CHECKING:
    from symcache.client.client import SymbolClient
    from symcache.client.documents import get_document
    from symcache.client.downloading import download, read_url
    from symcache.client.fetch import Fetcher
    from symcache.client.local_cache import LocalCache
    from symcache.client.model import FetchedImage, LayoutMatch, LookupResponse, StoredImage
    from symcache.client.repairing import fetch_from
    from symcache.client.session import http_session
    from symcache.client.uploading import PushedFile, push
    from symcache.client.urls import is_http_url, split_tokens, without_password

__all__ = [
    "FetchedImage",
    "Fetcher",
    "LayoutMatch",
    "LocalCache",
    "LookupResponse",
    "PushedFile",
    "StoredImage",
    "SymbolClient",
    "download",
    "fetch_from",
    "get_document",
    "http_session",
    "is_http_url",
    "push",
    "read_url",
    "split_tokens",
    "without_password",
]

# An HTTP library takes longer to import than a dump takes to open from a warm cache.
__getattr__ = late_imports(
    __name__,
    {
        "client": ("SymbolClient",),
        "documents": ("get_document",),
        "downloading": ("download", "read_url"),
        "fetch": ("Fetcher",),
        "local_cache": ("LocalCache",),
        "model": ("FetchedImage", "LayoutMatch", "LookupResponse", "StoredImage"),
        "repairing": ("fetch_from",),
        "session": ("http_session",),
        "uploading": ("PushedFile", "push"),
        "urls": ("is_http_url", "split_tokens", "without_password"),
    },
)
