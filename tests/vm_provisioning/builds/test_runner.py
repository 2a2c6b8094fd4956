"""One runner: what it takes up, what it leaves, and what it writes down when things go wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from symcache.library import Library, SyncLog, ingest, remove_build
from symcache.verify import Expectations
from symcache_provisioning import BuildReport, Candidate, HarvestOutcome, MachineBuild, PublishedBuild, SyncRunner
from symcache_provisioning.builds.appledb import Firmware
from symcache_provisioning.builds.assessment import Holding, assess
from tests.library.images import Image, harvest
from tests.support.waiting import until

FIRMWARE = Firmware("https://updates.cdn-apple.com/a/UniversalMac_14.6_23G80_Restore.ipsw", 1 << 30, "a" * 64)
BUILD = PublishedBuild("23G80", "14.6", released="2024-07-29", firmware=(FIRMWARE,))
Harvest = Callable[[PublishedBuild, Candidate, threading.Event], HarvestOutcome]


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "library", create=True) as opened:
        yield opened


def run(library: Library, harvest: Harvest, *machines: MachineBuild, **options: object) -> BuildReport:
    runner = SyncRunner(library, Expectations(), harvest, lambda: machines, **options)  # type: ignore[arg-type]
    (report,) = runner.run([BUILD])
    return report


def never(*_: object) -> HarvestOutcome:
    raise AssertionError("nothing was to be harvested")


def test_sources_are_tried_one_after_the_other_until_one_brings_it(library: Library) -> None:
    tried = []

    def fail(_: PublishedBuild, candidate: Candidate, __: threading.Event) -> HarvestOutcome:
        tried.append(candidate.source)
        return HarvestOutcome("failed", f"{candidate.source} does not answer", "start it")

    machines = [MachineBuild("old", "22G1"), MachineBuild("mac", "23G80"), MachineBuild("away", error="no route")]
    report = run(library, fail, *machines)
    assert tried == ["mac", "firmware"]
    assert (report.state, report.text, report.hint) == ("failed", "firmware does not answer", "start it")
    again = run(library, never, *machines)
    assert (again.state, again.attempts) == ("waiting", 2)
    assert "the machine mac failed once" in again.text
    assert "its firmware (1.1 GB) failed once" in again.text
    assert run(library, fail, *machines, forced=True).attempts == 4


def test_what_turns_out_to_be_another_build_is_a_failure(library: Library) -> None:
    result = {"release": {"build": "23G93"}}
    report = run(library, lambda *_: HarvestOutcome("sealed", result=result))
    assert report.state == "failed"
    assert report.text == "its firmware (1.1 GB) is of build 23G93"
    assert run(library, never).state == "waiting"  # and not downloaded each night


def test_another_system_of_the_build_is_not_the_build(library: Library, tmp_path: Path) -> None:
    """Neither where the library has it, nor where somebody took it back, nor where a machine turns out to run it."""
    ingest(library, harvest(tmp_path / "1", [Image("/a", 1)], build="23G80", version="17.6", product="tvOS"))
    assert run(library, never, dry_run=True).state == "wanted"
    remove_build(library, "23G80")
    assert run(library, never, dry_run=True).state == "wanted"
    result = {"release": {"product": "tvOS", "build": "23G80"}}
    report = run(library, lambda *_: HarvestOutcome("sealed", result=result))
    assert (report.state, report.text) == ("failed", "its firmware (1.1 GB) is of build 23G80 of tvOS")


def test_a_dry_run_asks_machines_and_writes_nothing(library: Library) -> None:
    before = set(library.store.list(""))
    report = run(library, never, MachineBuild("mac", "23G80"), dry_run=True)
    assert (report.state, report.text) == (
        "wanted", "to be harvested from the machine mac, then its firmware (1.1 GB)",
    )  # fmt: skip
    assert {key for key in library.store.list("") if key.startswith(("sync/", "records/"))} <= before


def test_a_runner_that_was_away_too_long_is_told_to_stop(library: Library) -> None:
    log = SyncLog(library.store)

    def slow(_: PublishedBuild, __: Candidate, lost: threading.Event) -> HarvestOutcome:
        taken = log.acquire(log.read(["23G80"])["23G80"], source="firmware", offer="", runner="another")
        assert taken is not None
        until(lost.is_set)
        return HarvestOutcome("interrupted")

    report = run(library, slow, lease_seconds=0.1)
    assert report.state == "interrupted"
    assert "another runner has taken it over" in report.text
    assert [a.outcome for a in log.read(["23G80"])["23G80"].attempts] == ["interrupted", ""]
    running = run(library, never)
    assert (running.state, running.text) == ("running", "another harvests it from firmware")


def test_an_interrupt_is_written_down_and_no_failure(library: Library) -> None:
    def interrupt(*_: object) -> HarvestOutcome:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(library, interrupt)
    (attempt,) = SyncLog(library.store).read()["23G80"].attempts
    assert attempt.outcome == "interrupted"
    assert run(library, never, dry_run=True).state == "wanted"


def test_what_another_runner_finished_meanwhile_is_not_harvested_again(library: Library, tmp_path: Path) -> None:
    log = SyncLog(library.store)

    def machines() -> Sequence[MachineBuild]:  # asked after the log was read
        lease = log.acquire(log.read(["23G80"])["23G80"], source="firmware", offer="", runner="another")
        assert lease is not None
        with Library.open(tmp_path / "library") as other:
            ingest(other, harvest(tmp_path / "1", [Image("/a", 1)], build="23G80", version="28", source="mac"))
        lease.end("sealed")
        return [MachineBuild("mac", "23G80")]

    (report,) = SyncRunner(library, Expectations.nothing(), never, machines).run([BUILD])
    assert report.state == "complete"


LACKS_INTEL = Holding(frozenset(["mac"]), lacking=("no x86_64h",), archs=frozenset(["x86_64h"]))
LACKS_SILICON = Holding(frozenset(["imac"]), lacking=("no arm64e",), archs=frozenset(["arm64e", "x86_64"]))
MACS = [
    MachineBuild("mac", "23G80", "Mac14,2"), MachineBuild("studio", "23G80", "Mac13,1"),
    MachineBuild("imac", "23G80", "iMac20,1"), MachineBuild("unknown", "23G80"),
    MachineBuild("old", "23G1", "iMac20,1"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("holding", "version", "sources"),
    [
        (Holding(), "14.6", ["mac", "studio", "imac", "unknown", "firmware"]),
        (LACKS_INTEL, "14.6", ["imac", "unknown"]),
        (LACKS_SILICON, "14.6", ["mac", "studio", "unknown", "firmware"]),
        (LACKS_INTEL, "12.6", ["studio", "imac", "unknown", "firmware"]),  # until 12, every Mac has all
        (Holding(frozenset(["mac", "/x/UniversalMac_14.6_23G80_Restore.ipsw"]), lacking=("a blob",)), "14.6",
         ["studio", "imac", "unknown"]),
    ],
)  # fmt: skip
def test_only_those_are_tried_that_may_have_what_is_lacking(
    library: Library, holding: Holding, version: str, sources: list[str]
) -> None:
    log = SyncLog(library.store).read(["23G80"])["23G80"]
    build = PublishedBuild("23G80", version, firmware=(FIRMWARE,))
    assert [c.source for c in assess(build, holding, log, MACS, FIRMWARE).candidates] == sources


def test_what_nothing_here_can_bring_is_said(library: Library) -> None:
    log = SyncLog(library.store).read(["23G80"])["23G80"]
    lacking = assess(BUILD, LACKS_INTEL, log, [], FIRMWARE)
    assert (lacking.state, lacking.text) == ("lacking", "nothing known here can bring it: no x86_64h")
    update = PublishedBuild("23H222", "14.7.1", others=("installassistant", "ota"))
    nobody = assess(update, Holding(), log, MACS, None)
    assert nobody.state == "no source"
    assert nobody.text == (
        "no machine runs it, and no firmware can be had; it is published as installassistant, ota only"
    )
