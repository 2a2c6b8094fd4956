"""Which modules a crash report, a dump or a list of UUIDs names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from symcache.dump import DumpHeader, header_of_core, minidump_header, open_dump, read_minidump
from symcache.errors import DumpError, UsageError
from symcache.reports import Report
from symcache.reports import parse_report as parse_whole_report
from symcache.reports import read_report as read_whole_report
from symcache.scratch import ScratchFolder

__all__ = ["CrashReport", "ReportModule", "parse_report", "parse_uuid_list", "read_report", "wanted"]

_MAX_LINE = 4096
_MAX_TEXT = 1024
_COMMENT = re.compile(r"(?:^|\s)#")
_NO_UUID = re.compile(r"< *no uuid in dylib *> *(.*)")
_TABLE_HEADER = re.compile(r"dylib text infos \(count=\d+\):")
_UUID = r"[0-9A-Fa-f]{8}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{12}"


@dataclass(frozen=True, slots=True)
class ReportModule:
    """One image that was loaded. The path is empty where the report has none."""

    uuid: UUID | None
    path: str = ""
    arch: str = ""
    address: int | None = None

    @property
    def of_system(self) -> bool:
        """Whether it came with macOS, by its path."""
        return self.path.startswith(("/System/", "/usr/lib/", "/usr/libexec/", "/usr/bin/"))


@dataclass
class CrashReport:
    """What one report, dump or list says of the process. `build` is of its macOS; empty where nobody says."""

    name: str
    build: str = ""
    version: str = ""
    cache_uuid: UUID | None = None
    modules: list[ReportModule] = field(default_factory=list)


def read_report(path: Path) -> CrashReport:
    """Read a `.ips`, a `.crash`, a dump, core or minidump. Raises DumpError for what is none of them, OSError."""
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] == b"PK" or start == b"\xcf\xfa\xed\xfe":
        return _read_dump(path)
    if start == b"MDMP":
        minidump = read_minidump(path)
        return _headed(path, minidump_header(minidump), minidump.os_version)
    return _named(read_whole_report(path, threads=False), path.name)


def _read_dump(path: Path) -> CrashReport:
    with ScratchFolder("dump") as scratch:
        dump = open_dump(path, Path(scratch))
        header = dump.header or header_of_core(dump.core_path, dump.core)
    return _headed(path, header, "")


def _headed(path: Path, header: DumpHeader, version: str) -> CrashReport:
    modules = [ReportModule(m.uuid, m.path, "", m.address) for m in header.modules]
    if not modules:
        raise DumpError(
            f"{path}: names no modules", hint="a bare core needs notes of its images, or the memory in which they are"
        )
    return CrashReport(path.name, header.os_build or "", version, header.cache_uuid, modules)


def parse_report(text: str, name: str) -> CrashReport:
    """Parse a crash report, JSON or text. Raises DumpError naming `name`."""
    return _named(parse_whole_report(text, name, threads=False), name)


def _named(report: Report, name: str) -> CrashReport:
    if not report.images:
        raise DumpError(f"{name}: the crash report lists no modules", hint="it is cut: have it copied whole")
    modules = [ReportModule(image.uuid, image.path, image.arch, image.address) for image in report.images]
    return CrashReport(name, report.os_build, report.os_version, report.cache_uuid, modules)


def parse_uuid_list(text: str, name: str) -> CrashReport:
    """Parse one UUID a line, anywhere in the line; what follows it is taken as the name. `#` begins a comment.

    So the output of `dwarfdump --uuid` and of `dyld_shared_cache_util`, with `-list -uuid` or `-text_info`, is a list,
    too; an image that it says has none is named with none. Raises UsageError.
    """
    report = CrashReport(name)
    for number, line in enumerate(text.splitlines(), 1):
        line = _COMMENT.split(line.lstrip("\ufeff"), maxsplit=1)[0].strip()[:_MAX_LINE]  # noqa: PLW2901
        if not line or _TABLE_HEADER.fullmatch(line):
            continue
        if len(report.modules) >= 1_000_000:
            raise UsageError(f"{name}: more than a million lines", hint="ask in parts")
        if without := _NO_UUID.search(line):
            report.modules.append(ReportModule(None, without[1][:_MAX_TEXT]))
            continue
        match = re.search(rf"(?<![0-9A-Fa-f-])({_UUID})(?![0-9A-Fa-f-])[>:,;]?\s*(?:\((\w+)\))?\s*(.*)", line)
        if match is None:
            raise UsageError(f"{name}: line {number} holds no UUID: {line[:60]!r}", hint="write one UUID a line")
        uuid = UUID(match[1])
        report.modules.append(ReportModule(uuid if uuid.int else None, match[3][:_MAX_TEXT], match[2] or ""))
    if not report.modules:
        raise UsageError(f"{name}: names no UUID", hint="write one UUID a line")
    return report


def wanted(reports: Iterable[CrashReport]) -> list[UUID]:
    """Return every UUID that the reports name, once."""
    return list(dict.fromkeys(m.uuid for report in reports for m in report.modules if m.uuid))
