"""dyld shared caches of every era: opened by their headers, images extracted to files that debuggers accept."""

from symcache.dyld.cache import Image, MissingFile, SharedCache
from symcache.dyld.cache_file import CacheFilePart
from symcache.dyld.extract import (
    EXTRACTOR,
    REVISION,
    Extracted,
    ExtractReport,
    Failed,
    extract_all,
    extract_image,
)
from symcache.dyld.header import HEAD_SIZE, Header, Mapping
from symcache.dyld.images import tables_end
from symcache.dyld.names import Companion, companions, find_caches, is_cache_name

__all__ = [
    "EXTRACTOR",
    "HEAD_SIZE",
    "REVISION",
    "CacheFilePart",
    "Companion",
    "ExtractReport",
    "Extracted",
    "Failed",
    "Header",
    "Image",
    "Mapping",
    "MissingFile",
    "SharedCache",
    "companions",
    "extract_all",
    "extract_image",
    "find_caches",
    "is_cache_name",
    "tables_end",
]
