"""The structure that the README promises: imports point down, and one room is entered by its door."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Set
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
RANK = {
    "symcache.cli": 10,
    "symcache.demo": 9,
    "symcache_provisioning": 8,
    "symcache_server": 8,
    "symcache.verify": 7,
    "symcache.dump": 6,
    "symcache.resolve": 5,
    "symcache.client": 4,
    "symcache.library": 3,
    "symcache.symbolicate": 3,
    "symcache.catalog": 2,
    "symcache.store": 2,
    "symcache.dyld": 2,
    "symcache.confined": 1,
    "symcache.macho": 1,
    "symcache.reports": 1,
    "symcache.crash": 0,
    "symcache.demangle": 0,
    "symcache.model": 0,
    "symcache.images": 0,
    "symcache.late_imports": 0,
    "symcache.lru_folder": 0,
    "symcache.own_program": 0,
    "symcache.scratch": 0,
    "symcache.style": 0,
    "symcache.text": 0,
    "symcache.wal": 0,
    "symcache.errors": -1,
    "symcache.files": -1,
    "symcache.kinds": -1,
}
"""From bottom to top; rooms of one height do not know each other."""


SIDE_DOORS = {
    "symcache_server.lookup.misses",  # the log alone, without the web server that it is the log of
    "symcache.demo.standin",  # one process of the demo
    "symcache.dump.capture",  # what writes dumps: a crash handler needs nothing of what reads them
    "symcache.client.wire",  # models take their time to import
    "symcache.dump.html",  # templates take their time to import
}
"""Modules that other rooms may import by themselves."""


def _room(module: str) -> str | None:
    parts = module.split(".")
    for length in (2, 1):
        name = ".".join(parts[:length])
        if name in RANK:
            return name
    return None


def _modules() -> Iterator[tuple[str, Path]]:
    for top in ("symcache", "server/symcache_server", "vm_provisioning/symcache_provisioning"):
        for path in sorted((ROOT / top).rglob("*.py")):
            module = ".".join(path.relative_to((ROOT / top).parent).with_suffix("").parts)
            yield module.removesuffix(".__init__"), path


def _imports() -> Iterator[tuple[str, str, str]]:
    """Yield (file, room of the file, imported module)."""
    for module, path in _modules():
        room = _room(module)
        if room is None:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                yield str(path.relative_to(ROOT)), room, node.module
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    yield str(path.relative_to(ROOT)), room, alias.name


def test_imports_point_down() -> None:
    upward = [
        f"{file} imports {module}"
        for file, room, module in _imports()
        if (other := _room(module)) and other != room and RANK[other] >= RANK[room]
    ]
    assert upward == []


def _imported_at_once(node: ast.AST, modules: Set[str]) -> Iterator[str]:
    """Yield what a module imports outside of functions, those imports for type checkers included."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ImportFrom) and child.module:
            names = [f"{child.module}.{alias.name}" for alias in child.names]
            yield from (name if name in modules else child.module for name in names)
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _imported_at_once(child, modules)


def _circles(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return what is left when whatever imports nothing else, or is imported by nothing else, is taken away."""
    while True:
        imported = set().union(*graph.values())
        left = {m: targets & graph.keys() for m, targets in graph.items() if targets & graph.keys() and m in imported}
        if left == graph:
            return left
        graph = left


def test_no_modules_import_each_other_in_circles() -> None:
    modules = dict(_modules())
    graph = {m: set(_imported_at_once(ast.parse(path.read_text()), modules.keys())) for m, path in modules.items()}
    assert _circles(graph) == {}


def test_circles_are_seen() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set[str]()}
    assert _circles(graph) == {"b": {"c"}, "c": {"b"}}


def test_rooms_are_entered_by_their_doors() -> None:
    assert [
        f"{file} imports {module}"
        for file, room, module in _imports()
        if _room(module) not in {None, room, module} and module not in SIDE_DOORS
    ] == []


_DOORS = sorted(m for m, path in _modules() if path.name == "__init__.py" and "late_imports(" in path.read_text())


@pytest.mark.parametrize("door", _DOORS)
def test_a_late_door_has_all_that_it_promises(door: str) -> None:
    room = importlib.import_module(door)
    for name in room.__all__:
        assert not isinstance(getattr(room, name), ModuleType)
        # Whoever imports a module of that name in the room would put it in the place of what is promised.
        assert importlib.util.find_spec(f"{door}.{name}") is None or name in vars(room)
    with pytest.raises(AttributeError, match="nothing"):
        room.nothing  # noqa: B018


def test_no_room_needs_a_screen() -> None:
    """Only the command line prints; everything else can be used as a library."""
    allowed = {"symcache.cli"}
    assert [
        f for f, room, module in _imports() if room not in allowed and module.split(".")[0] in {"rich", "typer"}
    ] == []


def test_python_is_started_in_one_place() -> None:
    """Elsewhere nobody remembers to keep the working folder out of what it imports."""
    starts = [
        str(path.relative_to(ROOT))
        for top in ("symcache", "server", "vm_provisioning")
        for path in sorted((ROOT / top).rglob("*.py"))
        if "sys.executable" in path.read_text()
    ]
    # The second runs by itself under other Pythons, too.
    assert starts == ["symcache/dump/lldb_child/finder.py", "symcache/own_program.py"]
