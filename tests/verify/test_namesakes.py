"""Systems that Apple gave one build number: what is proven of one proves nothing of the other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from defusedxml import ElementTree
from typer.testing import CliRunner

from symcache.cli.app import application
from symcache.errors import UsageError
from symcache.library import Library, Publication, SyncLog, ingest, removals
from symcache.model import ReleaseId
from symcache.verify import (
    Expectations,
    FindingCode,
    Level,
    RetentionPolicy,
    apply_waivers,
    diff_releases,
    junit_xml,
    load_waivers,
    plan_pruning,
    verify,
)
from tests.library.images import Image, harvest

BUILD = "22A3351"
"""Of iOS 18.0 for the iPhones 16, and of its simulator."""
DEVICE, SIMULATOR = ReleaseId("iOS", BUILD), ReleaseId("iOS simulator", BUILD)
DYLD, LIBC = Image("/usr/lib/dyld", 3), Image("/usr/lib/libc.dylib", 4)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    """The device's system, whole, and the simulator's, in part: of the same paths, and even of the same images."""
    with Library.open(tmp_path / "library", create=True) as library:
        of = {"build": BUILD, "version": "18.0"}
        ingest(library, harvest(tmp_path / "1", [DYLD, LIBC], product="iOS", **of))  # type: ignore[arg-type]
        partial = harvest(tmp_path / "2", [DYLD], lost=[LIBC], product="iOS simulator", source="runtime", **of)  # type: ignore[arg-type]
        ingest(library, partial)
        yield library


def test_the_harvest_of_one_completes_nothing_of_the_other(library: Library) -> None:
    report = verify(library, level=Level.CATALOG, expectations=Expectations.nothing())
    codes = {(f.product, f.code) for f in report.findings}
    assert codes == {("iOS simulator", FindingCode.NOT_SEALED), ("iOS simulator", FindingCode.MISSING)}
    assert [(r.product, r.build, r.images) for r in report.releases] == [("iOS", BUILD, 2), ("iOS simulator", BUILD, 2)]
    assert verify(library, [str(DEVICE)], level=Level.BLOBS, expectations=Expectations.nothing()).complete
    with pytest.raises(UsageError, match="is a build of iOS and of iOS simulator"):
        verify(library, [BUILD])
    suites = {suite.get("name"): suite.get("failures") for suite in ElementTree.fromstring(junit_xml(report))}
    assert suites == {f"iOS 18.0 ({BUILD})": "0", f"iOS simulator 18.0 ({BUILD})": "2"}
    diff = diff_releases(library, str(DEVICE), str(SIMULATOR))
    assert (diff.same, diff.added, diff.removed, diff.changed) == (2, [], [], [])


def test_what_a_table_expects_is_of_macos_or_of_what_it_names(library: Library, tmp_path: Path) -> None:
    table = tmp_path / "releases.toml"
    table.write_text(f'expect_builds = ["{BUILD}", "ios simulator:{BUILD}"]\n[[release]]\nbuilds = ["{BUILD}"]\n')
    expectations = Expectations.load(table)
    assert expectations.of("macOS", "9.0", BUILD) == []
    assert expectations.of("iOS", "18.0", BUILD) is None
    report = verify(library, level=Level.CATALOG, expectations=expectations)
    (absent,) = (f for f in report.findings if f.code is FindingCode.NO_HARVEST)
    assert (absent.product, absent.message.partition(":")[0]) == ("macOS", BUILD)


def test_a_waiver_may_be_of_one_of_them(library: Library, tmp_path: Path) -> None:
    waivers = tmp_path / "waivers.toml"
    lines = ["[[waiver]]", 'code = "not-sealed"', 'product = "iOS"', 'reason = "so"', "expires = 2030-01-01"]
    for product, waived in (("iOS", 0), ("iOS*", 1)):
        waivers.write_text("\n".join(lines).replace('"iOS"', f'"{product}"'))
        report = verify(library, level=Level.CATALOG, expectations=Expectations.nothing())
        apply_waivers(report, load_waivers(waivers), date(2026, 1, 1))
        assert len(report.waived) == waived


def test_each_is_kept_by_its_own_line_and_what_was_published_is_of_macos(library: Library, tmp_path: Path) -> None:
    for number, (build, version) in enumerate([("22B83", "18.1"), ("22C152", "18.2")]):
        of = {"build": build, "version": version, "product": "iOS"}
        ingest(library, harvest(tmp_path / f"p{number}", [DYLD], **of))  # type: ignore[arg-type]
    log = SyncLog(library.store)
    log.publish(log.read([BUILD])[BUILD], Publication(version="13.0 RC", kind="rc"))
    assert log.acquire(log.read([BUILD])[BUILD], source="mac", offer="", runner="ci:1")
    goes = {v.release: v.goes for v in plan_pruning(library, RetentionPolicy(last=2))}
    assert goes == {DEVICE: True, SIMULATOR: False, ("iOS", "22B83"): False, ("iOS", "22C152"): False}
    pinned = plan_pruning(library, RetentionPolicy(last=2, pinned=(f"iOS:{BUILD}",)))
    assert not any(v.goes for v in pinned)
    table = tmp_path / "releases.toml"
    table.write_text("[retention]\nlast = 2\n")
    run = CliRunner().invoke(
        application("prune"),
        ["prune", "--json", "--releases", str(table), "--library", library.store.location],
    )
    (gone,) = (v for v in json.loads(run.stdout) if v["removed"])
    assert (gone["build"], gone["product"]) == (BUILD, "iOS")
    assert [r.release for r in removals(library)] == [DEVICE]
