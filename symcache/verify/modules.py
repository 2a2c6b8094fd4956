"""Which modules of crash dumps, reports or lists can be served, and out of which release."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from symcache.errors import DumpError
from symcache.library import Library
from symcache.model import Kind, uuid_text
from symcache.store import blob_key
from symcache.verify.crash_reports import CrashReport, ReportModule, read_report, wanted
from symcache.verify.findings import Finding, FindingCode, Level, VerifyReport

__all__ = ["Holder", "Holding", "library_holder", "read_reports", "verify_modules"]

_SHOWN_DUMPS = 3


class Holding(NamedTuple):
    """One content that can be served."""

    build: str
    cache_uuid: UUID | None
    kind: Kind


Holder = Callable[[Sequence[UUID]], dict[UUID, list[Holding]]]
"""Says what can be served under each of many UUIDs; those that cannot are left out."""


def library_holder(library: Library) -> Holder:
    """Return the holder that a library is. A content whose blob is gone cannot be served."""

    def holder(uuids: Sequence[UUID]) -> dict[UUID, list[Holding]]:
        there: dict[str, bool] = {}
        found: dict[UUID, list[Holding]] = {}
        for uuid, occurrences in library.holdings(uuids).items():
            for o in occurrences:
                if o.sha256 not in there:
                    there[o.sha256] = library.store.stat(blob_key(o.sha256)) is not None
                if there[o.sha256]:
                    found.setdefault(uuid, []).append(Holding(o.build or "", o.cache_uuid, o.kind))
        return found

    return holder


def read_reports(paths: Iterable[Path]) -> tuple[list[CrashReport], list[Finding]]:
    """Read dumps and reports; one that cannot be read is a finding, the others go on. Raises OSError."""
    reports: list[CrashReport] = []
    findings: list[Finding] = []
    for path in paths:
        try:
            reports.append(read_report(path))
        except DumpError as error:
            findings.append(Finding(FindingCode.DUMP_UNREADABLE, str(error), path=str(path), step=error.hint))
    return reports, findings


def verify_modules(reports: Sequence[CrashReport], holder: Holder, builds: Iterable[str] = ()) -> VerifyReport:
    """Say of every module whether it can be served. `builds` are those that the holder has, for the hints."""
    report = VerifyReport(Level.BLOBS)
    held = {
        uuid: [h for h in holdings if h.kind is Kind.EXECUTABLE] for uuid, holdings in holder(wanted(reports)).items()
    }
    missing: dict[UUID, list[_Sighting]] = {}
    known = set(builds)
    for crash in reports:
        likely = crash.build or _likely_build(crash, held)
        for module in crash.modules:
            if module.uuid is None:
                report.notes.append(f"{crash.name}: {module.path}: has no UUID, so nobody can say which file it was")
                continue
            holdings = held.get(module.uuid, [])
            report.modules.append(_row(crash, module, holdings))
            if not holdings:
                missing.setdefault(module.uuid, []).append(_Sighting(crash, module, likely))
            elif crash.cache_uuid and not any(h.cache_uuid in {crash.cache_uuid, None} for h in holdings):
                report.notes.append(
                    f"{crash.name}: {module.path}: held only as other shared caches lay it out: names of functions will"
                    " be right, addresses of data will not"
                )
    report.add(_finding(uuid, sightings, known) for uuid, sightings in missing.items())
    return report


@dataclass(frozen=True, slots=True)
class _Sighting:
    report: CrashReport
    module: ReportModule
    likely: str


def _row(crash: CrashReport, module: ReportModule, holdings: Sequence[Holding]) -> dict[str, object]:
    return {
        "dump": crash.name,
        "uuid": uuid_text(module.uuid) if module.uuid else "",
        "path": module.path,
        "arch": module.arch,
        "served": bool(holdings),
        "builds": list(dict.fromkeys(h.build for h in holdings if h.build)),
        "exact": bool(crash.cache_uuid) and any(h.cache_uuid == crash.cache_uuid for h in holdings),
    }


def _likely_build(crash: CrashReport, held: dict[UUID, list[Holding]]) -> str:
    """Return the build that holds most of a dump's modules: its own, or the nearest that is here; or nothing."""
    counted = Counter(
        build
        for module in crash.modules
        if module.uuid
        for build in {h.build for h in held.get(module.uuid, ()) if h.build}
    )
    return counted.most_common(1)[0][0] if counted else ""


def _finding(uuid: UUID, sightings: Sequence[_Sighting], known: set[str]) -> Finding:
    first = sightings[0]
    names = list(dict.fromkeys(s.report.name for s in sightings))
    rest = len(names) - _SHOWN_DUMPS
    where = ", ".join(names[:_SHOWN_DUMPS]) + (f" and {rest} more" if rest > 0 else "")
    what = first.module.path or "a module"
    if first.module.path and not first.module.of_system:
        why, step = "it is no part of macOS", "`symcache add` it"
    elif first.report.build and first.report.build not in known:
        why, step = f"macOS {first.report.build} is not in the library", "harvest it"
    elif first.report.build:
        why, step = f"the library has {first.report.build}, but not this image", "harvest that again"
    elif first.likely:
        why = f"a release near {first.likely}, which has most of the other modules, probably holds it"
        step = "harvest that"
    else:
        why, step = "no module of this dump is known", "harvest the release that it was made on"
    return Finding(
        FindingCode.MODULE_MISSING,
        f"{what} ({uuid_text(uuid)}), in {where}: nobody has it; {why}",
        first.report.build,
        first.module.path,
        first.module.arch,
        uuid_text(uuid),
        uuid_text(first.report.cache_uuid) if first.report.cache_uuid else "",
        step=step,
    )
