"""Reading AppleDB: what it publishes, and what it cannot mean."""

from __future__ import annotations

import contextlib
import gzip
import json
import lzma
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from symcache.errors import EnvironmentFailure, RemoteError, UsageError
from symcache.verify import SyncPolicy
from symcache_provisioning import parse_appledb, read_appledb, select_builds
from symcache_provisioning.builds import appledb
from symcache_provisioning.builds.selection import file_name, usable_firmware
from tests.client.lying_server import LyingServer
from tests.support.appledb import REAL, entries_of, pack, source

DOCUMENT = json.dumps(entries_of(REAL)).encode()


def one(**changes: Any) -> dict[str, Any]:
    """Return the entry of macOS 27.0 with changes."""
    return entries_of(REAL)[0] | changes


def parsed(*entries: Any) -> appledb.PublishedBuilds:
    return parse_appledb(json.dumps([*entries, entries_of(REAL)[1]]).encode(), "list")


def test_each_kind_of_entry_is_what_it_is() -> None:
    builds = parse_appledb(DOCUMENT, "list").builds
    assert {b.build: (b.version, b.kind, b.released, len(b.firmware), b.others) for b in builds.values()} == {
        "26A428": ("27.0", "release", "2026-09-14", 1, ("ota",)),  # not the candidate of the same build
        "26A5353q": ("27.0 beta", "beta", "2026-06-08", 1, ("installassistant", "ota")),
        "25D770870b": ("26.3 beta (a)", "response", "2026-01-06", 0, ("ota",)),
        "23H222": ("14.7.1", "release", "2024-10-28", 0, ("installassistant", "ota")),
        "25D2150": ("26.3.2", "release", "2026-03-19", 0, ()),
        "10A432": ("10.6", "release", "2009-08-28", 0, ()),
    }
    (firmware,) = builds["26A428"].firmware
    assert firmware.size == 26626436228
    assert firmware.sha256 == "2a5d3c695d501022b7fad9adaffcf2627bcb867d993fb5662dcd41bac99a2836"
    assert file_name("26A428", firmware) == "UniversalMac_27.0_26A428_Restore.ipsw"
    assert usable_firmware(builds["26A428"]) == (firmware, [])


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ({}, ["26A428", "23H222"]),
        ({"betas": True, "responses": True}, ["26A428", "26A5353q", "25D770870b", "23H222"]),
        ({"betas": True, "skip": ["26A5353q"]}, ["26A428", "23H222"]),
        ({"lines": 1}, ["26A428"]),
        ({"from": "14", "before": "27"}, ["23H222"]),
    ],
)
def test_policy_chooses(policy: dict[str, Any], wanted: list[str]) -> None:
    published = parse_appledb(DOCUMENT, "list")
    assert [b.build for b in select_builds(published, SyncPolicy.model_validate(policy))] == wanted


def test_what_is_named_is_wanted_whatever_policy_says() -> None:
    published = parse_appledb(DOCUMENT, "list")
    always = select_builds(published, SyncPolicy(lines=1), always=["25D2150", "22G999", "10A432"])
    assert [b.build for b in always] == ["26A428", "25D2150", "22G999", "10A432"]
    (unlisted,) = select_builds(published, SyncPolicy(), only=["22G999"])
    assert unlisted.build == "22G999"
    assert usable_firmware(unlisted) == (None, ["AppleDB does not list it"])


def test_a_candidate_waits_for_its_release_unless_candidates_are_wanted() -> None:
    (candidate,) = entries_of([REAL[0] | {"rc": True, "version": "27.0 RC", "createDuplicateEntries": []}])
    published = parse_appledb(json.dumps([candidate]).encode(), "list")
    assert select_builds(published, SyncPolicy()) == []
    assert [b.build for b in select_builds(published, SyncPolicy(rcs=True, from_="27"))] == ["26A428"]


