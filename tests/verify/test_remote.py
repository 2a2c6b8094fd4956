"""Servers of this and of earlier versions, and what is no server of ours, as `verify --server` asks them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from aiohttp import web

from symcache.errors import RemoteError, UsageError
from symcache.model import HarvestRecord, Kind, ManifestEntry, Origin, Release
from symcache.verify import (
    Expectations,
    FindingCode,
    VerifyReport,
    remote_holder,
    verify_against_library,
    verify_coverage,
)
from symcache.verify.modules import Holding
from tests.client.lying_server import LyingServer
from tests.verify.test_holdings import library_of

Finding = dict[str, object]


def found(code: str, text: str, **more: object) -> Finding:
    return {"code": code, "text": text, "path": "", "arch": "", "uuid": "", "cache_uuid": "", **more}


@contextmanager
def telling(*findings: Finding, builds: Sequence[str] = ("22G120",)) -> Iterator[str]:
    """Run a server that has these releases of macOS, and finds all that of each."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/api/v1/releases":
            row = {"product": "macOS", "version": "13.6", "extra": "", "sealed": True, "harvests": 1, "images": 9}
            return web.json_response({"releases": [row | {"build": build} for build in builds]})
        assert request.path in {f"/api/v1/coverage/{build}" for build in builds}
        row = {"build": request.path.rpartition("/")[2], "complete": not findings, "level": "catalog", "images": 9}
        return web.json_response(row | {"findings": findings})

    with LyingServer(answer) as server:
        yield server.url


def messages(report: VerifyReport) -> list[str]:
    return [f.message for f in report.findings]


def test_what_an_earlier_server_finds_gets_the_next_step_and_what_one_of_today_finds_has_it() -> None:
    earlier = found("cache-missing", "no x86_64h", arch="x86_64h")
    there = found("cache-missing", "no arm64e: harvest a VM", arch="arm64e", elsewhere=True)
    here = found("missing", "gone: harvest that", path="/usr/lib/libz.dylib", arch="arm64e", elsewhere=False)
    with telling(earlier, there, here) as url:
        report = verify_coverage([url], [], Expectations())
    assert messages(report) == [
        f"{url}: no x86_64h: harvest a host that has it",
        f"{url}: no arm64e: harvest a VM",
        f"{url}: gone: harvest that",
    ]
    assert [f.elsewhere for f in report.findings] == [False, True, False]
    assert {(f.product, f.build) for f in report.findings} == {("macOS", "22G120")}
    assert [(r.product, r.version, r.build, r.images) for r in report.releases] == [("macOS", "13.6", "22G120", 9)]


def test_of_caches_only_the_architectures_that_are_asked_for_are_missed() -> None:
    findings = [
        found("cache-missing", "no x86_64h", arch="x86_64h", elsewhere=True),
        found("cache-missing", "no arm64e", arch="arm64e", elsewhere=True),
        found("cache-missing", "no cache at all", elsewhere=True),
        found("missing", "gone", arch="x86_64h", elsewhere=True),
    ]
    with telling(*findings) as url:
        report = verify_coverage([url], ["22G120"], Expectations.load(None, ["arm64e"]))
    assert messages(report) == [f"{url}: {text}" for text in ("no arm64e", "no cache at all", "gone")]


def test_a_finding_that_only_a_newer_server_knows_is_no_verdict() -> None:
    with telling(found("haunted", "boo")) as url, pytest.raises(RemoteError, match="'haunted', unknown here"):
        verify_coverage([url], [], Expectations())


def test_each_server_has_to_have_each_release_that_is_asked_for() -> None:
    with telling() as one, telling(builds=("22G120", "23A344")) as two, telling(builds=()) as none:
        assert verify_coverage([one, two], [], Expectations()).complete
        report = verify_coverage([one, two], ["22G120", "23A344"], Expectations())
        assert [(f.code, f.build) for f in report.findings] == [(FindingCode.NO_HARVEST, "23A344")]
        assert report.findings[0].message.startswith(f"{one}: has nothing of 23A344: ")
        assert [f.build for f in verify_coverage([one], ["iOS:22G120"], Expectations()).findings] == ["22G120"]
        empty = verify_coverage([one, none], [], Expectations())
        assert [(f.code, f.message.startswith(none)) for f in empty.findings] == [(FindingCode.EMPTY_LIBRARY, True)]
        wanting = verify_coverage([none], ["22G120"], Expectations())
        assert [f.code for f in wanting.findings] == [FindingCode.NO_HARVEST]


def test_a_release_that_the_site_expects_is_missed_without_being_named(tmp_path: Path) -> None:
    (tmp_path / "releases.toml").write_text('expect_builds = ["22G120", "23A344"]')
    with telling(builds=("22G120", "21A1")) as url:
        report = verify_coverage([url], [], Expectations.load(tmp_path / "releases.toml"))
    assert [(f.code, f.build) for f in report.findings] == [(FindingCode.NO_HARVEST, "23A344")]
    assert [r.build for r in report.releases] == ["22G120", "21A1"]


def test_what_is_no_server_of_ours_is_said_to_be_none() -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({})

    with LyingServer(answer) as server:
        named = server.url.replace("http://", "http://any:s3cret@")
        with pytest.raises(RemoteError) as told:
            verify_coverage([named], [], Expectations())
    assert str(told.value) == f"{server.url}: its answer to /api/v1/releases is not what the API promises"


