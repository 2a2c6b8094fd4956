"""Can these crash dumps be opened? Modules of dumps, reports and lists against what can be served."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symcache.errors import DumpError, UsageError
from symcache.library import Library, ingest, stage_paths
from symcache.model import Kind, uuid_text
from symcache.verify import (
    FindingCode,
    VerifyReport,
    library_holder,
    parse_uuid_list,
    read_report,
    read_reports,
    verify_modules,
)
from symcache.verify.crash_reports import CrashReport, ReportModule, parse_report
from symcache.verify.modules import Holding
from tests.dump.minidump import MiniThread, minidump
from tests.verify.releases import BUILD, OTHER_BUILD, Workshop

ASSETS = Path(__file__).parents[2] / "symcache" / "demo" / "assets"
PLAIN, MORE = "/usr/lib/libplain.dylib", "/usr/lib/libmore.dylib"
STRANGER = UUID("11111111-2222-3333-4444-555555555555")
APP = "/Applications/Notes.app/Contents/MacOS/Notes"


def ips(build: str, images: list[dict[str, object]], cache: UUID | None = None) -> str:
    """A report as macOS 12 and later write it: a header on one line, then the body."""
    head = {"app_name": "Notes", "bug_type": "309", "os_version": f"macOS 13.6.9 ({build})", "incident_id": "X"}
    body: dict[str, object] = {
        "procName": "Notes",
        "osVersion": {"train": "macOS 13.6.9", "build": build, "releaseType": "User"},
        "usedImages": images,
        "threads": [{"id": 1, "triggered": True, "frames": [{"imageOffset": 16, "imageIndex": 0}]}],
    }
    if cache:
        body["sharedCache"] = {"base": 0x7FF80F000000, "size": 1 << 32, "uuid": str(cache)}
    return json.dumps(head) + "\n" + json.dumps(body, indent=2)


def image(uuid: UUID, path: str, arch: str = "x86_64", base: int = 0x7FF80F1D5000) -> dict[str, object]:
    return {
        "source": "P",
        "arch": arch,
        "base": base,
        "size": 0x98000,
        "uuid": str(uuid),
        "path": path,
        "name": path.rpartition("/")[2],
    }


NOWHERE = {"size": 0, "source": "A", "base": 0, "uuid": "00000000-0000-0000-0000-000000000000"}
CRASH = """\
Process:               Notes [812]
Path:                  /Applications/Notes.app/Contents/MacOS/Notes
Code Type:             X86-64 (Native)
OS Version:            macOS 11.7.10 (20G1427)
Report Version:        12

Thread 0 Crashed:: Dispatch queue: com.apple.main-thread
0   libsystem_c.dylib             	0x00007fff2030ca1e 0x7fff2030b000 + 6686

Binary Images:
       0x10b1e0000 -        0x10b1f3fff +com.example.Notes (1.0 - 1) <11111111-2222-3333-4444-555555555555> /Applications/Notes.app/Contents/MacOS/Notes
    0x7fff2030b000 -     0x7fff20393fff  libsystem_c.dylib (1439.141.1) <23516BE4-29BE-350C-91C9-F36E7999F0F1> /usr/lib/system/libsystem_c.dylib
       0x182d1c000 -        0x182d5cfff libz.1.dylib arm64e  <aabbccddeeff00112233445566778899> /usr/lib/libz.1.dylib
               0x0 - 0xffffffffffffffff ??? (*) <00000000-0000-0000-0000-000000000000> ???

External Modification Summary:
  Calls made by other processes targeting this process:
