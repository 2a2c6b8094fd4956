"""A home whose LLDB has our command, and what dumps its tests share with others."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from symcache.cli.app import application
from tests.dump.test_fetching import crowd, crowds  # noqa: F401 (fixtures)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home in which `symcache setup lldb` was run."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        for name in ("SYMCACHE_URL", "XDG_DATA_HOME"):
            patch.delenv(name, raising=False)
        done = CliRunner().invoke(application("setup"), ["setup", "lldb"])
    assert done.exit_code == 0, done.output
    return folder
