"""Asking the catalog what all live records promise: blobs, counts, and images that are listed but not stored."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from symcache.catalog.file import CatalogFile, in_parts
from symcache.catalog.rows import BlobUse, Counts, LiveBlobs, MissingImage

__all__ = ["Completeness"]


class Completeness(CatalogFile):
    """What live records promise."""

    def is_live(self, sha256: str) -> bool:
        """Return whether a live record names the blob with this SHA-256."""
        content = bytes.fromhex(sha256)
        return bool(
            self._one(
                "SELECT EXISTS (SELECT 1 FROM objects o JOIN records r ON r.id = o.record"
                " WHERE substr(o.sha256, 1, 8) = ? AND o.sha256 = ? AND r.live)"
                " OR EXISTS (SELECT 1 FROM cache_files f JOIN records r ON r.id = f.record"
                " WHERE f.sha256 = ? AND r.live)",
                [content[:8], content, content],
            )[0]
        )

    def live_blobs(self) -> LiveBlobs:
        """Return every blob that live records name."""
        return LiveBlobs(self._blobs("objects"), self._blobs("cache_files"))

    def _blobs(self, table: str) -> dict[str, int]:
        rows = self._all(
            f"SELECT DISTINCT b.sha256, b.size FROM {table} b JOIN records r ON r.id = b.record WHERE r.live"  # noqa: S608
        )
        return {content.hex(): size for content, size in rows}

    def blob_size(self, sha256: str) -> int | None:
        """Return the size of a content in bytes, as any record says it, or None if none does."""
        content = bytes.fromhex(sha256)
        rows = self._all(
            "SELECT size FROM objects WHERE substr(sha256, 1, 8) = ? AND sha256 = ? UNION ALL"
            " SELECT size FROM cache_files WHERE sha256 = ? LIMIT 1",
            [content[:8], content, content],
        )
        return rows[0][0] if rows else None

    def uses_of_blob(self, sha256: str, limit: int) -> list[BlobUse]:
        """Return the first `limit` paths and builds under which live records name a blob."""
        content = bytes.fromhex(sha256)
        rows = self._all(
            "SELECT p.path, r.build FROM objects o JOIN paths p ON p.id = o.path JOIN records r ON r.id = o.record"
            " WHERE substr(o.sha256, 1, 8) = ? AND o.sha256 = ? AND r.live UNION SELECT f.path, r.build"
            " FROM cache_files f JOIN records r ON r.id = f.record WHERE f.sha256 = ? AND r.live ORDER BY 1, 2 LIMIT ?",
            [content[:8], content, content, limit],
        )
        return [BlobUse(*row) for row in rows]

    def counts(self) -> Counts:
        """Count live records, what can be requested, and what is stored."""
        return Counts(
            *self._one(
                "SELECT (SELECT count(*) FROM records WHERE live), (SELECT count(*) FROM images),"
                " (SELECT count(*) FROM objects o JOIN records r ON r.id = o.record WHERE r.live)"
            )
        )

    def missing_images(self, uuids: Collection[UUID]) -> dict[UUID, MissingImage]:
        """Return those of `uuids` that a harvest lists and nothing was stored for; of several builds, the newest."""
        found: dict[UUID, MissingImage] = {}
        for marks, part in in_parts(uuids):
            for uuid, build, path in self._all(
                "SELECT m.uuid, r.build, p.path FROM manifest_entries m JOIN records r ON r.id = m.record"  # noqa: S608
                " JOIN paths p ON p.id = m.path JOIN layouts l ON l.id = m.layout"
                f" WHERE m.uuid IN ({marks}) AND r.live AND NOT EXISTS ("
                "  SELECT 1 FROM objects o JOIN layouts k ON k.id = o.layout JOIN records x ON x.id = o.record"
                "  WHERE o.path = m.path AND o.uuid = m.uuid AND k.kind = l.kind AND k.arch = l.arch"
                "  AND k.cache_uuid = l.cache_uuid AND x.live AND x.build IS r.build AND x.system = r.system)"
                " ORDER BY r.release_order DESC, p.path",
                part,
            ):
                found.setdefault(UUID(bytes=uuid), MissingImage(build or "", path))
        return found

    def builds_of_caches(self, caches: Collection[UUID]) -> dict[UUID, str]:
        """Return the build of each of these shared caches that a harvest knows; of several builds, the newest."""
        found: dict[UUID, str] = {}
        for marks, part in in_parts(caches):
            rows = self._all(
                "SELECT l.cache_uuid, r.build FROM manifest_entries m JOIN layouts l ON l.id = m.layout"  # noqa: S608
                f" JOIN records r ON r.id = m.record WHERE l.cache_uuid IN ({marks}) AND r.live"
                " GROUP BY l.cache_uuid, r.id ORDER BY r.release_order",
                part,
            )
            found |= {UUID(bytes=cache): build or "" for cache, build in rows}
        return found
