"""Completeness at a glance: which shared caches a release lacks, from the catalog's counts alone."""

from __future__ import annotations

from collections.abc import Iterable

from symcache.catalog import GlancedRelease, GlancedUnit, ReleaseRow
from symcache.dyld import canonical_arch
from symcache.verify.expectations import FILES, SYSTEM, Expectations, family_of_path

__all__ = ["archs_at_a_glance", "lacking_at_a_glance"]


def lacking_at_a_glance(row: ReleaseRow, release: GlancedRelease, expectations: Expectations) -> list[str] | None:
    """Return what a release should have and no sealed harvest lists: `system cache x86_64h`, `arm64e files`.

    None where no table knows the release. `verify` looks into the harvests, too: whatever is lacking here is so there,
    but not the other way round.
    """
    expected = expectations.of(row.product, row.version, row.build)
    if expected is None:
        return None
    there = set(_units(unit for unit in release.units.values() if unit.sealed))
    return [
        f"{want.arch} files" if want.family == FILES else f"{want.family} cache {want.arch}"
        for want in expected
        if want.required and (want.family, want.arch) not in there
    ]


def archs_at_a_glance(release: GlancedRelease) -> list[str]:
    """Return the architectures of the system's shared caches of a release; without any, those of its files."""
    units = set(_units(release.units.values()))
    return sorted({arch for family, arch in units if family == SYSTEM} or {arch for _, arch in units})


def _units(units: Iterable[GlancedUnit]) -> Iterable[tuple[str, str]]:
    """Return family and architecture of caches and files."""
    for unit in units:
        if unit.in_cache:
            counted = (
                "x86_64h" if "x86_64h" in unit.images else max(unit.images, key=unit.images.__getitem__, default="")
            )
            yield family_of_path(unit.path), canonical_arch(unit.arch or counted)
        else:
            yield from ((FILES, canonical_arch(arch)) for arch in unit.images)
