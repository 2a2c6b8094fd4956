"""Libraries in both kinds of places."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from symcache.library import Library
from tests.store.conftest import make_location


@pytest.fixture(params=["folder", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return where a new library may be made."""
    return make_location(request.param, tmp_path, monkeypatch)


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
