"""Libraries in both kinds of places."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from symcache.library import Library
from tests.store.conftest import location

__all__ = ["location"]


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Library]:
    """Return an empty library in a folder."""
    with Library.open(tmp_path / "library", create=True) as opened:
        yield opened


@pytest.fixture
def anywhere(location: str) -> Iterator[Library]:
    """Return an empty library in a folder, then in an object store."""
    with Library.open(location, create=True) as opened:
        yield opened
