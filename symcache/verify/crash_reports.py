"""Which modules a crash report or a list names: `.ips`, `.crash`, lists of UUIDs, and dumps through their own reader.

`.ips`: Apple's JSON report since macOS 12, one header object on the first line and one body behind it ("Interpreting
the JSON format of a crash report"). `.crash`: the text form, of which only the heading and the lines below
`Binary Images:` are read ("Examining the fields in a crash report").
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from symcache.dump import open_dump
from symcache.dump.notes import header_from_notes
from symcache.errors import DumpError, UsageError

__all__ = ["AskedModule", "CrashReport", "parse_crash", "parse_ips", "parse_uuid_list", "read_report", "wanted"]

_MAX_FILE = 64 << 20
_MAX_MODULES = 65_536
_MAX_LINE = 4096
_MAX_TEXT = 1024
_HEADING = 200
"""Lines among which the version of macOS is looked for."""
_UUID = r"[0-9A-Fa-f]{8}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{12}"
# `0x7ff80f1d5000 - 0x7ff80f26dfff libsystem_c.dylib (*) <23516be4-…> /usr/lib/system/libsystem_c.dylib`; a plus marks
# what is not Apple's, and iOS writes the architecture before the UUID.
_IMAGE = re.compile(rf"\s*0x([0-9A-Fa-f]{{1,16}})\s+-\s+\S+\s+(\S[^<]*)<({_UUID})>\s*(.*)\Z")
_OS_VERSION = re.compile(r"OS Version:\s*(.*?)\s*\(([A-Za-z0-9._-]{1,64})\)\s*\Z")
_BUILD = re.compile(r"(.*?)\s*\(([A-Za-z0-9._-]{1,64})\)\s*\Z")
_ARCHS = {"x86_64", "x86_64h", "arm64", "arm64e", "arm64_32", "armv7", "armv7s", "armv7k", "i386"}


@dataclass(frozen=True, slots=True)
class AskedModule:
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
    modules: list[AskedModule] = field(default_factory=list)


def read_report(path: Path) -> CrashReport:
    """Read a `.ips`, a `.crash`, or a dump. Raises DumpError for what is none of them, OSError."""
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] == b"PK" or start == b"\xcf\xfa\xed\xfe":
        return _read_dump(path)
    if path.stat().st_size > _MAX_FILE:
        raise DumpError(f"{path}: larger than {_MAX_FILE} bytes, and no dump", hint="name a .zip, .ips or .crash")
    text = path.read_bytes().decode("utf-8", "replace")
    return parse_ips(text, path.name) if text.lstrip("\ufeff \t\r\n").startswith("{") else parse_crash(text, path.name)


def _read_dump(path: Path) -> CrashReport:
    with tempfile.TemporaryDirectory(prefix="symcache-dump-") as scratch:
        dump = open_dump(path, Path(scratch))
        header = dump.header or header_from_notes(dump.core_path, dump.core)
    modules = [AskedModule(m.uuid, m.path, "", m.address) for m in header.modules]
    if not modules:
        raise DumpError(f"{path}: names no modules", hint="a bare core needs the notes of a macOS crash handler")
    return CrashReport(path.name, header.os_build or "", "", header.cache_uuid, modules)


def parse_ips(text: str, name: str) -> CrashReport:
    """Parse a JSON crash report. Raises DumpError naming `name`."""
    text = text.lstrip("\ufeff \t\r\n")
    try:
        head, position = json.JSONDecoder().raw_decode(text)
        rest = text[position:].lstrip()
        body = json.loads(rest) if rest else head
    except (ValueError, RecursionError) as error:
        raise DumpError(f"{name}: not a JSON crash report: {error}", hint="copy the .ips file again") from error
    images = body.get("usedImages") if isinstance(body, dict) else None
    if not isinstance(images, list) or not isinstance(head, dict):
        kind = head.get("bug_type") if isinstance(head, dict) else None
        raise DumpError(
            f"{name}: lists no usedImages (bug_type {str(kind)[:20]!r})", hint="only reports of crashes and hangs do"
        )
    if len(images) > _MAX_MODULES:
        raise DumpError(f"{name}: {len(images)} images where at most {_MAX_MODULES} were expected")
    report = CrashReport(name)
    system = body.get("osVersion")
    if isinstance(system, dict):
        report.version, report.build = _text(system.get("train")), _build(system.get("build"))
    elif match := _BUILD.match(_text(head.get("os_version"))):
        report.version, report.build = match[1], match[2]
    cache = body.get("sharedCache")
    if isinstance(cache, dict):
        report.cache_uuid = _uuid(cache.get("uuid"))
    for image in images:
        if isinstance(image, dict):
            module = AskedModule(
                _uuid(image.get("uuid")),
                _text(image.get("path")) or _text(image.get("name")),
                _text(image.get("arch")),
                base if isinstance(base := image.get("base"), int) and 0 <= base < 1 << 64 else None,
            )
            # Frames in no image at all are gathered under one that has neither path nor UUID.
            if module.uuid or module.path:
                report.modules.append(module)
    return _whole(report)


def parse_crash(text: str, name: str) -> CrashReport:
    """Parse a crash report in text form. Raises DumpError naming `name`."""
    report = CrashReport(name)
    inside = False
    for number, line in enumerate(text.splitlines()):
        if len(line) > _MAX_LINE:
            continue
        if not inside:
            if number < _HEADING and (match := _OS_VERSION.match(line)):
                report.version, report.build = match[1][:_MAX_TEXT], match[2]
            inside = line.startswith("Binary Images:")
        elif match := _IMAGE.match(line):
            if len(report.modules) >= _MAX_MODULES:
                raise DumpError(f"{name}: more than {_MAX_MODULES} binary images")
            words = match[2].split()
            arch = next((w for w in reversed(words) if w in _ARCHS), "")
            path = match[4].strip() or words[0].lstrip("+")
            report.modules.append(AskedModule(_uuid(match[3]), path[:_MAX_TEXT], arch, int(match[1], 16)))
        elif report.modules and not line.strip():
            break
    if not inside:
        raise DumpError(f"{name}: has no list of binary images", hint="name a .zip, .ips or .crash")
    return _whole(report)


def parse_uuid_list(text: str, name: str) -> CrashReport:
    """Parse one UUID a line, anywhere in the line; what follows it is taken as the name. `#` begins a comment.

    So the output of `dwarfdump --uuid` and of `dyld_shared_cache_util -list -uuid` is a list, too. Raises UsageError.
    """
    report = CrashReport(name)
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()[:_MAX_LINE]  # noqa: PLW2901
        if not line:
            continue
        match = re.search(rf"(?<![0-9A-Fa-f-])({_UUID})(?![0-9A-Fa-f-])[>:,;]?\s*(?:\((\w+)\))?\s*(.*)", line)
        if match is None:
            raise UsageError(f"{name}: line {number} holds no UUID: {line[:60]!r}", hint="write one UUID a line")
        if len(report.modules) >= 1_000_000:
            raise UsageError(f"{name}: more than a million lines", hint="ask in parts")
        report.modules.append(AskedModule(UUID(match[1]), match[3][:_MAX_TEXT], match[2] or ""))
    if not report.modules:
        raise UsageError(f"{name}: names no UUID", hint="write one UUID a line")
    return report


def _whole(report: CrashReport) -> CrashReport:
    if not report.modules:
        raise DumpError(f"{report.name}: names no modules", hint="the report is cut: copy it again")
    return report


def _text(value: Any) -> str:
    return value[:_MAX_TEXT] if isinstance(value, str) else ""


def _build(value: Any) -> str:
    text = _text(value)
    return text if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", text) else ""


def _uuid(value: Any) -> UUID | None:
    if not isinstance(value, str) or not re.fullmatch(_UUID, value):
        return None
    uuid = UUID(value)
    return uuid if uuid.int else None


def wanted(reports: Iterable[CrashReport]) -> Iterator[UUID]:
    """Yield every UUID that the reports name, once."""
    seen: set[UUID] = set()
    for report in reports:
        for module in report.modules:
            if module.uuid and module.uuid not in seen:
                seen.add(module.uuid)
                yield module.uuid
