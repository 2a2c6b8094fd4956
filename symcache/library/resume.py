"""A partial harvest that is continued: what earlier ones have and this one lacks."""

from __future__ import annotations

from symcache.errors import IntegrityError, NotFoundError
from symcache.library.library import Library
from symcache.library.staged import Staged
from symcache.model import CacheFile, HarvestRecord, ImageKey, ManifestEntry, ObjectEntry, Trust, encodable
from symcache.store import RecordKey, blob_key, read_record

__all__ = ["continue_partial", "listed_image", "object_order"]


def continue_partial(
    library: Library, staged: Staged, objects: list[ObjectEntry], cache_files: list[CacheFile]
) -> tuple[int, tuple[str, ...]]:
    """Take over what earlier, partial harvests of the same source and release have and this one lacks.

    Adds to both lists; returns (images taken over, ids of the records that are thereby superseded). A partial record
    that holds anything that is neither here nor in this manifest stays beside this one.
    """
    if staged.release is None or staged.trust is not Trust.HARVEST:
        return 0, ()
    expected = {(encodable(m.path), m.arch, m.key) for m in staged.manifest}
    have = {_object_key(o) for o in objects}
    raw = {(f.name, f.cache_uuid) for f in cache_files}
    carried, supersedes = 0, []
    for key, identity in library.catalog.partial_harvests(staged.release.id, encodable(staged.source)):
        place = RecordKey.parse(key)
        try:
            found, old = read_record(library.store, place) if place else ("", None)
        except (IntegrityError, NotFoundError):
            continue  # no reason to lose what has just been stored
        if found != identity or not isinstance(old, HarvestRecord):
            continue
        extra = [o for o in old.objects if _object_key(o) not in have]
        files = [f for f in old.cache_files if (f.name, f.cache_uuid) not in raw]
        promised = {o.sha256 for o in extra} | {f.sha256 for f in files}
        foreign = any(listed_image(o) not in expected for o in extra)
        if foreign or any(library.store.stat(blob_key(sha256)) is None for sha256 in promised):
            continue
        objects += extra
        cache_files += files
        have |= {_object_key(o) for o in extra}
        raw |= {(f.name, f.cache_uuid) for f in files}
        carried += len(extra)
        supersedes.append(identity)
    return carried, tuple(sorted(supersedes))


def listed_image(entry: ManifestEntry | ObjectEntry) -> tuple[str, str, ImageKey]:
    """Return what an image of a manifest and its stored object have in common: (path, architecture, key)."""
    return entry.path, entry.arch, entry.key.listed


def _object_key(entry: ObjectEntry) -> tuple[str, str, ImageKey]:
    return entry.path, entry.arch, entry.key


def object_order(entry: ObjectEntry) -> tuple[object, ...]:
    """Return what objects of a record are sorted by."""
    return entry.path, entry.arch, entry.kind, str(entry.cache_uuid), entry.extractor, entry.revision, entry.sha256
