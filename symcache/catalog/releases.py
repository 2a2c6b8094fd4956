"""Asking the catalog for releases: which there are, and what the records of one list, stored and kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from symcache.catalog.file import CatalogFile
from symcache.catalog.ranking import TRUSTS
from symcache.catalog.rows import CacheFileRow, HarvestRow, ManifestRow, ReleaseRow

__all__ = ["Releases"]


class Releases(CatalogFile):
    """Releases and their harvests."""

    def releases(self) -> list[ReleaseRow]:
        """Return all builds, newest first."""
        groups: dict[str, list[tuple[Any, ...]]] = {}
        for row in self._all(
            "SELECT build, product, version, extra, sealed, images, id FROM records"
            " WHERE live AND type = 'harvest' AND build IS NOT NULL ORDER BY release_order DESC, build, sha256"
        ):
            groups.setdefault(row[0], []).append(row)
        result = []
        for build, rows in groups.items():
            images = rows[0][5]
            if len(rows) > 1:  # several harvests of one build mostly hold the same images
                marks = ",".join("?" * len(rows))
                sql = f"SELECT count(DISTINCT uuid) FROM objects WHERE record IN ({marks})"  # noqa: S608
                images = self._one(sql, [r[6] for r in rows])[0]
            _, product, version, extra, *_ = rows[0]
            result.append(ReleaseRow(product, version, extra, build, any(r[4] for r in rows), len(rows), images))
        return result

    def records_of(self, build: str) -> list[HarvestRow]:
        """Return the live harvests of one build, in a stable order."""
        rows = self._all(
            "SELECT id, sha256, trust, product, version, build, sealed, source, problems FROM records"
            " WHERE live AND type = 'harvest' AND build = ? ORDER BY release_order, sha256",
            [build],
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
