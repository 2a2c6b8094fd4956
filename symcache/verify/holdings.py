"""What the catalog says of one release: the units it consists of, what each should hold, and what was stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple
from uuid import UUID

from pydantic import BaseModel, ValidationError

from symcache.catalog import CacheFileRow, HarvestRow, ManifestRow, Occurrence
from symcache.dyld import arch_of_images, canonical_arch
from symcache.errors import IntegrityError, NotFoundError
from symcache.library import Library
from symcache.model import Release, ReleaseId, Trust
from symcache.store import RecordKey, load_record
from symcache.verify.expectations import FILES, SYSTEM, family_of_path, unit_title

__all__ = ["ListedImage", "Provenance", "RawFile", "ReleaseHoldings", "Unit", "gather"]


class ListedImage(NamedTuple):
    """One image of one release, as a manifest lists it."""

    path: str
    arch: str
    uuid: UUID | None
    kind: str
    cache_uuid: UUID | None

    @classmethod
    def of(cls, stored: Occurrence) -> ListedImage:
        """Return the image that a stored content is of."""
        return cls(stored.path, stored.arch, stored.uuid, stored.kind.value, stored.cache_uuid)


class RawFile(NamedTuple):
    """One kept file of a raw shared cache."""

    name: str
    path: str
    sha256: str
    size: int


@dataclass
class Unit:
    """One shared cache of a release, or its images of one architecture outside of all caches."""

    family: str
    arch: str
    cache_uuid: UUID | None = None
    sealed: bool = False
    records: set[int] = field(default_factory=set)
    expected: set[ListedImage] = field(default_factory=set)
    raw: dict[str, list[RawFile]] = field(default_factory=dict)
    """Kept raw files by name. More than one content of a name is a contradiction, each of which is looked at."""
    heads: list[RawFile] = field(default_factory=list)
    """Files of which only headers and tables were kept: their bytes are checked, but no cache can be opened."""

    @property
    def kept(self) -> list[RawFile]:
        """Everything that was kept of the raw cache."""
        return [raw for contents in self.raw.values() for raw in contents] + self.heads

    @property
    def title(self) -> str:
        """For messages."""
        return unit_title(self.family, self.arch)


class Provenance(BaseModel):
    """What a record says of where it comes from, and of how much of that was wanted; see `HarvestRecord`."""

    host: str = ""
    archs: tuple[str, ...] = ()
    lacks: str = ""


@dataclass
class ReleaseHoldings:
    """One release: its records, units, and every content stored under it."""

    id: ReleaseId
    version: str
    records: list[HarvestRow]
    units: list[Unit]
    stored: dict[ListedImage, list[Occurrence]]
    manifests: dict[int, set[ListedImage]]
    """What each record lists, by the record's row."""
    raws: dict[int, list[CacheFileRow]]
    """Likewise the raw files that it kept."""
    sealed: dict[int, Provenance]
    """The records that are sealed."""
    parts: dict[int, str]
    """Of records that nothing is wrong with, and that cannot be sealed, what their source lacks by what it is."""

    @property
    def product(self) -> str:
        """By its one name."""
        return self.id.product

    @property
    def build(self) -> str:
        """Of the release."""
        return self.id.build

    @property
    def named(self) -> Release:
        """The build with its product and version."""
        return Release(product=self.product, version=self.version, build=self.build)

    @cached_property
    def listed(self) -> set[ListedImage]:
        """Everything that any record lists."""
        return set().union(*self.manifests.values())

    def listed_by(self, record: int, unit: Unit) -> set[ListedImage]:
        """Return what one record lists of one unit of files."""
        return {k for k in self.manifests[record] if k.cache_uuid is None and k.arch == unit.arch}


def gather(library: Library, release: ReleaseId) -> ReleaseHoldings | None:
    """Return what the library has of a release, or None if that is nothing."""
    catalog = library.catalog
    stored: dict[ListedImage, list[Occurrence]] = {}
    with catalog.one_moment():  # another process may fold the catalog anew, and number its records differently
        # What was added or pushed vouches for nothing.
        records = [r for r in catalog.records_of(release) if r.trust is Trust.HARVEST]
        manifests = {r.id: {_key(row) for row in catalog.manifest_of(r.id)} for r in records}
        raws = {r.id: catalog.cache_files_of_record(r.id) for r in records}
        keys = {r.id: catalog.first_key_of(r.id) for r in records}
        for record in records:
            for occurrence in catalog.objects_of(record.id):
                stored.setdefault(ListedImage.of(occurrence), []).append(occurrence)
    if not records:
        return None
    sealed = {r.id: _provenance(library, keys[r.id]) for r in records if r.sealed}
    parts = {r.id: _provenance(library, keys[r.id]).lacks for r in records if not r.sealed and not r.problems}
    return ReleaseHoldings(
        release,
        records[-1].version,
        records,
        _units(manifests, raws, set(sealed)),
        stored,
        manifests,
        raws,
        sealed,
        parts,
    )


def _provenance(library: Library, place: str) -> Provenance:
    """Read it from the record itself: it is in no catalog. Of one that cannot be read, nothing is known."""
    key = RecordKey.parse(place)
    if key is None:
        return Provenance()
    try:
        return Provenance.model_validate_json(load_record(library.store, key)[1])
    except (IntegrityError, NotFoundError, ValidationError):
        return Provenance()


def _key(row: ManifestRow) -> ListedImage:
    return ListedImage(row.path, row.arch, row.uuid, row.kind, row.cache_uuid)


def _units(manifests: dict[int, set[ListedImage]], raws: dict[int, list[CacheFileRow]], sealed: set[int]) -> list[Unit]:
    # Images of a cache without UUID (before 10.9) cannot be told from files, and need not be: both lie on disk.
    found: dict[tuple[UUID | None, str], dict[int, set[ListedImage]]] = {}
    for record, keys in manifests.items():
        for key in keys:
            place = (key.cache_uuid, "" if key.cache_uuid else key.arch)
            found.setdefault(place, {}).setdefault(record, set()).add(key)
    for record, rows in raws.items():
        for row in rows:
            if cache := row.cache_uuid:
                found.setdefault((cache, ""), {}).setdefault(record, set())
    units = []
    for (cache, arch), by_record in found.items():
        good = {r: keys for r, keys in by_record.items() if r in sealed}
        # What a sealed harvest says is the measure; an unsealed one may have seen half of it.
        keys = set().union(*(good or by_record).values())
        rows = [row for r in by_record for row in raws[r] if row.cache_uuid == cache] if cache else []
        unit = Unit(
            _family(rows, keys) if cache else FILES,
            canonical_arch(rows[0].arch) if rows else arch or arch_of_images(Counter(key.arch for key in keys)),
            cache,
            bool(good),
            set(by_record),
            keys,
        )
        for row in rows:
            raw = RawFile(row.name, row.path, row.sha256, row.size)
            if row.partial:
                unit.heads += [raw] if raw not in unit.heads else []
                continue
            contents = unit.raw.setdefault(raw.name, [])
            if raw.sha256 not in {c.sha256 for c in contents}:
                contents.append(raw)
        units.append(unit)
    return sorted(units, key=lambda u: (u.family == FILES, u.family, u.arch, str(u.cache_uuid)))


def _family(rows: list[CacheFileRow], keys: Iterable[ListedImage]) -> str:
    """Return a cache's family: by where its files lay in a system, else by where its images are installed."""
    if rows and rows[0].path.startswith(("/System/", "/private/")):
        return family_of_path(rows[0].path)
    families = {family_of_path(key.path) for key in keys}
    return families.pop() if len(families) == 1 else SYSTEM
