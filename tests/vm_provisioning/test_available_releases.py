"""What exists and was not harvested."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from symcache.errors import EnvironmentFailure, UsageError
from symcache.library import Library, Staged, ingest
from symcache.model import Release
from symcache_provisioning.available_releases import AvailableRelease, available_releases, parse_releases
from tests.support.commands import answer_here

LIST = """\
# what the site knows of
22G830  13.6.9
macOS 14.6.1 (23G93)   2024-08-07   13.9 GB
"24A335","15.0"
26.0 25A354
22G830
20G1427   # 11.7.10, only the build counts here
no build in this line
"""


def test_a_list_is_read_whatever_surrounds_builds_and_versions() -> None:
    assert parse_releases(LIST) == [
        AvailableRelease("22G830", "13.6.9"),
        AvailableRelease("23G93", "14.6.1"),
        AvailableRelease("24A335", "15.0"),
        AvailableRelease("25A354", "26.0"),
        AvailableRelease("20G1427", ""),
    ]


def test_colours_of_a_terminal_are_no_part_of_a_build() -> None:
    assert parse_releases("\x1b[1m22G830\x1b[0m | \x1b[32m13.6.9\x1b[0m") == [AvailableRelease("22G830", "13.6.9")]


def test_an_empty_list_and_no_list_are_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list").write_text("nothing\n")
    with pytest.raises(UsageError, match="names no macOS build"):
        available_releases(tmp_path / "list")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="ipsw is not installed"):
        available_releases()


def _ipsw(folder: Path, script: str) -> None:
    program = folder / "ipsw"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_ipsw_is_asked_where_no_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    _ipsw(tmp_path, 'test "$*" = "download macos --list" && echo "macOS Ventura 13.6.9 22G830"')
    assert available_releases() == [AvailableRelease("22G830", "13.6.9")]
    _ipsw(tmp_path, "echo no network >&2; exit 1")
    with pytest.raises(EnvironmentFailure, match="ended with 1: no network"):
        available_releases()


def test_releases_lists_what_is_not_sealed(tmp_path: Path) -> None:
    with Library.open(tmp_path / "library", create=True) as library:
        ingest(library, Staged(Release(version="14.6.1", build="23G93"), "test", problems=["cut off"]))
    (tmp_path / "list").write_text(LIST)
    answer = answer_here("releases", "--list", tmp_path / "list", "--library", tmp_path / "library")
    assert {a["build"]: a["partial"] for a in answer} == {
        "22G830": False,
        "23G93": True,
        "24A335": False,
        "25A354": False,
        "20G1427": False,
    }
