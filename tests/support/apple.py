"""Material from elsewhere that tests compare with, where the environment says it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

__all__ = ["apple_caches", "util_output", "written_dumps"]


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set")
    return Path(value)


def apple_caches() -> Path:
    """Return the folder of shared caches that Apple's builder made, or skip."""
    return _folder("SYMCACHE_TEST_CACHES")


def util_output() -> Path:
    """Return the folder of what Apple's dyld_shared_cache_util printed of some of them, or skip."""
    return _folder("SYMCACHE_TEST_UTIL_OUTPUT")


def written_dumps() -> Path:
    """Return the folder of dumps as several writers lay them out, each with its `expected.json`, or skip."""
    return _folder("SYMCACHE_TEST_DUMPS")
