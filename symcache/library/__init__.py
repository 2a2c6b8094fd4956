"""The library: the verbs over store and catalog. What was stored stays; what is served is what was asked for."""

from symcache.library.add import stage_paths
from symcache.library.library import CacheFileFound, Found, IngestResult, Library
from symcache.library.staged import Staged, StagedCacheFile, StagedObject
from symcache.library.verify import Finding, FindingCode, Level, VerifyReport, verify

__all__ = [
    "CacheFileFound",
    "Finding",
    "FindingCode",
    "Found",
    "IngestResult",
    "Level",
    "Library",
    "Staged",
    "StagedCacheFile",
    "StagedObject",
    "VerifyReport",
    "stage_paths",
    "verify",
]