@pytest.mark.parametrize(
    "data",
    [
        b"<!DOCTYPE html><html><title>Redirecting</title></html>",
        b'{"message": "Not Found"}',
        b"",
        b"[]",
        DOCUMENT[:-100],
        b"[" * 100_000,
        b'[{"build": ' * 50_000,
        b"[" + b"9" * 100_000 + b"]",
        json.dumps(["26A428"]).encode(),
        pack(entries_of(REAL))[:-30],
        gzip.compress(DOCUMENT)[:-30],
        b"\xfd7zXZ\0" + b"no xz at all",
    ],
    ids=[
        "page",
        "object",
        "empty",
        "no build",
        "cut",
        "deep",
        "deep objects",
        "huge number",
        "names",
        "xz",
        "gz",
        "lie",
    ],
)
def test_what_is_no_list_is_refused_whole(data: bytes) -> None:
    with pytest.raises(EnvironmentFailure, match=r"^list: "):
        parse_appledb(data, "list")


@pytest.mark.parametrize("pack_it", [lzma.compress, gzip.compress, lambda data: data], ids=["xz", "gz", "plain"])
def test_a_list_that_unpacks_to_more_than_there_can_be_is_refused(
    pack_it: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appledb, "_MAX_SIZE", 1 << 20)
    with pytest.raises(EnvironmentFailure, match="more than 1048576 bytes"):
        parse_appledb(pack_it(b"[" + b" " * (1 << 21) + b"]"), "list")


def test_of_what_never_ends_no_more_is_read_than_a_list_can_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appledb, "_MAX_SIZE", 1 << 20)
    pipe, written = tmp_path / "pipe", []
    os.mkfifo(pipe)

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), pipe.open("wb", buffering=0) as file:
            for _ in range(8 << 20 >> 16):
                written.append(file.write(bytes(1 << 16)))

    writing = threading.Thread(target=write)
    writing.start()
    with pytest.raises(EnvironmentFailure, match="pipe: larger than 1048576 bytes"):
        read_appledb(str(pipe))
    writing.join()
    assert sum(written) < 2 << 20


def test_a_list_of_more_values_than_there_can_be_is_refused_before_memory_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(appledb, "_MAX_CONTAINERS", 1000)
    with pytest.raises(EnvironmentFailure, match="more values"):
        parse_appledb(b"[" + b"{}," * 1000 + b"{}]", "list")


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (one(beta="no"), "macOS;26A428: beta"),
        (one(version=27), "macOS;26A428: version"),
        (one(sources={"type": "ipsw"}), "macOS;26A428: sources"),
        (one(released=20260914), "macOS;26A428: released"),
        (["macOS"], "entry 0: "),
        (None, "entry 0: "),
    ],
)
def test_an_entry_of_wrong_types_is_named_and_keeps_no_other_from_being_read(entry: Any, text: str) -> None:
    result = parsed(entry)
    assert list(result.builds) == ["26A5353q"]
    assert [problem.startswith(text) for problem in result.problems] == [True]


@pytest.mark.parametrize("build", ["../../etc", "26A428\n", "", "26a428", "26A428-RC", "26A4284284284"])
def test_a_build_that_is_none_is_passed_over(build: str) -> None:
    assert list(parsed(one(build=build)).builds) == ["26A5353q"]


URL = "https://updates.cdn-apple.com/a/UniversalMac.ipsw"


@pytest.mark.parametrize(
    ("offered", "text"),
    [
        (source("ipsw", URL, 1 << 60), "a size of 1152921504606846976 bytes cannot be"),
        (source("ipsw", URL, 0), "a size of 0 bytes cannot be"),
        (source("ipsw", URL, None), "a size of None bytes cannot be"),
        ({"type": "ipsw", "links": [{"url": 7}], "size": 1}, "links.0.url"),
        ({"type": "ipsw", "links": URL, "size": 1}, "links"),
        (source("ipsw", "https://evil.example/UniversalMac.ipsw", 9, sha256="a" * 64), "https://evil.example: none of"),
        (source("ipsw", "https://updates.cdn-apple.com.evil.example/a.ipsw", 9), "none of Apple's hosts"),
        (source("ipsw", "https://updates.cdn-apple.com@evil.example/a.ipsw", 9), "no plain URL"),
        (source("ipsw", "http://updates.cdn-apple.com/a.ipsw", 9), "none of Apple's hosts by https"),
        (source("ipsw", "file:///etc/passwd", 9), "no plain URL"),
        (source("ipsw", "https://[::1/a.ipsw", 9), "is no URL"),
        (source("ipsw", "https://mirror.example/a.ipsw", 9), "has no SHA-256 of it"),
    ],
)
def test_firmware_that_cannot_be_believed_is_named_and_not_offered(offered: dict[str, Any], text: str) -> None:
    build = parsed(one(sources=[offered])).builds["26A428"]
    firmware, reasons = usable_firmware(build, ["mirror.example"])
    assert firmware is None
    assert len(reasons) == 1
    assert text in reasons[0]


