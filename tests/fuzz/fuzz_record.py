"""Records and blob frames from a store that anybody may have written to."""

from __future__ import annotations

import io
from typing import BinaryIO
from uuid import UUID

import zstandard

from symcache.catalog import Catalog
from symcache.errors import SymcacheError
from symcache.model import HarvestRecord, Kind, ObjectEntry, PreferenceRecord, Release, TombstoneRecord
from symcache.store import RecordKey, frame_sizes, read_record

__all__ = ["SEEDS", "one_input"]


class _OneObject:
    """A store that holds these bytes, whatever is asked for."""

    location = "fuzz"

    def __init__(self, data: bytes) -> None:
        self._data = data

    def open(self, key: str) -> BinaryIO:
        """Return the bytes."""
        del key
        return io.BytesIO(self._data)


def SEEDS() -> list[bytes]:
    """Return one record of each type, as JSON and compressed."""
    uuid = UUID(int=1)
    entry = ObjectEntry(path="/usr/lib/a", arch="arm64e", uuid=uuid, sha256="a" * 64, size=3, code="b" * 16)
    records = [
        HarvestRecord(release=Release(version="13.6", build="22G120"), objects=(entry,), supersedes=("c" * 64,)),
        TombstoneRecord(removes=("a" * 64,)),
        PreferenceRecord(uuid=uuid, kind=Kind.EXECUTABLE, sha256="a" * 64),
    ]
    texts = [r.model_dump_json().encode() for r in records]
    return [*texts, *(zstandard.compress(t) for t in texts), zstandard.compress(bytes(300_000))]


def one_input(data: bytes) -> None:
    """Read `data` as a record, as it is and as the content of a frame, and fold what that gives."""
    try:
        frame_sizes(io.BytesIO(data))
    except SymcacheError:
        pass
    for stored in (data, zstandard.compress(data)):
        try:
            identity, record = read_record(_OneObject(stored), RecordKey("w", 1))  # type: ignore[arg-type]
            catalog = Catalog(None)
            try:
                catalog.fold("records/w/0000000001.json.zst", identity, record)
                catalog.conflicts()
                catalog.releases()
                catalog.resolve(UUID(int=1))
            finally:
                catalog.close()
        except SymcacheError:
            pass