def test_systems_of_one_build_are_asked_about_by_their_names() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/api/v1/releases":
            row = {"version": "17.0", "extra": "", "sealed": True, "harvests": 1, "images": 9}
            named = [("tvOS", "21J354"), ("audioOS", "21J354"), ("macOS", "22G120")]
            return web.json_response({"releases": [row | {"product": p, "build": b} for p, b in named]})
        asked.append(request.path)
        return web.json_response({"build": "", "complete": True, "level": "catalog", "images": 9, "findings": []})

    asked: list[str] = []
    with LyingServer(answer) as server:
        assert verify_coverage([server.url], [], Expectations()).complete
        with pytest.raises(UsageError, match=r"21J354: is a build of \w+ and of \w+"):
            verify_coverage([server.url], ["21J354"], Expectations())
    assert asked == [f"/api/v1/coverage/{name}" for name in ("tvOS:21J354", "audioOS:21J354", "22G120")]


LIBZ, LIBC, LIBM = "/usr/lib/libz.dylib", "/usr/lib/libc.dylib", "/usr/lib/libm.dylib"
CACHE, OTHER_CACHE = UUID(int=7), UUID(int=8)
Held = dict[int, tuple[str, UUID | None]]


@contextmanager
def holding(held: Held) -> Iterator[LyingServer]:
    """Run a server that has these contents, each of a kind and as a shared cache lays it out."""

    async def answer(request: web.Request) -> web.StreamResponse:
        query = await request.json()
        assert query["note_missing"] is False
        images = [{"uuid": i["uuid"], "contents": contents(UUID(i["uuid"]).int)} for i in query["images"]]
        return web.json_response({"images": images})

    def contents(number: int) -> list[dict[str, object]]:
        if number not in held:
            return []
        kind, cache = held[number]
        named = {"sha256": "0" * 64, "size": 1, "arch": "arm64e", "path": "", "build": None}
        return [named | {"kind": kind, "cache_uuid": str(cache) if cache else None}]

    with LyingServer(answer) as server:
        yield server


def listing(*entries: tuple[str, int | None, UUID | None], build: str = "22G120") -> HarvestRecord:
    """Return the record of a sealed harvest that lists images of (path, UUID, cache)."""
    manifest = tuple(
        ManifestEntry(
            path=path,
            arch="arm64e",
            uuid=UUID(int=uuid) if uuid else None,
            origin=Origin.CACHE if cache else Origin.FILE,
            cache_uuid=cache,
        )
        for path, uuid, cache in entries
    )
    return HarvestRecord(release=Release(version="13.6", build=build), sealed=True, manifest=manifest)


def test_what_a_library_lists_is_looked_for_on_all_servers_together(tmp_path: Path) -> None:
    images = listing((LIBZ, 1, CACHE), (LIBC, 2, CACHE), (LIBM, 3, None), ("/usr/bin/old", None, None))
    one, two = {1: ("executable", CACHE), 2: ("debuginfo", CACHE)}, {2: ("executable", CACHE), 3: ("executable", None)}
    with library_of(tmp_path, images) as library, holding(one) as first, holding(two) as second:

        def lacking(*servers: LyingServer) -> dict[str, str]:
            report = verify_against_library(library, [], [s.url for s in servers], tmp_path)
            assert [(r.product, r.version, r.build, r.images) for r in report.releases] == [
                ("macOS", "13.6", "22G120", 3)
            ]
            assert {(f.code, f.product, f.build) for f in report.findings} <= {(FindingCode.MISSING, "macOS", "22G120")}
            return {f.path: f.message.split(": ")[1] for f in report.findings}

        assert lacking(first, second) == {}
        assert lacking(first) == {LIBC: "no server has it", LIBM: "no server has it"}
        with holding(two | {1: ("executable", OTHER_CACHE)}) as third:
            assert lacking(third) == {LIBZ: "servers have it only as other shared caches lay it out"}


def test_builds_that_the_library_has_nothing_of_are_told_and_the_others_compared(tmp_path: Path) -> None:
    with library_of(tmp_path / "one", listing((LIBZ, 1, CACHE))) as library, holding({}) as server:
        report = verify_against_library(library, ["macOS:9Z1", "22G120"], [server.url], tmp_path)
    assert [(f.code, f.build) for f in report.findings] == [
        (FindingCode.NO_HARVEST, "9Z1"),
        (FindingCode.MISSING, "22G120"),
    ]
    with library_of(tmp_path / "none") as library:
        report = verify_against_library(library, [], [], tmp_path)
        assert [f.code for f in report.findings] == [FindingCode.EMPTY_LIBRARY]


def test_servers_are_asked_in_turn_for_the_binaries_that_are_lacking(tmp_path: Path) -> None:
    wanted = [UUID(int=n) for n in (1, 2, 3)]
    with (
        holding({1: ("executable", CACHE), 2: ("debuginfo", None)}) as first,
        holding({1: ("executable", None), 2: ("executable", None)}) as second,
    ):
        held = remote_holder([first.url, second.url], tmp_path)(wanted)
    assert held == {
        wanted[0]: [Holding("", CACHE, Kind.EXECUTABLE)],
        wanted[1]: [Holding("", None, Kind.DEBUGINFO), Holding("", None, Kind.EXECUTABLE)],
    }
