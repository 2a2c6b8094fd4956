"""A dump in a few lines, without a debugger."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from symcache.dump.container import open_dump
from symcache.dump.exceptions import describe_exception
from symcache.dump.notes import header_from_notes
from symcache.model import uuid_text

__all__ = ["describe"]


def describe(path: Path) -> dict[str, Any]:
    """Return what a dump says of itself, for `symcache info`. Raises DumpError, OSError."""
    with tempfile.TemporaryDirectory(prefix="symcache-dump-") as scratch:
        dump = open_dump(path, Path(scratch))
        header = dump.header or header_from_notes(path, dump.core)
    core = dump.core
    return {
        "arch": core.arch,
        "executable": header.executable,
        "bundle_version": header.bundle_version,
        "os_build": header.os_build,
        "cache_uuid": uuid_text(header.cache_uuid) if header.cache_uuid else None,
        "exception": describe_exception(core, core.threads[header.thread]).description,
        "crashed_thread": header.thread,
        "threads": len(core.threads),
        "modules": len(header.modules),
        "regions": len(core.segments),
        "bytes_kept": sum(s.filesize for s in core.segments),
    }