def test_a_build_whose_only_firmware_cannot_be_is_wanted_and_told_of() -> None:
    published = parsed(one(sources=[source("ipsw", URL, 1 << 60)]))
    (build,) = select_builds(published, SyncPolicy())
    assert (build.build, build.others) == ("26A428", ())
    assert usable_firmware(build) == (None, ["its firmware: a size of 1152921504606846976 bytes cannot be"])


def test_the_first_link_that_may_be_followed_is_taken() -> None:
    offered = [
        source("ipsw", "https://mirror.example:8443/a.ipsw", 9, sha256="a" * 64, active=False),
        source("ipsw", "https://evil.example/b.ipsw", 9, sha256="a" * 64),
        source("ipsw", URL, 9, needs="25A1"),  # an update to another build, not the whole
    ]
    build = parsed(one(sources=offered)).builds["26A428"]
    assert usable_firmware(build)[0] is None
    firmware, _ = usable_firmware(build, ["mirror.example:8443"])
    assert firmware is not None
    assert firmware.url == "https://mirror.example:8443/a.ipsw"


@pytest.mark.parametrize(
    ("path", "name"), [("a/b/%2e%2e%2fx.ipsw", "26A428.ipsw"), ("a/.ipsw", "26A428.ipsw"), ("a/M_1.ipsw?x", "M_1.ipsw")]
)
def test_a_name_that_is_no_plain_one_names_no_file(path: str, name: str) -> None:
    firmware = appledb.Firmware(f"https://updates.cdn-apple.com/{path}", 1)
    assert file_name("26A428", firmware) == name


def test_a_mirror_a_document_a_file_and_a_folder_are_read_alike(tmp_path: Path) -> None:
    packed = pack(entries_of(REAL))
    folder = tmp_path / "ios/macOS"
    folder.mkdir(parents=True)
    (folder / "main.json.xz").write_bytes(packed)
    expected = list(parse_appledb(DOCUMENT, "list").builds)

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/moved.json":
            raise web.HTTPFound("file:///etc/passwd")
        known = {"/page.json": b"<html>", "/db/ios/macOS/main.json.xz": packed, "/plain/main.json": DOCUMENT}
        return web.Response(body=known[request.path]) if request.path in known else web.Response(status=404)

    with LyingServer(answer) as server:
        places = [f"{server.url}/db/", f"{server.url}/plain/main.json", str(tmp_path), str(folder / "main.json.xz")]
        assert [list(read_appledb(place).builds) for place in places] == [expected] * 4
        with pytest.raises(RemoteError, match="answers 404"):
            read_appledb(server.url)
        for place in (server.url.replace("//", "//ci:s3cret@"), f"{server.url.replace('//', '//s3cret@')}/page.json"):
            with pytest.raises((RemoteError, EnvironmentFailure)) as raised:
                read_appledb(place)
            assert "s3cret" not in str(raised.value)
            assert "Authorization" in server.requests[-1][1]
        with pytest.raises(RemoteError, match="redirects to an address of file:, and not of a web server"):
            read_appledb(f"{server.url}/moved.json")
    for place in ("http://ci:s3cret@[x/main.json", "https://s3cret@x:y/main.json", "ftp://ci:s3c@ret@mirror.example"):
        with pytest.raises((RemoteError, UsageError)) as raised:
            read_appledb(place)
        assert "s3c" not in str(raised.value)
    with pytest.raises(RemoteError, match=r"127\.0\.0\.1"):
        read_appledb(server.url)
    with pytest.raises(UsageError, match="cannot be read"):
        read_appledb(str(tmp_path / "nothing.json"))
    with pytest.raises(UsageError, match="no URL that can be read"):
        read_appledb("ftp://api.appledb.dev")
