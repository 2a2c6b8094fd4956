"""A release's images anew, from its kept raw shared caches, with this program's extractor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from symcache import __version__
from symcache.dyld import EXTRACTOR, REVISION
from symcache.errors import IncompleteError, IntegrityError, NotFoundError, StorageError, SymcacheError
from symcache.library.ingest import seal
from symcache.library.library import Library
from symcache.library.raw_caches import open_raw_cache
from symcache.library.resume import listed_image
from symcache.library.storing import Storing
from symcache.library.tombstones import take_back
from symcache.library.user_dirs import now, operator
from symcache.model import HarvestRecord, ObjectEntry
from symcache.scratch import ScratchFolder
from symcache.store import RecordKey, read_record

__all__ = ["ReextractResult", "reextract"]


@dataclass
class ReextractResult:
    """What became of a release."""

    build: str
    product: str
    records: list[str] = field(default_factory=list)
    """Ids of the new records."""
    images: int = 0
    changed: int = 0
    """Images whose content differs from before."""
    skipped: int = 0
    """Caches that are already extracted by this revision."""
    problems: list[str] = field(default_factory=list)


def reextract(
    library: Library, name: str, *, force: bool = False, progress: Callable[[int, int], None] | None = None
) -> ReextractResult:
    """Redo every shared cache of a release whose images are of an earlier revision, or all of them if `force`.

    Every harvest record of it that changes is superseded by a new one. What cannot be extracted keeps its
    earlier content. Raises as `Library.release_id`; NotFoundError also when its raw caches are not there, or are
    removed meanwhile, and IncompleteError when another harvest has taken the place of one of them.
    """
    library.refresh()
    release = library.release_id(name)
    rows, build = library.catalog.records_of(release), release.build
    result, kept, unnamed = ReextractResult(build, release.product), 0, False
    for row in rows:
        key = library.catalog.first_key_of(row.id)
        place = RecordKey.parse(key)
        found, record = read_record(library.store, place) if place else ("", None)
        if found != row.sha256 or not isinstance(record, HarvestRecord):
            raise IntegrityError(f"{key}: not the record of a harvest", hint="run `symcache fsck --read-data`")
        caches = sorted({f.cache_uuid for f in record.cache_files if f.cache_uuid and not f.partial}, key=str)
        kept += len(caches)
        unnamed |= any(not f.cache_uuid and not f.partial for f in record.cache_files)
        outdated = [c for c in caches if force or _outdated(record, c)]
        result.skipped += len(caches) - len(outdated)
        if outdated:
            _redo(library, row.sha256, record, outdated, result, progress)
    if unnamed and not kept:
        raise NotFoundError(
            f"{build}: its kept shared caches have no UUID, by which they would be found",
            hint="caches have one since OS X 10.9: harvest an older one again to extract it anew",
        )
    if not kept:
        raise NotFoundError(f"{build}: no raw shared cache of it is kept", hint="harvest it again, and keep the caches")
    return result


def _outdated(record: HarvestRecord, cache: UUID) -> bool:
    revisions = [o.revision for o in record.objects if o.cache_uuid == cache and o.extractor == EXTRACTOR]
    return not revisions or min(revisions) < REVISION


def _redo(
    library: Library,
    identity: str,
    record: HarvestRecord,
    caches: list[UUID],
    result: ReextractResult,
    progress: Callable[[int, int], None] | None,
) -> None:
    objects = list(record.objects)
    problems: list[str] = []
    with ScratchFolder("reextract") as scratch, Storing(library) as storing:
        for number, cache_uuid in enumerate(caches):
            try:
                made, failed = _extract(library, storing, cache_uuid, Path(scratch) / str(number), progress)
            except StorageError:
                raise
            except SymcacheError as error:
                problems.append(str(error))
                continue
            problems += failed
            before = {listed_image(o): o.sha256 for o in objects if o.extractor == EXTRACTOR}
            result.images += len(made)
            result.changed += sum(before.get(listed_image(o)) != o.sha256 for o in made)
            new = {listed_image(o) for o in made}
            objects = [o for o in objects if o.extractor != EXTRACTOR or listed_image(o) not in new] + made
        library.refresh()  # it may have taken long
        if not library.catalog.is_live_record(identity):
            raise _not_live(library, identity, result.build)
        have = {listed_image(o) for o in objects}
        whole = all(listed_image(m) in have for m in record.manifest)
        result.problems += problems
        if set(objects) == set(record.objects):
            return
        new_record = record.model_copy(
            update={
                "supersedes": (identity,),
                "objects": tuple(objects),
                "tool": f"symcache {__version__}",
                "operator": operator(),
                "started": now(),
                # What was sealed stays so: nothing was lost. What was not, since images lacked, may be now.
                "sealed": record.sealed or (whole and not record.problems and not problems),
            }
        )
        sealed = seal(library, new_record, storing.done)
        if sealed is None:
            raise _not_live(library, identity, result.build)
        if library.catalog.is_removed([identity]):
            take_back(library, [sealed[0]], result.build, "was made of what was removed meanwhile")
            raise _not_live(library, identity, result.build)
        result.records.append(sealed[0])


def _not_live(library: Library, identity: str, build: str) -> SymcacheError:
    """Return why a record that somebody has taken back since it was read is not replaced."""
    if library.catalog.is_removed([identity]):
        return NotFoundError(
            f"{build}: was removed while it was extracted, and stays so", hint="harvest it again to have it back"
        )
    return IncompleteError(
        f"{build}: another harvest has taken the place of the one that was extracted",
        hint="run the same command again",
    )


def _extract(
    library: Library,
    storing: Storing,
    cache_uuid: UUID,
    folder: Path,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[ObjectEntry], list[str]]:
    from symcache.library.cache_images import store_images  # noqa: PLC0415 (takes its time to import, with numpy)

    made: list[ObjectEntry] = []
    problems: list[str] = []
    with open_raw_cache(library, cache_uuid, folder / "raw") as cache:
        for some in store_images(storing, cache, range(len(cache.images))):
            made += some.stored.values()
            problems += [f"{cache.images[index].path}: {reason}" for index, reason in some.failed.items()]
            if progress:
                progress(len(made) + len(problems), len(cache.images))
    return made, problems
