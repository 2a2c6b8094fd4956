"""JUnit reports of what commands did, for CI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET  # only written, never read

from symcache.errors import StorageError
from symcache.files import atomic_write
from symcache.text import printable

__all__ = ["Case", "save_report", "write_junit"]


@dataclass(frozen=True, slots=True)
class Case:
    """One test case. `kind` is empty for a success, else `failure`, `error` or `skipped`."""

    name: str
    seconds: float
    kind: str = ""
    type: str = ""
    message: str = ""
    text: str = ""


def write_junit(command: str, cases: Sequence[Case], file: Path) -> None:
    """Write a report of a command. Raises StorageError."""
    counts = {"tests": str(len(cases))}
    for plural, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        number = sum(case.kind == kind for case in cases)
        if number or kind != "skipped":
            counts[plural] = str(number)
    counts["time"] = f"{sum(case.seconds for case in cases):.1f}"
    suites = ET.Element("testsuites", {"name": "symcache", **counts})
    suite = ET.SubElement(suites, "testsuite", {"name": f"symcache {command}", **counts})
    for case in cases:
        attributes = {"classname": f"symcache.{command}", "name": printable(case.name), "time": f"{case.seconds:.1f}"}
        element = ET.SubElement(suite, "testcase", attributes)
        if case.kind:
            body = ET.SubElement(element, case.kind, {"message": printable(case.message), "type": case.type})
            body.text = printable(case.text, keep="\n")
    ET.indent(suites)
    save_report(ET.tostring(suites, encoding="utf-8", xml_declaration=True) + b"\n", file)


def save_report(xml: bytes, file: Path) -> None:
    """Write a report to the file that `--junit` names, in a folder that may not be there yet. Raises StorageError."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as part:
            part.write_bytes(xml)
    except OSError as error:
        raise StorageError(f"{file}: {error.strerror or error}", hint="check --junit, and the free space") from error
