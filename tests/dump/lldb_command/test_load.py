"""`symcache load` in a user's own LLDB, here the wheel's: what is said, what is left behind, what goes wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from symcache.library import Library, ingest, stage_paths
from tests.dump.lldb_command import lldbs
from tests.dump.systems import ASSETS
from tests.dump.test_corpus import dump, truth
from tests.dump.test_fetching import Crowd
from tests.support.servers import serve
from tests.support.waiting import until

pytest.importorskip("lldb", reason="no LLDB wheel: pip install lldb-for-pwndbg")


def test_the_whole_backtrace_and_nothing_left_behind(home: Path, tmp_path: Path) -> None:
    """Modules that nobody has keep their places in it. A second `load` means that dump, not the unpacked core in it."""
    commands = [
        f'symcache load "{dump("arm64")}" --symbols "{ASSETS / "app/arm64"}"',
        f'symcache load --symbols "{ASSETS / "app/arm64"}"',
        "settings show symbols.enable-external-lookup target.preload-symbols",
    ]
    text = lldbs.run(lldbs.WHEEL, home, commands, {"TMPDIR": str(tmp_path)})
    first, second = text.split("modules: ")[1:]
    frames = truth("arm64")["threads"][0]["frames"]
    for printed in (first, second):
        lines = [line for line in printed.splitlines() if "frame #" in line]
        assert len(lines) == len(frames)
        for line, frame in zip(lines, frames, strict=True):
            assert f"0x{frame['pc']:016x} {frame['module'].rpartition('/')[2]}" in line
            assert frame["function"] in line or "Ledger" not in frame["module"]
        assert "exception: SIGSEGV" in printed
    assert first.startswith("9 of 11 missing")
    assert "9 modules" in text and "CoreFoundation" in text, "the missing ones are named"
    assert "enable-external-lookup (boolean) = true" in second, "as before"
    until(lambda: not list(tmp_path.glob("symcache-*")))


def test_what_is_wrong_is_said(home: Path, tmp_path: Path) -> None:
    (folder,) = (home / ".local/share/symcache/lldb").iterdir()
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in folder.iterdir():
        if file.is_file():
            (moved / file.name).write_text(file.read_text().replace(sys.executable, "/gone/python"))
    commands = ["symcache", "symcache load 'half", "symcache load /nowhere/crash.zip"]
    report = tmp_path / "x.ips"
    report.write_text('{"bug_type": "309"}\n{"procName": "x", "threads": [], "usedImages": []}\n')
    commands.append(f'symcache load "{report}"')
    commands += [f'command script import "{moved / "symcache_lldb.py"}"', "symcache load x"]
    text = lldbs.run(lldbs.WHEEL, home, commands)
    assert "use: symcache load [DUMP" in text
    assert "No closing quotation" in text
    assert "/nowhere/crash.zip: no such file or folder" in text
    assert f"{report}: is a crash report, without memory" in text
    assert "/gone/python: No such file or directory" in text
    assert "run `symcache setup lldb` again" in text


def test_the_script_is_for_old_pythons() -> None:
    """LLDB runs it under the Python that it was built for."""
    import ast

    from symcache.dump import LLDB_SCRIPT

    ast.parse(LLDB_SCRIPT.read_text(), feature_version=(3, 7))


def test_what_stacks_lead_through_is_fetched_from_a_server(home: Path, tmp_path: Path) -> None:
    """The modules that no thread is in are not fetched at first; those that a stack turns out to lead through are."""
    with Library.open(tmp_path / "library", create=True) as library:
        paths = [*(ASSETS / "app/arm64").iterdir()]
        ingest(library, stage_paths(paths, tmp_path / "scratch"))
    with serve(tmp_path / "library", tmp_path / "server") as server:
        commands = [f'symcache load "{dump("arm64")}" --server {server.url}']
        text = lldbs.run(lldbs.WHEEL, home, commands, {"SYMCACHE_CACHE_DIR": str(tmp_path / "cache")})
    assert "LKBookSort" in text and "main" in text
    assert "problem" not in text


def test_the_rest_is_fetched_when_it_is_asked_for(home: Path, crowd: Crowd, tmp_path: Path) -> None:
    """As at the prompt of `symcache open`: what the dump has and no thread is in, by name or all."""
    commands = [f'symcache load "{crowd.path}" --server {crowd.url}', "image lookup -n more0"]
    commands += ["symcache load libmore1.dylib", "symcache load libmore1.dylib", "symcache load"]
    commands += ["image lookup -n more0", "target list"]
    text = lldbs.run(lldbs.WHEEL, home, commands, {"SYMCACHE_CACHE_DIR": str(tmp_path / "cache")})
    assert "3 that no thread is in are not fetched: `symcache load` once more fetches them" in text
    first, second = text.split("1 of 1 modules fetched\n2 of 5 modules are not fetched\n")
    assert "Ledger`main" in first
    assert "match found" not in first
    assert "libmore1.dylib: no such file or folder" in second, "it is no module that is left, so it may be a dump"
    assert "2 of 2 modules fetched\n" in second
    assert "1 match found in" in second
    assert second.count("target #") == 1
    assert sorted(crowd.sent) == sorted(crowd.files), "each once"
