"""Decides what to do about a build: nothing, or which sources may bring what the library lacks of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from symcache.library import BuildLog, Library, utc
from symcache.model import MACOS, ReleaseId
from symcache.text import excerpt
from symcache.verify import Expectations, Finding, FindingCode, Had, Level, verify
from symcache_provisioning.builds.appledb import Firmware, PublishedBuild
from symcache_provisioning.builds.selection import file_name

__all__ = ["FIRMWARE", "Assessment", "Candidate", "Holding", "MachineBuild", "assess", "holdings_of"]

FIRMWARE = "firmware"
"""Name of the source that is a restore image; a machine of that name has no offer."""
_FIRST_WAIT, _LONGEST_WAIT = 20 * 3600.0, 14 * 86400.0
"""Seconds until a failed source is tried again: the next night, then twice as long each time."""
_INTEL_ONLY = {"x86_64h"}
"""Architectures that no Mac with Apple silicon and no restore image has, since 13."""


@dataclass(frozen=True, slots=True)
class MachineBuild:
    """A machine of the inventory, and what runs there."""

    name: str
    build: str = ""
    model: str = ""
    """Model identifier, if it was told."""
    error: str = ""
    """Why it did not say; empty if it did."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A source that may bring what is lacking."""

    source: str
    """Name of a machine, or `firmware`."""
    offer: str = ""
    firmware: Firmware | None = None

    def __str__(self) -> str:
        """Return what it is, for people."""
        if self.firmware is None:
            return f"the machine {self.source}"
        return f"its firmware ({self.firmware.size / 1e9:.1f} GB)"


@dataclass(frozen=True, slots=True)
class Holding:
    """What the library has of a build."""

    sealed_sources: frozenset[str] = frozenset()
    partial: bool = False
    """Something was harvested, and nothing is sealed."""
    removed: bool = False
    """It was taken back."""
    lacking: tuple[str, ...] = ()
    """Why it is not complete, one sentence each."""
    archs: frozenset[str] = frozenset()
    """Of caches that other hosts have; empty if anything else is wanting, too."""

    @property
    def complete(self) -> bool:
        """Whether nothing is wanting."""
        return bool(self.sealed_sources) and not self.lacking


@dataclass
class Assessment:
    """The state of a build, in a word and a sentence, and what may be done."""

    state: str
    """`complete`, `removed`, `running`, `wanted`, `waiting`, `given up`, `lacking`, `partial` or `no source`."""
    text: str
    candidates: list[Candidate] = field(default_factory=list)


def holdings_of(
    library: Library, builds: Sequence[str], expectations: Expectations, removed: frozenset[str]
) -> dict[str, Holding]:
    """Return what the library has of builds of macOS; `removed` are those that were taken back."""
    result, sealed = {}, dict[str, frozenset[str]]()
    for build in builds:
        rows = library.catalog.records_of(ReleaseId(MACOS, build))
        sources = frozenset(row.source for row in rows if row.sealed)
        if sources:
            sealed[build] = sources
        result[build] = Holding(partial=bool(rows), removed=not rows and build in removed)
    if not sealed:
        return result
    findings: dict[str, list[Finding]] = {}
    names = [str(ReleaseId(MACOS, build)) for build in sealed]
    for finding in verify(library, names, level=Level.CATALOG, expectations=expectations).findings:
        if finding.code is not FindingCode.UNKNOWN_RELEASE:  # nobody can say yet what such a version lacks
            findings.setdefault(finding.build, []).append(finding)
    for build, sources in sealed.items():
        wanting = findings.get(build, [])
        elsewhere = {f.arch for f in wanting} if all(f.elsewhere for f in wanting) else set[str]()
        lacking = tuple(f.with_step().message for f in wanting)
        result[build] = Holding(sources, lacking=lacking, archs=frozenset(elsewhere))
    return result


def assess(
    build: PublishedBuild,
    holding: Holding,
    log: BuildLog,
    machines: Sequence[MachineBuild],
    firmware: Firmware | None,
    *,
    reasons: Sequence[str] = (),
    attempts: int = 5,
    forced: bool = False,
) -> Assessment:
    """Say what is to be done. `reasons` tell why there is no firmware; `forced` disregards removals and failures."""
    if holding.complete:
        return Assessment("complete", "the library has it")
    if holding.removed and not forced:
        return Assessment("removed", "it was taken back: name it to have it again")
    if running := log.running:
        return Assessment("running", f"{excerpt(running.runner)} harvests it from {excerpt(running.source)}")
    ready, waiting, given_up = list[Candidate](), list[str](), list[str]()
    for candidate in _candidates(build, holding, log, machines, firmware):
        failures = log.failures(candidate.source, candidate.offer)
        count = len(failures)
        again = failures[-1].alive + _wait(count) if failures else 0.0
        times = "once" if count == 1 else f"{count} times"
        why = excerpt(failures[-1].error or "its runner was killed") if failures else ""
        if forced or (again <= log.time and count < attempts):
            ready.append(candidate)
        elif count >= attempts:
            given_up.append(f"{candidate} failed {times}, the last time: {why}: name the build to try again")
        else:
            when = f"is tried again from {utc(again)} on, or if the build is named"
            waiting.append(f"{candidate} failed {times}, {when}: {why}")
    if ready:
        return Assessment("wanted", f"to be harvested from {', then '.join(map(str, ready))}", ready)
    for state, texts in (("waiting", waiting), ("given up", given_up)):
        if texts:
            return Assessment(state, "; ".join([*waiting, *given_up]))
    if holding.lacking:
        more = f", and {len(holding.lacking) - 1} more" if len(holding.lacking) > 1 else ""
        return Assessment("lacking", f"nothing known here can bring it: {holding.lacking[0]}{more}")
    state = "partial" if holding.partial else "no source"
    others = f"; it is published as {', '.join(build.others)} only" if build.others and not build.firmware else ""
    return Assessment(state, "; ".join(["no machine runs it, and no firmware can be had" + others, *reasons]))


def _wait(failures: int) -> float:
    return float(min(_FIRST_WAIT * 2 ** min(failures - 1, 20), _LONGEST_WAIT))


def _candidates(
    build: PublishedBuild, holding: Holding, log: BuildLog, machines: Sequence[MachineBuild], firmware: Firmware | None
) -> list[Candidate]:
    """Return the sources that have this build, and may have what is lacking."""
    since_13 = build.number >= (13,) or build.number == (0,)
    intel_only = since_13 and bool(holding.archs) and holding.archs <= _INTEL_ONLY
    silicon_only = since_13 and bool(holding.archs) and not holding.archs & _INTEL_ONLY
    result = []
    for machine in machines:
        host = Had((), model=machine.model).host
        useless = host is not None and (silicon_only if host == "intel" else intel_only)
        if machine.build == build.build and not useless and machine.name not in holding.sealed_sources:
            result.append(Candidate(machine.name))
    if firmware is not None and not intel_only:
        offer = hashlib.sha256(f"{firmware.url} {firmware.size} {firmware.sha256}".encode()).hexdigest()[:32]
        name = file_name(build.build, firmware)
        taken = any(PurePath(source).name == name for source in holding.sealed_sources)
        if not taken:
            result.append(Candidate(FIRMWARE, offer, firmware))
    return result
