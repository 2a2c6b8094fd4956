"""Sources of own binaries, from a server to the debugger: the demo's program, compiled in a folder that is not here."""

from __future__ import annotations

import html
import json
import plistlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID

import pytest

from symcache.dump.sources.lines import SourceFinder
from symcache.images import SourceRequest
from symcache.library import Library, ingest, stage_paths
from tests.dump.systems import ASSETS
from tests.dump.test_cli import Done, converse, run
from tests.dump.test_corpus import ARCHES, dump, truth
from tests.support.servers import Server, serve

_SOURCES = Path(__file__).parents[2] / "corpus" / "src" / "ledger"


def _line(file: str, number: int) -> str:
    return (_SOURCES / file).read_text().splitlines()[number - 1].strip()


def _crash(arch: str) -> list[dict[str, object]]:
    frames: list[dict[str, object]] = truth(arch)["threads"][truth(arch)["crashed_thread"]]["frames"]
    return frames


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Return a library of the program without the system, and no sources."""
    (tmp_path / "scratch").mkdir()
    with Library.open(tmp_path / "library", create=True) as library:
        assert ingest(library, stage_paths([ASSETS / "app"], tmp_path / "scratch")).problems == []
    return tmp_path / "library"


@pytest.fixture
def server(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serve the program with its sources; it stops when the test calls `stop`, or ends."""
    for name in ("CACHE", "DATA", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SYMCACHE_CACHE_DIR", str(tmp_path / "kept"))
    folder = tmp_path / "src"
    shutil.copytree(_SOURCES, folder)
    with ExitStack() as stack:
        running = stack.enter_context(serve(own, tmp_path / "server", "--sources", f"/Users/dev/Ledger={folder}"))
        yield running


@ARCHES
def test_open_shows_the_source_of_the_stop_and_again_without_the_server(arch: str, server: Server) -> None:
    top = _crash(arch)[0]
    assert top["file"] == "/Users/dev/Ledger/main.c"
    for _ in range(2):
        done = run("open", dump(arch), "--server", server.url)
        assert done.returncode == 0, done.stderr
        shown = done.stdout[done.stdout.index("source of frame #0, main.c:13") :].splitlines()
        at = next(line for line in shown if line.startswith("->"))
        assert at.split(None, 2)[1:] == ["13", _line("main.c", 13)]
        around = [line.split(None, 1) for line in shown[1:] if not line.startswith("->")]
        assert [a[0] for a in around if a] == ["10", "11", "12", "14", "15", "16"]
        if server.process.poll() is None:
            server.stop()


def test_at_the_prompt_every_frame_has_its_source(server: Server) -> None:
    number = next(n for n, f in enumerate(_crash("arm64")) if f["function"] == "LKBookSort")
    command = [sys.executable, "-m", "symcache", "open", str(dump("arm64")), "--server", server.url]
    seen, code = converse(command, [(b"(lldb) ", f"frame select {number}\n".encode()), (b"(lldb) ", b"quit\n")])
    assert code == 0
    assert _line("LedgerKit.c", 25) in seen


def _lines(done: Done) -> list[tuple[object, object, object]]:
    assert done.returncode == 0
    return [(f["file"], f["line"], f["source_line"]) for f in json.loads(done.stdout)["threads"][0]["frames"]]


def test_analyze_gives_the_lines_when_asked_for(
    server: Server, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def truly(frame: dict[str, object], *, had: bool) -> tuple[object, object, object]:
        file, line = frame["file"], frame["line"]
        return file, line, _line(Path(str(file)).name, int(str(line))) if file and had else None

    frames = [f for f in _crash("arm64") if f["file"]]

    def analyzed(*options: str | Path) -> list[tuple[object, object, object]]:
        return [f for f in _lines(run("analyze", dump("arm64"), "--json", *options)) if f[0]]

    assert analyzed("--server", server.url) == [truly(f, had=False) for f in frames]
    assert analyzed("--server", server.url, "--source") == [truly(f, had=True) for f in frames]
    text = run("analyze", dump("arm64"), "--server", server.url, "--source").stdout
    assert f"main.c:13\n{'':26}{_line('main.c', 13)}\n" in text
    page = run("analyze", dump("arm64"), "--server", server.url, "--source", "--html").stdout
    assert f"<code>{html.escape(_line('main.c', 13))}</code>" in page
    server.stop()
    assert analyzed("--server", server.url, "--source") == [truly(f, had=True) for f in frames]
    assert analyzed("--library", own, "--source") == [truly(f, had=True) for f in frames], "they are in the cache"
    monkeypatch.setenv("SYMCACHE_CACHE_DIR", str(tmp_path / "another"))
    assert analyzed("--library", own, "--source") == [truly(f, had=False) for f in frames], "no server, no sources"


def test_a_source_that_is_not_there_costs_only_itself(server: Server, tmp_path: Path) -> None:
    (tmp_path / "src" / "main.c").unlink()
    done = run("open", dump("arm64"), "--server", server.url)
    assert done.returncode == 0
    assert "warning" not in done.stderr
    # The stop itself has no source to show; the nearest frame that has one is shown.
    assert "source of frame #6, LedgerKit.c:25" in done.stdout
    (tmp_path / "src" / "LedgerKit.c").unlink()
    shutil.rmtree(tmp_path / "kept")
    done = run("open", dump("arm64"), "--server", server.url)
    assert done.returncode == 0
    assert "frame #0" in done.stdout
    assert "source of" not in done.stdout


def test_the_users_own_folder_comes_first(server: Server, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "main.c").write_text("".join(f"mine, line {n}\n" for n in range(1, 40)))
    done = run("open", dump("arm64"), "--server", server.url, "--source-map", f"/Users/dev/Ledger={here}")
    assert "mine, line 13" in done.stdout
    assert _line("main.c", 13) not in done.stdout


def test_what_a_server_sends_cannot_drive_the_terminal(server: Server, tmp_path: Path) -> None:
    (tmp_path / "src" / "main.c").write_text("".join(f"\x1b]0;evil\x07 {n} [red]\u202e\n" for n in range(1, 40)))
    for arguments in (["open"], ["analyze", "--source"]):
        done = run(arguments[0], dump("arm64"), "--server", server.url, *arguments[1:])
        assert done.returncode == 0
        assert " 13 [red]" in done.stdout
        assert not set(done.stdout) & {"\x1b", "\x07", "\u202e"}


class _Files:
    """Has what it is given; remembers what it is asked for."""

    def __init__(self, have: dict[SourceRequest, Path]) -> None:
        self.have, self.asked = have, list[SourceRequest]()

    def fetch(self, wanted: Sequence[SourceRequest]) -> dict[SourceRequest, Path]:
        self.asked += wanted
        return {w: self.have[w] for w in wanted if w in self.have}


def test_paths_out_of_debug_info_lead_nowhere_else(tmp_path: Path) -> None:
    uuid, other = UUID(int=1), UUID(int=2)
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("2")
    bad = ["main.c", "", "/", "/a/../../../x", "/a//b", "/a/./b", "/a\nb", "/a\0b", "/" + "a" * 5000]
    have = dict.fromkeys([SourceRequest(uuid, p) for p in bad], tmp_path / "one")
    good = {
        SourceRequest(uuid, "/Users/a/main.c"): tmp_path / "one",
        SourceRequest(other, "/Users/a/main.c"): tmp_path / "two",
        SourceRequest(uuid, "/Users/a/main.c/x.h"): tmp_path / "two",
        SourceRequest(uuid, "/Users/a/" + "n" * 300): tmp_path / "two",
        SourceRequest(uuid, "/Users/a/b/x.h"): tmp_path / "two",
    }
    files = _Files(have | good)
    scratch = tmp_path / "scratch"
    pairs = SourceFinder([("/Users", str(tmp_path))], files).map_fetched([*have, *good], scratch)
    assert set(files.asked) == set(good)
    assert pairs == [("/Users/a/b", f"{scratch}/Users/a/b"), ("/Users/a", f"{scratch}/Users/a")]
    assert (scratch / "Users/a/main.c").read_text() == "1", "the first binary that was shown"
    assert sorted(p.name for p in scratch.rglob("*") if p.is_symlink()) == ["main.c", "x.h"]


def test_a_dsym_may_note_the_revision_that_it_was_made_from(tmp_path: Path) -> None:
    """No server, no folder: the repository has other files by now, and those of the build in its history."""
    repository = tmp_path / "repository"
    shutil.copytree(_SOURCES, repository)

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(repository), *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "as it was built")
    revision = git("rev-parse", "HEAD")
    git("rm", "-q", "main.c")
    git("commit", "-q", "-m", "later")
    symbols = tmp_path / "symbols"
    shutil.copytree(ASSETS / "app" / "arm64", symbols)
    uuid = next(u for path, u, _ in truth("arm64")["modules"] if path.endswith("MacOS/Ledger"))
    plist = symbols / "Ledger.app.dSYM" / "Contents" / "Resources" / f"{str(UUID(uuid)).upper()}.plist"

    def note(place: object) -> None:
        plist.write_bytes(plistlib.dumps({"SymcacheSources": {"/Users/dev/Ledger": place}}))

    note(f"git:{repository}@{revision}")
    done = run("open", dump("arm64"), "--symbols", symbols)
    assert "source of frame #0, main.c:13" in done.stdout
    assert _line("main.c", 13) in done.stdout
    lines = _lines(run("analyze", dump("arm64"), "--symbols", symbols, "--source", "--json"))
    assert ("/Users/dev/Ledger/main.c", 13, _line("main.c", 13)) in lines
    for wrong in (f"git:{repository}@HEAD", f"git:{repository}@none", "git:/none@HEAD", "git:", 7, str(repository)):
        note(wrong)
        done = run("open", dump("arm64"), "--symbols", symbols)
        assert done.returncode == 0, done.stderr
        assert "frame #0" in done.stdout
        assert "source of" not in done.stdout
