"""What a site keeps of its builds, and what it does not."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from symcache.cli.app import application
from symcache.library import Library, Publication, SyncLog, note_uses, removals, undo_removal
from symcache.model import HarvestRecord, Release
from symcache.store import write_record
from symcache.verify import RetentionPolicy, plan_pruning
from tests.support.dated_store import Clock, dated_library

app = application("prune")
TODAY = dt.date(2026, 11, 29)
BUILDS = {
    "26A428": "27.0", "26B77": "27.1", "26B90": "27.1.1", "25G70": "26.6", "25G83": "26.6.1",
    "26A5353q": "27.0", "26B5086k": "27.1", "25D770870b": "26.3",
}  # fmt: skip
HARVESTED = {"26A5353q": "2026-06-08", "26B5086k": "2026-09-20"}


@pytest.fixture
def library(tmp_path: Path) -> Library:
    clock = Clock(dt.datetime(2026, 11, 29, 3, tzinfo=dt.UTC).timestamp())
    opened = dated_library(tmp_path / "library", clock)
    for build, version in BUILDS.items():
        release = Release(version=version, build=build, extra="(a)" if build == "25D770870b" else "")
        finished = f"{HARVESTED.get(build, '2026-11-01')}T03:00:00+00:00"
        write_record(opened.store, HarvestRecord(release=release, sealed=True, finished=finished), "0" * 32)
    publish(opened, "26A5353q", version="27.0 beta", kind="beta", released="2026-06-08")
    opened.refresh()
    return opened


def going(library: Library, *, pinned: Sequence[str] = (), **policy: object) -> dict[str, str]:
    verdicts = plan_pruning(library, RetentionPolicy.model_validate(policy), pinned=pinned)
    assert {v.build for v in verdicts} == BUILDS.keys()
    return {v.build: v.reason for v in verdicts if v.goes}


def test_betas_go_some_days_after_they_came_out(library: Library) -> None:
    assert going(library, beta_days=174) == {}
    assert going(library, beta_days=173) == {
        "26A5353q": "a beta that came out on 2026-06-08, 174 days ago; betas are kept for 173"
    }
    assert set(going(library, beta_days=60)) == {"26A5353q", "26B5086k"}  # the other by its first harvest, 70 days ago
    assert "was first harvested on 2026-09-20" in going(library, beta_days=60)["26B5086k"]


def publish(library: Library, build: str, **said: str) -> None:
    log = SyncLog(library.store)
    log.publish(log.read([build])[build], Publication(**said))


def test_a_release_is_no_beta_whatever_is_published(library: Library) -> None:
    publish(library, "26A428", version="27.0", kind="beta", released="2001")
    assert going(library, beta_days=0).keys() == {"26A5353q", "26B5086k"}
    assert going(library, last=2)["26A428"] == "number 3 of the builds of macOS 27, of which 2 are kept"


def test_a_candidate_goes_as_a_beta_once_another_build_of_its_version_came_out(library: Library) -> None:
    """Mostly it is what came out, whatever AppleDB has not corrected yet: 26B77 for one."""
    publish(library, "26B77", version="27.1 RC", kind="rc", released="2001")
    assert "26B77" not in going(library, beta_days=0)
    assert going(library, last=1)["26B77"] == "number 2 of the builds of macOS 27, of which 1 are kept"
    publish(library, "26B79", version="27.1 RC 2", kind="rc")
    assert "26B77" not in going(library, beta_days=0)
    namesake = HarvestRecord(release=Release(product="iOS", version="27.1", build="26B80"))
    write_record(library.store, namesake, "1" * 32)
    assert not any(v.goes for v in plan_pruning(library, RetentionPolicy(beta_days=0)) if v.build == "26B77")
    publish(library, "26B82", version="27.1", kind="release")
    assert any(v.goes for v in plan_pruning(library, RetentionPolicy(beta_days=0)) if v.build == "26B77")


def test_what_was_never_harvested_whole_takes_no_place_of_what_was(library: Library) -> None:
    for build, version in (("26B99", "27.1.2"), ("25G99", "26.6.2"), ("24G84", "15.6"), ("24G90", "15.6.1")):
        write_record(library.store, HarvestRecord(release=Release(version=version, build=build)), "1" * 32)
    goes = {v.build for v in plan_pruning(library, RetentionPolicy(last=1)) if v.goes}
    assert not goes & {"26B90", "25G83"}, "the newest that are whole"
    assert not goes & {"26B99", "25G99"}
    assert {"26B77", "26A428"} <= goes
    assert {"24G84", "24G90"} & goes == {"24G84"}, "of a line of which nothing is whole, each counts"


def test_a_beta_is_no_older_here_than_its_first_harvest(library: Library) -> None:
    publish(library, "26B5086k", version="27.1 beta", kind="beta", released="2001")
    assert set(going(library, beta_days=70)) == {"26A5353q"}
    assert going(library, beta_days=69)["26B5086k"].startswith("a beta that was first harvested on 2026-09-20, 70 days")


@pytest.mark.parametrize(
    ("released", "said"),
    [("2026-10", "2026-10-31, 29 days"), ("2026-09", "2026-09-30, 60 days"), ("2026", "2026-12-31, -32 days")],
)
def test_of_a_month_or_a_year_its_last_day_counts(library: Library, released: str, said: str) -> None:
    publish(library, "26B5086k", version="27.1 beta", kind="beta", released=released)
    reasons = {v.build: v.reason for v in plan_pruning(library, RetentionPolicy(beta_days=28))}
    assert reasons["26B5086k"].startswith(f"a beta that came out on {said} ago")


def test_a_beta_stays_of_which_nobody_knows_when_it_came_out(library: Library) -> None:
    undated = HarvestRecord(release=Release(version="27.2", build="26C5031a"), sealed=True)
    write_record(library.store, undated, "1" * 32)
    (verdict,) = (v for v in plan_pruning(library, RetentionPolicy(beta_days=0)) if v.build == "26C5031a")
    assert (verdict.goes, verdict.reason) == (False, "nobody knows when this beta came out")


def test_the_newest_of_each_line_stay(library: Library) -> None:
    gone = going(library, last=2)
    assert set(gone) == {"26A428", "25D770870b"}
    assert gone["26A428"] == "number 3 of the builds of macOS 27, of which 2 are kept"
    assert set(going(library, last=1)) == {"26A428", "26B77", "25G70", "25D770870b"}
    assert going(library, last=3) == {}


def test_what_is_pinned_or_expected_stays(library: Library) -> None:
    assert set(going(library, pinned=["26A428"], last=1)) == {"26B77", "25G70", "25D770870b"}
    policy = RetentionPolicy.model_validate({"last": 1, "pinned": ["25G70", "25D770870b"]})
    assert {v.build for v in plan_pruning(library, policy) if v.goes} == {"26A428", "26B77"}


def test_what_was_asked_for_stays_and_so_does_what_nobody_can_know(library: Library) -> None:
    def note(days_ago: int, *builds: str) -> None:
        note_uses(library.store, TODAY - dt.timedelta(days_ago), builds)

    assert going(library, last=1, requested_days=30) == {}  # no server has ever noted anything
    note(29)
    assert going(library, last=1, requested_days=30) == {}  # known for too short a time
    note(30)
    assert set(going(library, last=1, requested_days=30)) == {"26A428", "26B77", "25G70", "25D770870b"}
    note(40, "26A428", "26B77")
    note(30, "26B77", "25G70")
    assert set(going(library, last=1, requested_days=30)) == {"26A428", "25D770870b"}
    note(0, "26A428")
    verdicts = plan_pruning(library, RetentionPolicy(last=1, requested_days=30))
    assert {v.build: v.reason for v in verdicts}["26A428"].startswith("asked for on 2026-11-29, though number 3 of")


def test_what_is_being_harvested_stays(library: Library) -> None:
    log = SyncLog(library.store)
    lease = log.acquire(log.read(["26A428"])["26A428"], source="mac", offer="", runner="ci:1")
    assert lease is not None
    assert set(going(library, last=2)) == {"25D770870b"}
    lease.end("failed")
    assert set(going(library, last=2)) == {"26A428", "25D770870b"}


def prune(folder: Path, *arguments: str) -> Result:
    options = ["--library", str(folder / "library"), "--releases", str(folder / "releases.toml")]
    return CliRunner().invoke(app, ["prune", *options, *arguments])


def test_a_script_takes_back_what_may_go_says_why_and_can_undo(library: Library, tmp_path: Path) -> None:
    (tmp_path / "releases.toml").write_text('expect_builds = ["26B77"]\n[retention]\nlast = 1\n')
    planned = json.loads(prune(tmp_path, "--dry-run", "--json").stdout)
    assert {p["build"] for p in planned if p["goes"]} == {"26A428", "25G70", "25D770870b"}
    assert {p["build"]: p["reason"] for p in planned}["26B77"].startswith("pinned, though number 2 of")
    library.refresh()
    assert len(library.releases()) == len(BUILDS)
    done = prune(tmp_path)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("macOS 27.0 (26A428): removed: number 3 of the builds of macOS 27, of which 1 are kept;")
    assert "symcache remove --undo BUILD" in lines[-1]
    assert prune(tmp_path).stdout == "every build is kept\n"
    assert {r.build for r in removals(library)} == {"26A428", "25G70", "25D770870b"}
    undo_removal(library, "26A428")
    assert {r.build for r in library.releases()} == {"26A428", "26B77", "26B90", "25G83", "26B5086k", "26A5353q"}


def test_a_pin_that_names_nothing_here_is_told_of(library: Library, tmp_path: Path) -> None:
    (tmp_path / "releases.toml").write_text('[retention]\nlast = 9\npinned = ["26B77", "26B7O", "iOS:26B90"]\n')
    told = prune(tmp_path, "--dry-run").stderr
    assert "26B7O: is pinned, and the library has nothing of it" in told
    assert "iOS:26B90: is pinned, and" in told
    assert "26B77: is pinned" not in told


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("", "nothing says which builds may go"),
        ('[retention]\npinned = ["26A428"]\n', "nothing says which builds may go"),
        ("[retention]\nlast = 0\n", "retention.last"),
        ("[retention]\nbeta_days = -1\n", "retention.beta_days"),
        ("[retention]\nkeep = 3\n", "retention.keep"),
        ("[retention]\nlast = true\n", "retention.last"),
        ("[retention]\nlast = 1.0\n", "retention.last"),
        ('[retention]\nbeta_days = "9"\n', "retention.beta_days"),
        ("[retention]\nlast = 1\nrequested_days = true\n", "retention.requested_days"),
        ("[retention]\nlast = 1\n[sync]\nlines = true\n", "sync.lines"),
        ("[retention]\nlast = 1\n[sync]\nattempts = 2.0\n", "sync.attempts"),
        ('[retention]\nlast = 1\n[sync]\nfrom = "27"\nbefore = "14"\n', "sync.before"),
        ('[retention]\nlast = 1\n[sync]\nfrom = "27.0"\nbefore = "27"\n', "sync.before"),
    ],
)
def test_a_policy_that_says_nothing_or_something_else_removes_nothing(
    library: Library, tmp_path: Path, table: str, text: str
) -> None:
    (tmp_path / "releases.toml").write_text(table)
    result = prune(tmp_path)
    assert result.exit_code == 2
    assert text in result.stderr
    assert len(library.releases()) == len(BUILDS)


@pytest.mark.parametrize("released", ["9999999999", "2026-99", "-5", "soon"])
def test_a_day_that_is_none_says_nothing(library: Library, released: str) -> None:
    publish(library, "26B5086k", version="27.1 beta", kind="beta", released=released)
    assert "was first harvested on 2026-09-20" in going(library, beta_days=60)["26B5086k"]
