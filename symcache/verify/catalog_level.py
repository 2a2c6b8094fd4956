"""Level catalog: the expected caches have sealed harvests, and the manifest's images have entries."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from symcache.catalog import Occurrence
from symcache.model import uuid_text
from symcache.verify.expectations import FILES, Expectations, Expected
from symcache.verify.findings import Finding, FindingCode, ReleaseSummary
from symcache.verify.holdings import ListedImage, ReleaseHoldings, Unit
from symcache.verify.musts import Had, Lack, hosts_with, musts_lacking

__all__ = ["check_images", "check_release", "summary_of"]


def summary_of(release: ReleaseHoldings) -> ReleaseSummary:
    """Return what was looked at, for the report."""
    return ReleaseSummary(
        release.build,
        release.version,
        sum(len(u.expected) for u in release.units),
        [
            {
                "family": u.family,
                "arch": u.arch,
                "uuid": uuid_text(u.cache_uuid) if u.cache_uuid else "",
                "images": len(u.expected),
                "sealed": u.sealed,
                "raw": bool(u.raw),
            }
            for u in release.units
        ],
        release.product,
    )


def check_release(release: ReleaseHoldings, expectations: Expectations) -> tuple[list[Finding], list[str]]:
    """Hold a release against what its version should have. Returns findings and notes."""
    findings: list[Finding] = []
    missing: list[Expected] = []
    notes: list[str] = []
    name = f"{release.product} {release.version} ({release.build})"
    lacks = _lacks(release, expectations)
    expected = expectations.of(release.product, release.version, release.build)
    if expected is None:
        findings.append(
            Finding(
                FindingCode.UNKNOWN_RELEASE,
                f"{name}: no table says which shared caches it has",
                release.build,
            )
        )
    for want in expected or ():
        if any(_matches(unit, want) for unit in release.units):
            continue
        what = f"{want.arch} images outside of caches" if want.family == FILES else f"{want.family} cache {want.arch}"
        if want.required:
            hosts = hosts_with(release.named, want.family, want.arch)
            lacked = any(lack.covers(want.family, want.arch) for _, lack in lacks)
            elsewhere = bool(hosts) and not lacked and bool(release.sealed)
            missing.append(want)
            text = f"{name}: nothing harvested of its {what}"
            step = f"harvest {hosts}" if hosts else ""
            findings.append(
                Finding(FindingCode.CACHE_MISSING, text, release.build, arch=want.arch, elsewhere=elsewhere, step=step)
            )
        else:
            notes.append(f"{name}: no {what}; this version may have it")
    findings += [
        Finding(
            FindingCode.CACHE_MISSING,
            f"{name}: {source}: is sealed without a {lack}, and no harvest of such a host is whole without",
            release.build,
            arch=lack.arch,
            step="harvest it again; if that Mac is no more, accept it with a waiver",
        )
        for source, lack in lacks
        if not any(lack.covers(want.family, want.arch) for want in missing)
    ]
    for unit in release.units:
        cache = uuid_text(unit.cache_uuid) if unit.cache_uuid else ""
        if not unit.expected:
            text = f"{name}: {unit.title}: its files were kept, but no image of it is listed"
            findings.append(
                Finding(FindingCode.EMPTY_CACHE, text, release.build, arch=unit.arch, cache_uuid=cache),
            )
        elif not unit.sealed:
            text = f"{name}: {unit.title}: no harvest of it is sealed"
            step, reasons = "", {release.parts.get(record, "") for record in unit.records}
            if all(reasons):
                text += f", nor can be: {'; '.join(sorted(reasons))}"
                step = "harvest a system of this build itself"
            findings.append(
                Finding(FindingCode.NOT_SEALED, text, release.build, arch=unit.arch, cache_uuid=cache, step=step)
            )
    findings += _source_problems(release)
    return findings, notes + _twins(release, name)


def _lacks(release: ReleaseHoldings, expectations: Expectations) -> list[tuple[str, Lack]]:
    """Return what sealed harvests lack of what each must have, by source: what none of that source has."""
    by_source: dict[str, list[list[Lack]]] = {}
    named = release.named
    for record in release.records:
        if origin := release.sealed.get(record.id):
            lacks = musts_lacking(named, _had(release, record.id, origin.host), origin.archs)
            by_source.setdefault(record.source, []).append(lacks)
    return [
        (source, lack)
        for source, harvests in by_source.items()
        for lack in harvests[0]
        if all(lack in lacks for lacks in harvests) and not expectations.leaves_out(named, lack.family, lack.arch)
    ]


def _had(release: ReleaseHoldings, record: int, host: str) -> Had:
    """Return what one harvest has."""
    caches = [(u.family, u.arch) for u in release.units if u.family != FILES and record in u.records]
    files = [image for image in release.manifests[record] if image.cache_uuid is None]
    grafted = (image.path for image in files if "/Cryptexes/" in image.path)
    paths = [*(raw.path for raw in release.raws[record]), *grafted]
    return Had(caches, frozenset(image.arch for image in files), host, paths)


def _twins(release: ReleaseHoldings, name: str) -> list[str]:
    """Note caches that a background update replaced without a new build number: both belong to the release."""
    caches: dict[str, list[str]] = {}
    for unit in release.units:
        if unit.cache_uuid:
            caches.setdefault(unit.title, []).append(uuid_text(unit.cache_uuid))
    return [f"{name}: more than one {title}: {', '.join(uuids)}" for title, uuids in caches.items() if len(uuids) > 1]


def _matches(unit: Unit, want: Expected) -> bool:
    return unit.family == want.family and unit.arch == want.arch


def _source_problems(release: ReleaseHoldings) -> Iterator[Finding]:
    """Yield what unsealed harvests could not read, unless a sealed one has read it since."""
    for record in release.records:
        if record.sealed:
            continue
        units = [u for u in release.units if record.id in u.records]
        # A cache is known by its UUID, so another harvest of it settles all. Of files, it must have seen them too.
        if units and all(u.sealed for u in units) and _files_seen(release, record.id, units):
            continue
        lines = record.problems
        if not lines and not units:
            lines = ("nothing was found there",)
        for line in dict.fromkeys(lines):
            yield Finding(FindingCode.SOURCE_PROBLEM, f"{record.source}: {line}", release.build)


def _files_seen(release: ReleaseHoldings, record: int, units: list[Unit]) -> bool:
    """Return whether what this record listed outside of caches is in a sealed harvest's manifest."""
    return all(release.listed_by(record, unit) <= unit.expected for unit in units if unit.family == FILES)


