"""Names and paths that are no UTF-8, through the real LLDB; and one dump's misfortune, which is no other's."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from symcache.cli.app import application
from symcache.dump import Analysis, LldbProcess, Mode, analyze, open_dump, open_in_lldb
from symcache.dump.html import to_html
from symcache.resolve import FolderResolver
from tests.dump.builder import MODULE, Module, header, small_core, zipped
from tests.dump.scene import Scene
from tests.dump.test_cli import converse, run

Scenes = Callable[..., Scene]
NAMES = {b"lib_inner": b"lib_inn\xe9r", b"libmath.dylib.c": b"libm\xe4th.dylib.c"}
INNER, FILE = "lib_inn\\xe9r", "libm\\xe4th.dylib.c"


@pytest.fixture
def foreign(scenes: Scenes, tmp_path: Path) -> Path:
    """Return the folder of an application, a function of which has a Latin-1 name, and its source file another."""
    scene = scenes("x86_64")
    folder = tmp_path / "foreign"
    shutil.copytree(scene.folder, folder)
    for path in (folder / "libmath.dylib", folder / "libmath.dylib.dSYM/Contents/Resources/DWARF/libmath.dylib"):
        data = path.read_bytes()
        for name, other in NAMES.items():
            assert name in data
            data = data.replace(name, other)
        path.write_bytes(data)
    scene.write(thread=1)
    (folder / "crash.zip").write_bytes((scene.folder / "crash.zip").read_bytes())
    return folder


def test_a_function_whose_name_is_no_utf8_is_shown(foreign: Path, scenes: Scenes) -> None:
    crash, other = foreign / "crash.zip", scenes("arm64").write(thread=1)
    options = ("--symbols", foreign, "--symbols", scenes("arm64").folder)
    done = run("analyze", crash, other, *options, "--json")
    assert done.returncode == 0
    first, second = json.loads(done.stdout)
    frames = first["threads"][0]["frames"]
    assert [f["function"] for f in frames] == [INNER, "lib_outer", "middle", "main"]
    assert [f["file"].rpartition("/")[2] for f in frames[:2]] == [FILE, FILE]
    assert first["signature"]["frames"][1] == f"libmath.dylib`{INNER}"
    assert second["threads"][0]["frames"][0]["function"] == "lib_inner"
    done = run("analyze", crash, *options)
    assert f"libmath.dylib`{INNER} + 4 at {FILE}:3" in done.stdout
    assert INNER in to_html([first])
    with LldbProcess(Mode.PRINT) as lldb:
        assert "`lib_inn" in open_in_lldb(crash, FolderResolver([foreign]), lldb)


def test_names_out_of_binaries_do_not_drive_the_terminal_of_the_prompt(
    foreign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No escape sequence comes before the prompt, where the user has none of LLDB's colours yet."""
    for path in (foreign / "libmath.dylib", foreign / "libmath.dylib.dSYM/Contents/Resources/DWARF/libmath.dylib"):
        path.write_bytes(path.read_bytes().replace(b"lib_inn\xe9r", b"lib\x1b[7m\x9br"))
    monkeypatch.setenv("TERM", "xterm")
    command = [sys.executable, "-c", "from symcache.cli import opendump; opendump()", str(foreign / "crash.zip")]
    seen, code = converse([*command, "--symbols", str(foreign)], [(b"(lldb) ", b"quit\n")])
    assert code == 0
    backtrace = seen[seen.index("frame #0") : seen.index("(lldb) ")]
    assert "`lib\\x1b[7m\\x9br" in backtrace
    assert "\x1b[7m" not in backtrace


