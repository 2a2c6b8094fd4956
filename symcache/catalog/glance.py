"""Asking the catalog what a list of all releases shows, in a few queries however many releases there are."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from symcache.catalog.file import CatalogFile
from symcache.catalog.ranking import TRUST_RANK
from symcache.catalog.schema import release_order
from symcache.model import ReleaseId, Trust

__all__ = ["Glance", "GlancedRelease", "GlancedUnit"]

_HARVEST = TRUST_RANK[Trust.HARVEST]
_BIG_SUR = release_order("11", "")


@dataclass
class GlancedUnit:
    """One shared cache of a release, or its images outside of caches."""

    images: Counter[str] = field(default_factory=Counter)
    """How many are listed, by architecture: a cache for x86_64h has some for x86_64, too."""
    arch: str = ""
    """That its raw files are for; empty where none are kept."""
    path: str = ""
    """Where its main raw file lay; likewise."""
    sealed: bool = False
    """A sealed harvest lists it."""


@dataclass
class GlancedRelease:
    """One release, as its live records tell."""

    harvested: str = ""
    """When the last record of it was finished: ISO 8601, by the clock of the machine that wrote it."""
    content_bytes: int = 0
    """Of the contents that its records name, of images and raw caches, before compression."""
    units: dict[bytes, GlancedUnit] = field(default_factory=dict)
    """What its harvests list, by the UUID of the cache, which is empty for files."""


class Glance(CatalogFile):
    """All releases at a glance."""

    def glance(self) -> dict[ReleaseId, GlancedRelease]:
        """Return what there is of each release.

        What raw files are kept of tells which caches a harvest has. Where none are kept, or before macOS 11, when much
        lay outside of caches, it is looked for in what the harvest lists, which takes ten times as long.
        """
        with self.one_moment():  # as in `Releases.releases`
            return self._glance()

    def _glance(self) -> dict[ReleaseId, GlancedRelease]:
        found: dict[ReleaseId, GlancedRelease] = defaultdict(GlancedRelease)
        records: dict[ReleaseId, list[int]] = defaultdict(list)
        harvests: dict[int, GlancedRelease] = {}
        sealed, early = set[int](), set[int]()
        for number, system, build, whole, finished, trust, order in self._all(
            "SELECT id, system, build, sealed, finished, trust, release_order FROM records"
            " WHERE live AND type = 'harvest' AND build IS NOT NULL"
        ):
            identity = ReleaseId(system, build)
            release = found[identity]
            release.harvested = max(release.harvested, finished)
            records[identity].append(number)
            if trust == _HARVEST:
                harvests[number] = release
                sealed |= {number} if whole else set()
                early |= {number} if order < _BIG_SUR else set()
        told = set[int]()
        for number, cache, arch, path in self._all(
            "SELECT record, cache_uuid, arch, min(path) FROM cache_files WHERE cache_uuid != x''"
            " GROUP BY record, cache_uuid, arch"
        ):
            if number in harvests:
                unit = harvests[number].units.setdefault(cache, GlancedUnit())
                unit.arch, unit.path, unit.sealed = arch, path, unit.sealed or number in sealed
                told.add(number)
        for number, cache, arch, count in self._all(
            "SELECT m.record, l.cache_uuid, l.arch, m.listed FROM (SELECT record, layout, count(*) AS listed"
            " FROM manifest_entries WHERE record IN (SELECT value FROM json_each(?)) GROUP BY record, layout) m"
            " JOIN layouts l ON l.id = m.layout",
            [json.dumps(sorted(harvests.keys() - told | early))],
        ):
            unit = harvests[number].units.setdefault(cache, GlancedUnit())
            unit.images[arch] = max(unit.images[arch], count)
            unit.sealed |= number in sealed
        sizes = self._sizes([numbers[0] for numbers in records.values() if len(numbers) == 1])
        for identity, numbers in records.items():
            found[identity].content_bytes = sizes[numbers[0]] if len(numbers) == 1 else self._size(numbers)
        return dict(found)

    def _sizes(self, records: Sequence[int]) -> Counter[int]:
        """Return the bytes of what each of some records names, each path counted."""
        sizes: Counter[int] = Counter()
        for table in ("objects", "cache_files"):
            mine = "record IN (SELECT value FROM json_each(?))"
            sql = f"SELECT record, sum(size) FROM {table} WHERE {mine} GROUP BY record"  # noqa: S608
            sizes.update(dict(self._all(sql, [json.dumps(records)])))
        return sizes

    def _size(self, records: Sequence[int]) -> int:
        """Return the bytes of the different contents that some records name together."""
        mine = "record IN (SELECT value FROM json_each(?))"
        sql = (
            f"SELECT coalesce(sum(size), 0) FROM (SELECT sha256, size FROM objects WHERE {mine}"  # noqa: S608
            f" UNION SELECT sha256, size FROM cache_files WHERE {mine})"
        )
        return int(self._one(sql, [json.dumps(records)] * 2)[0])
