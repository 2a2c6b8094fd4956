"""Repairing what fsck found: the wrong is put aside, the right is had again from wherever it can be."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID

from symcache.catalog import OWN_EXTRACTOR, Occurrence
from symcache.errors import IntegrityError, NotFoundError, SymcacheError
from symcache.library.fsck import FsckCode, FsckFinding, FsckReport
from symcache.library.library import Library
from symcache.library.raw_caches import open_raw_cache
from symcache.model import Kind
from symcache.scratch import ScratchFolder
from symcache.store import BLOB_KEY, BlobReader, RecordKey, blob_key, decode_to, put_blob, put_object, read_record

__all__ = ["Fetch", "repair"]

Fetch = Callable[[Occurrence, Path], Path | None]
"""Fetches one content from elsewhere: (what, folder to put it in) to a file, or None. It need not be believed."""
_MEANWHILE = "whole again: somebody else has repaired it"


def repair(
    library: Library,
    report: FsckReport,
    *,
    others: Sequence[Library] = (),
    fetch: Sequence[Fetch] = (),
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Repair what can be repaired, and note in each finding how. Nothing is believed without its hash."""
    library.refresh()  # what was found may be long ago
    with ScratchFolder("repair") as folder:
        for number, finding in enumerate(report.findings):
            try:
                _repair_one(library, finding, others, fetch, Path(folder) / str(number))
            except SymcacheError as error:
                finding.message += f"; not repaired: {error}"
            if progress:
                progress(number + 1, len(report.findings))


def _repair_one(
    library: Library, finding: FsckFinding, others: Sequence[Library], fetch: Sequence[Fetch], folder: Path
) -> None:
    store = library.store
    if finding.repaired:
        return
    if finding.code is FsckCode.CATALOG_DAMAGED:
        library.rebuild()
        finding.repaired = "folded anew"
    elif finding.code is FsckCode.SNAPSHOT_DAMAGED:
        finding.repaired = f"moved to {store.quarantine(finding.key)}"
    elif finding.code in {FsckCode.RECORD_UNREADABLE, FsckCode.RECORD_LOST}:
        finding.repaired = _record(library, finding, others)
        library.refresh()  # what it names has to be there, too
    elif finding.code in {FsckCode.BLOB_MISSING, FsckCode.BLOB_DAMAGED} and (match := BLOB_KEY.fullmatch(finding.key)):
        finding.repaired = _blob(library, match[2], others, fetch, folder)


def _record(library: Library, finding: FsckFinding, others: Sequence[Library]) -> str:
    """Copy the record of the same key from another library: keys are unique across all libraries of a writer.

    Of a record that this machine's catalog knows, or knew, the id is known, too.
    """
    key = RecordKey.parse(finding.key)
    if key is None:
        return ""
    known = {identity for identity, place in library.catalog.lost().items() if place == finding.key}
    known = known or {record.sha256 for record in library.catalog.folded([finding.key]).values()}
    with contextlib.suppress(IntegrityError, NotFoundError):
        identity, _ = read_record(library.store, key)
        return _MEANWHILE if not known or identity in known else ""  # another record has its place now
    for other in others:
        try:
            identity, _ = read_record(other.store, key)  # readable there?
            with other.store.open(finding.key) as stored:
                data = stored.read()
        except (IntegrityError, NotFoundError):
            continue
        if known and identity not in known:
            continue
        if library.store.stat(finding.key) is not None:
            library.store.quarantine(finding.key)
        return f"copied from {other.store.location}" if put_object(library.store, finding.key, [data]) else _MEANWHILE
    return ""


def _blob(library: Library, sha256: str, others: Sequence[Library], fetch: Sequence[Fetch], folder: Path) -> str:
    """Put aside what is damaged, and have it again; unless somebody else has done so, who has other sources."""
    key, size, aside = blob_key(sha256), library.catalog.blob_size(sha256), ""
    seen = library.store.stat(key)
    if seen is not None:
        try:
            for _ in BlobReader(library.store, sha256, size):
                pass
            return _MEANWHILE
        except IntegrityError:
            if library.store.stat(key) != seen:
                return _blob(library, sha256, others, fetch, folder)
            aside = f"moved to {library.store.quarantine(key)}; "
    if size is None or not library.catalog.is_live(sha256):
        return f"{aside}no live record names it"
    folder.mkdir()
    for other in others:
        if other.store.stat(blob_key(sha256)) is not None:
            try:
                decode_to(other.store, sha256, size, folder / "copy")
            except IntegrityError:
                continue
            if _take(library, folder / "copy", sha256):
                return f"copied from {other.store.location}"
    occurrences = library.catalog.occurrences_of_blob(sha256)
    for occurrence in occurrences:
        for number, ask in enumerate(fetch):
            target = folder / f"fetched-{number}"
            target.mkdir(exist_ok=True)
            file = ask(occurrence, target)
            if file and _take(library, file, sha256):
                return "fetched again"
    for occurrence in occurrences:
        if occurrence.cache_uuid and occurrence.extractor == OWN_EXTRACTOR:
            file = _extract(library, occurrence, occurrence.cache_uuid, folder / "cache")
            if file and _take(library, file, sha256):
                return "extracted again from its shared cache"
    return ""


def _extract(library: Library, occurrence: Occurrence, cache_uuid: UUID, folder: Path) -> Path | None:
    from symcache.dyld import extract_image  # noqa: PLC0415 (takes its time to import, with numpy)

    try:
        with open_raw_cache(library, cache_uuid, folder) as cache:
            for image in cache.images:
                if image.path == occurrence.path and occurrence.kind is Kind.EXECUTABLE:
                    return extract_image(cache, image, folder / "image").file
    except SymcacheError:
        return None  # its raw files are lost, too
    return None


def _take(library: Library, file: Path, sha256: str) -> bool:
    """Store a file if its hash is the right one."""
    with file.open("rb") as source:
        if hashlib.file_digest(source, "sha256").hexdigest() != sha256:
            return False
    return put_blob(library.store, file)[0] == sha256
