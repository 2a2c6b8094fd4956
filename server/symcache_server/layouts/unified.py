"""Symbolicator's unified layout: `/{two digits}/{the other thirty}/executable`, `/debuginfo`, `/breakpad`, `/meta`."""

from __future__ import annotations

import re
from uuid import UUID

from symcache_server.layouts.wanted import Wanted, What

__all__ = ["match"]

_PATH = re.compile(r"/([0-9A-Fa-f]{2})/([0-9A-Fa-f]{30})/(executable|debuginfo|breakpad|meta)")


def match(path: str) -> Wanted | None:
    """Return what `path` asks for in this layout, or None."""
    found = _PATH.fullmatch(path)
    return Wanted("unified", What(found[3]), UUID(found[1] + found[2])) if found else None
