"""One suite over both back ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from symcache.store import Store, open_store
from tests.support.seaweed import new_location, s3_environment, seaweed


@pytest.fixture(params=["folder", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return where a new library may be made."""
    if request.param == "folder":
        return str(tmp_path / "library")
    for name, value in s3_environment(seaweed()).items():
        monkeypatch.setenv(name, value)
    return new_location()


@pytest.fixture
def any_store(location: str) -> Store:
    """Return an empty store."""
    return open_store(location, create=True)


@pytest.fixture
def make(any_store: Store) -> Callable[..., bool]:
    """Return a function that creates an object from bytes."""

    def create(key: str, data: bytes, name: str = "part-test") -> bool:
        path = any_store.scratch() / name
        path.write_bytes(data)
        return any_store.create(key, path)

    return create
