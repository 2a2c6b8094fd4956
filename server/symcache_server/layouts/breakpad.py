"""Breakpad symbol files: `/{name}/{32 digits}0/{name}.sym`; the age behind the UUID is always 0 for Mach-O."""

from __future__ import annotations

import re
from uuid import UUID

from symcache_server.layouts.wanted import NAME, Wanted, What

__all__ = ["match"]

_PATH = re.compile(rf"/({NAME})/([0-9A-Fa-f]{{32}})0/({NAME})\.sym")


def match(path: str) -> Wanted | None:
    """Return what `path` asks for in this layout, or None."""
    found = _PATH.fullmatch(path)
    if found is None or found[1] != found[3]:
        return None
    return Wanted("breakpad", What.BREAKPAD, UUID(found[2]), name=found[1])
