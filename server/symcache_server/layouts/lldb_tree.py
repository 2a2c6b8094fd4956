"""LLDB's file-mapped tree of UUIDs: five folders of four digits and a file of twelve, which is the dSYM's inner file.

`.app` behind it is the binary itself (Symbolicator's extension).
"""

from __future__ import annotations

import re
from uuid import UUID

from symcache_server.layouts.wanted import Wanted, What

__all__ = ["match"]

_PATH = re.compile(r"((?:/[0-9A-Fa-f]{4}){5}/[0-9A-Fa-f]{12})(\.app)?")


def match(path: str) -> Wanted | None:
    """Return what `path` asks for in this layout, or None."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    return Wanted("lldb", What.EXECUTABLE if found[2] else What.DEBUGINFO, UUID(found[1].replace("/", "")))
