"""A named report as JSON and as text of ours, the same for reports of every format (docs/crash-reports.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from symcache.kinds import uuid_text
from symcache.reports import ReportImage
from symcache.symbolicate.model import NameSource
from symcache.symbolicate.named_frames import NamedFrame
from symcache.symbolicate.naming import NamedReport
from symcache.symbolicate.rewrite_text import frame_text
from symcache.text import printable

__all__ = ["report_json", "report_text"]

SCHEMA_VERSION = 1
_CODE_TYPES = {"arm64": "ARM-64", "x86_64": "X86-64", "i386": "X86", "armv7": "ARM"}
_IN_A_ROW = 4
"""Registers."""


def report_json(named: NamedReport) -> dict[str, Any]:
    """Return a report with its names; numbers of addresses and registers are strings, `0x…`."""
    report = named.report
    return {
        "schema_version": SCHEMA_VERSION,
        "process": {
            "executable": report.executable or None,
            "bundle_version": report.bundle_version or None,
            "arch": report.arch,
        },
        "system": {
            "version": report.os_version or None,
            "build": report.os_build or None,
            "cache_uuid": uuid_text(report.cache_uuid) if report.cache_uuid else None,
        },
        "exception": {
            "description": report.exception.description,
            "signal": report.exception.signal,
            "type": report.exception.kind,
            "subtype": report.exception.subtype,
            "codes": report.exception.codes,
            "message": report.exception.message,
        },
        "cause": list(report.cause),
        "notes": list(report.notes),
        "application_specific_information": list(report.information),
        "crashed_thread": None if report.crashed_thread is None else report.threads[report.crashed_thread].index,
        "registers": {name: hex(value) for name, value in report.registers.items()},
        "threads": [
            {
                "index": thread.index,
                "name": thread.name or None,
                "queue": thread.queue or None,
                "crashed": number == report.crashed_thread,
                "frames": _frames_json(named, frames),
            }
            for number, (thread, frames) in enumerate(zip(report.threads, named.threads, strict=True))
        ],
        "last_exception": {"frames": _frames_json(named, named.last_exception)} if named.last_exception else None,
        "application_backtraces": [{"frames": _frames_json(named, one)} for one in named.application_backtraces],
        "modules": [_module_json(number, image, named) for number, image in enumerate(report.images)],
    }


def _frames_json(named: NamedReport, frames: Sequence[NamedFrame]) -> list[dict[str, Any]]:
    return [
        {
            "index": number,
            "address": hex(frame.address),
            "module": frame.image_name or None,
            "module_index": frame.image,
            "module_offset": frame.image_offset,
            "function": frame.function or None,
            "mangled": frame.symbol or None,
            "other_function": frame.other_function or None,
            "offset": frame.offset,
            "file": frame.file or None,
            "line": frame.line,
            "inlined": frame.inlined,
            "source": frame.name_source or None,
        }
        for number, frame in enumerate(frames)
    ]


def _module_json(number: int, image: ReportImage, named: NamedReport) -> dict[str, Any]:
    return {
        "index": number,
        "address": None if image.address is None else hex(image.address),
        "size": image.size or None,
        "path": image.path or None,
        "uuid": uuid_text(image.uuid) if image.uuid else None,
        "arch": image.arch or None,
        "found": named.used.get(number),
    }


def report_text(named: NamedReport) -> str:
    """Return a report in the layout of Apple's text, which our own reader takes, too; all of it is printable."""
    return "".join(printable(line, keep="\t") + "\n" for line in _lines(named))


def _lines(named: NamedReport) -> Iterator[str]:
    report = named.report
    yield f"Process:             {report.executable.rpartition('/')[2]}"
    yield f"Path:                {report.executable}"
    yield f"Version:             {report.bundle_version}"
    yield f"Code Type:           {_CODE_TYPES.get(report.arch, report.arch.upper())}"
    yield f"OS Version:          {report.os_version}" + (f" ({report.os_build})" if report.os_build else "")
    yield ""
    raised = report.exception
    signal = f" ({raised.signal})" if raised.kind and raised.signal else raised.signal or ""
    for label, value in (
        *(("Type:   ", f"{raised.kind or ''}{signal}"), ("Subtype:", raised.subtype), ("Codes:  ", raised.codes)),
        ("Message:", raised.message),
    ):
        if value:
            yield f"Exception {label}   {value}"
    if words := [*report.cause, *report.information]:
        yield from ("", "Application Specific Information:", *words)
    if named.last_exception:
        yield from ("", "Last Exception Backtrace:", *_frame_lines(named, named.last_exception))
    for number, frames in enumerate(named.application_backtraces):
        yield from ("", f"Application Specific Backtrace {number}:", *_frame_lines(named, frames))
    for number, (thread, frames) in enumerate(zip(report.threads, named.threads, strict=True)):
        crashed = " Crashed" if number == report.crashed_thread else ""
        yield from ("", f"Thread {thread.index}{crashed}:: {thread.label}".rstrip(), *_frame_lines(named, frames))
    if report.registers and report.crashed_thread is not None:
        kind = "X86 Thread State" if "rip" in report.registers or "eip" in report.registers else "ARM Thread State"
        bits = 64 if report.arch.endswith("64") else 32
        yield from ("", f"Thread {report.threads[report.crashed_thread].index} crashed with {kind} ({bits}-bit):")
        values = [f"{name:>6}: {value:#018x}" for name, value in report.registers.items()]
        yield from (" ".join(values[n : n + _IN_A_ROW]) for n in range(0, len(values), _IN_A_ROW))
    yield from ("", "Binary Images:", *map(_image_line, report.images))


def _frame_lines(named: NamedReport, frames: Sequence[NamedFrame]) -> Iterator[str]:
    for number, frame in enumerate(frames):
        unnamed = "???" if frame.image is None else f"{named.start_of(frame.image):#x} + {frame.image_offset}"
        mark = "inlined" if frame.inlined else "nearest" if frame.source is NameSource.NEAREST else ""
        offset = 0 if frame.inlined and frame.offset is None else frame.offset
        known = frame_text(frame.function, offset, frame.file, frame.line, mark=mark) if frame.function else unnamed
        yield f"{number:<4}{frame.image_name or '???':<30}\t{frame.address:#018x} {known}"


def _image_line(image: ReportImage) -> str:
    start = image.address or 0
    end = f"{start + image.size - 1:#18x}" if image.size else f"{'???':>18}"
    uuid = f"<{uuid_text(image.uuid)}>" if image.uuid else "<>"
    return f"{start:#18x} - {end} {image.path.rpartition('/')[2] or '???'} {image.arch or '(*)'} {uuid} {image.path}"
