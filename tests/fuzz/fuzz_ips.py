"""JSON crash reports, which users attach to tickets: any text, and any JSON in any place."""

from __future__ import annotations

import json

from symcache.errors import SymcacheError
from symcache.verify.crash_reports import parse_ips

__all__ = ["SEEDS", "one_input"]


def SEEDS() -> list[bytes]:
    """Return a report, one without what newer ones have, and one that is no crash."""
    image = {
        "arch": "arm64e",
        "base": 6_442_450_944,
        "size": 4096,
        "uuid": "0" * 31 + "1",
        "path": "/usr/lib/libz.dylib",
    }
    body = {
        "usedImages": [image, {"size": 0, "source": "A", "base": 0, "uuid": "0" * 32}],
        "osVersion": {"train": "macOS 13.6.9", "build": "22G830"},
        "sharedCache": {"base": 1, "size": 2, "uuid": "11111111-2222-3333-4444-555555555555"},
    }
    head = {"bug_type": "309", "os_version": "macOS 13.6.9 (22G830)"}
    return [
        (json.dumps(head) + "\n" + json.dumps(body)).encode(),
        (json.dumps(head) + "\n" + json.dumps({"usedImages": [image]})).encode(),
        (json.dumps({"bug_type": "210"}) + "\n" + json.dumps({"panicString": "x"})).encode(),
    ]


def one_input(data: bytes) -> None:
    """Parse `data`."""
    try:
        report = parse_ips(data.decode("utf-8", "replace"), "fuzz")
    except SymcacheError:
        return
    if not report.modules or any(m.uuid is not None and not m.uuid.int for m in report.modules):
        raise AssertionError("a report without modules, or a module whose UUID is none")
