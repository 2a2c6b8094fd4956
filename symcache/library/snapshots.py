"""Catalogs to start from: compact copies in the store, so that a new machine needs one download and a short fold.

A snapshot holds the keys of the records that it contains, and the id of the library, so nothing else has to be believed
of it. Its name says its schema, the number of its records and the SHA-256 of the file; it is never changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import zstandard

from symcache.catalog import SCHEMA_VERSION, Catalog, copy_catalog
from symcache.errors import IntegrityError, SymcacheError
from symcache.scratch import ScratchFolder
from symcache.store import Store, put_object

__all__ = ["SNAPSHOT_KEY", "remove_database", "scratch_name", "start_from", "write", "write_if_due"]

SNAPSHOT_KEY = re.compile(r"snapshots/v(\d+)-(\d{10})-([0-9a-f]{64})\.db\.zst\Z")
"""Matches the key of a snapshot: schema, number of records, SHA-256 of the database."""
_CHUNK = 1 << 20
_DUE = 32
"""New records that make a new snapshot worth its upload."""


def start_from(store: Store, path: Path, identity: str, earlier: Path) -> None:
    """Make the catalog at `path`, of the library with this id, from another one, if there is none yet.

    That is `earlier`, which this machine has of the place from when the library had no id, or the store's newest
    snapshot. One that is damaged, or of another library, is passed over: folding always works. Whether the records that
    it knows are there is asked when it is opened, as of any catalog.
    """
    if path.exists():
        return
    sources: list[Callable[[Path], None]] = [partial(copy_catalog, earlier)] if earlier.exists() else []
    sources += [partial(_download, store, key, sha256) for _, sha256, key in _of_this_schema(store)]
    for write_to in sources:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = scratch_name(path)
        try:
            write_to(temporary)
            with contextlib.closing(Catalog(temporary)) as catalog:
                usable = catalog.known_keys() and catalog.library_id() in {"", identity}
            if usable:
                # Not a rename: another process may have begun a catalog meanwhile.
                with contextlib.suppress(FileExistsError):
                    os.link(temporary, path)
                return
        except (SymcacheError, zstandard.ZstdError, OSError):  # OSError, too: some file systems have no hard links
            continue
        finally:
            remove_database(temporary)


def _of_this_schema(store: Store) -> list[tuple[int, str, str]]:
    """Return (number of records, SHA-256, key) of the snapshots that this program can start from, largest first."""
    found = (match for key in store.list("snapshots/") if (match := SNAPSHOT_KEY.fullmatch(key)))
    return sorted(((int(m[2]), m[3], m[0]) for m in found if int(m[1]) == SCHEMA_VERSION), reverse=True)


def _download(store: Store, key: str, sha256: str, target: Path) -> None:
    digest = hashlib.sha256()
    with (
        target.open("xb") as out,
        store.open(key) as stored,
        zstandard.ZstdDecompressor().stream_reader(stored) as reader,
    ):
        while chunk := reader.read(_CHUNK):
            digest.update(chunk)
            out.write(chunk)
    if digest.hexdigest() != sha256:
        raise IntegrityError(f"{store.location}: {key} is damaged", hint="run `symcache fsck --read-data --repair`")


def write(store: Store, catalog: Catalog) -> str:
    """Store a snapshot of the catalog as it is; return its key."""
    with ScratchFolder("snapshot") as folder:
        file = Path(folder) / "catalog.db"
        count = catalog.snapshot(file)
        with file.open("rb") as source:
            sha256 = hashlib.file_digest(source, "sha256").hexdigest()
        key = f"snapshots/v{SCHEMA_VERSION}-{count:010d}-{sha256}.db.zst"
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
        known = max((count for count, _, _ in _of_this_schema(store)), default=0)
        if len(catalog.known_keys()) - known >= _DUE:
            write(store, catalog)


def scratch_name(catalog: Path) -> Path:
    """Return the name of a catalog that is being built beside another."""
    return catalog.with_name(f".{catalog.name}-{uuid.uuid4().hex}")


def remove_database(path: Path | None) -> None:
    """Remove a database file and what SQLite keeps beside it."""
    if path is not None:
        for suffix in ("", "-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