def test_paths_that_are_no_utf8(scenes: Scenes, tmp_path: Path) -> None:
    scene = scenes("x86_64")
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system holds names of UTF-8 alone")
    for file in (scene.exe, scene.lib):
        shutil.copy(file, folder)
        shutil.copytree(f"{file}.dSYM", folder / f"{file.name}.dSYM")
    crash, core = folder / os.fsdecode(b"cr\xe4sh.zip"), folder / os.fsdecode(b"c\xf6re")
    crash.write_bytes(scene.write(thread=1).read_bytes())
    core.write_bytes(scene.core.bytes())
    done = run("analyze", crash, core, "--symbols", folder, "--json")
    assert done.returncode == 0, done.stderr
    named, bare = json.loads(done.stdout)
    assert named["dump"].endswith("/\\xff/cr\\xe4sh.zip")
    frames = named["threads"][0]["frames"]
    assert [(f["module"], f["function"], f["line"]) for f in frames] == scene.frames
    assert [m["debug_info"] for m in named["modules"]] == [True, True]
    assert bare["threads"][0]["frames"][0]["address"] == frames[0]["address"]
    done = run("analyze", folder / "none.zip", folder)
    assert done.returncode == 2
    assert "\\xff/none.zip: no such file" in done.stderr


def test_a_module_whose_path_is_no_utf8_is_no_reason_to_refuse_a_dump(tmp_path: Path) -> None:
    path = tmp_path / "crash.zip"
    xml = header([MODULE, Module(0x2_0000_0000, "/opt/m@th.dylib")]).replace(b"m@th", b"m\xe4th")
    path.write_bytes(zipped(xml + small_core().bytes()))
    (tmp_path / "scratch").mkdir()
    opened = open_dump(path, tmp_path / "scratch")
    assert opened.header is not None
    assert [m.path for m in opened.header.modules] == [MODULE.path, "/opt/m\\xe4th.dylib"]


@pytest.mark.parametrize("form", ["--json", "--html", ""])
def test_a_terminal_that_cannot_show_a_name(form: str, tmp_path: Path) -> None:
    path = tmp_path / "crash.zip"
    name = "/x/Größe \U0001f600"
    path.write_bytes(zipped(header([Module(0x1_0000_0000, name, MODULE.uuid)], executable=name) + small_core().bytes()))
    result = CliRunner(charset="ascii").invoke(application("analyze"), ["analyze", str(path), *filter(None, [form])])
    assert result.exit_code == 0, result.exception
    if form == "--json":
        assert json.loads(result.stdout)["process"]["executable"] == name
    else:
        assert ("Gr&#246;&#223;e &#128512;" if form else "Gr\\xf6\\xdfe \\U0001f600") in result.stdout


def test_a_fault_of_ours_in_one_dump_costs_that_dump(
    scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = scenes("x86_64")
    whole = scene.write(thread=1).read_bytes()
    first, second, third = dumps = [tmp_path / f"{n}.zip" for n in range(3)]
    for path in dumps:
        path.write_bytes(whole)

    def faulty(path: Path, *others: Any, **named: Any) -> Analysis:
        if path == first:
            raise ZeroDivisionError("division by\nzero")
        return analyze(path, *others, **named)

    def unshowable(self: Analysis) -> dict[str, Any]:
        if self.loaded.dump.path == second:
            raise UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed")
        return to_json(self)

    to_json = Analysis.to_json
    monkeypatch.setattr("symcache.dump.analyze", faulty)
    monkeypatch.setattr(Analysis, "to_json", unshowable)
    done = run("analyze", *dumps, tmp_path / "none.zip", "--symbols", scene.folder, "--json")
    assert done.returncode == 3
    one, two, three, four = json.loads(done.stdout)
    assert one["error"] == f"{first}: cannot be analyzed for a fault of symcache: ZeroDivisionError division by zero"
    assert "UnicodeEncodeError" in two["error"]
    assert three["threads"][0]["frames"][0]["function"] == "lib_inner"
    assert "no such file" in four["error"]
    assert [one["dump"], two["dump"], three["dump"]] == [str(path) for path in (first, second, third)]
    done = run("analyze", first)
    assert (done.returncode, done.stdout) == (3, "")
    assert "next: report" in done.stderr
