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


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same with three libraries in place of a thousand."""
    add_release(tmp_path / "few", "23A344", MANY[:3])
    add_release(tmp_path / "few", "22G120", [LAST], arch="x86_64")
    monkeypatch.setenv("SYMCACHE_LIBRARY", str(tmp_path / "few"))
    return tmp_path / "few"


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


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("part", ["LIBZ", "z.dyl", "*Z.DYLIB", "usr/lib/libz"])
def test_a_part_of_a_name_is_enough_in_any_case(part: str) -> None:
    assert [o["path"] for o in json.loads(_lookup(part, "--json").stdout)] == [LAST]


def test_a_name_that_is_the_part_comes_first(few: Path) -> None:
    add_release(few, "23A344", ["/usr/lib/alibz.dylib", "/usr/lib/libz2.dylib"])
    found = json.loads(_lookup("libz", "--json").stdout)
    assert [o["path"] for o in found] == [LAST, "/usr/lib/libz2.dylib", "/usr/lib/alibz.dylib"]


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        (("libzz.dylib",), "did you mean libz.dylib"),
        (("lizb",), "did you mean libz.dylib"),
        (("23516BE4",), "a UUID is looked up whole"),
        (("23516be4-29be-350c",), "a UUID is looked up whole"),
        (("/usr/lib/libs.dylib",), "did you mean libz.dylib"),
        (("qqqqqqqq",), "`symcache releases`"),
        (("libz.dylib", "--build", "23A344"), "leave out --build"),
        (("libz", "--arch", "arm64e"), "leave out --build"),
        (("23516BE4-29BE-350C-91C9-F36E7999F0F1",), "`symcache releases`"),
    ],
)
def test_what_may_be_meant_where_nothing_is_found(asked: tuple[str, ...], hint: str) -> None:
    ran = _lookup(*asked)
    assert ran.exit_code == 1
    assert hint in ran.stderr.partition("next: ")[2]


@pytest.mark.usefixtures("library")
def test_people_get_as_many_rows_as_they_can_read() -> None:
    ran = _lookup("lib*")
    assert len(ran.stdout.splitlines()) == 1 + 100
    assert "at least 901 more rows: raise --limit" in ran.stderr
    ran = _lookup("lib*", "--limit", "1001")
    assert len(ran.stdout.splitlines()) == 1 + 1001
    assert "and at least 1 more row:" in ran.stderr
    assert _lookup("lib*", "--limit", "1002").stderr == ""


def test_what_looks_the_same_in_several_builds_is_one_row(few: Path) -> None:
    uuid = "23516BE4-29BE-350C-91C9-F36E7999F0F1"
    for build in ("22G90", "22G74"):
        add_release(few, build, ["/usr/lib/libsame.dylib"], uuid=uuid)
    _, row = _lookup("libsame").stdout.splitlines()
    assert row.split() == [uuid, "arm64e", "executable", "in", "2", "builds", "1", "byte", "/usr/lib/libsame.dylib"]
    *_, builds = _lookup(uuid).stdout.splitlines()
    assert builds == "in 2 builds: 22G90, 22G74"
    assert [o["build"] for o in json.loads(_lookup("libsame", "--json").stdout)] == ["22G90", "22G74"]


def test_nothing_foreign_reaches_the_terminal(few: Path) -> None:
    add_release(few, "22G74", ["/usr/lib/libevil\x1b[31m.dylib"], arch="arm\x1b[2J[red]")
    shown = _lookup("libevil").stdout
    assert "\x1b" not in shown
    assert r"arm\x1b[2J[red]" in shown
