"""What other debuggers need: the dsymForUUID answer, and settings that LLDB really takes."""

from __future__ import annotations

import json
import os
import plistlib
import shutil
import socket
import subprocess
import sys
import sysconfig
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from typer.testing import CliRunner

from symcache.cli.app import application
from symcache.cli.dsymforuuid import _describe, _fetch_behind
from symcache.kinds import Kind
from symcache.library import Library, ingest, stage_paths
from tests.support.commands import run_here
from tests.support.toolchain import compile_image, dsym, lipo

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
    assert run_here("setup", "lldb", "--server", "http://one.example", "--server", "http://two.example").returncode == 0
    shown = _lldb_settings(home)
    assert '[0]: "http://one.example"' in shown
    assert '[1]: "http://two.example"' in shown
    assert "symbols.enable-external-lookup (boolean) = true" in shown


def _folder(init_file: Path) -> Path:
    """Return the folder that an init file has LLDB import a script from."""
    line = next(
        line for line in init_file.read_text(errors="replace").splitlines() if line.startswith("command script import")
    )
    return Path(line.split('"')[1]).parent


def test_two_pins_never_share_what_lldb_keeps(tmp_path: Path) -> None:
    lines = []
    for number, cache in enumerate((UUID(int=1), UUID(int=2))):
        file = tmp_path / f"init-{number}"
        arguments = ("--server", "http://s.example", "--cache", str(cache), "--init-file", str(file))
        assert run_here("setup", "lldb", *arguments).returncode == 0
        text = "\n".join(json.loads((_folder(file) / "settings.json").read_text())["commands"])
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
        assert run_here("setup", "lldb", "--server", "http://a.example", "--init-file", str(file)).returncode == 0
    assert file.read_bytes().count(b"\n# >>> symcache >>>\n") == 1
    assert file.read_bytes().startswith(original)
    assert file.stat().st_mode & 0o777 == 0o600
    folder = _folder(file)
    assert run_here("setup", "lldb", "--undo", "--init-file", str(file)).returncode == 0
    assert file.read_bytes() == original
    assert not folder.exists()


def test_lines_that_were_added_since_stay(tmp_path: Path) -> None:
    file = tmp_path / "lldbinit"
    file.write_text("mine")
    assert run_here("setup", "lldb", "--server", "http://a.example", "--init-file", str(file)).returncode == 0
    with file.open("a") as stream:
        stream.write("later")
    assert run_here("setup", "lldb", "--undo", "--init-file", str(file)).returncode == 0
    assert file.read_text() == "mine\nlater"
    assert run_here("setup", "lldb", "--server", "http://a.example", "--init-file", str(file)).returncode == 0
    file.write_text(file.read_text().rstrip("\n"))  # as an editor may leave it
    assert run_here("setup", "lldb", "--undo", "--init-file", str(file)).returncode == 0
    assert file.read_text() == "mine\nlater"


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "lldbinit"
    ran = run_here("setup", "lldb", "--server", "http://a.example", "--init-file", str(file), "--dry-run")
    assert ran.returncode == 0
    assert "http://a.example" in ran.stdout
    assert not file.exists()
    assert not (Path(os.environ["XDG_DATA_HOME"]) / "symcache").exists()


def test_a_token_is_in_files_for_the_user_alone(tmp_path: Path) -> None:
    """LLDB sends its headers to every server that it asks: what it is told to ask has that token."""
    file = tmp_path / "lldbinit"
    file.write_text("mine\n")
    servers = ("--server", "https://me:s3cr%2Ft@one.example", "--server", "https://two.example")
    ran = CliRunner().invoke(application("setup"), ["setup", "lldb", *servers, "--init-file", str(file)])
    assert ran.exit_code == 0, ran.output
    assert "asks only https://one.example" in ran.stderr
    assert "s3cr" not in ran.output + file.read_text()
    folder = _folder(file)
    with_token = {p.name for p in folder.iterdir() if "s3cr" in p.read_text()}
    assert with_token == {"headers", "servers"}
    assert {(folder / name).stat().st_mode & 0o777 for name in with_token} == {0o600}
    assert (folder / "headers").read_text() == "Authorization: Bearer s3cr/t\n"
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["headers"] == str(folder / "headers")
    asked = [line for line in settings["commands"] if "server-urls" in line]
    assert asked == ['settings set plugin.symbol-locator.debuginfod.server-urls "https://one.example"']
    arguments = ["setup", "lldb", "--server", "https://two.example", "--init-file", str(file)]
    assert CliRunner().invoke(application("setup"), arguments).exit_code == 0
    assert not any("s3cr" in p.read_text() for p in folder.iterdir())


