"""Prometheus metrics and the access log: both are told of every response once it has been sent.

Names follow elfutils' debuginfod where it has one for the same thing. With several processes, each writes its values
into files of a common folder (see `metric_files`), and whichever serves `/metrics` adds them up.
"""

from __future__ import annotations

import errno
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
    values,
)
from prometheus_client import REGISTRY as DEFAULT_REGISTRY

from symcache.errors import UsageError
from symcache_server.http.auth import path_for_logs
from symcache_server.http.line_writer import LineWriter
from symcache_server.http.metric_files import SLOT

__all__ = [
    "CACHE_FILLS",
    "DAMAGED",
    "DROPPED",
    "LIBRARY_AGE",
    "LOOP_DELAY",
    "MISSES",
    "NAMED_ADDRESSES",
    "NAMED_MODULES",
    "OLDEST_CHECK",
    "TYPE",
    "UPSTREAM",
    "AccessLogger",
    "access_writer",
    "exposition",
    "open_access_log",
]

if slot := os.environ.get(SLOT):  # before there is any metric
    values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]

TYPE: web.RequestKey[str] = (
    web.RequestKey("symcache.type", str) if hasattr(web, "RequestKey") else cast(Any, "symcache.type")
)
"""Key under which a request notes what it was: a layout, `api`, `page` …"""

REQUESTS = Counter("http_requests", "Requests.", ["type"])
RESPONSES = Counter("http_responses", "Responses by status.", ["type", "result"])
BYTES = Counter("http_responses_transfer_bytes", "Bytes of bodies sent.", ["type"])
SECONDS = Histogram(
    "http_responses_duration_seconds",
    "From the request's headers to the last byte.",
    ["type"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
MISSES = Counter("symcache_misses", "Look-ups of what nobody has.", ["type"])
NAMED_ADDRESSES = Counter(
    "symcache_named_addresses", "Addresses that were looked up, by where their names are from.", ["source"]
)
NAMED_MODULES = Counter("symcache_named_modules", "Modules of requests for names.", ["result"])
CACHE_FILLS = Counter("symcache_cache_fills", "Blobs decoded or proven for sending.", ["result"])
UPSTREAM = Counter("symcache_upstream_requests", "Requests passed on to other servers.", ["result"])
DAMAGED = Counter("symcache_damaged_files", "Files found damaged, by where they lie.", ["files"])
OLDEST_CHECK = Gauge(
    "symcache_oldest_check_timestamp_seconds",
    "When that file was last read and checked which waits longest for it.",
    ["files"],
    multiprocess_mode="livemin",
)
LIBRARY_AGE = Gauge(
    "symcache_library_refreshed_timestamp_seconds",
    "When the library was last looked at for new records.",
    multiprocess_mode="livemin",
)
LOOP_DELAY = Histogram(
    "symcache_event_loop_delay_seconds",
    "How late a timer was, twenty times a second: for so long nobody got a response.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
DROPPED = Counter("symcache_dropped_notes", "Lines and misses that could not be written for so long.", ["log"])


def exposition() -> tuple[bytes, str]:
    """Return the metrics in Prometheus' text format, and its content type."""
    registry = DEFAULT_REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST


_writer: LineWriter | None = None


def open_access_log(file: Path | None) -> None:
    """Have `AccessLogger` write JSON lines to `file` (None: nowhere).

    A file that is moved away is begun anew, so that its lines can be rotated without a signal. Raises UsageError.
    """
    global _writer  # noqa: PLW0603 - logging is global as well
    if file is not None and _writer is None:
        path = None if str(file) == "-" else file
        try:
            if path:
                path.open("a").close()
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:  # those may be over soon
                raise UsageError(
                    f"{file}: {error.strerror}", hint="name a file for --access-log in a folder"
                ) from error
        _writer = LineWriter(path)


def access_writer() -> LineWriter | None:
    """Return what writes the access log, if one is kept."""
    return _writer


_counters: dict[tuple[str, int], tuple[Counter, Counter, Counter, Histogram]] = {}


class AccessLogger(AbstractAccessLogger):
    """Counts a response, and writes one JSON object about it where a log is kept."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Take note of one response; `time` in seconds."""
        # Not `body_length`, which counts headers, but not what sendfile sends.
        size = 0 if request.method == "HEAD" else getattr(response, "sent", response.content_length) or 0
        kind, status = request.get(TYPE, "other"), response.status
        counters = _counters.get((kind, status))
        if counters is None:
            labelled = REQUESTS.labels(kind), RESPONSES.labels(kind, str(status))
            counters = _counters[kind, status] = (*labelled, BYTES.labels(kind), SECONDS.labels(kind))
        counters[0].inc()
        counters[1].inc()
        counters[2].inc(size)
        counters[3].observe(time)
        if _writer is not None:
            _writer.add(_line(kind, status, size, time, request))


def _line(kind: str, status: int, size: int, seconds: float, request: web.BaseRequest) -> str:
    return json.dumps(
        {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "remote": request.remote,
            "forwarded": request.headers.get("X-Forwarded-For", ""),
            "method": request.method,
            "path": path_for_logs(request.path_qs)[:2048],
            "type": kind,
            "status": status,
            "bytes": size,
            "seconds": round(seconds, 6),
            "range": request.headers.get("Range", ""),
            "agent": request.headers.get("User-Agent", "")[:200],
        }
    )
