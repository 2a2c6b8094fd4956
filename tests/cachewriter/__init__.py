"""Writes dyld shared caches for tests, from the published format alone and apart from the code that reads them.

As in Apple's caches, segments lie apart, imports are bound, lazy pointers point at their functions, and code is
re-encoded to reach what has moved. Unlike there, stubs stay in use, each image keeps its own GOT, Objective-C and Swift
metadata are not optimised (Swift's is refused), nothing of dyld's own (closures, loaders, patch tables) is written, and
32-bit differences between segments are moved only in code, unwind tables and method lists.
"""

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
