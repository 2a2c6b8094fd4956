"""The library: the verbs over store and catalog. What was stored stays; what is served is what was asked for."""

from symcache.library.add import stage_paths
from symcache.library.library import CacheFileFound, Found, IngestResult, Library
from symcache.library.staged import Staged, StagedCacheFile, StagedObject

__all__ = [
    "CacheFileFound",
    "Found",
    "IngestResult",
    "Library",
    "Staged",
    "StagedCacheFile",
    "StagedObject",
    "stage_paths",
]
