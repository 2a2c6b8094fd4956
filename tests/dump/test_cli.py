"""The commands as a user runs them: what they print, where, and how they end."""

from __future__ import annotations

import json
import os
import pty
import select
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from symcache.cli.app import application
from symcache.cli.dumps import lldb_limits
from symcache.confined.inside import has_landlock
from symcache.library import Library, ingest, stage_paths
from tests.dump.builder import MODULE, header, small_core, zipped
from tests.dump.scene import Scene
from tests.dump.systems import ASSETS
from tests.dump.test_corpus import dump, truth
from tests.support.servers import serve

Scenes = Callable[..., Scene]


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def run(*arguments: str | Path, stdin: bytes = b"") -> Done:
    """Run a command in this process: starting dozens of Pythons would take most of the time."""
    result = CliRunner().invoke(application(str(arguments[0])), [str(a) for a in arguments], input=stdin)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def crash(scenes: Scenes, tmp_path: Path) -> Path:
    path = tmp_path / "crash.zip"
    path.write_bytes(scenes("x86_64").write(thread=1).read_bytes())
    return path


def test_analyze_as_text(scenes: Scenes, crash: Path) -> None:
    done = run("analyze", crash, "--symbols", scenes("x86_64").folder)
    assert done.returncode == 0
    assert done.stderr == ""
    lines = [line.split() for line in done.stdout.splitlines()]
    start = lines.index(["thread", "1", "crashed:"])
    assert [line[2] for line in lines[start + 1 : start + 5]] == [
        "libmath.dylib`lib_inner",
        "libmath.dylib`lib_outer",
        "Ledger`middle",
        "Ledger`main",
    ]
    assert lines.index(["thread", "0:"]) > start
    assert "exception: SIGSEGV: write to 0x10" in done.stdout
    assert done.stdout.count("have +dSYM") == 2


def test_analyze_as_json(scenes: Scenes, crash: Path) -> None:
    done = run("analyze", crash, "--symbols", scenes("x86_64").folder, "--json")
    report = json.loads(done.stdout)
    assert report["schema_version"] == 1
    assert report["dump"] == str(crash)
    assert [t["index"] for t in report["threads"]] == [1, 0]
    assert report["threads"][0]["frames"][0]["line"] == 3


