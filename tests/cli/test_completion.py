"""What a shell is told while a command is typed: quickly, from what is here, and never anything that it would run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from symcache.cli.completion import command_being_typed, complete_builds, complete_machines, complete_names
from symcache.library import Library, remove_build
from tests.support.many import add_release

NAMES = ["libz.dylib", "libzip.dylib", "lib$(reboot).dylib", "lib`x`", "lib z", "CoreFoundation"]


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    add_release(tmp_path / "library", "22G120", [f"/usr/lib/{name}" for name in NAMES])
    add_release(tmp_path / "library", "22G90", ["/usr/lib/libz.dylib"])
    add_release(tmp_path / "library", "23A344", ["/usr/lib/libz.dylib"])
    monkeypatch.setenv("SYMCACHE_LIBRARY", str(tmp_path / "library"))
    return tmp_path / "library"


def _ctx(**given: object) -> Any:
    return SimpleNamespace(params=given)


def test_builds_that_are_there(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete_builds(_ctx(), "22G") == ["22G120", "22G90"]
    assert complete_builds(_ctx(builds=["22G120"]), "22G") == ["22G90"]
    with Library.open(library) as opened:
        remove_build(opened, "22G90")
    assert complete_builds(_ctx(), "22G") == ["22G120"]
    monkeypatch.setenv("SYMCACHE_LIBRARY", str(tmp_path / "none"))
    assert complete_builds(_ctx(), "") == []
    assert complete_builds(_ctx(library=str(library)), "23") == ["23A344"]


def test_a_library_elsewhere_is_known_by_what_is_kept_of_it_here(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for an object store: nothing is asked over the network."""
    monkeypatch.setattr("symcache.library.user_dirs._on_network", lambda _: True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    (library / "catalog.db").unlink()
    assert complete_builds(_ctx(), "22G1") == []
    Library.open(library).close()
    assert not (library / "catalog.db").exists()
    assert complete_builds(_ctx(), "22G1") == ["22G120"]


def test_names_that_no_shell_takes_for_more_than_a_word() -> None:
    assert complete_names(_ctx(), "lib") == ["libz.dylib", "libzip.dylib"]
    assert complete_names(_ctx(), "") == []


def test_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inventory = tmp_path / "machines.toml"
    names = ["sonoma", "ventura", '"$(x)"']
    inventory.write_text("".join(f'[machines.{name}]\nhost = "a"\n' for name in names))
    monkeypatch.setenv("SYMCACHE_MACHINES", str(inventory))
    assert complete_machines(_ctx(), "") == ["sonoma", "ventura"]
    assert complete_machines(_ctx(machines=inventory), "v") == ["ventura"]
    inventory.write_text("[[[")
    assert complete_machines(_ctx(), "") == []


@pytest.mark.parametrize(
    ("environment", "command"),
    [
        ({"COMP_WORDS": "symcache\nver", "COMP_CWORD": "1"}, None),
        ({"COMP_WORDS": "symcache\n--debug\nverify\n22", "COMP_CWORD": "3"}, "verify"),
        ({"_TYPER_COMPLETE_ARGS": "symcache ver"}, None),
        ({"_TYPER_COMPLETE_ARGS": "symcache verify "}, "verify"),
    ],
)
def test_the_command_that_is_typed(
    environment: dict[str, str], command: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert command_being_typed() == command


def _in_bash(words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("symcache")
    script = f"""
        source <(_SYMCACHE_COMPLETE=source_bash {program})
        COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
        _symcache_completion {program}; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    return subprocess.run(
        ["bash", "--norc", "-c", script], env=os.environ | environment, capture_output=True, text=True, check=True
    )


def test_in_a_shell() -> None:
    done = _in_bash("symcache verify 22G1")
    assert (done.stdout, done.stderr) == ("22G120\n", "")


def test_a_library_that_cannot_be_read_puts_nothing_between_what_is_typed(library: Path) -> None:
    for path in library.glob("catalog.db*"):
        path.unlink()
    (library / "catalog.db").write_bytes(b"SQLite format 3\0" + bytes(5000))
    done = _in_bash("symcache diff 22G1")
    assert (done.stdout.strip(), done.stderr) == ("", "")
