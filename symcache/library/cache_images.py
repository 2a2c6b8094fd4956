"""Images of a shared cache straight into the store: hashed and compressed where they are made, no files between."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import compress
from pathlib import Path
from types import MappingProxyType

from symcache.dyld import (
    EXTRACTOR,
    REVISION,
    Batch,
    Extractor,
    NewImage,
    Row,
    SharedCache,
    extract_image,
    input_has_ended,
    run_in_processes,
)
from symcache.errors import IntegrityError, StorageError, SymcacheError
from symcache.library.image_facts import check_image, code_facts
from symcache.library.storing import Storing
from symcache.model import Kind, ObjectEntry, Origin, encodable
from symcache.store import Store, open_store, put_blob, put_pieces

__all__ = ["CacheImages", "ToStore", "store_images"]

_THREADS = 4
"""Of each process: hashing and compression need no interpreter's lock, and each waits for the disk."""
_FACTS = {"arch", "sha256", "size", "symbols", "code"}
"""In a row of an image that is stored."""
_LOOKS = 8
"""Blobs that are looked for at a time."""
_IN_FLIGHT = 64 << 20
"""Bytes of images that are made and not yet stored."""


class ToStore:
    """Stores images as blobs.

    Rows have `arch`, `sha256`, `size`, `symbols` and `code` as a record has them, and `new`: of what is not new, nobody
    has looked whether it may be collected (see `keep_blob`). With `whole`, an image of which a part is in no file of
    the cache is `unbacked`, and is not stored.
    """

    def __init__(self, store: Store, *, whole: bool, stopped: Callable[[], bool]) -> None:
        self._store, self._whole, self._stopped = store, whole, stopped

    @classmethod
    def in_child(cls, location: str, extent: str) -> ToStore:
        """Return the work of `command`, with its arguments."""
        return cls(open_store(location), whole=extent == "whole", stopped=input_has_ended)

    def command(self) -> Sequence[str]:
        """See ImageWork."""
        return "-m", "symcache.library", self._store.location, "whole" if self._whole else "any"

    def run(self, cache: SharedCache, extractor: Extractor, batch: Batch) -> list[Row]:
        """See ImageWork."""
        rows: list[Row] = []
        storing: deque[tuple[NewImage, Future[Row]]] = deque()
        in_flight = 0

        def settle() -> None:
            nonlocal in_flight
            made, job = storing.popleft()
            in_flight -= made.size
            try:
                rows.append(job.result())
            except StorageError:
                raise
            except SymcacheError as error:
                rows.append({"index": made.image.index, "reason": str(error)})

        with ThreadPoolExecutor(_THREADS, thread_name_prefix="images") as pool:
            for image, made in extractor.many([cache.images[index] for index, _ in batch]):
                if self._stopped():
                    raise StorageError(f"{cache.path}: storing it was stopped", hint="run the same command again")
                if isinstance(made, SymcacheError):
                    rows.append({"index": image.index, "reason": str(made)})
                    continue
                if made.unbacked and self._whole:
                    rows.append({"index": image.index, "unbacked": made.unbacked})
                    continue
                storing.append((made, pool.submit(self._put, made)))
                in_flight += made.size
                while in_flight > _IN_FLIGHT:
                    settle()
            while storing:
                settle()
        cache.space.release()
        return rows

    def _put(self, made: NewImage) -> Row:
        image, pieces = made.image, [memoryview(piece).cast("B") for piece in made.pieces]
        head = bytes(pieces[0])
        check_image(head, made.size, image.path, made.arch, Kind.EXECUTABLE, image.uuid)
        symbols, code = code_facts(head, made.size, lambda offset, size: _range(pieces, offset, size))
        sha256, size, new = put_pieces(self._store, pieces)
        if size != made.size:
            raise IntegrityError(f"{image.path}: has {size} bytes where {made.size} were laid out")
        facts = {"sha256": sha256, "size": size, "symbols": symbols, "code": code}
        return {"index": image.index, "arch": made.arch, "new": new, **facts}


@dataclass
class CacheImages:
    """What became of images of one shared cache, by their index in its table."""

    stored: dict[int, ObjectEntry] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    """Why not. What is in neither lies in files that are not there."""


def store_images(
    storing: Storing,
    cache: SharedCache,
    indexes: Sequence[int],
    *,
    whole: bool = False,
    known: Mapping[int, Row] = MappingProxyType({}),
    note: Callable[[list[Row]], None] = lambda rows: None,
) -> Generator[CacheImages, None, None]:
    """Make images of a cache and store them, over processes; yield what became of those of each batch.

    With `whole`, those that lie in part in no file are left out. `known` are rows that `note` got in an earlier run,
    by index: of these, what is there is not made again. Raises StorageError.
    """
    rows = [row for index in indexes if (row := known.get(index)) and row.keys() >= _FACTS]
    with ThreadPoolExecutor(_LOOKS, thread_name_prefix="known") as pool:
        kept = pool.map(lambda row: storing.keep(row["sha256"]), rows)
        there = [{**row, "new": False} for row in compress(rows, kept)]
    yield _images(storing, cache, there)
    left = sorted(set(indexes) - {row["index"] for row in there})
    stopped = storing.done.stopped.is_set
    work = ToStore(storing.store, whole=whole, stopped=stopped)
    for made in run_in_processes(cache, work, [(index, "") for index in left], busy=True, stopped=stopped):
        for row in made:
            if row.get("new") is False and not storing.keep(row["sha256"]):
                _put_image(storing.store, cache.path, row["index"])
        note(made)
        yield _images(storing, cache, made)


def _images(storing: Storing, cache: SharedCache, rows: list[Row]) -> CacheImages:
    found, done = CacheImages(), storing.done
    for row in rows:
        index, image = row["index"], cache.images[row["index"]]
        if "reason" in row:
            found.failed[index] = row["reason"]
        elif "sha256" in row:
            done.origins[row["sha256"]] = partial(_put_image, cache=cache.path, index=index)
            done.stored, done.skipped = done.stored + row["new"], done.skipped + (not row["new"])
            if row["new"]:
                done.new_uuids.add(image.uuid)
            found.stored[index] = ObjectEntry(
                path=encodable(image.path),
                arch=row["arch"],
                uuid=image.uuid,
                kind=Kind.EXECUTABLE,
                origin=Origin.CACHE,
                cache_uuid=cache.uuid,
                extractor=EXTRACTOR,
                revision=REVISION,
                sha256=row["sha256"],
                size=row["size"],
                symbols=row["symbols"],
                code=row["code"],
            )
    return found


def _put_image(store: Store, cache: Path, index: int) -> str:
    """Store one image of the shared cache at `cache` once more; return its hash. Raises SymcacheError, OSError."""
    with SharedCache.open(cache, partial=True) as opened, tempfile.TemporaryDirectory() as folder:
        return put_blob(store, extract_image(opened, opened.images[index], Path(folder) / "image").file)[0]


def _range(pieces: Sequence[memoryview], offset: int, size: int) -> Iterator[memoryview]:
    """Yield the bytes of a range of what `pieces` are in order."""
    for piece in pieces:
        if offset < len(piece):
            part = piece[offset : offset + size]
            yield part
            size -= len(part)
            if not size:
                return
        offset = max(0, offset - len(piece))
