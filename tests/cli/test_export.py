"""`symcache export`, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.apple_folders import put_raw
from tests.support.commands import end_here


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_release_is_exported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYMCACHE_LIBRARY", str(tmp_path / "library"))
    main = put_raw(tmp_path / "caches", "driverkit-arm64e")
    end_here("harvest", main, "--build", "21A559", "--staging", tmp_path / "staging")
    ran = end_here("export", "21A559", "--format", "raw", "-o", tmp_path / "raw", "--json")
    assert json.loads(ran.stdout)["folders"] == [str(tmp_path / "raw")]
    assert (tmp_path / "raw" / main.name).read_bytes() == main.read_bytes()
    ran = end_here("export", "21A559", "-o", tmp_path / "Xcode")
    (folder,) = ran.stdout.splitlines()
    assert Path(folder, "Symbols").is_dir()
    with monkeypatch.context() as patch:
        patch.setattr("symcache.library.exporting.write_files", interrupt)
        ran = end_here("export", "21A559", "-o", tmp_path / "again", code=130)
    assert "it begins anew" in ran.stderr
    assert not list((tmp_path / "again").rglob("*.*"))
    assert "is there already" in end_here("export", "21A559", "-o", tmp_path / "Xcode", code=2).stderr
