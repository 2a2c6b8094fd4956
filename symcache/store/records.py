"""Records in and out of a store."""

from __future__ import annotations

import contextlib
import gc
import hashlib
from collections.abc import Iterator

import zstandard
from pydantic import BaseModel, ValidationError

from symcache.errors import IntegrityError
from symcache.model import HarvestRecord, PreferenceRecord, Record, TombstoneRecord
from symcache.store.base import RecordKey, Store, last_sequence
from symcache.store.blobs import unreadable_is_damaged
from symcache.store.writing import put_object

__all__ = ["load_record", "no_garbage_collection", "parse_record", "read_record", "write_record"]

_CHUNK = 1 << 20
_MAX_RECORD = 1 << 30
_SCHEMA = 1
"""The newest schema that this program knows, the same for all types."""
_TYPES: dict[str, type[HarvestRecord] | type[TombstoneRecord] | type[PreferenceRecord]] = {
    "harvest": HarvestRecord,
    "tombstone": TombstoneRecord,
    "preference": PreferenceRecord,
}


class _Head(BaseModel):
    type: str = "harvest"
    schema_version: int = 1


def write_record(store: Store, record: Record, writer: str) -> tuple[RecordKey, str]:
    """Add a record as the next of `writer`; return its key and its id (SHA-256 of its JSON)."""
    # A harvest is what a record is unless it says otherwise; its many defaults are left out.
    data = record.model_dump_json(exclude_defaults=isinstance(record, HarvestRecord)).encode()
    identity = hashlib.sha256(data).hexdigest()
    taken = [k.sequence for key in store.list(f"records/{writer}/") if (k := RecordKey.parse(key))]
    sequence = last_sequence(taken) + 1
    compressed = zstandard.ZstdCompressor(level=9, write_checksum=True).compress(data)
    while True:
        key = RecordKey(writer, sequence)
        if put_object(store, str(key), [compressed]):
            return key, identity
        sequence += 1  # another process of this writer was faster


def read_record(store: Store, key: RecordKey) -> tuple[str, Record]:
    """Return (id, record). Raises IntegrityError for one that cannot be read or is newer than this program."""
    return parse_record(store, key, *load_record(store, key))


def parse_record(store: Store, key: RecordKey, identity: str, content: bytes) -> tuple[str, Record]:
    """Return (id, record) of what `load_record` gave; raises as `read_record`."""
    name = f"{store.location}: record {key}"
    try:
        head = _Head.model_validate_json(content)
        if head.schema_version > _SCHEMA or head.type not in _TYPES:
            raise IntegrityError(
                f"{name}: schema {head.schema_version} of a {head.type[:40]} is newer than this program",
                hint="update symcache",
            )
        with no_garbage_collection():
            record = _TYPES[head.type].model_validate_json(content)
    except ValidationError as error:
        raise IntegrityError(
            f"{name}: {error.error_count()} fields are not what they must be", hint="run `symcache fsck`"
        ) from error
    return identity, record


def load_record(store: Store, key: RecordKey) -> tuple[str, bytes]:
    """Return (id, JSON) of a record, without looking into it. Raises IntegrityError when it is damaged."""
    name = f"{store.location}: record {key}"
    data = bytearray()
    with store.open(str(key)) as stored:
        try:
            with unreadable_is_damaged(), zstandard.ZstdDecompressor().stream_reader(stored) as reader:
                while chunk := reader.read(_CHUNK):
                    data += chunk
                    if len(data) > _MAX_RECORD:
                        raise IntegrityError(f"larger than {_MAX_RECORD} bytes")
        except (zstandard.ZstdError, IntegrityError) as error:
            raise IntegrityError(f"{name}: damaged: {error}", hint="run `symcache fsck`") from error
    content = bytes(data)
    return hashlib.sha256(content).hexdigest(), content


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep Python from looking for cycles among 100,000 new objects that have none: that takes 3/4 of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
