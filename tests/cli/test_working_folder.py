"""What lies in the working folder is never run, however this program starts itself again."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from symcache.cli.dsymforuuid import _fetch_behind
from symcache.library import Library
from symcache.own_program import own_environment, own_python
from tests.dyld.tiny import Cache, Image, Symbol
from tests.support.planted import installed, plant
from tests.support.waiting import until

UNKNOWN = UUID(int=0xBEEF)


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder is full of traps; this file is there once one was run."""
    found = plant(tmp_path / "planted")
    monkeypatch.chdir(tmp_path / "planted")
    return found


def _symcache(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [installed("symcache"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def _ran(marker: Path) -> list[str]:
    return marker.read_text().split() if marker.exists() else []


def test_by_a_harvest_of_every_machine(marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = '[machines.one]\ndriver = "static"\nhost = "127.0.0.1"\nuser = "u"\nidentity = "/no/such/key"\n'
    (tmp_path / "machines.toml").write_text(machine)
    monkeypatch.setenv("SYMCACHE_MACHINES", str(tmp_path / "machines.toml"))
    ran = _symcache("harvest", "--all", "--json", "--library", tmp_path / "library")
    assert _ran(marker) == []
    assert "/no/such/key" in json.loads(ran.stdout)[0]["error"], ran.stderr  # it came as far as the machine


def test_by_the_processes_of_an_extraction(marker: Path, tmp_path: Path) -> None:
    images = [Image(f"/usr/lib/lib{n}.dylib", UUID(int=n + 1), defined=[Symbol("_f")]) for n in range(80)]
    path = Cache(images).write(tmp_path)
    ran = _symcache("extract", path, "-o", tmp_path / "out", "--jobs", "2")
    assert _ran(marker) == []
    assert ran.returncode == 0, ran.stderr


def test_by_the_processes_of_a_server(marker: Path, tmp_path: Path) -> None:
    Library.open(tmp_path / "library", create=True).close()
    command = [installed("symcache"), "serve", "--port", "0", "--json", "--processes", "2"]
    with subprocess.Popen(
        [*command, "--library", str(tmp_path / "library")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        server.terminate()
        _, said = server.communicate(timeout=60)
    assert _ran(marker) == []
    assert json.loads(line)["url"], said


def test_by_fetching_behind_a_debuggers_back(marker: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)

        def asked() -> bool:
            try:
                server.accept()[0].close()
            except BlockingIOError:
                return False
            return True

        _fetch_behind([UNKNOWN], None, [f"http://127.0.0.1:{server.getsockname()[1]}"], None, None)
        until(lambda: marker.exists() or asked())
    assert _ran(marker) == []


def test_another_process_finds_the_same_program(marker: Path, tmp_path: Path) -> None:
    """Even if it was found by where this one was started, as by `python -m symcache` in a checkout."""
    script = tmp_path / "script" / "start.py"
    package = script.with_name("symcache")
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "own_program.py").symlink_to(Path(sys.modules["symcache.own_program"].__file__ or ""))
    script.write_text(
        "import subprocess\nfrom symcache.own_program import own_environment, own_python\n"
        "command = own_python('-c', 'import symcache; print(symcache.__file__)')\n"
        "subprocess.run(command, check=True, env=own_environment({}))\n"
    )
    # Without site-packages, where the real one is installed.
    ran = subprocess.run([sys.executable, "-S", script], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == str(package / "__init__.py")
    assert _ran(marker) == []


def test_the_path_to_modules_of_the_caller_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"/one{os.pathsep}two")
    code = "import sys; print(sys.path)"
    there = subprocess.check_output(own_python("-c", code), env=own_environment({}), cwd="/", text=True)
    assert f"'/one', '{tmp_path / 'two'}'" in there
    assert "''" not in there
