"""debuginfod: `/buildid/{hex}/executable`, `/debuginfo`, `/section/{name}`, `/source/{path}`.

Its own clients write the id in lower case, except for debuginfod-find, which passes it on as typed.
"""

from __future__ import annotations

import re
from uuid import UUID

from symcache_server.layouts.wanted import Wanted, What

__all__ = ["match"]

_PATH = re.compile(r"/buildid/([0-9A-Fa-f]{32})/(?:(executable|debuginfo)|(section|source)/(.+))", re.DOTALL)


def match(path: str) -> Wanted | None:
    """Return what `path` asks for in this layout, or None."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    return Wanted("debuginfod", What(found[2] or found[3]), UUID(found[1]), found[4] or "")
