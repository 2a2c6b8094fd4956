"""Verdicts in the forms that continuous integration reads: JUnit XML, GitHub annotations, Markdown."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Sequence

from symcache.text import counted, printable
from symcache.verify.findings import Finding, ReleaseSummary, VerifyReport

__all__ = ["github_lines", "junit_xml", "markdown"]

_MAX_ROWS = 50
_MAX_ANNOTATIONS = 10
"""GitHub shows no more errors of one step."""


def junit_xml(report: VerifyReport) -> str:
    """Return a JUnit report: a suite a release, a case a shared cache or a finding; waived ones are skipped.

    Of crash dumps: a suite each, with a case for every module that can be served.
    """
    root = ET.Element("testsuites", name="symcache verify")
    looked_at = {(r.product, r.build): r for r in report.releases}
    for product, build in dict.fromkeys([*looked_at, *((f.product, f.build) for f in _all(report))]):
        own = [f for f in report.findings if (f.product, f.build) == (product, build)]
        waived = [w for w in report.waived if (w.finding.product, w.finding.build) == (product, build)]
        release = looked_at.get((product, build))
        title = _title(release, report) if release else build or "library"
        suite = ET.SubElement(root, "testsuite", name=_xml(title))
        for cache in release.caches if release else ():
            ET.SubElement(suite, "testcase", classname=_xml(title), name=_xml(f"{cache['family']} {cache['arch']}"))
        for finding in own:
            case = ET.SubElement(suite, "testcase", classname=_xml(title), name=_xml(_name(finding)))
            failure = ET.SubElement(case, "failure", type=finding.code.value, message=_xml(finding.message))
            failure.text = _xml(finding.message)
        for entry in waived:
            case = ET.SubElement(suite, "testcase", classname=_xml(title), name=_xml(_name(entry.finding)))
            ET.SubElement(case, "skipped", message=_xml(f"waived until {entry.until}: {entry.reason}"))
        suite.set("tests", str(len(suite)))
        suite.set("failures", str(len(own)))
        suite.set("errors", "0")
        suite.set("skipped", str(len(waived)))
    for dump in dict.fromkeys(m["dump"] for m in report.modules):
        served = [m for m in report.modules if m["dump"] == dump and m["served"]]
        counts = {"tests": str(len(served)), "failures": "0", "errors": "0", "skipped": "0"}
        suite = ET.SubElement(root, "testsuite", counts, name=_xml(dump))
        for module in served:
            ET.SubElement(suite, "testcase", classname=_xml(dump), name=_xml(f"{module['path']} {module['uuid']}"))
    for attribute in ("tests", "failures", "errors", "skipped"):
        root.set(attribute, str(sum(int(suite.get(attribute, "0")) for suite in root)))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def github_lines(report: VerifyReport) -> Iterator[str]:
    """Yield workflow commands that GitHub Actions turns into annotations."""
    for finding in report.findings[:_MAX_ANNOTATIONS]:
        title = f"{finding.code.value} {finding.build}".strip()
        yield f"::error title={_property(title)}::{_data(finding.message)}"
    if len(report.findings) > _MAX_ANNOTATIONS:
        more = f"{counted(len(report.findings) - _MAX_ANNOTATIONS, 'more finding')}: {_counts(report.findings)} in all"
        yield f"::error title=symcache verify::{_data(more)}"
    for note in report.notes[:_MAX_ANNOTATIONS]:
        yield f"::notice title=symcache verify::{_data(note)}"


def markdown(report: VerifyReport) -> str:
    """Return a summary for a job's page or a merge request."""
    verdict = "complete" if report.complete else counted(len(report.findings), "finding")
    lines = [f"## symcache verify: {verdict}", ""]
    if report.releases:
        lines += ["| release | images | shared caches | verdict |", "|---|---:|---|---|"]
        for release in report.releases:
            own = [f for f in report.findings if release.has(f)]
            caches = ", ".join(f"{c['arch']} ({c['family']})" for c in release.caches if c["uuid"])
            title = _title(release, report)
            lines.append(
                f"| {_cell(title)} | {release.images} | {_cell(caches)} | {_counts(own) if own else 'complete'} |"
            )
        lines.append("")
    if report.findings:
        lines += ["| code | release | what |", "|---|---|---|"]
        lines += [f"| `{f.code.value}` | {_cell(f.build)} | {_cell(f.message)} |" for f in report.findings[:_MAX_ROWS]]
        if len(report.findings) > _MAX_ROWS:
            lines.append(f"| … | | {len(report.findings) - _MAX_ROWS} more |")
        lines.append("")
    if report.waived:
        lines += ["| waived | release | until | reason |", "|---|---|---|---|"]
        lines += [
            f"| `{w.finding.code.value}` {_cell(w.finding.path or w.finding.arch)} | {_cell(w.finding.build)}"
            f" | {w.until} | {_cell(w.reason)} |"
            for w in report.waived[:_MAX_ROWS]
        ]
        lines.append("")
    lines += [f"- {_cell(note)}" for note in report.notes[:_MAX_ROWS]]
    if len(report.notes) > _MAX_ROWS:
        lines.append(f"- and {counted(len(report.notes) - _MAX_ROWS, 'more note')}")
    return "\n".join(lines).rstrip() + "\n"


def _title(release: ReleaseSummary, report: VerifyReport) -> str:
    """Return version and build, and the product where others have the same build."""
    title = f"{release.version} ({release.build})"
    return f"{release.product} {title}" if report.builds.count(release.build) > 1 else title


def _all(report: VerifyReport) -> Iterator[Finding]:
    yield from report.findings
    yield from (w.finding for w in report.waived)


def _name(finding: Finding) -> str:
    return " ".join(p for p in (finding.code.value, finding.path, finding.arch, finding.uuid) if p)


def _counts(findings: Sequence[Finding]) -> str:
    by_code = Counter(f.code.value for f in findings)
    return ", ".join(f"{count} {code}" for code, count in by_code.most_common())


def _xml(text: str) -> str:
    """Return text that XML 1.0 can hold (section 2.2): it has no other control characters, even as references."""
    return printable(text, keep="\t\n\r")


def _data(text: str) -> str:
    """Escape as actions/toolkit does, so that no text can become another workflow command."""
    return printable(text, keep="\r\n").replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _cell(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", printable(text))
