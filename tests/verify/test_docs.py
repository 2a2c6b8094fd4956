"""The documentation of verification is that of this program."""

from __future__ import annotations

import tomllib
from pathlib import Path

from symcache.verify import Expectations, load_waivers
from tests.support.recipes import blocks


def test_the_tables_shown_are_accepted(tmp_path: Path) -> None:
    site, waiver = blocks("verify.md", "toml")
    assert "expect_builds" in tomllib.loads(site)
    (tmp_path / "releases.toml").write_text(site)
    assert Expectations.load(tmp_path / "releases.toml").expected_releases == (("macOS", "22G830"), ("macOS", "23H723"))
    (tmp_path / "waivers.toml").write_text(waiver)
    assert len(load_waivers(tmp_path / "waivers.toml")) == 1
