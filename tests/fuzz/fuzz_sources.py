"""Debug info of strangers that tells which sources may be served, and the paths that are asked for."""

from __future__ import annotations

import posixpath
from pathlib import Path

import symcache.demo
from symcache.dump import SourceTree, source_path
from symcache.errors import SymcacheError
from symcache_server.convert.sources import line_files

__all__ = ["SEEDS", "one_input"]

_TREES = [SourceTree("/Users/dev/Ledger", folder="/nowhere"), SourceTree("/", folder="/nowhere")]


def SEEDS() -> list[bytes]:
    """Return a dSYM and paths, plain and otherwise."""
    app = Path(symcache.demo.__file__).with_name("assets") / "app" / "arm64"
    dwarf = (app / "Ledger.app.dSYM/Contents/Resources/DWARF/Ledger").read_bytes()
    return [dwarf, b"/Users/dev/Ledger/main.c", b"//Users/dev/Ledger/x/../../../etc/./passwd", b"/a\0b", b"main.c"]


def one_input(data: bytes) -> None:
    """Take `data` for an image and for a path."""
    if any(path != source_path(path) for path in line_files(data)):
        raise AssertionError("a path of a line table is not plain")
    try:
        path = source_path(data.decode("utf-8", "surrogateescape"))
    except SymcacheError:
        return
    if path != posixpath.normpath(path) or not path.startswith("/") or path.startswith("//"):
        raise AssertionError("a path is not plain")
    for tree in _TREES:
        if (parts := tree.inside(path)) and {"", ".", ".."} & set(parts) and path != "/":
            raise AssertionError("a path leads out of its tree")
