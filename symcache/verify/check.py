"""Is a release complete? The manifest held against what the library really has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

import zstandard

from symcache.catalog import Occurrence
from symcache.errors import IntegrityError, MachOError, NotFoundError
from symcache.library import Library
from symcache.macho import identify_bytes
from symcache.model import Kind, uuid_text
from symcache.store import BlobReader, blob_key

__all__ = ["Finding", "FindingCode", "Level", "VerifyReport", "verify"]

_HEAD = 32 << 10


class Level(StrEnum):
    """How thoroughly to look."""

    CATALOG = "catalog"
    """Every expected image has an entry."""
    BLOBS = "blobs"
    """And its blob is there, as long as it should be, and starts as the right image."""
    BYTES = "bytes"
    """And every byte of it has the hash it was stored under."""


class FindingCode(StrEnum):
    """Stable names of what can be wrong."""

    NO_HARVEST = "no-harvest"
    """The library has nothing of this build."""
    NOT_SEALED = "not-sealed"
    """No harvest of this build came to its end with everything in place."""
    PROBLEM = "problem"
    """Something that the unsealed harvest itself noted."""
    MISSING = "missing"
    """In the manifest, but nothing was stored for it."""
    BLOB_MISSING = "blob-missing"
    """Stored once, but its blob is gone."""
    DAMAGED = "damaged"
    """The blob is not what was stored."""
    WRONG_UUID = "wrong-uuid"
    """The blob is another image, or of another kind or architecture."""
    UNREADABLE_RECORD = "unreadable-record"
    """A record that this program cannot read: nothing can be said of what it holds."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found wanting."""

    code: FindingCode
    message: str
    build: str = ""
    path: str = ""
    arch: str = ""
    uuid: str = ""


@dataclass
class VerifyReport:
    """What was looked at and what was found."""

    level: Level
    builds: list[str] = field(default_factory=list)
    images: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """True when nothing is wanting."""
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {
            "complete": self.complete,
            "level": self.level,
            "builds": self.builds,
            "images": self.images,
            "findings": [asdict(f) for f in self.findings],
        }


def verify(
    library: Library,
    builds: Sequence[str] = (),
    *,
    level: Level = Level.BLOBS,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Check the named builds, or all that the library holds. An empty library is a finding, not a pass."""
    report = VerifyReport(level)
    for key, reason in sorted(library.unreadable.items()):
        report.findings.append(Finding(FindingCode.UNREADABLE_RECORD, f"{key}: {reason}"))
    wanted = list(dict.fromkeys(builds)) or [r.build for r in library.releases()]
    if not wanted:
        report.findings.append(Finding(FindingCode.NO_HARVEST, f"{library.store.location}: no release harvested"))
    work: list[tuple[str, Occurrence]] = []
    for build in wanted:
        report.builds.append(build)
        work += [(build, o) for o in _check_manifest(library, build, report)]
    seen: set[tuple[str, UUID | None, Kind, str]] = set()
    for done, (build, occurrence) in enumerate(work):
        content = (occurrence.sha256, occurrence.uuid, occurrence.kind, occurrence.arch)
        if level is not Level.CATALOG and content not in seen:
            seen.add(content)
            _check_blob(library, build, occurrence, level, report)
        if progress:
            progress(done + 1, len(work))
    return report


def _check_manifest(library: Library, build: str, report: VerifyReport) -> list[Occurrence]:
    """Hold the manifests of a build against its objects; return the objects that answer for it."""
    records = library.catalog.records_of(build)
    if not records:
        report.findings.append(
            Finding(FindingCode.NO_HARVEST, f"{build}: nothing harvested of this build", build=build)
        )
        return []
    sealed = [r for r in records if r["sealed"]]
    if not sealed:
        report.findings.append(
            Finding(FindingCode.NOT_SEALED, f"{build}: no harvest of it is sealed; harvest it again", build=build)
        )
        report.findings += [
            Finding(FindingCode.PROBLEM, line, build=build) for r in records for line in r["problems"].splitlines()
        ]
    # A partial harvest is measured together with the others of its build: one may hold what another lacks.
    objects = [o for r in records for o in library.catalog.objects_of(r["id"])]
    have = {(o.path, o.arch, o.uuid, o.kind, o.cache_uuid) for o in objects}
    expected = {
        (m["path"], m["arch"], _uuid(m["uuid"]), m["kind"], _uuid(m["cache_uuid"]))
        for r in (sealed or records)
        for m in library.catalog.manifest_of(r["id"])
    }
    report.images += len(expected)
    for path, arch, uuid, kind, cache in sorted(expected - have, key=str):
        where = f" of cache {uuid_text(cache)}" if cache else ""
        report.findings.append(
            Finding(
                FindingCode.MISSING,
                f"{path} ({arch}, {kind}){where}: expected, but not stored",
                build,
                path,
                arch,
                uuid_text(uuid) if uuid else "",
            )
        )
    return objects


def _check_blob(library: Library, build: str, o: Occurrence, level: Level, report: VerifyReport) -> None:
    def found(code: FindingCode, message: str) -> None:
        report.findings.append(
            Finding(code, f"{o.path} ({o.arch}): {message}", build, o.path, o.arch, uuid_text(o.uuid) if o.uuid else "")
        )

    try:
        with library.store.open(blob_key(o.sha256)) as stored:
            start = stored.read(18)  # the longest zstd frame header
            size = zstandard.frame_content_size(start)
            if size != o.size:
                return found(FindingCode.DAMAGED, f"blob holds {size} bytes where {o.size} were stored")
            stored.seek(0)
            with zstandard.ZstdDecompressor().stream_reader(stored) as reader:
                head = reader.read(_HEAD)
        slices = identify_bytes(head, o.size)
        if len(slices) != 1 or (slices[0].uuid, slices[0].kind, slices[0].arch) != (o.uuid, o.kind, o.arch):
            return found(FindingCode.WRONG_UUID, f"blob {o.sha256} holds another image")
        if level is Level.BYTES:
            for _ in BlobReader(library.store, o.sha256, o.size):
                pass
    except NotFoundError:
        return found(FindingCode.BLOB_MISSING, f"blob {o.sha256} is gone")
    except (IntegrityError, MachOError, zstandard.ZstdError) as error:
        return found(FindingCode.DAMAGED, f"blob {o.sha256}: {error}")
    return None


def _uuid(value: bytes) -> UUID | None:
    return UUID(bytes=value) if value else None
