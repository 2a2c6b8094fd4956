"""What a guest's programs print, read: by their documentation, and as Apple's tool really printed it."""

from __future__ import annotations

import json
import plistlib
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symcache.errors import RemoteError
from symcache.model import Release
from symcache.text import excerpt
from symcache_provisioning.extractors.dyld_shared_cache_util import parse_info, parse_text_info
from symcache_provisioning.remarks import Problems, Remarks
from symcache_provisioning.sources.entries import refusal
from symcache_provisioning.sources.release import parse_sw_vers, parse_system_version
from tests.support.apple import apple_caches, listed_caches, util_output

_UUID = UUID("4C4C4412-5555-3144-A156-E853B4E92AD2")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "ProductName:\tMac OS X\nProductVersion:\t10.13.6\nBuildVersion:\t17G14042\n",
            Release(product="Mac OS X", version="10.13.6", build="17G14042"),
        ),
        (
            "ProductName:\t\tmacOS\nProductVersion:\t\t13.3.1\nProductVersionExtra:\t(a)\nBuildVersion:\t\t22E772610a\n",
            Release(version="13.3.1", extra="(a)", build="22E772610a"),
        ),
        (
            "ProductName:\t\tmacOS\nProductVersion:\t\t27.0\nBuildVersion:\t\t26A5279m\nReleaseType:\t\tBeta\n",
            Release(version="27.0", build="26A5279m"),
        ),
    ],
)
def test_sw_vers_of_all_times(text: str, expected: Release) -> None:
    assert parse_sw_vers(text.encode(), "host") == expected


@pytest.mark.parametrize("build", ["", "22G120\x00", "22g120", "../22G120", "22G120; rm", "22G120 ", "二2G120"])
def test_builds_that_are_none(build: str) -> None:
    text = f"ProductName:\t\tmacOS\nProductVersion:\t\t13.5\nBuildVersion:\t\t{build}\n"
    if build.strip() == "22G120":
        assert parse_sw_vers(text.encode(), "host").build == "22G120"
        return
    with pytest.raises(RemoteError, match="BuildVersion"):
        parse_sw_vers(text.encode(), "host")


def test_the_property_list_that_macos_ships() -> None:
    content = {
        "BuildID": "8A7E9B0C-0000-11EE-0000-000000000000",
        "ProductBuildVersion": "22E772610a",
        "ProductCopyright": "1983-2023 Apple Inc.",
        "ProductName": "macOS",
        "ProductUserVisibleVersion": "13.3.1",
        "ProductVersion": "13.3.1",
        "ProductVersionExtra": "(a)",
        "iOSSupportVersion": "16.4",
    }
    found = parse_system_version(plistlib.dumps(content), "plist")
    assert found == Release(version="13.3.1", extra="(a)", build="22E772610a")


@pytest.mark.parametrize("cache", listed_caches())
def test_what_apples_tool_printed_is_what_the_cache_holds(cache: str) -> None:
    folder = util_output() / cache
    listed = parse_text_info((folder / "text_info.out").read_bytes())
    info = parse_info((folder / "info.out").read_bytes())
    assert info.image_count == len(listed)
    expected = json.loads((apple_caches() / cache / "expected.json").read_text())["images"]
    by_address = {i["address"]: i.get("uuid") for i in expected}
    for image in listed:
        said = by_address[image.address]
        assert image.uuid == (UUID(said) if said else None)


@pytest.mark.parametrize(
    "path", ["/usr/lib/lib\u00a0x.dylib", "/Library/a\u200db/é ü.dylib", "/a/[alias] /b", "/usr/lib/\u3000.dylib"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_paths_of_any_letters_and_lines_of_either_end(path: str, end: str) -> None:
    line = f"<{_UUID}>  {path}{end}"
    (one,) = parse_text_info(f"dylib text infos (count=1):{end}   0x1000 -> 0x2000  {line}".encode())
    assert (one.path, one.uuid, one.address) == (path, _UUID, 0x1000)


@pytest.mark.parametrize("verb", ["text_info", "info"])
def test_output_that_breaks_off_in_a_line_is_no_answer(verb: str) -> None:
    parse = {"text_info": parse_text_info, "info": parse_info}[verb]
    whole = {
        "text_info": f"dylib text infos (count=1):\n   0x1 -> 0x2  <{_UUID}>  /usr/lib/libz.1.dylib\n",
        "info": f"uuid: {_UUID}\nimage count: 812\n",
    }[verb].encode()
    assert parse(whole)
    with pytest.raises(RemoteError, match="in the middle of a line"):
        parse(whole[:-2])


def test_info_of_older_tools() -> None:
    old = b"uuid: n/a\nimage count: 812\nmappings:\n    __TEXT      300MB,  0x7FFF80000000 -> 0x7FFF92C00000\n"
    assert (parse_info(old).uuid, parse_info(old).image_count) == (None, 812)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"/usr/lib/libz.dylib\n",
        b"dylib text infos (count=2):\n   0x1 -> 0x2  <4C4C4412-5555-3144-A156-E853B4E92AD2>  /usr/lib/libz.dylib\n",
        b"dylib text infos (count=1):\n   0x1 -> 0x2  <4C4C4412>  /usr/lib/libz.dylib\n",
        b"dylib text infos (count=1):\n   0x1 -> 0x2  <4C4C4412-5555-3144-A156-E853B4E92AD2>  relative\n",
        b"dylib text infos (count=1):\n   0x1 -> 0x2  <4C4C4412-5555-3144-A156-E853B4E92AD2>  /a/../b\n",
        b"dylib text infos (count=99999999999):\n",
        b"\xff\xfe\n",
    ],
)
def test_lists_that_are_none(text: bytes) -> None:
    with pytest.raises(RemoteError) as raised:
        parse_text_info(text)
    assert str(raised.value).isprintable()


@given(st.binary(max_size=300))
def test_names_are_refused_or_plain(name: bytes) -> None:
    if not refusal(name):
        text = name.decode()
        assert "/" not in text
        assert text not in {"", ".", ".."}
        assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in text)
        assert (Path("/staging") / text).parent == Path("/staging")


@given(st.one_of(st.text(max_size=400), st.binary(max_size=400)), st.integers(2, 300))
def test_what_is_quoted_fits_a_line_and_a_terminal(text: str | bytes, limit: int) -> None:
    out = excerpt(text, limit)
    assert len(out) <= limit
    assert out.isprintable()


def test_remarks_end_somewhere() -> None:
    remarks = Remarks()
    for number in range(5000):
        remarks.append(str(number))
    assert len(remarks) == 1001
    assert "more" in remarks[-1]


def test_a_problem_ends_with_what_to_do_and_problems_end_somewhere() -> None:
    problems = Problems()
    with pytest.raises(ValueError, match="what to do"):
        problems.add("/usr/lib: is gone", "")
    problems.add_error(RemoteError("/usr/lib: not readable", hint="log in as another user"), "/usr/lib")
    problems.add_error(RemoteError("not readable"), "/usr/bin")
    assert list(problems) == [
        "/usr/lib: not readable: log in as another user",
        "/usr/bin: not readable: harvest again; if it stays so, harvest another Mac of the build",
    ]
    for number in range(5000):
        problems.add(str(number), "look")
        problems.add(str(number), "look")
    assert len(problems) == 1001
    assert "more" in list(problems)[-1]
