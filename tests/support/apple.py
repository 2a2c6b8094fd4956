"""Material from elsewhere that tests compare with, where the environment says it is."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

__all__ = [
    "AppleCache",
    "apple_caches",
    "every_apple_cache",
    "listed_caches",
    "made_firmware",
    "util_output",
    "written_dumps",
]


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set")
    return Path(value)


def apple_caches() -> Path:
    """Return the folder of shared caches that Apple's builder made, or skip."""
    return _folder("SYMCACHE_TEST_CACHES")


@dataclass(frozen=True)
class AppleCache:
    """A main file that Apple's builder made, and what Apple's own extractor made of its images."""

    main: Path
    told: Path

    @property
    def images(self) -> list[dict[str, Any]]:
        return list(json.loads(self.told.read_text())["images"])


def every_apple_cache() -> list[Any]:
    """Return parameters for tests that take each of them, or one that skips.

    A development main with no list of its own has the images of the customer's.
    """
    root = os.environ.get("SYMCACHE_TEST_CACHES")
    found = []
    for told in sorted(Path(root).glob("*/expected.json")) if root else ():
        customer = told.with_name(json.loads(told.read_text())["cache"])
        development = customer.with_name(customer.name + ".development")
        own = told.with_name("expected-development.json")
        found.append(AppleCache(customer, told))
        if development.exists():
            found.append(AppleCache(development, own if own.exists() else told))
    skipped = pytest.param(None, id="none", marks=pytest.mark.skip("SYMCACHE_TEST_CACHES is not set"))
    prefix = "dyld_shared_cache_"
    return [pytest.param(c, id=f"{c.main.parent.name}-{c.main.name.removeprefix(prefix)}") for c in found] or [skipped]


def listed_caches() -> list[Any]:
    """Return the names of those of which `util_output` has what Apple's tool printed, or a parameter that skips."""
    root = os.environ.get("SYMCACHE_TEST_UTIL_OUTPUT")
    names = sorted(f.parent.name for f in Path(root).glob("*/text_info.out")) if root else []
    return names or [pytest.param("none", marks=pytest.mark.skip("SYMCACHE_TEST_UTIL_OUTPUT is not set"))]


def util_output() -> Path:
    """Return the folder of what Apple's dyld_shared_cache_util printed of some of them, or skip."""
    return _folder("SYMCACHE_TEST_UTIL_OUTPUT")


def written_dumps() -> Path:
    """Return the folder of dumps as several writers lay them out, each with its `expected.json`, or skip."""
    return _folder("SYMCACHE_TEST_DUMPS")


def made_firmware() -> Path:
    """Return the folder of made firmware: disk images, plain, sealed and encrypted, and an archive of them; or skip."""
    return _folder("SYMCACHE_TEST_FIRMWARE")
