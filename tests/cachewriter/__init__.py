"""Writes dyld shared caches for tests, from the published format alone and apart from the code that reads them."""

from tests.cachewriter.built import BuiltCache, ExpectedImage, ExpectedSegment, PlacedImage, Symbol
from tests.cachewriter.options import HEADER_SIZES, CacheOptions, DylibInput
from tests.cachewriter.writer import build_cache

__all__ = [
    "HEADER_SIZES",
    "BuiltCache",
    "CacheOptions",
    "DylibInput",
    "ExpectedImage",
    "ExpectedSegment",
    "PlacedImage",
    "Symbol",
    "build_cache",
]
