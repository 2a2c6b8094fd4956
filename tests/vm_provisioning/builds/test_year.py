"""A year of AppleDB, night by night: failures, runners that are killed, two at once. Nothing twice, nothing forgotten.

`SYMCACHE_TEST_SYNC_YEARS` (`make soak`) has more of them, with more builds, and with runners at once every night.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from symcache.library import LEASE_SECONDS, Library, SyncLog, ingest
from symcache.verify import Expectations
from symcache_provisioning import (
    BuildReport,
    Candidate,
    HarvestOutcome,
    MachineBuild,
    PublishedBuild,
    SyncRunner,
    parse_appledb,
    select_builds,
)
from tests.library.images import Image, harvest
from tests.support.appledb import entries_of, year
from tests.support.dated_store import Clock, dated_library

YEARS = int(os.environ.get("SYMCACHE_TEST_SYNC_YEARS", "0"))
_DAY = 86400.0


class _KilledError(BaseException):
    """The runner is gone, as after SIGKILL: nothing of it is written any more."""


class Site:
    """All runners of a site, their library, and what they did."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.clock, self.rng = folder, Clock(), random.Random(seed)
        self.files: dict[str, dict[str, Any]] = {}
        self.sealed: Counter[str] = Counter()
        self.tried: dict[str, list[float]] = {}
        self.together = 0
        """Harvests of one build that ran at once."""
        self.seconds = 0.0
        """How long a harvest takes; by the clock on the wall."""
        self._running: set[str] = set()
        self._lock = threading.Lock()
        table = folder / "releases.toml"
        table.write_text(
            '[sync]\nfrom = "15"\nbetas = true\n[[release]]\nfrom = "1"\nexpect = { files = ["arm64e"] }\n'
        )
        self.expectations = Expectations.load(table)
        self.expectations.wanted_families = ("files",)

    def targets(self) -> list[PublishedBuild]:
        published = parse_appledb(json.dumps(entries_of(list(self.files.values()))).encode(), "AppleDB")
        return select_builds(published, self.expectations.sync)

    def machines(self) -> Sequence[MachineBuild]:
        """Return what the site's machines run: one is brought up to date with each security update, one is broken."""
        updates = [build for build in self.files if build.startswith("24")]
        return [MachineBuild("mac", updates[-1] if updates else ""), MachineBuild("broken", error="no route to host")]

    def harvest(self, library: Library, build: PublishedBuild, candidate: Candidate) -> HarvestOutcome:
        """Harvest as a Mac or a restore image would, or fail as they do."""
        with self._lock:
            self.together += build.build in self._running
            self._running.add(build.build)
            self.tried.setdefault(build.build, []).append(self.clock.now)
            chance, unique = self.rng.random(), self.rng.randrange(1 << 60)
        try:
            time.sleep(self.seconds)
            if build.build == next((b for b in self.files if not b.startswith("24")), ""):
                return HarvestOutcome("failed", "no Mac can start it")  # whenever it is tried
            if candidate.firmware and candidate.firmware.url.endswith(".old"):
                return HarvestOutcome("failed", "answers 404 Not Found")
            if chance < 0.1:
                raise _KilledError
            if chance < 0.3:
                return HarvestOutcome("failed", "the disk is full", "free some space")
            problems = ["a cryptex leads nowhere"] if chance < 0.4 else []
            image = Image("/usr/lib/a", int(build.build.encode().hex()[-20:], 16), size=10)
            staged = harvest(
                *(self.folder / f"staging-{unique}", [image]),
                build=build.build,
                version=build.version.partition(" ")[0],
                problems=problems,
                source=candidate.source if not candidate.firmware else f"/tmp/{build.build}.ipsw",
            )
            sealed = ingest(library, staged).sealed
            with self._lock:
                self.sealed[build.build] += sealed
            return HarvestOutcome("sealed" if sealed else "not sealed", "" if sealed else problems[0])
        finally:
            with self._lock:
                self._running.discard(build.build)

    def night(self, builds: Sequence[PublishedBuild]) -> list[BuildReport]:
        """Run one runner for all builds, or until it is killed: it remembers nothing, as one in CI."""
        with dated_library(self.folder / "library", self.clock) as library:
            runner = SyncRunner(
                *(library, self.expectations, lambda build, c, _: self.harvest(library, build, c), self.machines)
            )
            reports: list[BuildReport] = []
            runner._attempt = self._without_end(runner._attempt)  # type: ignore[method-assign]
            try:
                reports += runner.run(builds)
            except _KilledError:
                pass
            return reports

    @staticmethod
    def _without_end(attempt: Any) -> Any:
        """Have a runner that is killed write no end of its attempt."""

        def until_killed(build: PublishedBuild, candidate: Candidate, lease: Any) -> HarvestOutcome:
            end = lease.end
            lease.end = lambda outcome, *told: end(outcome, *told) if outcome != "interrupted" else None
            return attempt(build, candidate, lease)

        return until_killed


def live(site: Site, *, builds: int, every: int, crowded: int) -> None:
    """Let a year pass: a runner in three of `every` nights and when a build came out; two in each `crowded`th night."""
    coming = list(year(site.rng.randrange(1000), builds))
    for day in range(420):
        site.clock.pass_by(_DAY)
        for _, file in [c for c in coming if c[0] == day]:
            site.files[file["build"]] = file
        if not site.files or (day % every > 2 and day not in {c[0] for c in coming}):
            continue
        site.seconds = 0.02 if day % crowded == 0 else 0.0
        targets = site.targets()
        if day % crowded == 0:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(site.night, [targets, targets]))
        else:
            site.night(targets)
        site.clock.pass_by(LEASE_SECONDS)


def check(site: Site, *, builds: int) -> None:
    """Nothing was harvested once it was there, nor by two at once; what is not there has its reason in the log."""
    assert len(site.files) == builds
    assert site.together == 0
    assert set(site.sealed.values()) <= {0, 1}
    with dated_library(site.folder / "library", site.clock) as library:
        held = {r.build for r in library.releases() if r.sealed}
        logs = SyncLog(library.store).read()
    assert held == {build for build, times in site.sealed.items() if times}
    for build, file in site.files.items():
        tries = site.tried.get(build, [])
        log = logs[build]
        assert len(log.attempts) == len(tries)
        assert log.published is not None
        assert (log.published.kind == "beta") == file["beta"]
        assert [a.outcome for a in log.attempts].count("sealed") == (build in held)
        offers = Counter((a.source, a.offer) for a in log.attempts)
        assert max(offers.values(), default=0) <= 5, build
        if build not in held:  # it was given up, or the only machine that had it was brought up to date
            assert 5 in offers.values() or build.startswith("24"), build
        # Each failure has it wait twice as long, unless there is another offer.
        for number, (first, second) in enumerate(itertools.pairwise(tries)):
            before = [a.offer for a in log.attempts[: number + 1]]
            wait = 20 * 3600 * 2 ** (before.count(log.attempts[number + 1].offer) - 1)
            assert before[-1] != log.attempts[number + 1].offer or second - first >= wait, build


def test_a_year_with_two_runners(tmp_path: Path) -> None:
    site = Site(tmp_path, seed=1)
    live(site, builds=10, every=30, crowded=5)
    check(site, builds=10)
    assert len([b for b, times in site.sealed.items() if times]) > 6


@pytest.mark.skipif(not YEARS, reason="SYMCACHE_TEST_SYNC_YEARS is not set")
def test_years_with_two_runners_every_night(tmp_path: Path) -> None:
    for seed in range(YEARS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        site = Site(folder, seed=seed)
        live(site, builds=60, every=1, crowded=1)
        check(site, builds=60)