"""  # noqa: E501 - as macOS writes it


def ask(library: Library, *reports: CrashReport) -> VerifyReport:
    return verify_modules(reports, library_holder(library), [r.build for r in library.releases()])


def test_an_ips_names_build_cache_and_modules() -> None:
    cache = UUID(int=77)
    report = parse_report(ips(BUILD, [image(STRANGER, APP, "arm64"), NOWHERE], cache), "a.ips")
    assert (report.build, report.version, report.cache_uuid) == (BUILD, "macOS 13.6.9", cache)
    assert [(m.uuid, m.path, m.arch, m.address) for m in report.modules] == [(STRANGER, APP, "arm64", 0x7FF80F1D5000)]


def test_a_crash_report_in_text_names_them_too() -> None:
    report = parse_report(CRASH, "a.crash")
    assert (report.build, report.version) == ("20G1427", "macOS 11.7.10")
    assert [(uuid_text(m.uuid) if m.uuid else "", m.path, m.arch, m.address) for m in report.modules] == [
        (uuid_text(STRANGER), APP, "", 0x10B1E0000),
        ("23516BE4-29BE-350C-91C9-F36E7999F0F1", "/usr/lib/system/libsystem_c.dylib", "", 0x7FFF2030B000),
        ("AABBCCDD-EEFF-0011-2233-445566778899", "/usr/lib/libz.1.dylib", "arm64e", 0x182D1C000),
    ]


def test_a_report_need_not_have_threads_or_addresses(tmp_path: Path) -> None:
    (tmp_path / "a.ips").write_text('{"bug_type": "309"}\n' + json.dumps({"usedImages": [{"uuid": str(STRANGER)}]}))
    images = "Binary Images:\n  0x1000 - ??? com.example.Notes (1.0) <11111111-2222-3333-4444-555555555555>\n"
    (tmp_path / "a.crash").write_text("OS Version: macOS 11.7.10 (20G1427)\n\n" + images)
    (json_report, text_report), unreadable = read_reports([tmp_path / "a.ips", tmp_path / "a.crash"])
    assert unreadable == []
    assert [(m.uuid, m.address) for m in json_report.modules] == [(STRANGER, None)]
    assert [(m.uuid, m.path, m.address) for m in text_report.modules] == [(STRANGER, "com.example.Notes", 0x1000)]


def test_every_usual_list_of_uuids_is_understood() -> None:
    text = """
    # what a customer sent
    23516be4-29be-350c-91c9-f36e7999f0f1
    aabbccddeeff00112233445566778899  libz.1.dylib
    UUID: 11111111-2222-3333-4444-555555555555 (arm64e) /usr/lib/libplain.dylib
    <22222222-2222-3333-4444-555555555555> /usr/lib/libmore.dylib
    0x7FF800001000 <     no uuid in dylib               > /usr/lib/libold.dylib
    <00000000-0000-0000-0000-000000000000> /usr/lib/libX35.dylib
    dylib text infos (count=1):
       0x7FF800001000 -> 0x7FF800002000  <33333333-2222-3333-4444-555555555555>  /usr/lib/C#.dylib # comment
    """
    found = parse_uuid_list(text, "list").modules
    assert parse_uuid_list("\ufeff" + text.strip().replace("\n", "\r\n"), "list").modules == found
    assert [(str(m.uuid or ""), m.arch, m.path) for m in found] == [
        ("23516be4-29be-350c-91c9-f36e7999f0f1", "", ""),
        ("aabbccdd-eeff-0011-2233-445566778899", "", "libz.1.dylib"),
        ("11111111-2222-3333-4444-555555555555", "arm64e", "/usr/lib/libplain.dylib"),
        ("22222222-2222-3333-4444-555555555555", "", "/usr/lib/libmore.dylib"),
        ("", "", "/usr/lib/libold.dylib"),
        ("", "", "/usr/lib/libX35.dylib"),
        ("33333333-2222-3333-4444-555555555555", "", "/usr/lib/C#.dylib"),
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "list: names no UUID"),
        ("# nothing\n", "list: names no UUID"),
        ("libz.dylib\n", "line 1 holds no UUID: 'libz.dylib'"),
        (f"{STRANGER}\n\n23516be4-29be\n", "line 3 holds no UUID: '23516be4-29be'"),
    ],
)
def test_a_list_without_uuids_is_wrong_use(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        parse_uuid_list(text, "list")


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "{} {}", '{"bug_type": "210"}\n{"panicString": "x"}', "{" * 100_000, "Binary Images:\n", "words"],
)
def test_what_is_no_report_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.ips"
    file.write_text(text)
    with pytest.raises(DumpError):
        read_report(file)


@given(st.text(max_size=400), st.sampled_from(["", "{", "Binary Images:\n"]))
def test_any_text_is_a_report_or_is_refused(text: str, start: str) -> None:
    try:
        parse_report(start + text, "x")
    except DumpError:
        pass


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(json_values, json_values)
def test_any_json_is_a_report_or_is_refused(head: object, images: object) -> None:
    try:
        parse_report(json.dumps(head) + "\n" + json.dumps({"usedImages": images, "osVersion": head}), "x")
    except DumpError:
        pass


def test_modules_are_served_from_the_release_that_has_them(harvested_twice: Path) -> None:
    workshop = Workshop(harvested_twice)
    mine, other = workshop.object(MORE, "x86_64"), workshop.object(MORE, "x86_64", OTHER_BUILD)
    shared = workshop.object(PLAIN, "x86_64")
    assert mine.uuid
    assert other.uuid
    assert shared.uuid
    assert shared.uuid == workshop.object(PLAIN, "x86_64", OTHER_BUILD).uuid
    images = [image(mine.uuid, MORE), image(shared.uuid, PLAIN), image(STRANGER, APP)]
    with Library.open(harvested_twice) as library:
        report = ask(library, parse_report(ips(BUILD, images, mine.cache_uuid), "a.ips"))
    assert [(m["path"], m["served"], set(m["builds"]), m["exact"]) for m in report.modules] == [
        (MORE, True, {BUILD}, True),
        (PLAIN, True, {BUILD, OTHER_BUILD}, True),
        (APP, False, set(), False),
    ]
    (finding,) = report.findings
    assert (finding.code, finding.path, finding.uuid) == (FindingCode.MODULE_MISSING, APP, uuid_text(STRANGER))
    assert "symcache add" in finding.message


def test_the_layout_of_another_cache_is_noted(harvested: Path) -> None:
    mine = Workshop(harvested).object(PLAIN, "x86_64")
    assert mine.uuid
    with Library.open(harvested) as library:
        report = ask(library, parse_report(ips("22G1", [image(mine.uuid, PLAIN)], UUID(int=5)), "a.ips"))
    assert report.complete
    assert ["addresses of data will not" in note for note in report.notes] == [True]


def test_a_dump_of_a_release_that_is_not_here_says_which(harvested: Path) -> None:
    with Library.open(harvested) as library:
        report = ask(library, parse_report(ips("22G90", [image(STRANGER, PLAIN)]), "a.ips"))
        assert "22G90 is not in the library: harvest it" in report.findings[0].message
        report = ask(library, parse_report(ips("22G90", [image(STRANGER, APP)]), "a.ips"))
        assert "it is no part of macOS: `symcache add` it" in report.findings[0].message
        report = ask(library, parse_report(ips(BUILD, [image(STRANGER, PLAIN)]), "a.ips"))
        assert f"has {BUILD}, but not this image" in report.findings[0].message


def test_a_dump_that_names_no_release_is_placed_by_its_other_modules(harvested_twice: Path) -> None:
    other = Workshop(harvested_twice).object(MORE, "x86_64", OTHER_BUILD)
    with Library.open(harvested_twice) as library:
        report = ask(library, parse_uuid_list(f"{other.uuid} {MORE}\n{STRANGER} {PLAIN}\n", "list"))
    assert f"near {OTHER_BUILD}" in report.findings[0].message


def test_each_uuid_is_asked_for_once_and_what_has_none_is_not() -> None:
    asked: list[UUID] = []

    def holder(uuids: Sequence[UUID]) -> dict[UUID, list[Holding]]:
        asked.extend(uuids)
        return {}

    texts = [f"{STRANGER} a\n{UUID(int=0)} b\n{STRANGER} a\n", f"{UUID(int=5)} c\n{STRANGER} a\n"]
    verify_modules([parse_uuid_list(text, "list") for text in texts], holder)
    assert asked == [STRANGER, UUID(int=5)]


def test_one_missing_module_in_many_dumps_is_one_finding(harvested: Path) -> None:
    dumps = [parse_report(ips(BUILD, [image(STRANGER, APP)]), f"{n}.ips") for n in range(5)]
    with Library.open(harvested) as library:
        report = ask(library, *dumps)
    (finding,) = report.findings
    assert "0.ips, 1.ips, 2.ips and 2 more" in finding.message
    with Library.open(harvested) as library:
        (finding,) = ask(library, *dumps[:3]).findings
    assert "in 0.ips, 1.ips, 2.ips: nobody has it" in finding.message


def test_only_a_binary_serves_and_only_who_has_one_tells_the_release() -> None:
    lone, both, cache = UUID(int=1), UUID(int=2), UUID(int=7)
    held = {
        lone: [Holding("22G1", None, Kind.DEBUGINFO)],
        both: [Holding("22G1", cache, Kind.DEBUGINFO), Holding("", None, Kind.EXECUTABLE)],
        UUID(int=3): [Holding("22G2", None, Kind.EXECUTABLE)],
    }
    modules = [
        ReportModule(None, "/old"),
        ReportModule(lone),
        ReportModule(both, MORE),
        ReportModule(UUID(int=3), PLAIN),
    ]
    report = verify_modules([CrashReport("list", cache_uuid=cache, modules=modules)], lambda uuids: held)
    assert [(m["path"], m["served"], m["builds"], m["exact"]) for m in report.modules] == [
        ("", False, [], False),
        (MORE, True, [], False),
        (PLAIN, True, ["22G2"], False),
    ]
    (finding,) = report.findings
    why = "a release near 22G2, which has most of the other modules, probably holds it: harvest that"
    assert finding.message == f"a module ({uuid_text(lone)}), in list: nobody has it; {why}"
    assert (finding.uuid, finding.cache_uuid) == (uuid_text(lone), uuid_text(cache))
    assert report.notes == ["list: /old: has no UUID, so nobody can say which file it was"]
    (alone,) = verify_modules(
        [CrashReport("a", modules=[ReportModule(lone, PLAIN, "arm64e")])], lambda _: held
    ).findings
    why = "no module of this dump is known: harvest the release that it was made on"
    assert alone.message == f"{PLAIN} ({uuid_text(lone)}), in a: nobody has it; {why}"
    assert (alone.path, alone.arch, alone.build, alone.cache_uuid) == (PLAIN, "arm64e", "", "")


def test_a_module_whose_blob_is_gone_cannot_be_served(workshop: Workshop) -> None:
    mine = workshop.object(PLAIN, "x86_64")
    assert mine.uuid
    workshop.blob(mine.sha256).unlink()
    with workshop.open() as library:
        report = ask(library, parse_uuid_list(str(mine.uuid), "list"))
    assert [f.code for f in report.findings] == [FindingCode.MODULE_MISSING]


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
def test_the_modules_of_a_real_dump(tmp_path: Path, arch: str) -> None:
    dump = ASSETS / "dumps" / f"crash-{arch}.zip"
    truth = json.loads((Path(__file__).parents[1] / "corpus" / "truth" / f"crash-{arch}.json").read_text())
    with Library.open(tmp_path / "library", create=True) as library:
        ingest(library, stage_paths([ASSETS / "app" / arch / "Ledger.app"], tmp_path / "scratch"))
        reports, unreadable = read_reports([dump])
        report = ask(library, *reports)
    assert unreadable == []
    served = {m["path"].rpartition("/")[2] for m in report.modules if m["served"]}
    assert served == {"Ledger", "LedgerKit"}
    assert {(m["path"], m["uuid"].replace("-", "")) for m in report.modules} == {(p, u) for p, u, _ in truth["modules"]}
    assert len(report.findings) == len(report.modules) - 2


def test_a_minidump_names_build_and_modules(tmp_path: Path) -> None:
    modules = [(0x1_0000_0000, 0x4000, "/bin/a", UUID(int=5)), (0x2_0000_0000, 0x4000, "/usr/lib/b", None)]
    path = tmp_path / "crash.dmp"
    path.write_bytes(minidump(modules, [MiniThread({}, 0x1000, b"s")], 0, None))
    told = read_report(path)
    assert (told.build, told.version) == ("22G830", "macOS 13.6.9")
    assert [(m.uuid, m.path, m.address) for m in told.modules] == [(u, p, a) for a, _, p, u in modules]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DumpError, match=r"crash\.dmp"):
        read_report(path)
    path.write_bytes(minidump([], [MiniThread({}, 0x1000, b"s")], 0, None))
    with pytest.raises(DumpError, match="names no modules"):
        read_report(path)


def test_a_file_that_is_no_dump_is_a_finding_and_the_others_go_on(harvested: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04nothing")
    (tmp_path / "good.ips").write_text(ips(BUILD, [image(STRANGER, APP)]))
    reports, unreadable = read_reports([tmp_path / "bad.zip", tmp_path / "good.ips"])
    assert [f.code for f in unreadable] == [FindingCode.DUMP_UNREADABLE]
    assert [r.name for r in reports] == ["good.ips"]
