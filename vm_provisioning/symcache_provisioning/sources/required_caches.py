"""The shared caches that every harvest of a release must have."""

from __future__ import annotations

from collections.abc import Iterable

from symcache.model import Release
from symcache_provisioning.sources.entries import RemoteCache

__all__ = ["lacking_caches"]


def lacking_caches(release: Release, caches: Iterable[RemoteCache], advice: str) -> list[str]:
    """Return a sentence, ending in `advice`, for each family of caches that `release` must have and that is missing."""
    from symcache.verify import lacking_families  # noqa: PLC0415 (all of verify takes its time to import)

    return [
        f"no {family} shared cache was found, and no harvest of {release} is whole without: {advice}"
        for family in lacking_families(release, [c.path for c in caches])
    ]