class _Page(HTMLParser):
    """The cells of a page, and every element that could load or run something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.active: list[str] = []
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in {"td", "p"}:
            self.cells.append("")
            self._inside = True
        if tag in {"script", "img", "iframe", "object", "link", "a", "form"} or any(
            name.startswith("on") or name in {"src", "href"} for name, _ in attributes
        ):
            self.active.append(tag)

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.cells[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag not in {"td", "p"}


def test_analyze_as_a_page(scenes: Scenes, crash: Path, tmp_path: Path) -> None:
    evil = type(MODULE)(0x1_0000_0000, "/x/<script>alert(1)</script>/\u202eger", MODULE.uuid)
    other = tmp_path / "<b>.zip"
    other.write_bytes(zipped(header([evil], executable="ger") + small_core().bytes()))
    bad = tmp_path / "bad.zip"
    bad.write_bytes(b"PK")
    done = run("analyze", crash, other, bad, "--symbols", scenes("x86_64").folder, "--html")
    assert done.returncode == 1
    page = _Page(done.stdout)
    assert page.active == []
    assert "\u202e" not in done.stdout
    texts = [" ".join(c.split()) for c in page.cells]
    assert "SIGSEGV: write to 0x10, an address that is not mapped" in texts
    assert "lib_inner + 4" in texts
    assert f"{scenes('x86_64').folder / 'libmath.dylib.c'}:3" in texts
    assert any("is neither a zip file" in t for t in texts)
    assert any("<script>" in t for t in texts)
    assert run("analyze", crash, "--html", "--json").returncode == 2


def test_missing_modules_are_named_and_are_no_failure(crash: Path) -> None:
    for command in ("open", "analyze"):
        done = run(command, crash)
        assert done.returncode == 0
        assert "missing: 2 modules" in done.stderr
        assert "libmath.dylib" in done.stderr
        assert "next: harvest the release" in done.stderr
        assert "libmath.dylib" in done.stdout
        away = run(command, crash, "--server", "http://127.0.0.1:1")
        assert "next: mend what the warning names" in away.stderr and "harvest" not in away.stderr


def test_open_without_a_terminal_prints_and_ends(scenes: Scenes, crash: Path) -> None:
    done = run("open", crash, "--symbols", scenes("x86_64").folder, stdin=b"platform shell touch ran\n")
    assert done.returncode == 0
    assert "exception: SIGSEGV: write to 0x10" in done.stdout
    assert "frame #0: 0x0000000187650" in done.stdout
    assert "lib_inner" in done.stdout
    assert "(lldb)" not in done.stdout


@pytest.mark.parametrize("command", ["open", "analyze"])
def test_modules_without_a_binary_are_named_but_not_as_nameless(scenes: Scenes, crash: Path, command: str) -> None:
    folder = scenes("x86_64").folder
    done = run(command, crash, *(x for bundle in folder.glob("*.dSYM") for x in ("--symbols", bundle)))
    assert done.returncode == 0
    assert "symbols only: 2 modules" in done.stderr
    assert "libmath.dylib" in done.stderr
    assert "missing" not in done.stderr.partition("symbols only")[0]
    assert "no names" not in done.stderr
    assert "lib_inner" in done.stdout


def test_sources_are_found_where_the_user_says(crash: Path, tmp_path: Path) -> None:
    """The compiler noted a folder that is not here; what is shown is the file that was named."""
    here = tmp_path / 'a "b" c'
    here.mkdir()
    (here / "main.c").write_text("".join(f"line {n} of the sources\n" for n in range(1, 40)))
    command = [sys.executable, "-m", "symcache", "open", str(dump("arm64")), "--symbols", str(ASSETS / "app" / "arm64")]
    command += ["--source-map", f"/Users/dev/Ledger={here}"]
    seen, code = converse(command, [(b"(lldb) ", b"frame select 0\n"), (b"(lldb) ", b"quit\n")])
    assert code == 0
    top = truth("arm64")["threads"][0]["frames"][0]
    assert f"line {top['line']} of the sources" in seen
    relative = run("open", *command[4:-1], f"/Users/dev/Ledger={os.path.relpath(here)}")
    assert f"line {top['line']} of the sources" in relative.stdout
    analyzed = run("analyze", *command[4:], "--json")
    assert analyzed.returncode == 0, analyzed.stderr
    top = json.loads(analyzed.stdout)["threads"][0]["frames"][0]
    assert top["source_line"] == f"line {top['line']} of the sources"
    for how in ("open", "analyze"):
        assert run(how, crash, "--source-map", "no-equals-sign").returncode == 2
        assert run(how, crash, "--source-map", f"/Users/dev/Ledger={tmp_path / 'misspelt'}").returncode == 2


@pytest.mark.parametrize("command", ["open", "analyze"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"nonsense", "neither a zip file nor a Mach-O core"),
        (zipped(b"x", member="other"), "has no member minidump.dmp"),
        (zipped(header([MODULE], thread=5) + small_core().bytes()), "thread 5 is said to have crashed"),
        (zipped(header([MODULE]) + small_core().bytes()[:-5000]), "cut"),
    ],
)
def test_a_bad_dump_is_one_sentence_and_exit_1(tmp_path: Path, command: str, content: bytes, expected: str) -> None:
    path = tmp_path / "bad.zip"
    path.write_bytes(content)
    done = run(command, path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert expected in done.stderr.replace("\n", " ")
    assert "next: " in done.stderr


def test_wrong_use(tmp_path: Path, crash: Path) -> None:
    assert run("open", tmp_path / "none.zip").returncode == 2
    for command in ("open", "analyze"):
        done = run(command, tmp_path)
        assert done.returncode == 2
        assert "is a folder where a dump was expected" in done.stderr
    assert run("open", crash, "--cache", "x").returncode == 2
    assert run("open", crash, "--server", "ftp://x").returncode == 2
    assert run("open", crash, "--library", tmp_path / "none").returncode == 1


def test_many_dumps_one_of_them_bad(scenes: Scenes, crash: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.zip"
    bad.write_bytes(b"PK")
    done = run("analyze", bad, crash, "--symbols", scenes("x86_64").folder, "--json")
    assert done.returncode == 1
    reports = json.loads(done.stdout)
    assert [r["dump"] for r in reports] == [str(bad), str(crash)]
    assert "neither a zip" in reports[0]["error"]
    assert reports[1]["signature"]["frames"][0] == "SIGSEGV"


def test_several_dumps_at_a_time_come_out_in_their_order(scenes: Scenes, tmp_path: Path) -> None:
    dumps: list[Path] = []
    for number in range(9):
        path = tmp_path / f"{number}.zip"
        whole = scenes("arm64" if number % 2 else "x86_64").write(thread=1).read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if number == 4 else whole)
        dumps.append(path)
    symbols = [text for arch in ("x86_64", "arm64") for text in ("--symbols", scenes(arch).folder)]
    together, apart = (run("analyze", "-j", jobs, *dumps, *symbols, "--json") for jobs in ("4", "1"))
    assert (together.returncode, apart.returncode) == (1, 1)
    reports = json.loads(together.stdout)
    assert reports == json.loads(apart.stdout)
    assert [r["dump"] for r in reports] == [str(path) for path in dumps]
    assert [r.get("process", {}).get("arch") for r in reports] == ["x86_64", "arm64"] * 2 + [
        None,
        "arm64",
        "x86_64",
        "arm64",
        "x86_64",
    ]
    assert len({r["signature"]["id"] for r in reports if "signature" in r}) == 1
    assert together.stderr.count("error:") == 1


def test_names_out_of_a_dump_cannot_drive_the_terminal(tmp_path: Path) -> None:
    module = type(MODULE)(0x1_0000_0000, "/x/\u202eLed\x9bger[red]", MODULE.uuid)
    path = tmp_path / "evil.zip"
    path.write_bytes(zipped(header([module], executable="ger[red]") + small_core().bytes()))
    for command in ("open", "analyze"):
        done = run(command, path)
        assert done.returncode == 0, done.stderr
        for text in (done.stdout, done.stderr):
            assert "\x9b" not in text
            assert "\u202e" not in text
            assert "[red]" in text
    done = run("analyze", path, "--json")
    assert "/x/\\u202eLed\\u009bger[red]" in done.stdout
    assert json.loads(done.stdout)["modules"][0]["path"] == "/x/\u202eLed\x9bger[red]"


def test_modules_from_a_library_and_from_a_server_and_without_it(scenes: Scenes, crash: Path, tmp_path: Path) -> None:
    scene = scenes("x86_64")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    staged = stage_paths([scene.exe, scene.lib, *scene.folder.glob("*.dSYM")], scratch)
    with Library.open(tmp_path / "library", create=True) as library:
        assert ingest(library, staged).problems == []
    functions = ["lib_inner", "lib_outer", "middle", "main"]

    def frames(*options: str | Path) -> tuple[list[str], list[int], str]:
        done = run("analyze", crash, "--json", *options)
        assert done.returncode == 0
        top = json.loads(done.stdout)["threads"][0]["frames"]
        return [f["function"] for f in top], [f["line"] for f in top], done.stderr

    assert frames("--library", tmp_path / "library")[0] == functions
    with serve(tmp_path / "library", tmp_path / "server") as server:
        url = server.url
        assert frames("--server", url) == (functions, [line for _, _, line in scene.frames], "")
    # The server is gone; what was fetched is still here.
    names, lines, said = frames("--server", url)
    assert names == functions
    assert lines == [line for _, _, line in scene.frames]
    assert said.count("warning:") <= 1


def test_a_server_that_never_was_there(crash: Path) -> None:
    done = run("open", crash, "--server", "http://127.0.0.1:9")
    assert done.returncode == 0
    assert done.stderr.count("warning:") == 1
    assert "missing: 2 modules" in done.stderr


def converse(command: list[str], script: list[tuple[bytes, bytes]]) -> tuple[str, int]:
    """Run a program on a terminal: wait for a text, then type."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(command[0], command, {**os.environ, "TERM": "xterm", "COLUMNS": "200"})
    seen = b""
    position = 0
    for awaited, typed in [*script, (b"\0never", b"")]:
        end = time.monotonic() + 60
        while awaited not in seen[position:] and time.monotonic() < end:
            if select.select([terminal], [], [], 0.2)[0]:
                try:
                    data = os.read(terminal, 65536)
                except OSError:  # it ended
                    end = 0
                    break
                seen += data
        position = len(seen)
        if typed:
            os.write(terminal, typed)
    os.close(terminal)
    return seen.decode("utf-8", "replace"), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_ctrl_c_ends_what_hangs_before_there_is_a_prompt(crash: Path, tmp_path: Path) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import os, signal, sys, time\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "os.fdopen(int(sys.argv[2])).readline()\nprint('it hangs', flush=True)\ntime.sleep(600)\n"
    )
    patch = f"from symcache.dump.lldb_child import process; process._WORKER = {str(worker)!r}; "
    command = [sys.executable, "-c", patch + "from symcache.cli import opendump; opendump()", str(crash)]
    seen, code = converse(command, [(b"it hangs", b"\x03")])
    assert code == 130
    assert "interrupted" in seen


