"""The library: the verbs over store and catalog. What was stored stays; what is served is what was asked for."""

from symcache.library.add import stage_paths
from symcache.library.found import CacheFileFound, Found, IngestResult
from symcache.library.library import Library
from symcache.library.places import default_location
from symcache.library.staged import Staged, StagedCacheFile, StagedObject

__all__ = [
    "CacheFileFound",
    "Found",
    "IngestResult",
    "Library",
    "Staged",
    "StagedCacheFile",
    "StagedObject",
    "default_location",
    "stage_paths",
]
