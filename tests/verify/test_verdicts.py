"""Verdicts for machines: what JUnit readers, GitHub and Markdown need, whatever a file name holds."""

from __future__ import annotations

from uuid import UUID

import pytest
from defusedxml import ElementTree
from hypothesis import given
from hypothesis import strategies as st

from symcache.cli.verify import _show
from symcache.verify import (
    Finding,
    FindingCode,
    Level,
    ReleaseSummary,
    VerifyReport,
    Waived,
    github_lines,
    junit_xml,
    markdown,
)

HOSTILE = "a\x00b\x1b[31m\n::error::x|`<b>&\ud800"
CACHE = {"family": "system", "arch": "arm64e", "uuid": "U", "images": 3, "sealed": True, "raw": True}


def report(*findings: Finding) -> VerifyReport:
    made = VerifyReport(Level.BLOBS, [ReleaseSummary("22G830", "13.6.9", 3, [CACHE])])
    made.add(findings)
    return made


MISSING = Finding(FindingCode.MISSING, "gone", "22G830", "/usr/lib/libz.dylib", "arm64e", "U")


def test_each_finding_counts_once_and_is_of_the_product_that_it_was_found_in() -> None:
    made = report(MISSING, MISSING)
    made.add([MISSING, Finding(FindingCode.MISSING, "gone: harvest it again", "22G830")], "iOS")
    made.add([Finding(FindingCode.NO_HARVEST, "x", product="tvOS")], "iOS")
    assert [(f.product, f.message) for f in made.findings] == [
        ("", "gone: harvest it again"),
        ("iOS", "gone: harvest it again"),
        ("iOS", "gone: harvest it again"),
        ("tvOS", "x: harvest it (symcache harvest)"),
    ]
    assert (made.builds, made.images) == (["22G830"], 3)


def test_what_only_other_hosts_have_is_counted_apart() -> None:
    there = [Finding(FindingCode.CACHE_MISSING, "m", arch=arch, elsewhere=True) for arch in ("x86_64h", "arm64e.x1")]
    apart = "missing that other hosts have, which were not harvested"
    verdicts = [report(*findings).verdict for findings in ([], [MISSING], there, [MISSING, *there])]
    assert verdicts == ["complete", "1 finding", f"2 {apart}", f"1 finding and 2 {apart}"]


def test_a_finding_of_an_image_names_it() -> None:
    found = Finding.of_image(FindingCode.MISSING, "gone", "22G830", "/usr/lib/libz.dylib", "arm64e", None, None)
    message = "/usr/lib/libz.dylib (arm64e): gone"
    assert found == Finding(FindingCode.MISSING, message, "22G830", "/usr/lib/libz.dylib", "arm64e", "", "")
    uuid, cache = UUID(int=0xA), UUID(int=0xB)
    found = Finding.of_image(FindingCode.MISSING, "gone", "22G830", "/usr/lib/libz.dylib", "arm64e", uuid, cache)
    assert (found.uuid, found.cache_uuid) == (
        "00000000-0000-0000-0000-00000000000A",
        "00000000-0000-0000-0000-00000000000B",
    )


def test_junit_counts_failures_by_release() -> None:
    checked = report(MISSING, Finding(FindingCode.NO_HARVEST, "22G720: nothing", "22G720"))
    checked.waived.append(
        Waived(Finding(FindingCode.CACHE_MISSING, "m", "22G830", arch="x86_64h"), "later", "2027-01-01")
    )
    root = ElementTree.fromstring(junit_xml(checked))
    assert (root.tag, root.get("failures"), root.get("skipped")) == ("testsuites", "2", "1")
    first, second = root.findall("testsuite")
    assert (first.get("tests"), first.get("failures"), first.get("skipped")) == ("3", "1", "1")
    assert second.get("failures") == "1"
    failure = first.find("testcase/failure")
    assert failure is not None
    assert (failure.get("type"), failure.get("message")) == ("missing", "gone: harvest it again")
    assert all(len(suite) == int(suite.get("tests", "0")) for suite in (first, second))


JUNIT = """\
<?xml version='1.0' encoding='utf-8'?>
<testsuites name="symcache verify" tests="5" failures="2" errors="0" skipped="1">
  <testsuite name="13.6.9 (22G830)" tests="2" failures="1" errors="0" skipped="0">
    <testcase classname="13.6.9 (22G830)" name="system arm64e" />
    <testcase classname="13.6.9 (22G830)" name="missing /usr/lib/libz.dylib arm64e U">
      <failure type="missing" message="gone: harvest it again">gone: harvest it again</failure>
    </testcase>
  </testsuite>
  <testsuite name="library" tests="1" failures="1" errors="0" skipped="0">
    <testcase classname="library" name="module-missing U">
      <failure type="module-missing" message="gone: find it">gone: find it</failure>
    </testcase>
  </testsuite>
  <testsuite name="22G720" tests="1" failures="0" errors="0" skipped="1">
    <testcase classname="22G720" name="no-harvest">
      <skipped message="waived until 2027-01-01: later" />
    </testcase>
  </testsuite>
  <testsuite tests="1" failures="0" errors="0" skipped="0" name="a.ips">
    <testcase classname="a.ips" name="/usr/lib/libc.dylib V" />
  </testsuite>
</testsuites>
"""


def test_a_junit_document_in_whole() -> None:
    checked = report(MISSING, Finding(FindingCode.MODULE_MISSING, "gone", uuid="U", step="find it"))
    checked.waived.append(Waived(Finding(FindingCode.NO_HARVEST, "m", "22G720"), "later", "2027-01-01"))
    checked.modules = [{"dump": "a.ips", "path": "/usr/lib/libc.dylib", "uuid": "V", "served": True}]
    assert junit_xml(checked) == JUNIT


