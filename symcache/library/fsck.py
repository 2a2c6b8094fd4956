"""Is everything in the store that the records promise, and is it what they promise?"""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import zstandard

from symcache.catalog import Catalog
from symcache.errors import IntegrityError, NotFoundError, UsageError
from symcache.library.library import Library
from symcache.library.snapshots import SNAPSHOT_KEY, remove_database, scratch_name
from symcache.model import uuid_text
from symcache.store import (
    BLOB_KEY,
    BlobReader,
    RecordKey,
    blob_key,
    frame_sizes,
    load_record,
    no_garbage_collection,
    parse_record,
    unreadable_is_damaged,
)

__all__ = ["FsckCode", "FsckFinding", "FsckReport", "Subset", "fsck"]

_BATCH = 512


class FsckCode(StrEnum):
    """Stable names of what can be wrong."""

    RECORD_UNREADABLE = "record-unreadable"
    """A record is damaged, or newer than this program: what it names is not known."""
    RECORD_LOST = "record-lost"
    """A record is not there, although its writer wrote later ones, or the catalog knows it."""
    BLOB_MISSING = "blob-missing"
    """A live record names a blob that is not there."""
    BLOB_DAMAGED = "blob-damaged"
    """A blob is not what it was when it was stored."""
    STRAY = "stray"
    """Something lies in the store that is neither blob nor record."""
    CATALOG_DAMAGED = "catalog-damaged"
    """This machine's catalog does not say what the records say."""
    SNAPSHOT_DAMAGED = "snapshot-damaged"
    """A catalog snapshot is not what it was; new machines pass it over."""
    CONFLICT = "conflict"
    """Contents under one key contradict each other, and nobody has decided yet."""


@dataclass
class FsckFinding:
    """One thing found wrong. `key` is the place in the store, or the UUID of a conflict."""

    code: FsckCode
    key: str
    message: str
    repaired: str = ""
    """How it was repaired; empty while it is not."""


