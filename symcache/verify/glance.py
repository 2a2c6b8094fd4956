"""Completeness at a glance: which shared caches a release lacks, from the catalog's counts alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from symcache.catalog import GlancedRelease, GlancedUnit, ReleaseRow
from symcache.dyld import arch_of_images, canonical_arch
from symcache.verify.expectations import FILES, SYSTEM, Expectations, family_of_path, unit_title

__all__ = ["archs_at_a_glance", "lacking_at_a_glance"]


def lacking_at_a_glance(row: ReleaseRow, release: GlancedRelease, expectations: Expectations) -> list[str] | None:
    """Return what a release should have and no sealed harvest lists: `system cache x86_64h`, `arm64e files`.

    None where no table knows the release. `verify` looks into the harvests, too: whatever is lacking here is so there,
    but not the other way round.
    """
    expected = expectations.of(row.product, row.version, row.build)
    if expected is None:
        return None
    there = set(_units({cache: unit for cache, unit in release.units.items() if unit.sealed}))
    return [
        unit_title(want.family, want.arch)
        for want in expected
        if want.required and (want.family, want.arch) not in there
    ]


def archs_at_a_glance(release: GlancedRelease) -> list[str]:
    """Return the architectures of the system's shared caches of a release; without any, those of its files."""
    units = set(_units(release.units))
    return sorted({arch for family, arch in units if family == SYSTEM} or {arch for _, arch in units})


def _units(units: Mapping[bytes, GlancedUnit]) -> Iterator[tuple[str, str]]:
    """Yield family and architecture of caches and files."""
    for cache, unit in units.items():
        if cache:
            yield family_of_path(unit.path), canonical_arch(unit.arch or arch_of_images(unit.images))
        else:
            yield from ((FILES, canonical_arch(arch)) for arch in unit.images)
