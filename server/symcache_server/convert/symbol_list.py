"""The symbols that an image exports, as text: one a line, sorted by demangled name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from symcache.demangle import demangle
from symcache.dyld import exported_symbols
from symcache.text import printable
from symcache_server.convert.child import begin_output, write_by_child

__all__ = ["REVISION", "main", "make_symbol_list"]

REVISION = 1
"""Part of the name that a list is cached under."""
_MOST = 1_000_000
_LONGEST = 8192
"""Characters of a name that are listed."""


def make_symbol_list(images: Sequence[int], target: Path) -> None:
    """Write a line for each symbol of an image, an open descriptor, to `target`: offset, name, demangled name.

    Apart by tabs, the offset from the image's header in hex, or empty where another image has it; printable text only.
    Raises as `write_by_child`.
    """
    module = "symcache_server.convert.symbol_list"
    write_by_child(module, [], images, target, unreadable="its exported symbols cannot be read")


def main() -> None:
    """Print the symbols of the image named on the command line."""
    begin_output()
    rows: list[tuple[str, str, str, str]] = []
    for symbol in exported_symbols(Path(sys.argv[1]).read_bytes()):
        if len(rows) == _MOST:
            break
        name = printable(symbol.name, limit=_LONGEST)
        plain = printable(demangle(name), limit=_LONGEST)
        offset = "" if symbol.offset is None or symbol.offset < 0 else f"{symbol.offset:x}"
        rows.append((plain.lstrip("_").lower(), offset, name, "" if plain == name else plain))
    sys.stdout.writelines(f"{offset}\t{name}\t{plain}\n" for _, offset, name, plain in sorted(rows))


if __name__ == "__main__":
    main()
