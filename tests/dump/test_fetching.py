"""Only what is needed is fetched, and the backtraces are those that all modules give."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from symcache.dump import analyze, module_files
from symcache.dump.formats.container import OpenedDump
from symcache.dump.stack_modules import modules_of_addresses
from symcache.images import ImageFile, ImageRequest
from symcache.resolve import CacheGuess, ChainResolver, FolderResolver, LibraryResolver, ModuleResolver
from tests.dump.builder import Module, Region, header, write_dump
from tests.dump.scene import Scene
from tests.dump.systems import ASSETS
from tests.dump.test_cli import converse, run
from tests.dump.test_corpus import dump
from tests.support.apple import written_dumps
from tests.support.servers import uuid_of
from tests.support.toolchain import compile_image

NOTHING = ChainResolver([])
MORE = 0x1_9000_0000
"""Where modules are that nothing points into."""


class Fetching:
    """A resolver that remembers what it was asked for."""

    def __init__(self, resolver: ModuleResolver) -> None:
        self._resolver = resolver
        self.uuids: set[UUID] = set()

    def resolve(self, requests: Sequence[ImageRequest], progress: Any = None) -> dict[ImageRequest, ImageFile]:
        self.uuids |= {request.uuid for request in requests}
        return self._resolver.resolve(requests, progress)

    def guess_caches(self, loads: Mapping[UUID, int]) -> list[CacheGuess]:
        return self._resolver.guess_caches(loads)


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing be fetched before LLDB walks but what the top frames are in."""

    def of_counters(
        opened: OpenedDump, _: int, memory: object, ranges: Sequence[tuple[int, int]], *__: object
    ) -> set[int]:
        counters = [t.registers["rip" if "rip" in t.registers else "pc"] for t in opened.core.threads if t.registers]
        return modules_of_addresses(counters, ranges)

    monkeypatch.setattr(module_files, "modules_of_stacks", of_counters)


def seen(path: Path, resolver: ModuleResolver, here: ModuleResolver | None) -> dict[str, Any]:
    """Return what an analysis says but for modules that no frame is in."""
    report = analyze(path, resolver, here=here).to_json()
    used = {f["module_index"] for t in report["threads"] for f in t["frames"]}
    report["modules"] = [m for m in report["modules"] if m["index"] in used]
    report["system"]["cache_slide"] = None  # it takes two images to tell
    return report


def test_dumps_read_the_same_round_by_round(blind: None) -> None:
    """What test_writers expects of them with all modules. Each takes half a second, so one for each kind."""
    del blind
    folder = written_dumps()
    binaries = FolderResolver([folder / "binaries"])
    for name in ("think-cell-arm64.zip", "think-cell-x86_64-big.zip", "crashpad-x86_64.dmp", "lldb-arm64.dmp"):
        truth = json.loads((folder / f"{name}.expected.json").read_text())
        said = analyze(folder / name, binaries, here=NOTHING)
        assert {t.index: [(hex(f.address), f.function or None) for f in t.frames] for t in said.threads} == {
            t["index"]: [(f["address"], f["symbol"]) for f in t["frames"]] for t in truth["threads"]
        }, name


@pytest.mark.parametrize(("arch", "rounds"), [("x86_64", False), ("arm64", True)])
def test_a_system_reads_the_same(
    arch: str, rounds: bool, system: LibraryResolver, request: pytest.FixtureRequest
) -> None:
    if rounds:
        request.getfixturevalue("blind")
    resolver = ChainResolver([FolderResolver([ASSETS / "app" / arch]), system])
    fetching = Fetching(resolver)
    assert seen(dump(arch), fetching, NOTHING) == seen(dump(arch), resolver, None)
    every = analyze(dump(arch), fetching, here=NOTHING)
    unfetched = {m.loaded.module.uuid for m in every.modules if m.status == "unfetched"}
    assert unfetched, "the dump lists modules that no stack points into"
    assert not unfetched & fetching.uuids
    assert every.missing == []


@dataclass
class Crowd:
    """A crash with modules that no stack points into, and a server that has them all."""

    path: Path
    files: list[Path]
    url: str = ""
    sent: list[Path] = field(default_factory=list)
    stuck: Path | None = None
    """A file that is never sent."""