@dataclass
class FsckReport:
    """What was looked at and what was found. Sizes in bytes."""

    records: int = 0
    blobs: int = 0
    """Named by live records."""
    unnamed: int = 0
    """Blobs that no live record names: not a finding, `gc` takes them in time."""
    bytes_read: int = 0
    findings: list[FsckFinding] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """True when nothing is wrong, or all of it was repaired."""
        return all(f.repaired for f in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {"clean": self.clean, **asdict(self)}

    def add(self, code: FsckCode, key: str, message: str) -> None:
        """Add a finding."""
        self.findings.append(FsckFinding(code, key, message))


@dataclass(frozen=True)
class Subset:
    """Which blobs to read: all, a random share, or one of equal parts, so that `parts` runs read everything."""

    share: float = 1.0
    part: int = 0
    parts: int = 0

    @classmethod
    def parse(cls, text: str) -> Subset:
        """Read `5%` or `1/10`. Raises UsageError."""
        if match := re.fullmatch(r"(\d{1,3}(?:\.\d{1,4})?)%", text):
            if 0 < float(match[1]) <= 100:
                return cls(float(match[1]) / 100)
        elif (match := re.fullmatch(r"(\d{1,5})/(\d{1,5})", text)) and 1 <= int(match[1]) <= int(match[2]):
            return cls(part=int(match[1]), parts=int(match[2]))
        raise UsageError(f"{text!r}: not a share of the data", hint="write 5%, or 1/10 for the first of ten parts")

    def holds(self, sha256: str) -> bool:
        """Return whether this blob is to be read."""
        if self.parts:
            return int(sha256[:8], 16) % self.parts == self.part - 1
        return random.random() < self.share  # noqa: S311 - a sample, no secret


def fsck(
    library: Library,
    *,
    read: Subset | None = None,
    rebuild: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> FsckReport:
    """Check structure; with `read`, also every byte of those blobs, and the catalog against the records.

    With `rebuild`, a catalog that is found wrong is folded anew before anything is looked up in it.
    """
    report = FsckReport()
    _check_records(library, report, thorough=read is not None)
    damaged = [f for f in report.findings if f.code is FsckCode.CATALOG_DAMAGED]
    if damaged and rebuild:
        library.rebuild()
        for finding in damaged:
            finding.repaired = "folded anew"
    elif damaged:
        return report  # whatever it says now may be wrong
    if read is not None:
        _check_snapshots(library, report)
    live = library.catalog.live_blobs()
    sizes = live.images | live.cache_files
    report.blobs = len(sizes)
    present: set[str] = set()
    for key in library.store.list("blobs/"):
        if match := BLOB_KEY.fullmatch(key):
            present.add(match[2])
        else:
            report.add(FsckCode.STRAY, key, f"{key}: not the name of a blob")
    report.unnamed = len(present - sizes.keys())
    if missing := sorted(sizes.keys() - present):
        library.refresh()  # what they were named by may have been removed since
    for sha256 in missing:
        if library.catalog.is_live(sha256) and library.store.stat(blob_key(sha256)) is None:
            report.add(FsckCode.BLOB_MISSING, blob_key(sha256), f"blob {sha256} is gone: {_named_by(library, sha256)}")
    _check_blobs(library, report, sizes, present, read, progress)
    for conflict in library.conflicts():
        if not conflict.decided:
            contents = ", ".join(f"{o.sha256[:12]} ({o.build or o.trust})" for o in conflict.contents)
            text = f"{uuid_text(conflict.uuid)} ({conflict.kind}) {conflict.contents[0].path}: {contents}"
            report.add(FsckCode.CONFLICT, uuid_text(conflict.uuid), f"{text}; the first one is served")
    return report


def _check_records(library: Library, report: FsckReport, *, thorough: bool) -> None:
    """Check that every record can be read, and that the catalog says what they say.

    That is asked of the records that the catalog holds at one moment. What comes after it is left to the next run.
    """
    name = str(library.catalog.path or "catalog")
    library.refresh(whole=True)
    for key, reason in sorted(library.unreadable.items()):
        report.add(FsckCode.RECORD_UNREADABLE, key, reason)
    for key, reason in sorted(library.lost().items()):
        if key not in library.unreadable:
            report.add(FsckCode.RECORD_LOST, key, reason)
    problems = library.catalog.check() if thorough else []
    for problem in problems:
        report.add(FsckCode.CATALOG_DAMAGED, name, f"{name}: {problem}")
    # Where records are lost, the catalog rightly says more than those that are left.
    compared = thorough and not report.findings
    with library.catalog.one_moment():
        known = library.catalog.record_ids()
        fingerprint = library.catalog.fingerprint() if compared else ""
    for text in library.store.list("records/"):
        if RecordKey.parse(text) is None:
            report.add(FsckCode.STRAY, text, f"{text}: not the name of a record")
        else:
            report.records += 1
    # What the records say, folded on the side. In memory, a large one would be too large.
    path = scratch_name(library.catalog.path) if library.catalog.path else None
    fresh = Catalog(path, filling=True) if compared else None
    try:
        with no_garbage_collection():
            whole = [_read_record(library, report, *record, fresh) for record in sorted(known.items())]
        if fresh and all(whole) and fresh.fingerprint() != fingerprint:
            report.add(FsckCode.CATALOG_DAMAGED, name, f"{name}: does not say what the records say")
    finally:
        if fresh:
            fresh.close()
            remove_database(path)


def _read_record(library: Library, report: FsckReport, key: str, expected: str, fresh: Catalog | None) -> bool:
    """Return whether a record can be read and has the id that the catalog says; fold it into `fresh`."""
    place = RecordKey.parse(key)
    try:
        identity, content = load_record(library.store, place) if place else ("", b"")
        if place is None or identity != expected:
            report.add(FsckCode.CATALOG_DAMAGED, key, f"{key}: the catalog knows another record there")
            return False
        if fresh:
            fresh.fold(key, *parse_record(library.store, place, identity, content))
    except IntegrityError as error:  # damaged since it was folded
        report.add(FsckCode.RECORD_UNREADABLE, key, str(error))
        return False
    except NotFoundError as error:
        report.add(FsckCode.RECORD_LOST, key, f"{error} any more")
        return False
    return True


def _check_snapshots(library: Library, report: FsckReport) -> None:
    """Check that snapshots are what their names say."""
    for key in library.store.list("snapshots/"):
        match = SNAPSHOT_KEY.fullmatch(key)
        if match is None:
            report.add(FsckCode.STRAY, key, f"{key}: not the name of a catalog snapshot")
            continue
        digest = hashlib.sha256()
        try:
            with (
                unreadable_is_damaged(),
                library.store.open(key) as stored,
                zstandard.ZstdDecompressor().stream_reader(stored) as reader,
            ):
                while chunk := reader.read(1 << 20):
                    digest.update(chunk)
        except NotFoundError:
            continue
        except (zstandard.ZstdError, IntegrityError):
            digest.update(b"damaged")
        if digest.hexdigest() != match[3]:
            report.add(FsckCode.SNAPSHOT_DAMAGED, key, f"{key}: not what it was when it was stored")


def _named_by(library: Library, sha256: str) -> str:
    uses = library.catalog.uses_of_blob(sha256, 4)
    names = [f"{path} of {build}" if build else path for path, build in uses]
    return ", ".join([*names[:3], *(["…"] if len(names) > 3 else [])])


def _check_blobs(
    library: Library,
    report: FsckReport,
    sizes: dict[str, int],
    present: set[str],
    read: Subset | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Look into every blob that can be looked into cheaply, or read it."""
    if read is None and not library.store.fast_reads:
        return
    work = [sha256 for sha256 in sorted(present) if read is not None or sha256 in sizes]
    chosen = {s for s in work if read is not None and read.holds(s)}
    work = [s for s in work if library.store.fast_reads or s in chosen]

    def look(sha256: str) -> tuple[str, str, int]:
        size = sizes.get(sha256)
        try:
            if sha256 in chosen:
                return sha256, "", sum(len(chunk) for chunk in BlobReader(library.store, sha256, size))
            with library.store.open(blob_key(sha256)) as stored:
                content, _ = frame_sizes(stored)
            if size is not None and content != size:
                return sha256, f"blob {sha256}: holds {content} bytes where {size} were stored", 0
            return sha256, "", 0
        except IntegrityError as error:
            return sha256, f"blob {sha256}: {error}" if sha256 not in str(error) else str(error), 0
        except NotFoundError:
            return sha256, "", 0  # collected meanwhile, or named as missing already

    done = 0
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1), thread_name_prefix="fsck") as pool:
        for part in _parts(work):
            for sha256, wrong, count in pool.map(look, part):
                report.bytes_read += count
                done += 1
                if wrong:
                    where = f" ({_named_by(library, sha256)})" if sha256 in sizes else ""
                    report.add(FsckCode.BLOB_DAMAGED, blob_key(sha256), wrong + where)
            if progress:
                progress(done, len(work))


def _parts(work: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(work), _BATCH):
        yield work[start : start + _BATCH]
