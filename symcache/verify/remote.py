"""The same checks of a running server, over HTTP alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote
from uuid import UUID

from pydantic import ValidationError

from symcache.client import StoredImage, SymbolClient, get_document, split_tokens
from symcache.client.wire import Coverage, Missing, Releases, Response
from symcache.errors import NotFoundError, RemoteError
from symcache.library import Library, several_releases
from symcache.model import Kind, ReleaseId, canonical_product
from symcache.verify.expectations import Expectations
from symcache.verify.findings import Finding, FindingCode, Level, ReleaseSummary, VerifyReport
from symcache.verify.holdings import ListedImage, gather
from symcache.verify.missing import MissedRequest
from symcache.verify.modules import Holder, Holding

__all__ = ["remote_builds", "remote_holder", "remote_misses", "verify_against_library", "verify_coverage"]

_AT_ONCE = 5_000
_Model = TypeVar("_Model", bound=Response)


def remote_holder(urls: Sequence[str], cache_dir: Path) -> Holder:
    """Return the holder that several servers are together; each is asked for the binaries that those before it lack."""

    def holder(uuids: Sequence[UUID]) -> dict[UUID, list[Holding]]:
        found: dict[UUID, list[Holding]] = {}
        for url in urls:
            left = [u for u in uuids if not any(h.kind is Kind.EXECUTABLE for h in found.get(u, ()))]
            with SymbolClient([url], cache_dir) as client:
                for uuid, contents in _holdings(client, left):
                    held = [Holding(c.build or "", c.cache_uuid, c.kind) for c in contents]
                    found.setdefault(uuid, []).extend(held)
        return found

    return holder


def verify_against_library(
    library: Library, names: Sequence[str], urls: Sequence[str], cache_dir: Path
) -> VerifyReport:
    """Ask servers for every image that the library's manifests list: what production should have, and has.

    Raises RemoteError when a server cannot be reached, and UsageError for a build of several systems.
    """
    report = VerifyReport(Level.CATALOG)
    wanted = list(dict.fromkeys(names or [str(r.id) for r in library.releases()]))
    if not wanted:
        report.add([Finding(FindingCode.EMPTY_LIBRARY, f"{library.store.location}: no release was ever harvested")])
    for name in wanted:
        build = name.rpartition(":")[2]
        try:
            release = gather(library, library.release_id(name))
        except NotFoundError:
            release = None
        if release is None:
            report.add(
                [Finding(FindingCode.NO_HARVEST, f"{build}: nothing of it in the library to compare with", build)]
            )
            continue
        expected = sorted({k for unit in release.units for k in unit.expected if k.uuid}, key=str)
        report.releases.append(ReleaseSummary(build, release.version, len(expected), product=release.product))
        held: dict[UUID | None, list[StoredImage]] = {}
        for url in urls:
            with SymbolClient([url], cache_dir) as client:
                for uuid, contents in _holdings(client, list(filter(None, {k.uuid for k in expected}))):
                    held.setdefault(uuid, []).extend(contents)
        compared = ((key, held.get(key.uuid, [])) for key in expected)
        report.add((_compare(build, key, there) for key, there in compared if _lacks(key, there)), release.product)
    return report


def _lacks(key: ListedImage, contents: Sequence[StoredImage]) -> bool:
    return not any(c.kind.value == key.kind and c.cache_uuid == key.cache_uuid for c in contents)


def _compare(build: str, key: ListedImage, contents: Sequence[StoredImage]) -> Finding:
    text = "no server has it"
    if any(c.kind.value == key.kind for c in contents):
        text = "servers have it only as other shared caches lay it out"
    return Finding.of_image(FindingCode.MISSING, text, build, key.path, key.arch, key.uuid, key.cache_uuid)


def verify_coverage(urls: Sequence[str], names: Sequence[str], expectations: Expectations) -> VerifyReport:
    """Ask servers whether they have releases complete; without any, all that they list.

    Raises RemoteError, and UsageError for a build of several systems.
    """
    report = VerifyReport(Level.CATALOG)
    archs = expectations.archs
    for url in urls:
        listed = {ReleaseId(canonical_product(r.product), r.build): r for r in _get(url, "releases", Releases).releases}
        server = split_tokens([url])[0][0]
        wanted: dict[ReleaseId, None] = {} if names else dict.fromkeys(listed)
        for name in names or map(str, expectations.expected_releases):
            meant = [r for r in listed if r.is_meant_by(name)]
            if names and len(meant) > 1:
                raise several_releases(name, meant)
            if not meant:
                text = f"{server}: has nothing of {name}"
                report.add([Finding(FindingCode.NO_HARVEST, text, name.rpartition(":")[2])])
            wanted |= dict.fromkeys(meant)
        if not (listed or names or expectations.expected_releases):
            report.add([Finding(FindingCode.EMPTY_LIBRARY, f"{server}: has no release at all")])
        for release in wanted:
            product, build = release
            # Earlier servers know builds alone, and list each once.
            named = str(release) if sum(r.build == build for r in listed) > 1 else build
            coverage = _get(url, f"coverage/{quote(named, safe='')}", Coverage)
            report.releases.append(ReleaseSummary(build, listed[release].version, coverage.images, product=product))
            for found in coverage.findings:
                if found.code not in set(FindingCode):
                    raise RemoteError(f"{server}: reports {found.code!r:.60}, unknown here", hint="update symcache")
                code = FindingCode(found.code)
                if archs and code is FindingCode.CACHE_MISSING and found.arch and found.arch not in archs:
                    continue
                finding = Finding(
                    code,
                    f"{server}: {found.text}",
                    build,
                    found.path,
                    found.arch,
                    found.uuid,
                    found.cache_uuid,
                    elsewhere=bool(found.elsewhere),
                    # A server that tells this says what to do, too.
                    step="" if found.elsewhere is None else None,
                )
                report.add([finding], product)
    return report


def remote_builds(urls: Sequence[str]) -> list[str]:
    """Return the builds that any of the servers lists. Raises RemoteError."""
    return list(dict.fromkeys(r.build for url in urls for r in _get(url, "releases", Releases).releases))


def remote_misses(urls: Sequence[str]) -> list[MissedRequest]:
    """Return what clients requested of the servers in vain. Raises RemoteError."""
    return [
        MissedRequest(m.uuid, m.kind, m.times, m.name, m.build or "", m.cache_uuid, m.first_asked, m.last_asked)
        for url in urls
        for m in _get(url, "missing", Missing).missing
    ]


def _holdings(client: SymbolClient, uuids: Sequence[UUID]) -> Iterator[tuple[UUID, list[StoredImage]]]:
    for start in range(0, len(uuids), _AT_ONCE):
        # A check: what it requests is no need, and would stand first in everybody's list of what to harvest.
        yield from client.look_up(uuids[start : start + _AT_ONCE], note_missing=False).images.items()


def _get(url: str, what: str, model: type[_Model]) -> _Model:
    """GET one document of a server's API. Raises RemoteError."""
    try:
        return model.model_validate_json(get_document(url, what))
    except ValidationError as error:
        server = split_tokens([url])[0][0]
        raise RemoteError(f"{server}: its answer to /api/v1/{what} is not what the API promises") from error
