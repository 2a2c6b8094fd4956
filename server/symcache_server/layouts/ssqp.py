"""SSQP (dotnet/symstore): `/{name}/mach-uuid-{hex}/{name}`; a dSYM is `/_.dwarf/mach-uuid-sym-{hex}/_.dwarf`.

Keys are compared without case. Stores with an `index2.txt` have a folder of the name's first characters in front.
"""

from __future__ import annotations

import re
from uuid import UUID

from symcache_server.layouts.wanted import NAME, Wanted, What

__all__ = ["match"]

_PATH = re.compile(rf"(?:/([^/]{{1,2}}))?/({NAME})/mach-uuid-(sym-)?([0-9a-f]{{32}})/({NAME})", re.IGNORECASE)


def match(path: str) -> Wanted | None:
    """Return what `path` asks for in this layout, or None."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    index2, name, symbols, digits, again = found.groups()
    if name.casefold() != again.casefold() or (index2 and not name.casefold().startswith(index2.casefold())):
        return None
    if symbols and name.casefold() != "_.dwarf":
        return None
    if symbols:
        return Wanted("ssqp", What.DEBUGINFO, UUID(digits))
    return Wanted("ssqp", What.EXECUTABLE, UUID(digits), name=name)