_ASK = """
import lldb, sys
debugger = lldb.SBDebugger.Create(True)  # reads ~/.lldbinit
target = debugger.CreateTarget("", "x86_64-apple-macosx", "", False, lldb.SBError())
target.AddModule(None, "x86_64-apple-macosx", sys.argv[1], None)
"""


def test_lldb_sends_the_token_that_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.append(self.headers["Authorization"])
            self.send_error(404)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    monkeypatch.delenv("DEBUGINFOD_HEADERS_FILE", raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://me:t0ken@127.0.0.1:{server.server_port}"
        assert CliRunner().invoke(application("setup"), ["setup", "lldb", "--server", url]).exit_code == 0
        subprocess.run([sys.executable, "-c", _ASK, NOBODY], check=True, timeout=120)
        server.shutdown()
    assert set(told) == {"Bearer t0ken"}


def test_a_mac_is_told_the_whole_path_of_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A debugger stands in another folder, where something else may have that name."""
    told, program = tmp_path / "told", tmp_path / "bin" / "symcache-dsymforuuid"
    hooked = f'echo "$SYMCACHE_URL $PYTHONHOME" "$@" > {told}'
    for script, text in ((tmp_path / "defaults", f'printf "%s\\n" "$@" > {told}'), (program, hooked)):
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(0o755)
    monkeypatch.setattr("symcache.cli.setup.DEFAULTS", str(tmp_path / "defaults"))
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("PATH", f"bin{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    arguments = ["setup", "lldb", "--server", "http://a.example", "--build", "22G120", "--init-file", "init"]
    ran = CliRunner().invoke(application("setup"), arguments)
    assert ran.exit_code == 0, ran.output
    *written, hook = told.read_text().splitlines()
    assert written == ["write", "com.apple.DebugSymbols", "DBGShellCommands", "-string"]
    assert hook == str(_folder(tmp_path / "init") / "symcache-dsymforuuid")
    # LLDB gives it the UUID alone, under an environment that may be that of another Python.
    subprocess.run([hook, NOBODY], cwd="/", env={"PATH": os.environ["PATH"], "PYTHONHOME": "/other"}, check=True)
    assert told.read_text() == f"http://a.example  --build 22G120 {NOBODY}\n"


def test_without_a_server_lldb_has_the_command_alone(tmp_path: Path) -> None:
    arguments = ["setup", "lldb", "--init-file", str(tmp_path / "init")]
    assert CliRunner().invoke(application("setup"), arguments).exit_code == 0
    assert json.loads((_folder(tmp_path / "init") / "settings.json").read_text())["commands"] == []


def test_the_program_for_debuggers_is_installed() -> None:
    program = Path(sysconfig.get_path("scripts")) / "symcache-dsymforuuid"
    assert shutil.which(str(program)), "pip install -e . makes it"
    ran = subprocess.run([str(program), NOBODY], capture_output=True, check=False, timeout=60)
    assert ran.returncode == 0
    assert "DBGError" in plistlib.loads(ran.stdout)[NOBODY]


def test_of_a_universal_file_the_architecture_is_that_of_the_uuid(image: Path, tmp_path: Path) -> None:
    other = compile_image(tmp_path, "libother.dylib", SOURCE, arch="arm64")
    universal = lipo(tmp_path / "universal", image, other)
    for thin, arch in ((image, "x86_64"), (other, "arm64")):
        assert _describe(UUID(_uuid(thin)), {Kind.EXECUTABLE: universal})["DBGArchitecture"] == arch


def test_binary_and_dsym_are_fetched_behind_the_back(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: started.append(command))
    _fetch_behind([UUID(int=1)], None, ["https://h"], None, None)
    assert [command[command.index("--kind") + 1] for command in started] == list(Kind)
