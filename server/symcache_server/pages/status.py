"""The status page, for whoever looks after the server and its library."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from symcache.model import uuid_text
from symcache_server.http.auth import Scope, requires
from symcache_server.keys import (
    CONFIG,
    LIBRARY,
    LOG_MEMORY,
    OVERVIEW,
    REFRESHER,
    RESOLVER,
    SCRUBBER,
    TROUBLES,
    in_background,
)
from symcache_server.pages.render import page

__all__ = ["status"]

_CONFLICTS = 100


@requires(Scope.READ)
async def status(request: web.Request) -> web.Response:
    """Show the state of the server."""
    return await page(request, "status.html", await in_background(request.app, _document, request.app))


def _document(app: web.Application) -> dict[str, Any]:
    config, refresher = app[CONFIG], app[REFRESHER]
    totals = app[OVERVIEW].totals()
    conflicts = totals.conflicts if totals else ()
    troubles = [config.without_paths(text) for text in app[TROUBLES]]
    return {
        "troubles": troubles,
        "refreshed": _text(refresher.refreshed),
        "refresh_error": config.without_paths(refresher.error),
        "unreadable": [config.without_paths(f"{key}: {why}") for key, why in sorted(app[LIBRARY].unreadable.items())],
        "lost": [f"{key}: the record that was there is gone" for key in sorted(app[LIBRARY].catalog.lost().values())],
        "counts": totals.counts._asdict() if totals else None,
        "conflicts": [
            {
                "uuid": uuid_text(c.uuid),
                "path": c.contents[0].path,
                "arch": c.contents[0].arch,
                "kind": c.kind.value,
                "contents": len(c.contents),
                "decided": c.decided,
                "link": f"/images/{uuid_text(c.uuid)}",
            }
            for c in conflicts[:_CONFLICTS]
        ],
        "conflicts_total": len(conflicts) if totals else None,
        "scrubbed": {area: _text(checked) for area, checked in app[SCRUBBER].oldest(time.time()).items()},
        "disks": [
            disk
            for name, folder in (("cache of decoded files", config.cache_dir), ("state", config.state_dir),
                                 ("library", Path(config.library)))
            if (disk := _disk(name, folder))
        ],
        "upstreams": app[RESOLVER].upstream_states(),
        "errors": [
            {"time": line.time, "level": line.level, "text": config.without_paths(line.text)}
            for line in app[LOG_MEMORY].lines()
        ],
        "processes": config.processes,
    }  # fmt: skip


def _disk(name: str, folder: Path) -> dict[str, Any] | None:
    """Return how full the disk of a folder is; None of a library that lies in no folder."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return {"name": name, "total": usage.total, "free": usage.free}


def _text(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
