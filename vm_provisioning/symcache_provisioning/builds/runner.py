"""Harvests builds one after the other, while other runners may do the same."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from symcache.errors import StorageError
from symcache.library import LEASE_SECONDS, BuildLog, Lease, Library, Publication, SyncLog, removals
from symcache.model import MACOS, ReleaseId, canonical_product
from symcache.text import excerpt
from symcache.verify import Expectations
from symcache_provisioning.builds.appledb import PublishedBuild
from symcache_provisioning.builds.assessment import Assessment, Candidate, Holding, MachineBuild, assess, holdings_of
from symcache_provisioning.builds.selection import usable_firmware

__all__ = ["BuildReport", "HarvestOutcome", "SyncRunner"]

_RENEWALS = 6
"""How often a lease is renewed within the time that it lasts."""


@dataclass(frozen=True, slots=True)
class HarvestOutcome:
    """How the harvest of one source ended."""

    outcome: str
    """`sealed`, `not sealed`, `failed` or `interrupted`."""
    error: str = ""
    hint: str = ""
    result: Mapping[str, Any] | None = None
    """What `symcache harvest --json` printed, if it did."""


@dataclass
class BuildReport:
    """What came of one build."""

    build: PublishedBuild
    state: str
    """As in `Assessment`, or what was done: `sealed`, `not sealed`, `failed`, `interrupted`."""
    text: str
    source: str = ""
    """What was harvested last, if anything was."""
    seconds: float = 0.0
    hint: str = ""
    attempts: int = 0
    """How often any runner has tried it."""
    results: list[Mapping[str, Any]] = field(default_factory=list)


Harvest = Callable[[PublishedBuild, Candidate, threading.Event], HarvestOutcome]
"""Harvests a source; it ends early, as interrupted, once the event is set: the lease is another runner's by then."""


class SyncRunner:
    """One runner. `machines` is called once, if there is anything to harvest."""

    def __init__(
        self,
        library: Library,
        expectations: Expectations,
        harvest: Harvest,
        machines: Callable[[], Sequence[MachineBuild]],
        *,
        firmware_hosts: Sequence[str] = (),
        firmware: bool = True,
        forced: bool = False,
        dry_run: bool = False,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._library, self._expectations, self._harvest, self._ask = library, expectations, harvest, machines
        self._machines: Sequence[MachineBuild] | None = None
        self._hosts, self._firmware, self._forced, self._dry_run = firmware_hosts, firmware, forced, dry_run
        self._log = SyncLog(library.store)
        self._renewal = lease_seconds / _RENEWALS
        self._removed = frozenset[str]()
        self.name = f"{socket.gethostname()}:{os.getpid()}"

    @property
    def machines(self) -> Sequence[MachineBuild]:
        """What the machines run, as far as they were asked."""
        return self._machines or ()

    def run(self, builds: Sequence[PublishedBuild]) -> Iterator[BuildReport]:
        """Yield what came of each build, in their order, as soon as it is known. Raises StorageError."""
        logs = self.note(builds)
        self._removed = frozenset(r.build for r in removals(self._library) if r.release.product == MACOS)
        holdings = self._holdings([b.build for b in builds])
        for build in builds:
            yield self._bring(build, logs[build.build], holdings[build.build])

    def note(self, builds: Sequence[PublishedBuild]) -> dict[str, BuildLog]:
        """Return the logs of builds; what is known of their publication is noted there. Raises StorageError."""
        logs = self._log.read([b.build for b in builds])
        if not self._dry_run:
            for build in builds:
                published = Publication(version=build.version, kind=build.kind, released=build.released)
                self._log.publish(logs[build.build], published)
        return logs

    def _holdings(self, builds: Sequence[str]) -> dict[str, Holding]:
        return holdings_of(self._library, builds, self._expectations, self._removed)

    def _assess(self, build: PublishedBuild, holding: Holding, log: BuildLog) -> Assessment:
        firmware, reasons = None, ["firmware is left out"]
        if self._firmware:
            firmware, reasons = usable_firmware(build, self._hosts)

        def look(machines: Sequence[MachineBuild]) -> Assessment:
            attempts = self._expectations.sync.attempts
            return assess(
                *(build, holding, log, machines, firmware), reasons=reasons, attempts=attempts, forced=self._forced
            )

        first = look(self._machines or ())
        if self._machines is not None or first.state in {"complete", "removed", "running"}:
            return first
        self._machines = self._ask()
        return look(self._machines)

    def _bring(self, build: PublishedBuild, log: BuildLog, holding: Holding) -> BuildReport:
        started = time.monotonic()
        report: BuildReport | None = None
        tried: set[Candidate] = set()
        while True:
            assessment = self._assess(build, holding, log)
            left = [c for c in assessment.candidates if c not in tried]
            if self._dry_run or not left:
                break
            # Another runner may have begun since the log was read: then there is no lease.
            lease = self._log.acquire(log, source=left[0].source, offer=left[0].offer, runner=self.name)
            if lease is not None:
                tried.add(left[0])
                outcome = self._attempt(build, left[0], lease)
                report = BuildReport(build, outcome.outcome, outcome.error, left[0].source, hint=outcome.hint)
                report.results += [outcome.result] if outcome.result else []
            log = self._log.read([build.build])[build.build]
            self._library.refresh()
            holding = self._holdings([build.build])[build.build]
        if report is None:
            report = BuildReport(build, assessment.state, assessment.text)
        elif assessment.state == "complete":
            report.state, report.text, report.hint = "sealed", "harvested", ""
        elif report.state == "sealed":
            report.state, report.text = assessment.state, f"harvested, but {assessment.text}"
        report.seconds, report.attempts = round(time.monotonic() - started, 1), len(log.attempts)
        return report

    def _attempt(self, build: PublishedBuild, candidate: Candidate, lease: Lease) -> HarvestOutcome:
        outcome = HarvestOutcome("interrupted")
        lost, ended = threading.Event(), threading.Event()
        renewing = threading.Thread(target=self._renew, args=(lease, lost, ended), daemon=True)
        renewing.start()
        try:
            outcome = self._harvest(build, candidate, lost)
            if lost.is_set():
                outcome = HarvestOutcome("interrupted", "another runner has taken it over: this one was away too long")
            elif (other := _release_of(outcome)) and other != ReleaseId(MACOS, build.build):
                whose = "" if other.product == MACOS else f" of {other.product}"
                error = f"{candidate} is of build {excerpt(other.build + whose)}"
                outcome = HarvestOutcome("failed", error, "see what runs there, or what AppleDB says")
            return outcome
        finally:
            ended.set()
            renewing.join()
            lease.end(outcome.outcome, outcome.error, outcome.hint)

    def _renew(self, lease: Lease, lost: threading.Event, ended: threading.Event) -> None:
        while not ended.wait(self._renewal):
            with contextlib.suppress(StorageError):  # while the store is away, nobody else can take it either
                if not lease.renew():
                    lost.set()
                    return


def _release_of(outcome: HarvestOutcome) -> ReleaseId | None:
    """Return the release that was harvested, or None if nothing says it."""
    release = (outcome.result or {}).get("release")
    if not isinstance(release, dict) or not release.get("build"):
        return None
    return ReleaseId(canonical_product(str(release.get("product") or MACOS)), str(release["build"]))
