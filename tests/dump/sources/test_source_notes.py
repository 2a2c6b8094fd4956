"""What dSYMs note of their sources goes with them, through library and server, to whoever allows it to be followed."""

from __future__ import annotations

import json
import plistlib
import shutil
import subprocess
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symcache.resolve import below_roots
from tests.dump.systems import ASSETS
from tests.dump.test_cli import Done, run
from tests.dump.test_corpus import dump, truth
from tests.support.servers import serve

_SOURCES = Path(__file__).parents[2] / "corpus" / "src" / "ledger"
_RECORDED = "/Users/dev/Ledger"
_LEDGER = next(UUID(u) for path, u, _ in truth("arm64")["modules"] if path.endswith("MacOS/Ledger"))
_TOP = (_SOURCES / "main.c").read_text().splitlines()[12].strip()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CACHE", "DATA", "CONFIG", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SYMCACHE_CACHE_DIR", str(tmp_path / "kept"))
    for name in ("SYMCACHE_SOURCE_ROOTS", "SYMCACHE_URL", "SYMCACHE_LIBRARY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Return where the sources are now: on no machine that built anything."""
    return Path(shutil.copytree(_SOURCES, tmp_path / "roots" / "ledger"))


def note(folder: Path, **keys: object) -> Path:
    """Return a copy of the program's files whose dSYM has a note."""
    own = Path(shutil.copytree(ASSETS / "app" / "arm64", folder))
    place = own / "Ledger.app.dSYM" / "Contents" / "Resources" / f"{str(_LEDGER).upper()}.plist"
    place.write_bytes(plistlib.dumps(keys))
    return own


def remapped(folder: Path, place: Path | str) -> Path:
    return note(folder, DBGVersion="3", DBGSourcePathRemapping={_RECORDED: str(place)})


def added(folder: Path, own: Path) -> Path:
    done = run("add", own, "--library", folder)
    assert done.returncode == 0, done.stderr
    return folder


def shows_the_source(*options: str | Path) -> bool:
    opened: Done = run("open", dump("arm64"), *options)
    assert opened.returncode == 0, opened.stderr
    assert "frame #0" in opened.stdout
    analyzed: Done = run("analyze", dump("arm64"), "--source", "--json", *options)
    lines = {f["source_line"] for f in json.loads(analyzed.stdout)["threads"][0]["frames"]}
    assert (_TOP in opened.stdout) == (_TOP in lines)
    return _TOP in lines


def test_a_note_comes_along_from_the_library(tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = added(tmp_path / "library", remapped(tmp_path / "own", here))
    told = json.loads(run("lookup", str(_LEDGER), "--library", library, "--json").stdout)
    assert {o["kind"]: o["sources"] for o in told} == {
        "executable": [],
        "debuginfo": [{"recorded": _RECORDED, "place": str(here)}],
    }
    assert str(here) in run("lookup", str(_LEDGER), "--library", library).stdout
    assert not shows_the_source("--library", library), "nobody has allowed it"
    monkeypatch.setenv("SYMCACHE_SOURCE_ROOTS", f"/nowhere:{tmp_path / 'roots'}")
    assert shows_the_source("--library", library)
    monkeypatch.setenv("SYMCACHE_SOURCE_ROOTS", str(tmp_path / "root"))
    assert not shows_the_source("--library", library), "a folder whose name only begins alike"


def test_a_revision_comes_along(tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "as it was built"], ["rm", "-q", "main.c"]):
        subprocess.run(["git", "-C", str(here), *identity, *arguments], check=True, capture_output=True)
    own = note(tmp_path / "own", SymcacheSources={_RECORDED: f"git:{here}@HEAD"})
    library = added(tmp_path / "library", own)
    assert not shows_the_source("--library", library)
    monkeypatch.setenv("SYMCACHE_SOURCE_ROOTS", str(tmp_path / "roots"))
    assert shows_the_source("--library", library)


def test_a_note_comes_along_from_a_server(tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = added(tmp_path / "library", remapped(tmp_path / "own", here))
    monkeypatch.setenv("SYMCACHE_SOURCE_ROOTS", str(tmp_path / "roots"))
    with serve(library, tmp_path / "server") as server:
        assert shows_the_source("--server", server.url)
        monkeypatch.delenv("SYMCACHE_SOURCE_ROOTS")
        assert not shows_the_source("--server", server.url)
    monkeypatch.setenv("SYMCACHE_SOURCE_ROOTS", str(tmp_path / "roots"))
    assert shows_the_source("--server", server.url), "without the server, as before"


@pytest.mark.parametrize(
    "place",
    [
        "{roots}/../outside",
        "{roots}/ledger/../../outside",
        "{outside}",
        "{roots}//ledger",
        "relative",
        "/",
        "//host{roots}",
        "http://127.0.0.1:9{roots}/",
    ],
)
def test_no_note_leads_outside(place: str, tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = shutil.copytree(here, tmp_path / "outside")
    written = place.format(roots=here.parent, outside=outside)
    library = added(tmp_path / "library", remapped(tmp_path / "own", written))
    monkeypatch.setenv("SYMCACHE_SOURCE_ROOTS", str(tmp_path / "roots"))
    assert not shows_the_source("--library", library)


_PATH = st.text("/.a@:", max_size=12)


@given(st.lists(st.tuples(_PATH, st.sampled_from(["", "git:", "git:/a@"]).flatmap(lambda s: _PATH.map(s.__add__)))))
def test_what_is_let_through_is_below_a_root(notes: list[tuple[str, str]]) -> None:
    for recorded, place in below_roots(notes, ["/a", "/aa/a/"]):
        assert (recorded, place) in notes
        folder = place.removeprefix("git:").rpartition("@")[0] if place.startswith("git:") else place
        parts = folder.rstrip("/").split("/")
        assert parts[:2] == ["", "a"] or parts[:3] == ["", "aa", "a"]
        assert not {"", ".", ".."} & set(parts[1:])


def test_what_roots_may_be() -> None:
    notes = [("/r", "/a/b"), ("/r", "git:/a/b@main"), ("/r", "/a")]
    assert below_roots(notes, ["/a/"]) == tuple(notes)
    assert below_roots(notes, ["/"]) == tuple(notes)
    assert below_roots(notes, ["/a/../a"]) == tuple(notes)
    assert below_roots(notes, ["", "a", "/b"]) == ()
