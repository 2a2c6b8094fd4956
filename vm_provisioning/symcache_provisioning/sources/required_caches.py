"""What every harvest of a release must have: its caches, its cryptexes, and folders that nobody has closed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from symcache.dyld import canonical_arch
from symcache.model import ManifestEntry, Release
from symcache.text import excerpt
from symcache_provisioning.sources.entries import RemoteCache
from symcache_provisioning.sources.source import Source

__all__ = ["closed_folders", "lacking_caches"]


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
) -> list[str]:
    """Return a sentence for each thing that a harvest must have and has not, which says what to do.

    `caches` are those that the source has, `taken` those that are harvested (all), `files` the architectures of what
    lies outside of them, and `host` is the model of Mac. Only what is of `archs` and `families` must be there, or all,
    where those are empty. Raises SessionError.
    """
    from symcache.verify import Had, family_of_path, lost_cryptexes, musts_lacking  # noqa: PLC0415 (it takes its time)

    cryptexes = [c.path for c in source.discovery.cryptexes]
    wanted = [canonical_arch(a) for a in archs]

    def sentences(present: Sequence[RemoteCache], advice: str) -> list[str]:
        had = Had([(family_of_path(c.path), c.arch) for c in present], frozenset(files), host, cryptexes)
        lacks = musts_lacking(release, had, wanted, families)
        return [f"no {lack} was found, and no harvest of {release} is whole without: {advice}" for lack in lacks]

    lacking = sentences(caches, source.cache_advice)
    if not lacking and taken is not None:
        left_out = ", ".join(excerpt(c.path) for c in caches if c not in taken)
        lacking = sentences(taken, f"--arch leaves out {left_out}")
    lost = lost_cryptexes(release, source.discovery.dangling)
    if lacking and lost:
        lacking[0] += f"; {', '.join(map(excerpt, lost))} lead nowhere"
        return lacking
    return lacking + [
        f"{excerpt(path)}: is listed, and leads to no cryptex: start that system and harvest it over SSH, or attach the"
        " disk image of that cryptex and harvest it, too"
        for path in lost
    ]


def closed_folders(source: Source, manifest: Iterable[ManifestEntry]) -> list[str]:
    """Return a sentence for each folder that seemed to be closed by design, and in which images of the release lie."""
    paths = [m.path for m in manifest] if source.closed else []
    return [
        f"{excerpt(folder)}: is closed to this user, and images of this release lie in it: log in as a user who may"
        " read it"
        for folder in source.closed
        if any(path.startswith(f"{folder}/") for path in paths)
    ]