@pytest.fixture(scope="module")
def crowds(scenes: Callable[..., Scene], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    folder = tmp_path_factory.mktemp("crowd")
    scene = scenes("x86_64")
    files, regions, modules = [scene.exe, scene.lib], list(scene.core.regions), list(scene.modules)
    for number in range(3):
        source = f"__attribute__((noinline)) int more{number}(int x) {{ return x * {number + 7}; }}\n"
        files.append(compile_image(folder, f"libmore{number}.dylib", source))
        regions.append(Region(MORE + number * 0x1_0000, 0x4000))
        modules.append(Module(MORE + number * 0x1_0000, f"/usr/lib/{files[-1].name}", uuid_of(files[-1]).hex))
    core = replace(scene.core, regions=regions).bytes()
    crowd = Crowd(write_dump(folder / "crash.zip", header(modules, thread=1), core), files)
    by_path = {f"/buildid/{uuid_of(file).hex}/executable": file for file in files}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            file = by_path.get(self.path)
            if file and file == crowd.stuck:
                self.connection.recv(1)  # until the client hangs up
                return
            self.send_response(200 if file else 404)
            data = file.read_bytes() if file else b""
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            if file:
                crowd.sent.append(file)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        crowd.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield crowd
        server.shutdown()


@pytest.fixture
def crowd(crowds: Crowd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Crowd:
    monkeypatch.setenv("SYMCACHE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "nobody"))
    crowds.sent.clear()
    crowds.stuck = None
    return crowds


def test_the_prompt_fetches_what_it_is_asked_for(crowd: Crowd) -> None:
    def ask(*lines: str) -> str:
        script = [(b"(lldb) ", line.encode() + b"\n") for line in (*lines, "quit")]
        command = [sys.executable, "-c", "from symcache.cli import opendump; opendump()", str(crowd.path)]
        seen, code = converse([*command, "--server", crowd.url], script)
        assert code == 0, seen
        return seen

    seen = ask("image list", f"image lookup -a {MORE + 0x1_0000:#x}", "image list", "disassemble -n more2", "bt")
    introduction, _, rest = seen.partition("(lldb) image list")
    assert "fetching 2 of 5 modules: those that stacks point into" in introduction
    assert "not fetched: 3 modules, which no stack points into" in introduction
    first, _, rest = rest.partition("(lldb) image lookup")
    assert [line.split()[-1] == "fetched)" for line in first.splitlines() if line.startswith("[")] == [
        *(False, False, True, True, True)
    ]
    assert str(uuid_of(crowd.files[2])).upper() in first
    looked_up, _, rest = rest.partition("(lldb) image list")
    assert "fetching libmore1.dylib, for `image lookup -a" in looked_up
    second, _, rest = rest.partition("(lldb) disassemble")
    assert second.count("(not fetched)") == 2
    code, _, backtrace = rest.partition("(lldb) bt")
    assert "fetching libmore0.dylib, libmore2.dylib, for `disassemble -n more2`" in code
    assert "retq" in code
    assert backtrace.count("libmath.dylib`lib_") == 2
    assert sorted(crowd.sent) == sorted(crowd.files), "each once"


def test_ctrl_c_ends_a_fetch_and_the_prompt_stays(crowd: Crowd) -> None:
    crowd.stuck = crowd.files[3]
    script = [
        (b"(lldb) ", f"image lookup -a {MORE + 0x1_0000:#x}\n".encode()),
        (b"fetching libmore1.dylib", b"\x03"),
        (b"(lldb) ", b"symcache load libmore2.dylib\n"),
        (b"fetched\r\n", b"quit\n"),
    ]
    command = [sys.executable, "-c", "from symcache.cli import opendump; opendump()", str(crowd.path)]
    seen, code = converse([*command, "--server", crowd.url], script)
    assert code == 0, seen
    assert "not fetched: interrupted; what has arrived is kept" in seen
    assert "1 of 1 modules fetched" in seen
    assert "2 of 5 modules are not fetched" in seen


def test_commands_fetch_what_is_on_the_stack_or_all(crowd: Crowd) -> None:
    done = run("analyze", crowd.path, "--server", crowd.url, "--json")
    report = json.loads(done.stdout)
    assert done.stderr == "", "modules that were not fetched are no missing ones"
    assert [m["status"] for m in report["modules"]] == ["have", "have", *["unfetched"] * 3]
    assert [f["function"] for f in report["threads"][0]["frames"]] == ["lib_inner", "lib_outer", "middle", "main"]
    assert sorted(crowd.sent) == sorted(crowd.files[:2])
    done = run("analyze", crowd.path, "--server", crowd.url, "--json", "--all-modules")
    assert [m["status"] for m in json.loads(done.stdout)["modules"]] == ["have"] * 5
    assert sorted(crowd.sent) == sorted(crowd.files), "each once"


def test_open_without_a_terminal_fetches_no_more_than_it_prints(crowd: Crowd) -> None:
    done = run("open", crowd.path, "--server", crowd.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Ledger`main" in done.stdout
    assert sorted(crowd.sent) == sorted(crowd.files[:2])
