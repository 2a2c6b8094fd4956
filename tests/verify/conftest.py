"""The release that all these tests look at: compiled, laid out as shared caches, and harvested once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.verify.releases import BUILD, OTHER_BUILD, Workshop, compile_release, make_library


@pytest.fixture(scope="session")
def systems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The system trees of two builds."""
    root = tmp_path_factory.mktemp("systems")
    return {build: compile_release(root / build, build) for build in (BUILD, OTHER_BUILD)}


@pytest.fixture(scope="session")
def harvested(systems: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of one build: not to be changed."""
    folder = tmp_path_factory.mktemp("harvested")
    return make_library(folder / "library", folder, systems[BUILD])


@pytest.fixture(scope="session")
def harvested_twice(systems: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of two builds: not to be changed."""
    folder = tmp_path_factory.mktemp("harvested-twice")
    return make_library(folder / "library", folder, systems[BUILD], systems[OTHER_BUILD])


@pytest.fixture
def workshop(harvested: Path, tmp_path: Path) -> Workshop:
    """A copy of the library of one build, to be damaged."""
    shutil.copytree(harvested, tmp_path / "library")
    return Workshop(tmp_path / "library")
