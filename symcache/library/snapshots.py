"""Catalogs to start from: compact copies in the store, so that a new machine needs one download and a short fold.

A snapshot holds the keys of the records that it contains, so nothing else has to be believed of it. Its name says its
schema, the number of its records and the SHA-256 of the file; it is never changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import zstandard

from symcache.catalog import SCHEMA_VERSION, Catalog, record_keys_in
from symcache.errors import SymcacheError
from symcache.scratch import ScratchFolder
from symcache.store import RecordKey, Store, put_object

__all__ = ["SNAPSHOT_KEY", "remove_database", "scratch_name", "start_from", "write", "write_if_due"]

SNAPSHOT_KEY = re.compile(r"snapshots/v(\d+)-(\d{10})-([0-9a-f]{64})\.db\.zst\Z")
"""Matches the key of a snapshot: schema, number of records, SHA-256 of the database."""
_CHUNK = 1 << 20
_DUE = 32
"""New records that make a new snapshot worth its upload."""


def start_from(store: Store, path: Path) -> bool:
    """Make the catalog at `path` from the store's newest snapshot, if there is none yet; True if that was done.

    A snapshot that is damaged, or of records that the store does not have, is passed over: folding always works.
    """
    if path.exists():
        return False
    known = [(int(m[2]), m[3], m[0]) for key in store.list("snapshots/") if (m := SNAPSHOT_KEY.fullmatch(key))
             and int(m[1]) == SCHEMA_VERSION]  # fmt: skip
    for _, sha256, key in sorted(known, reverse=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".catalog-", dir=path.parent)
        temporary = Path(name)
        try:
            digest = hashlib.sha256()
            with (
                os.fdopen(descriptor, "wb") as out,
                store.open(key) as stored,
                zstandard.ZstdDecompressor().stream_reader(stored) as reader,
            ):
                while chunk := reader.read(_CHUNK):
                    digest.update(chunk)
                    out.write(chunk)
            if digest.hexdigest() == sha256 and _records_exist(store, temporary):
                # Not a rename: another process may have begun a catalog meanwhile.
                with contextlib.suppress(FileExistsError):
                    os.link(temporary, path)
                return True
        except (SymcacheError, zstandard.ZstdError):
            continue
        finally:
            remove_database(temporary)
    return False


def _records_exist(store: Store, database: Path) -> bool:
    last: dict[str, RecordKey] = {}
    for key in map(RecordKey.parse, record_keys_in(database)):
        if key and (key.writer not in last or last[key.writer] < key):
            last[key.writer] = key
    return all(store.stat(str(key)) for key in last.values())


def write(store: Store, catalog: Catalog) -> str:
    """Store a snapshot of the catalog as it is; return its key."""
    with ScratchFolder("snapshot") as folder:
        file = Path(folder) / "catalog.db"
        catalog.snapshot(file)
        with file.open("rb") as source:
            sha256 = hashlib.file_digest(source, "sha256").hexdigest()
        key = f"snapshots/v{SCHEMA_VERSION}-{len(catalog.known_keys()):010d}-{sha256}.db.zst"
        put_object(store, key, _compressed(file))
    return key


def _compressed(file: Path) -> Iterator[bytes]:
    compressor = zstandard.ZstdCompressor(level=1, threads=-1, write_checksum=True).compressobj(
        size=file.stat().st_size
    )
    with file.open("rb") as source:
        while chunk := source.read(_CHUNK):
            yield compressor.compress(chunk)
    yield compressor.flush()


def write_if_due(store: Store, catalog: Catalog) -> None:
    """Store a snapshot when many records have come since the last, where a new machine would have to download them."""
    if store.location.startswith("s3://"):
        known = [int(m[2]) for key in store.list("snapshots/") if (m := SNAPSHOT_KEY.fullmatch(key))]
        if len(catalog.known_keys()) - max(known, default=0) >= _DUE:
            write(store, catalog)


def scratch_name(catalog: Path) -> Path:
    """Return the name of a catalog that is being built beside another."""
    return catalog.with_name(f".{catalog.name}-{uuid.uuid4().hex}")


def remove_database(path: Path | None) -> None:
    """Remove a database file and what SQLite keeps beside it."""
    if path is not None:
        for suffix in ("", "-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
