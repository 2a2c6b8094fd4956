"""What other debuggers need: the dsymForUUID answer, and settings that LLDB really takes."""

from __future__ import annotations

import os
import plistlib
import shutil
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from typer.testing import CliRunner

from symcache.cli.app import application
from symcache.library import Library, ingest, stage_paths
from tests.support.toolchain import compile_image, dsym

SOURCE = "int answer(int x) { return x * 42; }\n"
NOBODY = "00000000-0000-0000-0000-00000000BEEF"


def _symcache(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "symcache", *arguments], capture_output=True, check=False, timeout=120)


def _ask(*arguments: str) -> dict[str, Any]:
    ran = _symcache("dsymforuuid", "--timeout", "100", *arguments)  # the last --timeout counts
    assert ran.returncode == 0, ran.stderr.decode()
    answer: dict[str, Any] = plistlib.loads(ran.stdout)
    return answer


def _uuid(path: Path) -> str:
    text = subprocess.run(["llvm-dwarfdump-19", "--uuid", str(path)], capture_output=True, text=True, check=True).stdout
    return text.split()[1]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = compile_image(tmp_path_factory.mktemp("image"), "libanswer.dylib", SOURCE)
    dsym(made)
    return made


@pytest.fixture
def library(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    location = tmp_path / "library"
    with Library.open(location, create=True) as opened:
        ingest(opened, stage_paths([image, image.with_name(image.name + ".dSYM")], tmp_path / "scratch"))
    monkeypatch.setenv("SYMCACHE_LIBRARY", str(location))
    return location


@pytest.mark.usefixtures("library")
def test_a_debugger_is_told_where_binary_and_dsym_are(image: Path) -> None:
    uuid = _uuid(image)
    answer = _ask("--ignoreNegativeCache", "--copyExecutable", uuid)[uuid]
    assert answer["DBGArchitecture"] == "x86_64"
    assert Path(answer["DBGSymbolRichExecutable"]).read_bytes() == image.read_bytes()
    dwarf = image.with_name(image.name + ".dSYM") / "Contents/Resources/DWARF" / image.name
    assert Path(answer["DBGDSYMPath"]).read_bytes() == dwarf.read_bytes()


def test_without_a_dsym_both_keys_name_the_binary(image: Path, tmp_path: Path) -> None:
    with Library.open(tmp_path / "library", create=True) as opened:
        ingest(opened, stage_paths([image], tmp_path / "scratch"))
    answer = _ask(_uuid(image), "--library", str(tmp_path / "library"))[_uuid(image)]
    assert answer["DBGDSYMPath"] == answer["DBGSymbolRichExecutable"]


@pytest.mark.usefixtures("library")
def test_what_nobody_has_is_an_error_for_the_user_to_read(image: Path) -> None:
    answer = _ask(_uuid(image), NOBODY)
    assert "nobody has it" in answer[NOBODY]["DBGError"]
    assert "DBGDSYMPath" in answer[_uuid(image)]


def test_a_server_that_hangs_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        answer = _ask(NOBODY, "--server", url, "--timeout", "1")
    assert "still fetching" in answer[NOBODY]["DBGError"]


def test_a_misspelt_uuid_is_wrong_use() -> None:
    assert _symcache("dsymforuuid", "not-a-uuid").returncode == 2


_SETTINGS = """
import lldb
debugger = lldb.SBDebugger.Create(True)  # reads ~/.lldbinit
for name in ("plugin.symbol-locator.debuginfod", "symbols.enable-external-lookup"):
    result = lldb.SBCommandReturnObject()
    debugger.GetCommandInterpreter().HandleCommand(f"settings show {name}", result)
    print(result.GetOutput(), result.GetError())
"""


def _lldb_settings(home: Path) -> str:
    """Return what LLDB has set after it read the init file in `home`."""
    shown = subprocess.run(
        [sys.executable, "-c", _SETTINGS],
        env=os.environ | {"HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "error" not in shown.stdout + shown.stderr
    return shown.stdout


def test_lldb_takes_the_settings_and_asks_our_servers_first() -> None:
    home = Path(os.environ["HOME"])
    assert (
        _symcache("setup", "lldb", "--server", "http://one.example", "--server", "http://two.example").returncode == 0
    )
    shown = _lldb_settings(home)
    assert '[0]: "http://one.example"' in shown
    assert '[1]: "http://two.example"' in shown
    assert "symbols.enable-external-lookup (boolean) = true" in shown


def test_two_pins_never_share_what_lldb_keeps(tmp_path: Path) -> None:
    lines = []
    for number, cache in enumerate((UUID(int=1), UUID(int=2))):
        file = tmp_path / f"init-{number}"
        arguments = ("--server", "http://s.example", "--cache", str(cache), "--init-file", str(file))
        assert _symcache("setup", "lldb", *arguments).returncode == 0
        text = file.read_text()
        assert f"http://s.example/cache/{cache}" in text
        lines.append(next(line for line in text.splitlines() if "cache-path" in line))
    assert lines[0] != lines[1]


@pytest.mark.parametrize(
    "original",
    [
        b"settings set stop-line-count-before 5\n# mine\n",
        b"settings set stop-line-count-before 5",
        b"\n",
        b"settings set stop-line-count-before 5\r\n# mine\r\n",
        b"# na\xefve\n",
    ],
)
def test_undo_leaves_the_file_as_it_was(tmp_path: Path, original: bytes) -> None:
    file = tmp_path / "lldbinit"
    file.write_bytes(original)
    file.chmod(0o600)
    for _ in range(2):  # a second set-up replaces the first
        assert _symcache("setup", "lldb", "--server", "http://a.example", "--init-file", str(file)).returncode == 0
    assert file.read_bytes().count(b"\n# >>> symcache >>>\n") == 1
    assert file.read_bytes().startswith(original)
    assert file.stat().st_mode & 0o777 == 0o600
    assert _symcache("setup", "lldb", "--undo", "--init-file", str(file)).returncode == 0
    assert file.read_bytes() == original


def test_lines_that_were_added_since_stay(tmp_path: Path) -> None:
    file = tmp_path / "lldbinit"
    file.write_text("mine")
    assert _symcache("setup", "lldb", "--server", "http://a.example", "--init-file", str(file)).returncode == 0
    with file.open("a") as stream:
        stream.write("later")
    assert _symcache("setup", "lldb", "--undo", "--init-file", str(file)).returncode == 0
    assert file.read_text() == "mine\nlater"
    assert _symcache("setup", "lldb", "--server", "http://a.example", "--init-file", str(file)).returncode == 0
    file.write_text(file.read_text().rstrip("\n"))  # as an editor may leave it
    assert _symcache("setup", "lldb", "--undo", "--init-file", str(file)).returncode == 0
    assert file.read_text() == "mine\nlater"


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "lldbinit"
    ran = _symcache("setup", "lldb", "--server", "http://a.example", "--init-file", str(file), "--dry-run")
    assert ran.returncode == 0
    assert b"http://a.example" in ran.stdout
    assert not file.exists()


def test_a_mac_is_told_the_whole_path_of_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A debugger stands in another folder, where something else may have that name."""
    told, program = tmp_path / "told", tmp_path / "bin" / "symcache-dsymforuuid"
    for script, text in ((tmp_path / "defaults", f'printf "%s\\n" "$@" > {told}'), (program, "")):
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(0o755)
    monkeypatch.setattr("symcache.cli.setup.DEFAULTS", str(tmp_path / "defaults"))
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("PATH", f"bin{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(
        application("setup"), ["setup", "lldb", "--server", "http://a.example", "--init-file", "init"]
    )
    assert ran.exit_code == 0, ran.output
    expected = ["write", "com.apple.DebugSymbols", "DBGShellCommands", "-string", str(program)]
    assert told.read_text().splitlines() == expected


def test_no_server_is_wrong_use() -> None:
    assert _symcache("setup", "lldb").returncode == 2


def test_the_program_for_debuggers_is_installed() -> None:
    program = Path(sysconfig.get_path("scripts")) / "symcache-dsymforuuid"
    assert shutil.which(str(program)), "pip install -e . makes it"
    ran = subprocess.run([str(program), NOBODY], capture_output=True, check=False, timeout=60)
    assert ran.returncode == 0
    assert "DBGError" in plistlib.loads(ran.stdout)[NOBODY]
