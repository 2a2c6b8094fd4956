"""Asking the catalog what all live records promise: blobs, counts, and images that are listed but not stored."""

from __future__ import annotations

import json
from collections.abc import Collection
from uuid import UUID

from symcache.catalog.file import CatalogFile
from symcache.catalog.rows import BlobUse, Counts, LiveBlobs, MissingImage
from symcache.model import uuid_text

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
        """Return those of `uuids` that a harvest lists and nothing was stored for; of several builds, the last."""
        found: dict[UUID, MissingImage] = {}
        if not uuids:
            return found  # the view goes over all manifests
        for text, build, path in self._all(
            "SELECT uuid, build, path FROM missing WHERE uuid IN (SELECT value FROM json_each(?)) ORDER BY build DESC",
            [json.dumps([uuid_text(u) for u in uuids])],
        ):
            found.setdefault(UUID(text), MissingImage(build or "", path))
        return found

    def builds_of_caches(self, caches: Collection[UUID]) -> dict[UUID, str]:
        """Return the build of each of these shared caches that a harvest knows; of several builds, the last."""
        if not caches:
            return {}
        rows = self._all(
            "SELECT cache_uuid, build FROM caches WHERE cache_uuid IN (SELECT value FROM json_each(?)) ORDER BY build",
            [json.dumps([uuid_text(u) for u in caches])],
        )
        return {UUID(text): build or "" for text, build in rows}
