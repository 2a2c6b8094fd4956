"""Whatever is typed or pasted into the search box is understood as a person means it."""

from __future__ import annotations

from uuid import UUID

import pytest

from symcache.catalog import ReleaseRow
from symcache_server.pages.query import releases_meant, understand

_TEXT = "23516BE4-29BE-350C-91C9-F36E7999F0F1"
_UUID = UUID(_TEXT)
_HEX = _UUID.hex


@pytest.mark.parametrize(
    "text",
    [
        _TEXT,
        _TEXT.lower(),
        _HEX,
        _HEX.upper(),
        f"  {{{_TEXT}}} ",
        f"<{_TEXT}>",
        f"{_HEX.upper()}0",  # Breakpad's, with an age
        f"UUID: {_TEXT} (arm64e) /usr/lib/libz.dylib",  # dwarfdump
        f"http://symbols.example/images/{_TEXT}",
        f"/buildid/{_HEX}/executable",
        f"/libz.1.dylib/mach-uuid-{_HEX}/libz.1.dylib",
        f"/{_HEX[:2]}/{_HEX[2:]}/debuginfo",
        "2351/6BE4/29BE/350C/91C9/F36E7999F0F1",
        _TEXT.replace("-", "_"),
        _TEXT.replace("-", " "),
        "0x18a0c4000 - 0x18a0d7fff libz.1.dylib (1.2.12) <23516be4-29be-350c-91c9-f36e7999f0f1> /usr/lib/libz.1.dylib",
    ],
)
def test_a_uuid_in_any_spelling(text: str) -> None:
    query = understand(text)
    assert (query.uuids, query.words, query.is_report) == ((_UUID,), (), False)


def test_several_uuids_once_each_in_their_order() -> None:
    other = UUID(int=5)
    assert understand(f"{other} {_TEXT}\n{_HEX}\t{other}").uuids == (other, _UUID)


def test_a_hash_of_a_content_is_no_uuid() -> None:
    query = understand("AB" * 32)
    assert (query.sha256, query.uuids) == ("ab" * 32, ())


@pytest.mark.parametrize(
    ("text", "versions", "builds", "archs", "words"),
    [
        ("15.4", ("15.4",), (), (), ()),
        ("macOS 15.4 for Intel", ("15.4",), (), ("x86_64h", "x86_64"), ()),
        ("Sonoma", ("14",), (), (), ()),
        ("Big Sur", ("11",), (), (), ()),
        ("22g120", (), ("22g120",), (), ()),
        ("macOS 13.6 (22G120)", ("13.6",), ("22g120",), (), ()),
        ("libSystem", (), (), (), ("libSystem",)),
        ("libSystem.dylib", (), (), (), ("libSystem.dylib",)),
        ("CoreFoundation, 15.4", ("15.4",), (), (), ("CoreFoundation",)),
        ("x", (), (), (), ("x",)),
        ("/usr/lib/dyld", (), (), (), ("/usr/lib/dyld",)),
        ("", (), (), (), ()),
    ],
)
def test_words(
    text: str, versions: tuple[str, ...], builds: tuple[str, ...], archs: tuple[str, ...], words: tuple[str, ...]
) -> None:
    query = understand(text)
    assert (query.versions, query.builds, query.archs, query.words) == (versions, builds, archs, words)


def test_a_version_means_its_releases_and_no_longer_number() -> None:
    rows = [
        ReleaseRow("macOS", version, "", build, True, 1, 1, 1)
        for version, build in (("15.4.1", "24E263"), ("15.4", "24E248"), ("15.40", "24X1"), ("14.5", "23F79"))
    ]

    def builds(text: str) -> list[str]:
        return [row.build for row in releases_meant(understand(text), rows)]

    assert builds("15.4") == ["24E263", "24E248"]
    assert builds("15") == ["24E263", "24E248", "24X1"]
    assert builds("24e2") == ["24E263", "24E248"]
    assert builds("5") == builds("lib") == []


@pytest.mark.parametrize(
    "text",
    [
        "Process:               Ledger [123]\nPath:                  /Applications/Ledger.app\n",
        '{"app_name":"Ledger","bug_type":"309"}\n{"procName": "Ledger"}',
    ],
)
def test_a_crash_report_is_told_by_its_first_lines(text: str) -> None:
    assert understand(text).is_report
