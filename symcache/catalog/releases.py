"""Asking the catalog for releases: which there are, and what the records of one list, stored and kept."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from symcache.catalog.file import CatalogFile
from symcache.catalog.ranking import TRUST_RANK, TRUSTS
from symcache.catalog.rows import CacheFileRow, HarvestRow, ManifestRow, ReleaseRow
from symcache.model import ReleaseId, Trust

__all__ = ["Releases"]

_HARVEST = TRUST_RANK[Trust.HARVEST]
_IN_UNNAMED_CACHES = "SELECT EXISTS (SELECT 1 FROM layouts WHERE origin = 'cache' AND cache_uuid = x'')"
"""Whether anything lies in a shared cache without UUID: it is listed as the file at the same path is."""
_COUNT_LISTED = (
    "WITH entries AS (SELECT m.path, m.uuid, l.arch, l.kind, l.cache_uuid AS cache,"
    " CASE WHEN l.cache_uuid = x'' THEN l.arch ELSE '' END AS of_arch,"
    " m.record IN (SELECT value FROM json_each(?)) AS sealed"
    " FROM manifest_entries m JOIN layouts l ON l.id = m.layout WHERE m.record IN (SELECT value FROM json_each(?)))"
    " SELECT count(*) FROM (SELECT DISTINCT path, uuid, arch, kind, cache FROM entries"
    " WHERE sealed OR (cache, of_arch) NOT IN (SELECT cache, of_arch FROM entries WHERE sealed))"
)


class _Record(NamedTuple):
    """A live harvest, as a row of `records`."""

    id: int
    sha256: str
    product: str
    version: str
    extra: str
    trust: int
    sealed: int
    images: int


class Releases(CatalogFile):
    """Releases and their harvests."""

    def __init__(self, path: Path | None, *, filling: bool = False) -> None:
        self._counts: dict[tuple[str, ...], tuple[int, int]] = {}
        """Different UUIDs and images, by the ids of a release's records: these never change."""
        super().__init__(path, filling=filling)

    def releases(self) -> list[ReleaseRow]:
        """Return all releases, newest first."""
        with self.one_moment():  # the numbers of records are others once another process has folded the catalog anew
            return self._releases()

    def _releases(self) -> list[ReleaseRow]:
        groups: dict[ReleaseId, list[_Record]] = {}
        for system, build, *row in self._all(
            "SELECT system, build, id, sha256, product, version, extra, trust, sealed, images FROM records"
            " WHERE live AND type = 'harvest' AND build IS NOT NULL"
            " ORDER BY release_order DESC, build, system, sha256"
        ):
            groups.setdefault(ReleaseId(system, build), []).append(_Record(*row))
        systems = Counter(release.build for release in groups)
        result = []
        for release, records in groups.items():
            ids = tuple(record.sha256 for record in records)
            if ids not in self._counts:
                harvests = [(record.id, bool(record.sealed)) for record in records if record.trust == _HARVEST]
                rows = [record.id for record in records]
                uuids = self._count_uuids(rows) if len(rows) > 1 else records[0].images
                self._counts[ids] = uuids, self._count_images(harvests, rows)
            first, build = records[0], release.build
            sealed = any(record.sealed for record in records)
            name = build if systems[build] == 1 else str(release)
            result.append(
                ReleaseRow(
                    *(first.product, first.version, first.extra, build, sealed, len(records)),
                    *self._counts[ids],
                    name,
                )
            )
        return result

    def releases_named(self, name: str) -> list[ReleaseId]:
        """Return the releases that may be meant by a build or `PRODUCT:BUILD`, see `ReleaseId.is_meant_by`."""
        rows = self._all(
            "SELECT DISTINCT system, build FROM records WHERE live AND type = 'harvest' AND build = ? ORDER BY system",
            [name.rpartition(":")[2]],
        )
        return [release for row in rows if (release := ReleaseId(*row)).is_meant_by(name)]

    def _count_uuids(self, records: Sequence[int]) -> int:
        """Return how many different UUIDs some records stored: those of one release mostly hold the same images."""
        sql = "SELECT count(DISTINCT uuid) FROM objects WHERE record IN (SELECT value FROM json_each(?))"
        return int(self._one(sql, [json.dumps(records)])[0])

    def _count_images(self, harvests: Sequence[tuple[int, bool]], records: Sequence[int]) -> int:
        """Return how many images a release has, from (row, sealed) of its harvests and the rows of all its records.

        What its harvests list counts, stored or not: by path, architecture, kind, UUID and shared cache. Of each shared
        cache, and of the files of each architecture, it is what sealed harvests list, where there are any: others may
        have seen half of it. Of a release that was imported alone, it is what was stored.
        """
        if not harvests:
            sql = (
                "SELECT count(*) FROM (SELECT DISTINCT o.path, o.uuid, l.arch, l.kind, l.cache_uuid FROM objects o"
                " JOIN layouts l ON l.id = o.layout WHERE o.record IN (SELECT value FROM json_each(?)))"
            )
            return int(self._one(sql, [json.dumps(records)])[0])
        if len(harvests) == 1 and not self._one(_IN_UNNAMED_CACHES)[0]:  # then no two rows are of one image
            return int(self._one("SELECT count(*) FROM manifest_entries WHERE record = ?", [harvests[0][0]])[0])
        every, sealed = json.dumps([row for row, _ in harvests]), json.dumps([row for row, whole in harvests if whole])
        return int(self._one(_COUNT_LISTED, [sealed, every])[0])

    def records_of(self, release: ReleaseId) -> list[HarvestRow]:
        """Return the live harvests of one release, in a stable order, the newest version last."""
        rows = self._all(
            "SELECT id, sha256, trust, product, version, build, sealed, source, problems FROM records"
            " WHERE live AND type = 'harvest' AND system = ? AND build = ? ORDER BY release_order, sha256",
            release,
        )
        return [
            HarvestRow(
                *(number, sha256, TRUSTS[trust], product, version, build),
                sealed=bool(sealed),
                source=source,
                problems=tuple(problems.splitlines()),
            )
            for number, sha256, trust, product, version, build, sealed, source, problems in rows
        ]

    def first_harvested(self, release: ReleaseId) -> str:
        """Return when the first harvest of a release ended, as its record says (ISO 8601), or an empty string."""
        sql = "SELECT min(finished) FROM records WHERE type = 'harvest' AND system = ? AND build = ? AND finished != ''"
        return str(self._one(sql, release)[0] or "")

    def builds_of_cache(self, cache: UUID) -> list[str]:
        """Return the builds whose live records keep raw files of a shared cache."""
        sql = (
            "SELECT DISTINCT build FROM records WHERE live AND build IS NOT NULL"
            " AND id IN (SELECT record FROM cache_files WHERE cache_uuid = ?)"
        )
        return [str(row[0]) for row in self._all(sql, [cache.bytes])]

    def manifest_of(self, record: int) -> list[ManifestRow]:
        """Return what one record lists."""
        rows = self._all(
            "SELECT p.path, l.arch, m.uuid, l.kind, l.origin, l.cache_uuid FROM manifest_entries m"
            " JOIN layouts l ON l.id = m.layout JOIN paths p ON p.id = m.path WHERE m.record = ?"
            " ORDER BY p.path, l.arch, l.kind",
            [record],
        )
        return [
            ManifestRow(path, arch, _uuid(uuid), kind, origin, _uuid(cache))
            for path, arch, uuid, kind, origin, cache in rows
        ]

    def cache_files_of(self, cache: UUID) -> list[CacheFileRow]:
        """Return the kept raw files of one shared cache; of live records only."""
        return self._cache_files("cache_uuid = ?", [cache.bytes], "name, sha256")

    def cache_files_of_record(self, record: int) -> list[CacheFileRow]:
        """Return the raw files that one live record keeps."""
        return self._cache_files("record = ?", [record], "name")

    def _cache_files(self, where: str, parameters: Sequence[Any], order: str) -> list[CacheFileRow]:
        rows = self._all(
            "SELECT record, cache_uuid, name, arch, path, sha256, size, partial FROM cache_files"  # noqa: S608 - constants
            f" WHERE {where} AND record IN (SELECT id FROM records WHERE live) ORDER BY {order}",
            parameters,
        )
        return [
            CacheFileRow(record, _uuid(cache), name, arch, path, sha256.hex(), size, bool(partial))
            for record, cache, name, arch, path, sha256, size, partial in rows
        ]


def _uuid(value: bytes) -> UUID | None:
    return UUID(bytes=value) if value else None
