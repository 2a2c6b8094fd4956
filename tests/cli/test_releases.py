"""`symcache releases`: what there is, from when, how much of it, and how large; and how to begin."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from symcache.library import Library
from tests.support.commands import answer_here, end_here, run_here
from tests.support.many import add_release

ARCHS = ["arm64e", "x86_64", "x86_64h"]


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SYMCACHE_LIBRARY", str(tmp_path / "library"))
    return tmp_path / "library"


def _caches(*archs: str) -> list[dict[str, object]]:
    """Return the raw files of a shared cache for each architecture, as records keep them."""
    folder = "/System/Volumes/Preboot/Cryptexes/OS/System/Library/dyld"
    return [
        {
            "name": f"dyld_shared_cache_{arch}",
            "cache_uuid": uuid4(),
            "arch": arch,
            "path": f"{folder}/dyld_shared_cache_{arch}",
            "sha256": uuid4().hex * 2,
            "size": 1_000_000,
        }
        for arch in archs
    ]


def _harvest(library: Path, build: str, archs: list[str], *, sealed: bool = True, finished: str = "") -> None:
    caches = _caches(*archs)
    listed = [
        {
            "path": "/usr/lib/libz.dylib",
            "arch": c["arch"],
            "uuid": uuid4(),
            "origin": "cache",
            "cache_uuid": c["cache_uuid"],
        }
        for c in caches
    ]
    add_release(library, build, [], manifest=listed, cache_files=caches, sealed=sealed, finished=finished)


def test_a_release_shows_what_one_asks_about_it(library: Path) -> None:
    _harvest(library, "22G120", ARCHS, finished="2026-03-01T10:00:00+00:00")
    _harvest(library, "22G90", ["arm64e"], finished="2026-02-01T10:00:00+00:00")
    _harvest(library, "22G74", ARCHS, sealed=False)
    done = end_here("releases")
    first, *rows = done.stdout.splitlines()
    assert first.split() == ["release", "build", "harvested", "state", "size", "architectures"]
    assert [row.split() for row in rows] == [
        ["macOS", "13.6", "22G120", "2026-03-01", "complete", "3.0", "MB", *ARCHS],
        ["macOS", "13.6", "22G90", "2026-02-01", "lacks", "2", "caches", "1.0", "MB", "arm64e"],
        ["macOS", "13.6", "22G74", "-", "partial", "3.0", "MB", *ARCHS],
    ]
    assert all(len(row) <= 80 for row in rows)
    assert "symcache verify" in done.stderr
    listed = answer_here("releases")
    assert [r["lacking"] for r in listed] == [[], ["system cache x86_64", "system cache x86_64h"], sorted(
        f"system cache {arch}" for arch in ARCHS
    )]  # fmt: skip
    assert [r["content_bytes"] for r in listed] == [3_000_000, 1_000_000, 3_000_000]
    assert listed[0]["archs"] == ARCHS


def test_architectures_are_those_of_the_systems_caches(library: Path) -> None:
    (system,), (driverkit,) = _caches("arm64e"), _caches("x86_64")
    driverkit["path"] = "/System/DriverKit/System/Library/dyld/dyld_shared_cache_x86_64"
    add_release(library, "22G120", [], cache_files=[system, driverkit])
    (listed,) = answer_here("releases")
    assert listed["archs"] == ["arm64e"]


def test_what_several_harvests_have_counts_once(library: Path) -> None:
    for day in ("02", "01"):
        add_release(library, "22G120", ["/usr/lib/a", "/usr/lib/b"], finished=f"2026-03-{day}T10:00:00+00:00")
    (listed,) = answer_here("releases")
    assert (listed["content_bytes"], listed["harvested"][:10]) == (2, "2026-03-02")


def test_a_hundred_releases_take_no_more_questions_than_three(library: Path) -> None:
    for build in ("22G120", "22G90", "22G74"):
        _harvest(library, build, ARCHS)
    with Library.open(library) as opened:
        asked: list[str] = []
        opened.catalog.database.conn.set_trace_callback(asked.append)
        assert len(opened.catalog.glance()) == 3
    assert len([question for question in asked if "SELECT" in question]) == 5


READING = [
    "releases", "lookup x", "stats", "verify", "missing", "fsck", "gc", "diff 22G90 22G120", "export 22G90 -o x",
    "reextract 22G90", "remove 22G90", "get 23516BE4-29BE-350C-91C9-F36E7999F0F1",
]  # fmt: skip


@pytest.mark.parametrize("command", READING)
def test_an_empty_library_says_how_to_begin(command: str, library: Path) -> None:
    none = run_here(*command.split())
    assert none.returncode == 1
    assert "no library here" in none.stderr and "symcache harvest" in none.stderr
    Library.open(library, create=True).close()
    empty = run_here(*command.split())
    assert f"note: {library} is empty: begin with `symcache harvest" in " ".join(empty.stderr.split())
    assert run_here(*command.split(), "--json").stdout.strip()[:1] in {"", "[", "{"}


def test_who_has_a_server_alone_is_told_what_asks_it(tmp_path: Path) -> None:
    env = {"SYMCACHE_LIBRARY": "", "SYMCACHE_URL": "https://symbols.example", "XDG_DATA_HOME": str(tmp_path)}
    for command in ("lookup corefound", "verify --dump crash.zip"):
        none = run_here(*command.replace("crash.zip", __file__).split(), env=env)
        assert none.returncode == 1
        assert "verify --dump FILE --server URL" in " ".join(none.stderr.split()), none.stderr


def test_one_is_not_many(library: Path) -> None:
    add_release(library, "22G120", ["/usr/lib/libz.dylib"])
    said = end_here("verify", "22G120", "--level", "catalog", "--arch", "arm64e", code=1).stdout
    assert "1 finding  -\n" in said and "1 finding (1 image, level catalog)" in said
    assert "1 finding: 1 record, 1 blob, 0 blobs unnamed" in end_here("fsck", code=1).stdout