_PLACES: tuple[tuple[FindingCode, Callable[[ListedImage], tuple[object, ...]]], ...] = (
    (FindingCode.WRONG_UUID, lambda k: (k.path, k.arch, k.kind, k.cache_uuid)),
    (FindingCode.WRONG_ARCH, lambda k: (k.path, k.uuid, k.kind, k.cache_uuid)),
    (FindingCode.WRONG_KIND, lambda k: (k.path, k.arch, k.uuid, k.cache_uuid)),
)
"""By what an image that is not the expected one is known to lie in its place."""


def check_images(release: ReleaseHoldings) -> tuple[list[Finding], list[Occurrence]]:
    """Hold the manifest against what was stored. Returns findings, and the contents of the images that are listed."""
    expected = {key: unit for unit in release.units for key in unit.expected}
    missing = sorted((k for k in expected if k not in release.stored), key=str)
    extras = sorted((k for k in release.stored if k not in release.listed), key=str)
    findings = []
    # An image that lies where another was expected is one finding, not a missing and an unexpected one.
    for code, place in _PLACES:
        there: dict[tuple[object, ...], list[ListedImage]] = {}
        for key in extras:
            there.setdefault(place(key), []).append(key)
        left = []
        for key in missing:
            rivals = there.get(place(key))
            if not rivals:
                left.append(key)
                continue
            rival = rivals.pop(0)
            extras.remove(rival)
            findings.append(
                _finding(release.build, code, key, f"{_describe(rival)} is stored where {_describe(key)} was")
            )
        missing = left
    for key in missing:
        findings.append(
            _finding(release.build, FindingCode.MISSING, key, f"{_describe(key)} is expected, but not stored")
        )
    for key in extras:
        text = f"{_describe(key)} is stored, but no source listed it"
        findings.append(_finding(release.build, FindingCode.UNEXPECTED, key, text))
    listed = [o for key, stored in release.stored.items() if key in release.listed for o in stored]
    return findings, listed


def _describe(key: ListedImage) -> str:
    cache = f" of cache {uuid_text(key.cache_uuid)}" if key.cache_uuid else ""
    return f"{key.arch} {key.kind} {uuid_text(key.uuid) if key.uuid else 'without UUID'}{cache}"


def _finding(build: str, code: FindingCode, key: ListedImage, text: str) -> Finding:
    return Finding.of_image(code, text, build, key.path, key.arch, key.uuid, key.cache_uuid)
