"""One suite over all back ends, and over object stores of two makers: so that it is S3 they speak, and no dialect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from symcache.store import Store, open_store
from tests.support import moto_store
from tests.support.seaweed import new_location, s3_environment, seaweed


def make_location(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return where a new library may be made: in a folder, in SeaweedFS (`s3`), or in moto."""
    if kind == "folder":
        return str(folder / "library")
    for name, value in s3_environment(moto_store.moto() if kind == "moto" else seaweed()).items():
        monkeypatch.setenv(name, value)
    return moto_store.new_location() if kind == "moto" else new_location()


@pytest.fixture(params=["folder", "s3", "moto"])
def location(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return where a new library may be made."""
    return make_location(request.param, tmp_path, monkeypatch)


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
