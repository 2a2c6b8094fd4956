"""The run for real Macs, where there is none: against an odd stand-in, and programs in documented form."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from symcache.library import Library
from symcache_provisioning import DirectorySource, harvest
from tests.acceptance.__main__ import PARTS, finish, main, run_parts
from tests.acceptance.conftest import COMPUTER, HARDWARE_UUID, PERSONAL, write_report
from tests.acceptance.mac import Mac
from tests.acceptance.part import Part
from tests.acceptance.redaction import PersonalDataError, Redaction, personal_words
from tests.acceptance.result_files import write_results

ROOT = Path(__file__).parents[2]
_CACHE = "System/Volumes/Preboot/Cryptexes/OS/System/Library/dyld/dyld_shared_cache_arm64e"


def part_of(mac: Mac, name: str) -> Part:
    (part,) = run_parts(mac, [name], lambda _: None)
    assert not part.failed
    return part


def test_all_parts_run_and_nobody_is_named(mac: Mac, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = {part.name: part for part in run_parts(mac, list(PARTS), lambda _: None)}
    assert [(p.name, p.failed, p.differences) for p in parts.values() if p.failed or p.differing] == []
    assert [name for name, part in parts.items() if not part.checks] == []
    assert parts["set-up"].checks == 7  # two of them of signed programs
    # Only what the stand-in has no program for, and it has no Rosetta.
    assert {why.partition(": ")[0] for part in parts.values() for why, _ in part.skipped} == {
        "disk image over ssh",
        "a crash of x86_64",
        "Xcode's LLDB is not here",
    }
    parts["set-up"].seconds[f"{mac.home}/bin/lldb-19"] = 1
    parts["set-up"].facts["said"] = f"{COMPUTER}, {mac.home}/x, zoe@mac.example, 192.168.64.7"
    assert finish(mac, list(parts.values()), tmp_path / "out") == 0
    written = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in written] == ["mac-acceptance-22G830-arm64.json", "mac-acceptance-22G830-arm64.md"]
    assert all(str(path) in capsys.readouterr().out or path == written[1] for path in written)
    for path in written:
        text = path.read_text()
        for word in (*PERSONAL, COMPUTER, str(tmp_path), "mac.example", "zoes-image"):
            assert word.lower() not in text.lower(), (path.name, word)
    document = json.loads(written[0].read_text())
    assert document["system"]["model"] == "Mac15,12"
    tables = {part["name"]: part["tables"] for part in document["parts"]}
    assert [(h["source"], h["sealed"], h["images"]) for h in tables["harvests"]["harvests"]] == [
        ("/", True, 14),
        ("ssh", True, 14),
    ]
    magics = Counter(row["magic"] for row in tables["questions"]["cache files"])
    assert magics == {"dyld_v1  arm64e": 2, "dyld_v1  x86_64": 2}  # in the cryptex, and in the one that is prepared


def test_bytes_that_apples_extractor_has_otherwise_are_found(mac: Mac, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANT", "extraction")
    found = part_of(mac, "extraction")
    assert found.differing == {"bytes differ": 2}
    assert {(d["segment"], d["words"]) for d in found.differences} == {("__TEXT", 1), ("__DATA", 1)}


def test_a_name_that_atos_has_otherwise_is_found(mac: Mac, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANT", "atos")
    found = part_of(mac, "names")
    assert set(found.differing) == {"another name"}
    assert "somebody_elses" not in json.dumps(found.differences)  # names are Apple's


def test_a_platform_that_codesign_has_otherwise_is_found(mac: Mac, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANT", "14")
    (difference,) = part_of(mac, "set-up").differences
    assert difference == {"kind": "another platform identifier", "ours": 15, "codesign": 14, "program": "platform-tool"}


def test_a_page_that_is_not_what_was_signed_is_found(mac: Mac) -> None:
    file = mac.root / _CACHE
    good = file.read_bytes()
    try:
        file.write_bytes(good[:0x5000] + bytes([good[0x5000] ^ 1]) + good[0x5001:])
        found = part_of(mac, "page-hashes")
    finally:
        file.write_bytes(good)
    assert [(d["kind"], d["path"]) for d in found.differences] == [("pages differ from their hashes", f"/{_CACHE}")]


def test_another_name_in_a_report_is_found(mac: Mac) -> None:
    write_report(mac.home, name="somebody_elses")
    mac.libraries["arm64e"] = mac.work / "library"
    with Library.open(mac.libraries["arm64e"], create=True) as library:
        harvest(DirectorySource(mac.root), library, staging=mac.work / "staging", archs=("arm64e",), roots=())
    found = part_of(mac, "crash-reports")
    assert found.differing == {"another name": 1}
    assert "somebody_elses" not in json.dumps(found.differences)


def test_what_is_not_there_is_skipped_by_name_with_what_to_do(mac: Mac) -> None:
    mac.options = replace(mac.options, ssh="ssh://zoe@127.0.0.1:1", vm=None)
    mac.programs = {k: v for k, v in mac.programs.items() if k not in {"atos", "xcrun"}}
    (mac.root / "usr/lib/dsc_extractor.bundle").rename(mac.root / "usr/lib/gone")
    try:
        parts = run_parts(mac, ["extraction", "names", "harvests", "crashes", "debuggers", "machines"], lambda _: None)
    finally:
        (mac.root / "usr/lib/gone").rename(mac.root / "usr/lib/dsc_extractor.bundle")
    assert [part.failed for part in parts] == [""] * 6
    skipped = {part.name: part.skipped for part in parts}
    for name, why, todo in (
        ("extraction", "dsc_extractor.bundle is not there", "macOS 11"),
        ("names", "atos is not installed", "xcode-select --install"),
        ("harvests", "does not let us in over SSH", "Remote Login"),
        ("crashes", "xcrun is not installed", "xcode-select --install"),
        ("debuggers", "there is no dump", "crashes"),
        ("machines", "no VM is named", "--vm tart="),
    ):
        assert any(why in a and todo in b for a, b in skipped[name]), (name, skipped[name])


def test_a_small_disk_keeps_parts_from_starting(mac: Mac, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mac, "free", 1000)
    for name in ("extraction", "harvests"):
        (skipped,) = part_of(mac, name).skipped
        assert "of disk" in skipped[0]
        assert "--work" in skipped[1]


def test_nothing_is_begun_when_the_time_is_over(mac: Mac) -> None:
    mac.options = replace(mac.options, minutes=0)
    parts = run_parts(mac, ["extraction", "harvests"], lambda _: None)
    assert [part.skipped for part in parts] == [[("0 minutes are over", "give it longer with --minutes")]] * 2


@pytest.mark.skipif(sys.platform == "darwin", reason="this is a Mac")
def test_elsewhere_it_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "no Mac" in capsys.readouterr().err


def test_one_part_that_fails_keeps_no_other_from_running(mac: Mac, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(mac: Mac, part: Part) -> None:
        raise ValueError("no")

    monkeypatch.setitem(PARTS, "questions", fails)
    questions, hashes = run_parts(mac, ["questions", "page-hashes"], lambda _: None)
    assert questions.failed == "ValueError: no"
    assert hashes.checks


def test_the_exit_status_and_the_files_tell_of_differences_and_failures(mac: Mac, tmp_path: Path) -> None:
    differing = Part("names")
    differing.check(True, "")
    differing.check(False, "another name", image="/usr/lib/libx.dylib", offset=12)
    skipped = Part("machines", skipped=[("no VM is named", "name one")])
    for number, (parts, code) in enumerate(
        [([skipped], 0), ([skipped, differing], 1), ([skipped, Part("questions", failed="ValueError: no")], 1)]
    ):
        assert finish(mac, parts, tmp_path / str(number)) == code
    document = json.loads((tmp_path / "1/mac-acceptance-22G830-arm64.json").read_text())
    assert [part["verdict"] for part in document["parts"]] == ["skipped", "1 differences in 2 checks"]
    text = (tmp_path / "1/mac-acceptance-22G830-arm64.md").read_text()
    assert "| another name | /usr/lib/libx.dylib | 12 |" in text
    assert "- left out: no VM is named (to have it: name one)" in text
    assert "- failed: ValueError: no" in (tmp_path / "2/mac-acceptance-22G830-arm64.md").read_text()


def test_files_with_anything_personal_are_not_written(
    mac: Mac, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Part("set-up", facts={"who": "zoe was here"})
    redaction = Redaction(personal_words(mac))
    monkeypatch.setattr(Redaction, "clean", lambda _, value: value)
    with pytest.raises(PersonalDataError, match=r"facts\.who"):
        write_results(tmp_path / "out", {}, [part], redaction)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("/Users/anna/Library/x", "/Users/<personal>/Library/x"),
        ("/private/var/folders/zz/zyxw/T/y: no", "<personal>: no"),
        ("anna@host.example says", "<personal> says"),
        ("at 10.0.1.7, 172.20.3.4 or fe80:1:2", "at <personal>, <personal> or <personal>"),
        (f"/System/Volumes/Preboot/{HARDWARE_UUID}/cryptex1", "/System/Volumes/Preboot/<personal>/cryptex1"),
        ("ether f0:18:98:aa:bb:cc", "ether <personal>"),
        ("Anna Smith's (smith) Mac", "<personal>'s (<personal>) Mac"),
        # What only looks like it.
        ("/Users/Shared/x lldb-1703.0.236.103 4C4C4458-5555-3144-A109-A61BEEB341A4", None),
        ("/usr/lib/libsmithereens.dylib 26.5.1", None),
    ],
)
def test_what_is_personal_is_taken_out(text: str, cleaned: str | None) -> None:
    redaction = Redaction({"Anna Smith", "smith"})
    assert redaction.clean({"a": [text]}) == {"a": [cleaned or text]}
    redaction.check(redaction.clean(text))


@pytest.mark.parametrize("target", ["aarch64-macos", "x86_64-macos"])
def test_the_program_that_crashes_compiles_with_a_macs_headers(target: str, tmp_path: Path) -> None:
    pytest.importorskip("ziglang", reason="the macOS headers come with PyPI's ziglang, which is not installed")
    options = ["-target", target, "-Wall", "-Wextra", "-Werror", "-I", str(ROOT / "symcache/dump/capture")]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ziglang",
            "cc",
            *options,
            "-c",
            ROOT / "tests/acceptance/crash.c",
            "-o",
            tmp_path / "x.o",
        ],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ZIG_GLOBAL_CACHE_DIR": str(tmp_path / "zig")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_page_about_it_knows_every_part() -> None:
    page = (ROOT / "docs/mac-acceptance.md").read_text()
    assert [name for name in PARTS if f"| `{name}` |" not in page] == []