def test_junit_of_a_complete_release_has_passed_cases() -> None:
    root = ElementTree.fromstring(junit_xml(report()))
    assert (root.get("tests"), root.get("failures")) == ("1", "0")


def test_junit_of_dumps_has_a_case_for_every_module() -> None:
    checked = VerifyReport(Level.BLOBS)
    checked.modules = [
        {"dump": "a.ips", "path": "/usr/lib/libz.dylib", "uuid": "U", "served": True},
        {"dump": "a.ips", "path": "/Notes", "uuid": "V", "served": False},
    ]
    checked.add([Finding(FindingCode.MODULE_MISSING, "Notes: nobody has it", "", "/Notes", "", "V")])
    root = ElementTree.fromstring(junit_xml(checked))
    assert (root.get("tests"), root.get("failures")) == ("2", "1")
    cases = {case.get("name"): case.find("failure") is None for case in root.iter("testcase")}
    assert cases == {"/usr/lib/libz.dylib U": True, "module-missing /Notes V": False}


def test_github_annotates_ten_and_counts_the_rest() -> None:
    findings = [Finding(FindingCode.MISSING, f"gone {n}", "22G830", f"/l{n}") for n in range(25)]
    lines = list(github_lines(report(*findings)))
    assert len(lines) == 11
    assert lines[0] == "::error title=missing 22G830::gone 0: harvest it again"
    assert lines[-1] == "::error title=symcache verify::15 more findings: 25 missing in all"
    ten = report(*findings[:10])
    ten.notes += [f"note {n}" for n in range(11)]
    lines = list(github_lines(ten))
    assert [line.partition(" ")[0] for line in lines] == ["::error"] * 10 + ["::notice"] * 10
    assert lines[-1] == "::notice title=symcache verify::note 9"


def test_a_file_name_is_never_a_command_or_a_tag() -> None:
    checked = report(Finding(FindingCode.MISSING, HOSTILE, "22G830", HOSTILE))
    assert all(line.startswith(("::error title=", "::notice")) and "\n" not in line for line in github_lines(checked))
    ElementTree.fromstring(junit_xml(checked))
    row = next(line for line in markdown(checked).splitlines() if "missing" in line and "::error" in line)
    assert row.count("|") - row.count("\\|") == 4
    assert "\x1b" not in row
    assert not any("\x1b" in line for line in github_lines(checked))
    assert "a\\x00b\\x1b[31m" in junit_xml(checked)


@given(st.text())
def test_junit_of_any_text_is_xml(text: str) -> None:
    ElementTree.fromstring(junit_xml(report(Finding(FindingCode.MISSING, text, text, text, text, text))))


MARKDOWN = """\
## symcache verify: 1 finding

| release | images | shared caches | verdict |
|---|---:|---|---|
| 13.6.9 (22G830) | 3 | arm64e (system) | 1 missing |
| 13.6.7 (22G720) | 0 |  | complete |

| code | release | what |
|---|---|---|
| `missing` | 22G830 | gone: harvest it again |

| waived | release | until | reason |
|---|---|---|---|
| `cache-missing` x86\\_64h | 22G720 | 2027-01-01 | later |

- a note
"""


def test_markdown_names_releases_findings_waivers_and_notes() -> None:
    checked = report(MISSING)
    checked.releases.append(ReleaseSummary("22G720", "13.6.7", caches=[CACHE | {"uuid": ""}]))
    waived = Finding(FindingCode.CACHE_MISSING, "m", "22G720", arch="x86_64h")
    checked.waived.append(Waived(waived, "later", "2027-01-01"))
    checked.notes.append("a note")
    assert markdown(checked) == MARKDOWN
    assert markdown(VerifyReport(Level.BLOBS)) == "## symcache verify: complete\n"


def test_markdown_has_fifty_findings_and_notes_and_counts_the_rest() -> None:
    def made(count: int) -> str:
        checked = report(*(Finding(FindingCode.MISSING, f"gone {n}", "22G830") for n in range(count)))
        checked.notes += [f"note {n}" for n in range(count)]
        return markdown(checked)

    assert (made(50).count("| `missing` |"), made(50).count("- note "), made(50).count("more")) == (50, 50, 0)
    assert (made(51).count("| `missing` |"), made(51).count("- note ")) == (50, 50)
    assert "| … | | 1 more |\n" in made(51)
    assert made(51).endswith("- and 1 more note\n")


@pytest.mark.parametrize("code", FindingCode)
def test_every_finding_ends_with_what_to_do(code: FindingCode) -> None:
    (found,) = report(Finding(code, "gone")).findings
    assert len(found.message) > len("gone: ")
    assert report(found).findings == [found]  # said once
    (other,) = report(Finding(code, "gone", step="do this")).findings
    assert other.message == "gone: do this"
    assert report(other).findings == [other]


def test_notes_come_before_findings_and_the_verdict_last(capfd: pytest.CaptureFixture[str]) -> None:
    checked = report(MISSING)
    checked.notes += [f"note {n}" for n in range(300)]
    _show(checked)
    shown = capfd.readouterr()
    assert len(shown.err.splitlines()) < 30
    lines = shown.out.splitlines()
    assert lines[0].startswith("missing")
    assert lines[-1].startswith("1 finding")
    assert "note" not in shown.out
    assert len(markdown(checked).splitlines()) < 100
