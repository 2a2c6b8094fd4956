"""The program that a harvest takes to a Mac, to have the extractor that is there take shared caches apart.

`extract-cache` is `extract_cache.c`, built by `build.py` for Intel and Apple silicon.
"""

from pathlib import Path

__all__ = ["HELPER", "NOT_LOADED"]

HELPER = Path(__file__).with_name("extract-cache")
"""A universal Mach-O executable for macOS 11 and later."""
NOT_LOADED = 69
"""Its exit status when the bundle cannot be loaded into a process of its architecture."""
