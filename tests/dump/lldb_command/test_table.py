"""The table of docs/lldb.md: what each LLDB shows of each kind of dump. What it says of an LLDB that is here is so.

`make test` runs what costs least of it, in the wheel's LLDB; `make soak` all of it, in those of Debian, too.
"""

from __future__ import annotations

import http.server
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.dump.lldb_command import lldbs
from tests.dump.lldb_command.crash import CrashFiles, make

_ROOT = Path(__file__).resolve().parents[3]
_ALL = "SYMCACHE_TEST_LLDBS" in os.environ
_QUICK = {
    ("core with a list of images", "`symcache load`"),
    ("core with a list of images", "`DEBUGINFOD_URLS`"),
    ("Crashpad's minidump", "`DEBUGINFOD_URLS`"),
    ("Breakpad's minidump", "`DEBUGINFOD_URLS`"),
}


def _cells() -> list[tuple[str, str, str, str, str]]:
    """Return (version, kind of dump, way, architecture, what it shows) for all that the table tells as tested."""
    rows = [
        line.strip("|").split("|")
        for line in (_ROOT / "docs/lldb.md").read_text().splitlines()
        if line.startswith("| ")
    ]
    start = next(n for n, row in enumerate(rows) if row[0].strip() == "LLDB")
    ways = [way.strip() for way in rows[start][2:]]
    cells = []
    for row in rows[start + 1 :]:
        versions, kind, *shown = [cell.strip() for cell in row]
        if versions.startswith("Xcode"):
            break
        for version in versions.split(", "):
            for way, cell in zip(ways, shown, strict=True):
                intel, _, arm = cell.partition(" (arm64: ")
                cells += [(version, kind, way, "x86_64", intel), (version, kind, way, "arm64", arm.strip(")") or intel)]
    return cells


def _tested() -> list[tuple[str, str, str, str, str]]:
    quick = [cell for cell in _cells() if cell[0] == lldbs.WHEEL and cell[1:3] in _QUICK and cell[3] == "x86_64"]
    return _cells() if _ALL else quick


class _Server(http.server.ThreadingHTTPServer):
    """Serves binaries and dSYMs by UUID, as debuginfod does, and remembers what was asked for."""

    def __init__(self, files: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.asked = files, list[str]()
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        file = self.server.files.get(self.path)
        data = file.read_bytes() if file else b""
        self.send_response(200 if file else 404)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def crashes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], CrashFiles]:
    made: dict[str, CrashFiles] = {}

    def crash(arch: str) -> CrashFiles:
        if arch not in made:
            made[arch] = make(tmp_path_factory.mktemp(arch), arch)
        return made[arch]

    return crash


@pytest.fixture
def server() -> Iterator[Callable[[CrashFiles], _Server]]:
    running: list[_Server] = []

    def serve(crash: CrashFiles) -> _Server:
        files = {}
        for name, uuid in crash.uuids.items():
            files[f"/buildid/{uuid.hex}/executable"] = crash.symbols / name
            files[f"/buildid/{uuid.hex}/debuginfo"] = crash.symbols / f"{name}.dSYM/Contents/Resources/DWARF" / name
        running.append(_Server(files))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return running[-1]

    yield serve
    for one in running:
        one.shutdown()
        one.server_close()


@pytest.mark.parametrize(("version", "kind", "way", "arch", "expected"), _tested())
def test_the_table_is_true(
    version: str,
    kind: str,
    way: str,
    arch: str,
    expected: str,
    crashes: Callable[[str], CrashFiles],
    home: Path,
    server: Callable[[CrashFiles], _Server],
    tmp_path: Path,
) -> None:
    lldbs.need(version)
    crash = crashes(arch)
    dump = crash.dumps[kind]
    open_core = f'target create -c "{dump}"'
    show = ["thread select 2", "thread backtrace"]
    if way == "`symcache load DUMP`":
        text = lldbs.run(version, home, [f'symcache load "{dump}" --symbols "{crash.symbols}"', *show])
    elif way == "`symcache load`":
        load = f'symcache load --symbols "{crash.symbols}"'
        text = lldbs.run(version, home, [open_core, load, "target list", *show])
        if "minidump" not in kind:  # of some of which LLDB gets a copy that it can read
            assert "target #1" not in text, "the core that is open was opened again"
    elif way == "`DEBUGINFOD_URLS`":
        asked = server(crash)
        env = {"DEBUGINFOD_URLS": asked.url, "DEBUGINFOD_CACHE_PATH": str(tmp_path / "cache")}
        text = lldbs.run(version, tmp_path, [open_core, *show], env)
        assert not [path for path in asked.asked if "debuginfo" in path], "LLDB asks nobody for the dSYM of a Mach-O"
        assert bool(asked.asked) == (expected == "names" or (version in {"19", lldbs.WHEEL} and "minidump" in kind))
    elif way == "dsymForUUID":
        program, told = tmp_path / "dsymForUUID", tmp_path / "told"
        program.write_text(f'#!/bin/sh\necho "$@" >> {told}\n')
        program.chmod(0o755)
        env = {"LLDB_APPLE_DSYMFORUUID_EXECUTABLE": str(program)}
        text = lldbs.run(version, tmp_path, ["settings set symbols.auto-download foreground", open_core, *show], env)
        assert not told.exists()
    elif way == "DeviceSupport":
        support = tmp_path / "Library/Developer/Xcode/macOS DeviceSupport/13.6 (22G830)/Symbols"
        for module in crash.scene.modules:
            place = support / (module.path or "").lstrip("/")
            place.parent.mkdir(parents=True)
            shutil.copy(crash.symbols / place.name, place)
        text = lldbs.run(version, tmp_path, ["platform select remote-macosx", open_core, *show])
    else:
        assert way == "`target.exec-search-paths`"
        text = lldbs.run(version, tmp_path, [f'settings set {way.strip("`")} "{crash.symbols}"', open_core, *show])
    assert crash.outcome(text) == expected, text


@pytest.mark.parametrize("page", ["server/symcache_server/pages/templates/start.html", "docs/crash-handler.md"])
def test_other_pages_promise_what_the_table_says(page: str) -> None:
    numbered = [(int(version), *rest) for version, *rest in _cells() if version.isdigit()]
    asking = {v for v, _, way, _, shown in numbered if way == "`DEBUGINFOD_URLS`" and shown == "names"}
    loading = {v for v, kind, way, _, shown in numbered if way == "`symcache load DUMP`" and shown == "works"}
    text = " ".join((_ROOT / page).read_text().split())
    assert f"from version {min(asking)} on" in text
    assert asking == {v for v, *_ in numbered if v >= min(asking)}
    assert "symcache load" in text
    assert loading == {v for v, *_ in numbered}, "whichever LLDB it is"
