"""What the worker requests while it is at work: modules, and source files."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from symcache.confined import NoRequestError
from symcache.dump.lldb_child.links import Links
from symcache.dump.lldb_child.protocol import FetchedModules, to_line
from symcache.text import printable

__all__ = ["FetchModules", "FindSources", "Responder"]

FindSources = Callable[[list[tuple[str, str]]], list[tuple[str, str]]]
"""From (UUID, recorded path) of the source files of the frames that are printed to folders: (recorded, here)."""
FetchModules = Callable[[list[int], str], FetchedModules]
"""From numbers of the plan's modules, and what they are needed for, to what there is of them."""
_MAX_REASON = 200


class Responder:
    """Responds to the requests of one worker; see worker.py. It may request sources once."""

    def __init__(self, find_sources: FindSources | None, fetch_modules: FetchModules | None, links: Links) -> None:
        self._find_sources, self._fetch_modules, self._links = find_sources, fetch_modules, links

    def __call__(self, line: bytes) -> bytes:
        """Return the line that responds to a request. Raises NoRequestError, SymcacheError, OSError."""
        request = _parse(line)
        if "sources" in request and self._find_sources:
            find_sources, self._find_sources = self._find_sources, None
            return to_line(find_sources(request["sources"]))
        if "modules" in request and self._fetch_modules:
            fetched = self._fetch_modules(request["modules"], request["why"])
            return to_line(self._links.of_fetched(fetched).to_json())
        raise NoRequestError("requests what it may not")


def _parse(line: bytes) -> dict[str, Any]:
    """Return a request: `sources`, (UUID, path) each, or `modules`, their numbers, with `why` in words."""
    try:
        request = json.loads(line)
        if "sources" in request:
            return {"sources": [(str(uuid), str(path)) for uuid, path in request["sources"]]}
        return {
            "modules": [int(n) for n in request["modules"]],
            "why": printable(str(request["why"]), limit=_MAX_REASON),
        }
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise NoRequestError("sends what is no request") from error
