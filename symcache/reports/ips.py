"""Crash reports in JSON (`.ips`, since macOS 12): an object that says what it is, and one that says what happened.

Source: Apple's "Interpreting the JSON format of a crash report".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from symcache.errors import DumpError
from symcache.reports.frames import frames_of
from symcache.reports.model import (
    ADDRESS_END,
    MAX_FRAMES,
    MAX_IMAGES,
    MAX_INFORMATION,
    MAX_TEXT,
    MAX_THREADS,
    Report,
    ReportFrame,
    ReportImage,
    ReportThread,
    exception_of,
    printable_lines,
    split_system,
    thread_label,
    uuid_of,
)
from symcache.text import encodable

__all__ = ["decode_ips", "parse_ips"]

_CRASH = "309"
_MAX_BACKTRACE = 1 << 20
"""Characters."""
_MAX_SOURCE_LINE = 1 << 31


class Document(NamedTuple):
    """The two objects of a JSON report, which are one where somebody copied only the second."""

    head: dict[str, Any]
    body: dict[str, Any]


def decode_ips(text: str, name: str) -> Document:
    """Return the objects that `text` begins with; what follows, such as a system profile, is no part of the report.

    Raises DumpError naming `name`.
    """
    kind = ""
    try:
        decoder = json.JSONDecoder()
        head, position = decoder.raw_decode(text)
        head = _dict(head)
        kind = str(head.get("bug_type"))[:20]
        rest = text[position:].lstrip()
        single = not rest or "usedImages" in head
        return Document(head, head if single else _dict(decoder.raw_decode(rest)[0]))
    except (ValueError, RecursionError) as error:
        if kind and kind != _CRASH:
            raise _other_kind(f"{name}: its report (bug_type {kind!r}) is not JSON") from error
        raise DumpError(f"{name}: not a JSON crash report: {error}", hint="copy the .ips file again") from error


def parse_ips(document: Document, name: str, *, threads: bool) -> Report:
    """Parse a JSON report, as `parse_report`."""
    head, body = document
    kind = str(head.get("bug_type"))[:20]
    raw_images = _list(body, "usedImages", MAX_IMAGES, name, kind)
    raw_threads = (
        _list(body, "threads", MAX_THREADS, name, kind) if threads or isinstance(body.get("threads"), list) else []
    )
    bases = [_address(image.get("base")) for image in raw_images]
    images = []
    for image, base in zip(raw_images, bases, strict=True):
        uuid, path = uuid_of(image.get("uuid")), _text(image.get("path")) or _text(image.get("name"))
        if uuid or path:  # frames in no image are gathered under one with neither
            size = _address(image.get("size")) or 0
            images.append(ReportImage(base, size, path, uuid, _text(image.get("arch"))))
    stacks: list[ReportThread] = []
    faulting = body.get("faultingThread")
    crashed = faulting if isinstance(faulting, int) and 0 <= faulting < len(raw_threads) else 0
    for number, thread in enumerate(raw_threads):
        if thread.get("triggered") is True and not isinstance(faulting, int):
            crashed = number
        label = thread_label(_text(thread.get("name")), _text(thread.get("queue")))
        stacks.append(ReportThread(number, label, tuple(_ips_frames(thread.get("frames"), bases))))
    system, cache = _dict(body.get("osVersion")), _dict(body.get("sharedCache"))
    bundle = _dict(body.get("bundleInfo"))
    version, build = split_system(_text(head.get("os_version")))
    if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", stated := _text(system.get("build"))):
        build = stated
    raised = _dict(body.get("exception"))
    exception = exception_of(
        _text(raised.get("signal")),
        _text(raised.get("type")),
        _text(raised.get("subtype")) or _text(raised.get("codes")),
    )
    state = _dict(raw_threads[crashed].get("threadState")) if raw_threads else {}
    return Report(
        executable=_text(body.get("procPath")) or _text(body.get("procName")),
        bundle_version=_text(bundle.get("CFBundleShortVersionString")) or _text(head.get("app_version")),
        os_version=_text(system.get("train")) or version,
        os_build=build,
        arch="arm64" if "ARM" in _text(body.get("cpuType")).upper() else "x86_64",
        exception=exception,
        images=tuple(images),
        threads=tuple(stacks),
        crashed_thread=crashed,
        registers=_ips_registers(state),
        cache_uuid=uuid_of(cache.get("uuid")),
        cache_base=_address(cache.get("base")),
        last_exception=tuple(
            _ips_frames(body.get("lastExceptionBacktrace"), bases) or _specific_backtrace(body.get("asiBacktraces"))
        ),
        information=printable_lines(_ips_information(body.get("asi"))),
    )


def _specific_backtrace(texts: Any) -> list[ReportFrame]:
    """Return the first application-specific backtrace, which is text."""
    backtraces = (frames_of(_text(text, _MAX_BACKTRACE).splitlines()) for text in _strings(texts))
    return next(filter(None, backtraces), [])


def _strings(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _ips_information(asi: Any) -> Iterator[str]:
    """Yield the messages, which are by the image that left them."""
    for messages in _dict(asi).values():
        for message in _strings(messages if isinstance(messages, list) else [messages]):
            yield message[: MAX_INFORMATION * MAX_TEXT]


def _ips_frames(frames: Any, bases: list[int | None]) -> list[ReportFrame]:
    read = []
    for frame in frames[:MAX_FRAMES] if isinstance(frames, list) else []:
        frame = _dict(frame)  # noqa: PLW2901
        index, offset = frame.get("imageIndex"), _address(frame.get("imageOffset"))
        if isinstance(index, int) and 0 <= index < len(bases) and offset is not None:
            line = frame.get("sourceLine")
            known = type(line) is int and 0 < line < _MAX_SOURCE_LINE
            read.append(
                ReportFrame(
                    ((bases[index] or 0) + offset) % ADDRESS_END,
                    function := _text(frame.get("symbol")),
                    _address(frame.get("symbolLocation")) if function else None,  # which may be missing, too
                    _text(frame.get("sourceFile")) if known else "",
                    line if known else None,
                    frame.get("inline") is True,
                )
            )
    return read


def _ips_registers(state: dict[str, Any]) -> dict[str, int]:
    registers = {}
    numbered = state.get("x")
    for number, one in enumerate(numbered[:29] if isinstance(numbered, list) else []):
        if (value := _address(_dict(one).get("value"))) is not None:
            registers[f"x{number}"] = value
    for key, one in list(state.items())[:64]:
        if re.fullmatch(r"[a-z][a-z0-9]{1,5}", key) and (value := _address(_dict(one).get("value"))) is not None:
            registers[key] = value
    return registers


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(body: dict[str, Any], key: str, most: int, name: str, kind: str) -> list[dict[str, Any]]:
    value = body.get(key)
    if not isinstance(value, list):
        raise _other_kind(f"{name}: has no {key} (bug_type {kind!r})")
    if len(value) > most:
        raise DumpError(f"{name}: {len(value)} {key} where at most {most} were expected")
    return [_dict(one) for one in value]


def _other_kind(message: str) -> DumpError:
    return DumpError(
        message, hint="only reports of crashes name frames: not those of panics, hangs, memory or energy use"
    )


def _text(value: Any, most: int = MAX_TEXT) -> str:
    """Return a text, without lone surrogates: JSON may hold them, and nothing can print them."""
    return encodable(value[:most]) if isinstance(value, str) else ""


def _address(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < ADDRESS_END else None
