"""Caches of every variant, and what their code must answer."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import pytest

from tests.cachewriter import BuiltCache
from tests.cachewriter.plainreader import PlainCache
from tests.cachewriter.samples import host_library
from tests.cachewriter.variants import VARIANTS, built


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[BuiltCache, PlainCache]:
    cache_ = built(request.param)
    return cache_, PlainCache(cache_.write(tmp_path))


@pytest.fixture
def right_answers(tmp_path: Path) -> ctypes.CDLL:
    """The samples' sources as a library of this machine, with fresh globals."""
    copy = tmp_path / "fresh.so"
    shutil.copy(host_library()._name, copy)
    return ctypes.CDLL(str(copy))
