"""What the tests with a real LLDB share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from symcache.client import LocalCache
from symcache.dump.lldb_child.finder import find_lldb
from symcache.library import Library, ingest
from symcache.resolve import LibraryResolver
from tests.dump.scene import Scene, build_scene
from tests.dump.systems import ASSETS, BUILD, stage


@pytest.fixture(scope="session", autouse=True)
def lldb_is_here() -> None:
    assert find_lldb() is not None, "no LLDB: `make test` installs one"


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Scene]:
    """Return the scene of an architecture, compiled once."""
    built: dict[tuple[str, bool], Scene] = {}

    def scene(arch: str, *, signed: bool = False) -> Scene:
        if (arch, signed) not in built:
            built[arch, signed] = build_scene(tmp_path_factory.mktemp(arch), arch, signed=signed)
        return built[arch, signed]

    return scene


@pytest.fixture
def only(tmp_path: Path) -> Callable[..., Path]:
    """Return a folder that links to some files and nothing else."""

    def folder(*files: Path) -> Path:
        target = tmp_path / "symbols"
        target.mkdir(exist_ok=True)
        for file in files:
            (target / file.name).symlink_to(file)
        return target

    return folder


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Return a library with the images of both caches."""
    root = tmp_path_factory.mktemp("library")
    files = sorted((ASSETS / "host").rglob("dyld_shared_cache_*"))
    opened = Library.open(root / "library", create=True)
    ingest(opened, stage(files, BUILD, root / "out"))
    return opened


@pytest.fixture
def system(library: Library, tmp_path: Path) -> LibraryResolver:
    return LibraryResolver(library, LocalCache(tmp_path / "kept"))
