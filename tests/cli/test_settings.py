"""What `symcache.toml` says: anything that it should not is wrong use, and named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from symcache.cli import settings
from symcache.errors import UsageError


@pytest.fixture(autouse=True)
def read_anew() -> Iterator[None]:
    settings._file_settings.cache_clear()
    yield
    settings._file_settings.cache_clear()


@pytest.mark.parametrize(
    "line", ['server = "https://h"', 'servers = "https://h"', "servers = [1]", "lldb_memory = 1.5"]
)
def test_what_is_no_setting_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SYMCACHE_URL", raising=False)
    (tmp_path / "symcache.toml").write_text(line)
    with pytest.raises(UsageError, match=rf"symcache\.toml: .*{line.partition(' ')[0]}"):
        settings.server_urls(None)
