"""Libraries that hold much, by their records alone: there is nothing behind them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from symcache.library import Library
from symcache.model import HarvestRecord, Release
from symcache.store import write_record

__all__ = ["add_release"]


def add_release(location: Path, build: str, paths: Sequence[str], *, arch: str = "arm64e") -> None:
    """Record a harvest that stored an image at each of `paths`, every one of another UUID and content."""
    entries = [{"path": p, "arch": arch, "uuid": uuid5(NAMESPACE_URL, build + arch + p)} for p in paths]
    contents = [hashlib.sha256(entry["uuid"].bytes).hexdigest() for entry in entries]
    objects = [{**entry, "sha256": content, "size": 1} for entry, content in zip(entries, contents, strict=True)]
    release = Release(version="13.6", build=build)
    record = HarvestRecord.model_validate({"release": release, "sealed": True, "manifest": entries, "objects": objects})
    with Library.open(location, create=True) as library:
        write_record(library.store, record, "0" * 32)
