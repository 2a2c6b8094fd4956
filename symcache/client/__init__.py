"""Fetching binaries by UUID over HTTP: many at a time, checked before anything else can see them, kept locally."""

from symcache.client.client import SymbolClient
from symcache.client.fetch import Fetcher
from symcache.client.local_cache import LocalCache
from symcache.client.model import FetchedSymbol, Held, Holdings, LayoutMatch, SymbolRequest
from symcache.client.push import PushedFile, push
from symcache.client.urls import split_tokens

__all__ = [
    "FetchedSymbol",
    "Fetcher",
    "Held",
    "Holdings",
    "LayoutMatch",
    "LocalCache",
    "PushedFile",
    "SymbolClient",
    "SymbolRequest",
    "push",
    "split_tokens",
]
