"""Libraries that hold much, by their records alone: there is nothing behind them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from symcache.library import Library
from symcache.model import HarvestRecord, Release
from symcache.store import write_record

__all__ = ["add_release"]


def add_release(
    location: Path, build: str, paths: Sequence[str], *, arch: str = "arm64e", uuid: str = "", **fields: Any
) -> None:
    """Record a harvest that stored an image at each of `paths`, every one of another UUID and content.

    `uuid`: of all of them instead. `fields`: more of the record.
    """
    uuids = [UUID(uuid) if uuid else uuid5(NAMESPACE_URL, build + arch + p) for p in paths]
    entries = [{"path": p, "arch": arch, "uuid": u} for p, u in zip(paths, uuids, strict=True)]
    contents = [hashlib.sha256(entry["uuid"].bytes).hexdigest() for entry in entries]
    objects = [{**entry, "sha256": content, "size": 1} for entry, content in zip(entries, contents, strict=True)]
    release = Release(version="13.6", build=build)
    record = HarvestRecord.model_validate(
        {"release": release, "sealed": True, "manifest": entries, "objects": objects} | fields
    )
    with Library.open(location, create=True) as library:
        write_record(library.store, record, "0" * 32)
