"""A machine to harvest for the commands of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.openssh import openssh
from tests.support.systems import make_system

__all__ = ["openssh"]


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small system of macOS 13. Nobody writes into it."""
    return make_system(tmp_path_factory.mktemp("systems") / "ventura", caches=("arm64e",))
