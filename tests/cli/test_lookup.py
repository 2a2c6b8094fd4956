"""`symcache lookup` by name: whatever else a library holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from symcache.cli.app import application
from symcache.library import Library, remove_build
from tests.support.many import add_release

MANY = [f"/System/Library/libA{n:04}.dylib" for n in range(1001)]
LAST = "/usr/lib/libz.dylib"


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A release of 1001 libraries, and one of another build and architecture that is the last of all by path."""
    add_release(tmp_path / "library", "23A344", MANY)
    add_release(tmp_path / "library", "22G120", [LAST], arch="x86_64")
    monkeypatch.setenv("SYMCACHE_LIBRARY", str(tmp_path / "library"))
    return tmp_path / "library"


def _lookup(*arguments: str) -> Result:
    return CliRunner().invoke(application("lookup"), ["lookup", *arguments])


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("options", [("--build", "22G120"), ("--arch", "x86_64")])
def test_what_is_asked_for_is_found_behind_a_thousand_others(options: tuple[str, str]) -> None:
    ran = _lookup("lib*", *options, "--json")
    assert [o["path"] for o in json.loads(ran.stdout)] == [LAST]
    assert "more" not in ran.stderr


def test_what_was_taken_back_hides_nothing(library: Path) -> None:
    with Library.open(library) as opened:
        remove_build(opened, "23A344")
    assert [o["path"] for o in json.loads(_lookup("lib*", "--json").stdout)] == [LAST]


@pytest.mark.usefixtures("library")
def test_an_answer_that_was_cut_says_so() -> None:
    ran = _lookup("lib*", "--json")
    assert len(json.loads(ran.stdout)) == 1000
    assert "more than these 1000" in ran.stderr
    ran = _lookup("lib*", "--json", "--limit", "1002")
    assert {o["path"] for o in json.loads(ran.stdout)} == {*MANY, LAST}
    assert ran.stderr == ""
