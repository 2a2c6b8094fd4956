"""What a shell is told while a command is typed: builds, machines, names of images.

Nothing is folded or asked over a network for it: it is what the last command left in the catalog. Whatever goes wrong,
there is nothing to offer. Shells evaluate what they are told, so only what no shell takes for more than a word is told.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import sqlite3

__all__ = ["command_being_typed", "complete_builds", "complete_machines", "complete_names", "is_completing"]

_MOST = 60
_SECONDS = 0.3
"""For a catalog that another process keeps to itself."""
_WORD = re.compile(r"[A-Za-z0-9_+@.-]+")


def is_completing() -> bool:
    """Return whether a shell asks what could be typed."""
    return any(name.startswith("_") and name.endswith("_COMPLETE") for name in os.environ)


def command_being_typed() -> str | None:
    """Return the command of the line that is typed, or None while there is none yet. As Typer's scripts tell it."""
    if "COMP_WORDS" in os.environ:
        words = os.environ["COMP_WORDS"].split("\n")[1 : int(os.environ.get("COMP_CWORD", "1"))]
    else:
        line = os.environ.get("_TYPER_COMPLETE_ARGS", "")
        words = line.split()[1:] if line.endswith(" ") else line.split()[1:-1]
    return next((word for word in words if not word.startswith("-")), None)


def complete_builds(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the builds in the library that begin so, newest first."""
    sql = (
        "SELECT build FROM records WHERE live AND build IS NOT NULL AND substr(build, 1, ?) = ? GROUP BY build"
        " ORDER BY max(release_order) DESC LIMIT ?"
    )
    typed = {word for value in ctx.params.values() if isinstance(value, (list, tuple)) for word in value}
    return [build for build in _ask(ctx, sql, len(incomplete), incomplete, _MOST) if build not in typed]


def complete_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the names of images that begin so; of none before the first letter."""
    if not incomplete:
        return []
    sql = "SELECT DISTINCT name FROM paths WHERE name >= ? AND name < ? ORDER BY name LIMIT ?"
    return _ask(ctx, sql, incomplete, incomplete + chr(0x10FFFF), _MOST)


def complete_machines(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the machines of the inventory that begin so."""
    with contextlib.suppress(Exception):
        import tomllib

        named = ctx.params.get("machines") or os.environ.get("SYMCACHE_MACHINES")
        file = next(path for path in ([Path(named)] if named else _inventories()) if path.expanduser().is_file())
        machines: dict[str, Any] = tomllib.loads(file.expanduser().read_text("utf-8"))["machines"]
        return _words(name for name in machines if name.startswith(incomplete))
    return []


def _inventories() -> Iterator[Path]:
    import platformdirs

    yield Path("machines.toml")
    yield platformdirs.user_config_path("symcache") / "machines.toml"


def _ask(ctx: typer.Context, sql: str, *values: object) -> list[str]:
    """Return the first column of what the catalog says, or nothing."""
    with contextlib.suppress(Exception):
        from symcache.cli.settings import library_location

        for path in _catalogs(library_location(ctx.params.get("library"))):
            with _opened(path) as catalog:
                return _words(row[0] for row in catalog.execute(sql, values))
    return []


def _catalogs(location: str) -> Iterator[Path]:
    """Yield the file that this machine keeps the catalog of a library in, if it does: see `library.catalog_path`."""
    if "://" not in location and (own := Path(location).expanduser() / "catalog.db").is_file():
        yield own
        return
    import hashlib
    import sqlite3

    import platformdirs

    where = location.rstrip("/") if "://" in location else str(Path(location).expanduser().resolve())
    for path in (platformdirs.user_cache_path("symcache") / "catalogs").glob("*.db"):
        with contextlib.suppress(sqlite3.Error):
            with _opened(path) as catalog:
                found = catalog.execute("SELECT value FROM library").fetchone()
            name = f"{found[0]} {where}" if found else where
            if path.stem == hashlib.sha256(name.encode()).hexdigest()[:16]:
                yield path


def _opened(path: Path) -> contextlib.closing[sqlite3.Connection]:
    import sqlite3

    return contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=_SECONDS, uri=True))


def _words(texts: Iterable[str]) -> list[str]:
    return [text for text in texts if _WORD.fullmatch(text)]
