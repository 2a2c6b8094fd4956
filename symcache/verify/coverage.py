"""Which shared caches of a release there are, cell by cell: what a table of releases shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from symcache.library import Library
from symcache.model import ReleaseId, uuid_text
from symcache.verify.catalog_level import check_images, check_release
from symcache.verify.expectations import FILES, Expectations
from symcache.verify.findings import Finding, Level, VerifyReport
from symcache.verify.holdings import ReleaseHoldings, Unit, gather
from symcache.verify.musts import hosts_with

__all__ = ["CoverageCell", "CoverageState", "ReleaseCoverage", "release_coverage"]


class CoverageState(StrEnum):
    """What there is of one shared cache, or of the images of an architecture outside of caches."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    """Some of it was harvested, but no harvest of it is sealed, or something of it is not what it should be."""
    MISSING = "missing"
    """It should be there, and nothing of it was harvested."""
    UNWANTED = "not wanted"
    """The release has it, and the site's table says that nobody here wants it."""


_WORST = [CoverageState.MISSING, CoverageState.PARTIAL, CoverageState.COMPLETE, CoverageState.UNWANTED]


@dataclass(frozen=True, slots=True)
class CoverageCell:
    """One cache family and architecture of a release."""

    family: str
    """`files`: images outside of caches."""
    arch: str
    state: CoverageState
    images: int
    """That it lists."""
    caches: tuple[str, ...] = ()
    """UUIDs of its shared caches: mostly one."""
    raw: bool = False
    """The raw files are kept."""
    findings: int = 0
    step: str = ""
    """What would close the gap: a machine to harvest, or a command."""


@dataclass(frozen=True)
class ReleaseCoverage:
    """One release as level `catalog` of `verify` sees it."""

    build: str
    verdict: str
    """One phrase, as `VerifyReport.verdict`."""
    state: CoverageState
    cells: tuple[CoverageCell, ...]
    findings: tuple[Finding, ...]
    """The first of them."""
    findings_total: int
    notes: tuple[str, ...]


def release_coverage(
    library: Library, of: ReleaseId, expectations: Expectations, *, most_findings: int = 200
) -> ReleaseCoverage | None:
    """Return what there is of a release, as `verify` at level catalog; None where nothing of it was harvested."""
    release = gather(library, of)
    if release is None:
        return None
    report = VerifyReport(Level.CATALOG)
    findings, notes = check_release(release, expectations)
    report.add(findings, of.product)
    report.add(check_images(release)[0], of.product)
    cells = _cells(release, expectations, report.findings)
    wanted = [c for c in cells if c.state is not CoverageState.UNWANTED]
    state = min((c.state for c in wanted), key=_WORST.index, default=CoverageState.PARTIAL)
    if state is CoverageState.MISSING and any(c.images for c in wanted):
        state = CoverageState.PARTIAL
    if report.findings and state is CoverageState.COMPLETE:
        state = CoverageState.PARTIAL
    return ReleaseCoverage(
        of.build,
        report.verdict,
        state,
        cells,
        tuple(report.findings[:most_findings]),
        len(report.findings),
        tuple(notes),
    )


@dataclass
class _Cell:
    """A cell as it is put together."""

    units: list[Unit] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def _cells(
    release: ReleaseHoldings, expectations: Expectations, findings: Iterable[Finding]
) -> tuple[CoverageCell, ...]:
    there: dict[tuple[str, str], _Cell] = {}
    by_cache: dict[str, _Cell] = {}
    files: dict[str, _Cell] = {}
    for unit in release.units:
        cell = there.setdefault((unit.family, unit.arch), _Cell())
        cell.units.append(unit)
        if unit.cache_uuid:
            by_cache[uuid_text(unit.cache_uuid)] = cell
        else:
            files[unit.arch] = cell
    for finding in findings:
        # What names neither a cache nor a path is of the whole release.
        found = by_cache.get(finding.cache_uuid) or (files.get(finding.arch) if finding.path else None)
        if found:
            found.findings.append(finding)
    cells = [_cell_of(family, arch, cell) for (family, arch), cell in there.items()]
    named = release.named
    expected = expectations.of(named.product, named.version, named.build) or []
    for want in expected:
        if want.required and (want.family, want.arch) not in there:
            hosts = hosts_with(named, want.family, want.arch)
            step = f"harvest {hosts}" if hosts else "harvest a host that has it"
            cells.append(CoverageCell(want.family, want.arch, CoverageState.MISSING, 0, step=step))
    known = {(c.family, c.arch) for c in cells} | {(want.family, want.arch) for want in expected}
    for want in Expectations().of(named.product, named.version, named.build) or []:
        if want.required and (want.family, want.arch) not in known:
            cells.append(CoverageCell(want.family, want.arch, CoverageState.UNWANTED, 0))
    return tuple(sorted(cells, key=lambda c: (c.family == FILES, c.family, c.arch)))


def _cell_of(family: str, arch: str, cell: _Cell) -> CoverageCell:
    units, findings = cell.units, cell.findings
    whole = all(u.sealed for u in units) and not findings
    return CoverageCell(
        family,
        arch,
        CoverageState.COMPLETE if whole else CoverageState.PARTIAL,
        sum(len(u.expected) for u in units),
        tuple(uuid_text(u.cache_uuid) for u in units if u.cache_uuid),
        any(u.raw for u in units),
        len(findings),
        _step(findings),
    )


def _step(findings: Sequence[Finding]) -> str:
    """Return what the first finding says is to be done: its message ends with that."""
    return findings[0].message.rpartition(": ")[2] if findings else ""
