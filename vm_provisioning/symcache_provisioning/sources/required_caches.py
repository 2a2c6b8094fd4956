"""Checks what every harvest of a release must have: its caches, its cryptexes, and folders that can be read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from symcache.dyld import canonical_arch
from symcache.model import ManifestEntry, Release
from symcache.text import excerpt
from symcache_provisioning.remarks import ANOTHER_MAC, Problems
from symcache_provisioning.sources.entries import RemoteCache
from symcache_provisioning.sources.source import Source

__all__ = ["closed_folders", "lacking_caches"]

_BUNDLE = re.compile(r"\.(app|appex|bundle|framework|kext|plugin|xpc)(/|\Z)")
"""Bundles of code: everybody runs or loads them, so no Mac has them closed."""


def lacking_caches(
    source: Source,
    release: Release,
    caches: Sequence[RemoteCache],
    *,
    taken: Sequence[RemoteCache] | None = None,
    files: Iterable[str] = ("x86_64",),
    host: str = "",
    archs: Iterable[str] = (),
    families: Sequence[str] = (),
) -> Problems:
    """Return a problem for each thing that a harvest must have and has not, which says what to do.

    `caches` are those that the source has, `taken` those that are harvested (all), `files` the architectures of what
    lies outside of them, and `host` is the model of Mac. Only what is of `archs` and `families` must be there, or all,
    where those are empty. Raises SessionError.
    """
    from symcache.verify import (  # noqa: PLC0415 (it takes its time)
        SYSTEM,
        Had,
        Lack,
        family_of_path,
        has_cryptexes,
        lost_cryptexes,
        musts_lacking,
    )

    cryptexes = [c.path for c in source.discovery.cryptexes]
    wanted = [canonical_arch(a) for a in archs]

    def lacks(present: Sequence[RemoteCache]) -> list[Lack]:
        had = Had([(family_of_path(c.path), c.arch) for c in present], frozenset(files), host, cryptexes)
        return musts_lacking(release, had, wanted, families)

    problems = Problems()
    lost = lost_cryptexes(release, source.discovery.dangling)
    # If there are others of the system, or no cryptexes yet, the lacking ones were lost from among them.
    some = any(family_of_path(c.path) == SYSTEM for c in caches)
    lacking = lacks(caches)
    advice = source.cache_advice if lost or (has_cryptexes(release) and not some) else ANOTHER_MAC
    if not lacking and taken is not None:
        lacking = lacks(taken)
        advice = f"--arch leaves out {', '.join(excerpt(c.path) for c in caches if c not in taken)}"
    if lacking and lost:
        advice = f"nothing lies behind {', '.join(map(excerpt, lost))}: {advice}"
    for lack in lacking:
        problems.add(f"no {lack} was found, and no harvest of {release} is whole without", advice)
    for path in () if lacking else lost:
        problems.add(
            f"{excerpt(path)}: is listed, and leads to no cryptex",
            "start that system and harvest it over SSH, or attach the disk image of that cryptex and harvest it, too",
        )
    return problems


def closed_folders(source: Source, manifest: Iterable[ManifestEntry]) -> Problems:
    """Return a problem for each folder that seemed to be closed by design, and in which code of the release lies."""
    paths = [m.path for m in manifest] if source.closed else []
    problems = Problems()
    for folder in source.closed:
        if any(path.startswith(f"{folder}/") for path in paths):
            what = "images of this release lie in it"
        elif _BUNDLE.search(folder):
            what = "is of a bundle of code"
        else:
            continue
        problems.add(f"{excerpt(folder)}: is closed to this user, and {what}", "log in as a user who may read it")
    return problems
