"""Fetching binaries by UUID over HTTP: many at a time, checked before anything else can see them, kept locally."""

from symcache.client.client import SymbolClient
from symcache.client.model import FetchedSymbol, Held, Holdings, LayoutMatch, SymbolRequest

__all__ = ["FetchedSymbol", "Held", "Holdings", "LayoutMatch", "SymbolClient", "SymbolRequest"]
