"""Tables are for pipes, too: whatever the width of a screen is, UUIDs and paths stand in them whole, a row a line."""

from __future__ import annotations

import io
from pathlib import Path
from uuid import UUID

import platformdirs
import pytest
from rich.console import Console
from typer.testing import CliRunner

from symcache.cli.app import application
from symcache.cli.common import Table
from symcache.model import uuid_text
from symcache_server.layouts import What
from symcache_server.lookup.misses import MissLog
from tests.support.commands import run_here
from tests.support.many import add_release
from tests.support.servers import serve

ASSETS = Path(__file__).resolve().parents[2] / "symcache" / "demo" / "assets"
LONG = f"/System/Library/PrivateFrameworks/{'Very' * 40}LongName.framework/Versions/A/[x] :tm: LongName"
UNKNOWN = UUID("23516BE4-29BE-350C-91C9-F36E7999F0F1")


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    add_release(tmp_path / "library", "22G120", [LONG, "/usr/lib/libz.dylib"])
    monkeypatch.setenv("SYMCACHE_LIBRARY", str(tmp_path / "library"))
    monkeypatch.delenv("COLUMNS", raising=False)
    return tmp_path / "library"


def _lines(*arguments: str, code: int = 0) -> list[str]:
    ran = run_here(*arguments)
    assert ran.returncode == code, ran.stderr
    return ran.stdout.splitlines()


def test_lookup() -> None:
    first, *rows = _lines("lookup", "/*")
    assert first.split() == ["UUID", "arch", "kind", "build", "size", "path"]
    assert {row.split(maxsplit=6)[6] for row in rows} == {LONG, "/usr/lib/libz.dylib"}  # a size is two words
    assert all(len(row.split()[0]) == 36 and row == row.rstrip() for row in rows)


def test_missing() -> None:
    state = platformdirs.user_state_path("symcache")
    state.mkdir(parents=True, exist_ok=True)
    log = MissLog(state / "misses.db")
    log.add(UNKNOWN, What.EXECUTABLE, name="n" * 200)
    log.close()
    _, row = _lines("missing")
    assert row.split()[1:4] == [uuid_text(UNKNOWN), "executable", "n" * 200]


def test_missing_of_a_server_takes_no_library(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(library, tmp_path / "server") as server:
        assert run_here("get", uuid_text(UNKNOWN), "--server", server.url).returncode == 1
        monkeypatch.delenv("SYMCACHE_LIBRARY")
        ran = run_here("missing", "--server", server.url)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.splitlines()[1].split()[1] == uuid_text(UNKNOWN)
        assert "/missing tells" in ran.stderr
        named = run_here("missing", "--server", server.url, "--library", str(tmp_path / "typo"))
        assert (named.returncode, "no library here" in named.stderr) == (1, True)


def test_the_modules_of_a_dump() -> None:
    lines = _lines("verify", "--dump", str(ASSETS / "dumps" / "crash-x86_64.zip"), code=1)
    modules = lines[lines.index(next(line for line in lines if line.split() == ["UUID", "from", "module"])) + 1 : -1]
    assert len(modules) == 11  # as `symcache analyze` counts
    for module in modules:
        uuid, origin, path = module.split()
        assert Path(path).is_absolute() and uuid_text(UUID(uuid)) == uuid
        assert origin == "nobody"


def test_modules_that_are_not_shown_are_counted() -> None:
    uuids = "".join(f"{UUID(int=n + 1)}\n" for n in range(203))
    ran = CliRunner().invoke(application("verify"), ["verify", "--uuids", "-"], input=uuids)
    assert "and 3 more modules (--json lists them all)" in ran.stdout.splitlines()


def _shown(table: Table, width: int, *, terminal: bool) -> list[str]:
    screen = io.StringIO()
    Console(file=screen, force_terminal=terminal, width=width, soft_wrap=True, color_system=None).print(table)
    return screen.getvalue().splitlines()


def test_on_a_narrow_screen() -> None:
    table = Table("path", "[UUID]")
    table.add_row("[red]/usr/lib/libz.dylib[/]", uuid_text(UNKNOWN))
    assert _shown(table, 20, terminal=True) == [
        "path                 [UUID]",
        f"/usr/lib/libz.dylib  {uuid_text(UNKNOWN)}",
    ]


def test_the_widest_column_has_lines_of_its_own_where_a_row_does_not_fit() -> None:
    table = Table("UUID", "arch", "path")
    table.add_row(uuid_text(UNKNOWN), "arm64e", LONG.replace("[", r"\["))
    table.add_row(uuid_text(UNKNOWN), "x86_64h", "/usr/lib/libz.dylib")
    assert _shown(table, 80, terminal=True) == [
        f"{'UUID':36}  arch",
        "  path",
        f"{uuid_text(UNKNOWN)}  arm64e",
        f"  {LONG}",
        f"{uuid_text(UNKNOWN)}  x86_64h",
        "  /usr/lib/libz.dylib",
    ]
    assert len(_shown(table, 80, terminal=False)) == 3  # a pipe has a row a line
    assert len(_shown(table, 400, terminal=True)) == 3


def test_an_analysis_fits_80_columns() -> None:
    dump = str(ASSETS / "dumps" / "crash-x86_64.zip")
    lines = _lines("analyze", dump)
    registers = lines[lines.index("  registers:") + 1 :]
    registers = registers[: registers.index("")]
    assert registers[0].split()[::2] == ["rax", "rbx", "rcx"]
    modules = lines[lines.index("modules:") + 1 :]
    # Nothing is cut: what is too long has a line of its own.
    assert all(len(line) <= 80 or line.split() == [line.strip()] for line in registers + modules)
    paths = [line.split()[-1] for line in modules if "/" in line]
    assert len(paths) == 11 and all(Path(path).is_absolute() for path in paths)
