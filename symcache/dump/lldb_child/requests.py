"""What the worker requests while it is at work: modules, and source files."""

from __future__ import annotations

import json
import math
import os
import select
import time
from collections.abc import Callable
from typing import Any

from symcache.dump.lldb_child.protocol import FetchedModules
from symcache.text import printable

__all__ = ["FetchModules", "FindSources", "read_request"]

FindSources = Callable[[list[tuple[str, str]]], list[tuple[str, str]]]
"""From (UUID, recorded path) of the source files of the frames that are printed to folders: (recorded, here)."""
FetchModules = Callable[[list[int], str], FetchedModules]
"""From numbers of the plan's modules, and what they are needed for, to what there is of them."""
_MAX_REQUEST = 1 << 20
_MAX_REASON = 200


def read_request(descriptor: int, end: float) -> dict[str, Any] | None:
    """Return the next request: `sources`, (UUID, path) each, or `modules`, their numbers, with `why` in words.

    Return None if the worker is done, has died, or sends nothing that makes sense until the time `end` (`monotonic`).
    """
    raw = b""
    while not raw.endswith(b"\n") and len(raw) <= _MAX_REQUEST:
        left = None if math.isinf(end) else max(0.0, end - time.monotonic())
        if not select.select([descriptor], [], [], left)[0]:
            return None
        if not (part := os.read(descriptor, 1 << 16)):
            return None
        raw += part
    try:
        request = json.loads(raw)
        if "sources" in request:
            return {"sources": [(str(uuid), str(path)) for uuid, path in request["sources"]]}
        return {
            "modules": [int(n) for n in request["modules"]],
            "why": printable(str(request["why"]), limit=_MAX_REASON),
        }
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