def test_debug_says_what_lldb_is_not_kept_from(crash: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYMCACHE_UNCONFINED", "1")
    monkeypatch.setenv("SYMCACHE_LLDB_MEMORY", "1")
    monkeypatch.setattr("symcache.cli.common.state.debug", False)
    done = run("--debug", "analyze", crash, "--timeout", "60")
    assert done.stderr.startswith("LLDB may take: 60 seconds and 1.0 GiB of memory\nnot confined: network, writing")
    monkeypatch.delenv("SYMCACHE_UNCONFINED")
    monkeypatch.setattr("symcache.cli.dumps.unconfined_parts", lambda: ["memory: so it is"])
    assert "\nnot confined: memory: so it is\n" in run("--debug", "analyze", crash).stderr


@pytest.mark.parametrize("value", ["0", "4G", "-1", "²", "9" * 5000])
def test_a_memory_that_is_no_size(crash: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SYMCACHE_LLDB_MEMORY", value)
    done = run("analyze", crash)
    assert done.returncode == 2
    assert "whole gibibytes" in done.stderr


def test_dumps_that_are_analyzed_at_a_time_share_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYMCACHE_LLDB_MEMORY", raising=False)
    monkeypatch.setattr("symcache.cli.dumps.machine_memory", lambda: 16 << 30)
    assert [lldb_limits(9, jobs).memory >> 20 for jobs in (1, 2, 4, 1000)] == [8192, 6144, 3072, 512]


def test_open_on_a_terminal_is_an_lldb_prompt(scenes: Scenes, crash: Path, tmp_path: Path) -> None:
    (tmp_path / "written").mkdir()
    script = [
        (b"(lldb) ", b"frame select 2\n"),
        (b"(lldb) ", b"\x03"),
        (b"", b"thread list\n"),
        (b"(lldb) ", b"script print('scr' + 'ipted')\n"),
        (b"(lldb) ", f"memory read --outfile {tmp_path}/written/stack $sp\n".encode()),
        (b"(lldb) ", f"memory read --outfile {tmp_path}/elsewhere $sp\n".encode()),
        (b"(lldb) ", b"quit\n"),
    ]
    command = [sys.executable, "-c", "from symcache.cli import opendump; opendump()", str(crash)]
    command += ["--write", str(tmp_path / "written")]
    seen, code = converse([*command, "--symbols", str(scenes("x86_64").folder)], script)
    assert code == 0
    assert seen.index("exception: SIGSEGV") < seen.index("frame #3") < seen.index("(lldb) ")
    assert "Ledger`middle" in seen
    assert "* thread #2" in seen  # the crashed one is selected
    assert "scripted" in seen  # modules are added without scripts, but the user gets them
    assert (tmp_path / "written" / "stack").stat().st_size
    if has_landlock():
        assert not (tmp_path / "elsewhere").exists()
    assert "fetching" not in seen[seen.index("frame #0") :]
