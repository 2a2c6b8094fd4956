"""Crash reports of macOS: frames and modules without memory. `.ips` (JSON, since macOS 12) and `.crash` (text).

Sources: Apple's "Interpreting the JSON format of a crash report" and "Examining the fields in a crash report".
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from symcache.dump.exceptions import CrashException
from symcache.dump.header import DumpHeader, DumpModule
from symcache.errors import DumpError

__all__ = ["Report", "ReportImage", "ReportThread", "is_report", "parse_report", "read_report"]

_MAX_FILE = 64 << 20
_MAX_IMAGES = 65_536
_MAX_THREADS = 16_384
_MAX_FRAMES = 4096
"""Of one thread; Apple's own writer stops at 512."""
_MAX_TEXT = 1024
_MAX_LINE = 8192
_ADDRESS = 1 << 64
_UUID = r"[0-9A-Fa-f]{8}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{12}"
# `0x7ff80f1d5000 - 0x7ff80f26dfff libsystem_c.dylib (*) <23516be4-…> /usr/lib/system/libsystem_c.dylib`; a plus marks
# what is not Apple's, iOS writes the architecture before the UUID, and an end that nobody knew is `???`.
_IMAGE = re.compile(rf"\s*0x([0-9A-Fa-f]{{1,16}})\s+-\s+(\S+)\s+(\S[^<]*)<({_UUID})>\s*(.*)\Z")
_END = re.compile(r"0x[0-9A-Fa-f]{1,16}")
_ARCHS = {"x86_64", "x86_64h", "arm64", "arm64e", "arm64_32", "armv7", "armv7s", "armv7k", "i386"}
_THREAD = re.compile(r"Thread (\d{1,5})(?: (Crashed))?:(?:: ?(.*))?\s*\Z")
_LAST, _INFORMATION = "Last Exception Backtrace:", "Application Specific Information:"
_BARE_FRAMES = re.compile(r"\s*\((0x[0-9A-Fa-f]{1,16}(?:\s+0x[0-9A-Fa-f]{1,16})*)\)\s*\Z")
"""The whole of a last exception's backtrace, as systems write it that have not looked for names."""
_MAX_INFORMATION = 200
"""Lines."""
_NAME = re.compile(r"Thread (\d{1,5}) name:\s*(.*)\Z")
_FRAME = re.compile(r"\s*\d{1,5}\s+\S.*?\s+0x([0-9A-Fa-f]{1,16})\s")
_STATE = re.compile(r"Thread (\d{1,5}) crashed with ")
_REGISTER = re.compile(r"\b([a-z][a-z0-9]{1,5}):\s+0x([0-9A-Fa-f]{1,16})\b")
_FIELD = re.compile(r"([A-Z][A-Za-z ]{1,30}):\s+(.*)\Z")
_SYSTEM = re.compile(r"(.*?)\s*\(([A-Za-z0-9._-]{1,64})\)\s*\Z")
"""Version and build of macOS."""
_SIGNAL = re.compile(r"\b(SIG[A-Z]{2,10})\b")
_AT = re.compile(r"\bat 0x([0-9A-Fa-f]{1,16})\b")


@dataclass(frozen=True, slots=True)
class ReportThread:
    """Program counters of one thread, top first; below the top they are return addresses."""

    index: int
    name: str
    frames: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReportImage:
    """One image that was loaded, as the report lists it."""

    address: int | None
    size: int
    """In bytes; 0 where the report does not say."""
    path: str
    """Or its name, where the report has no path."""
    uuid: UUID | None
    arch: str
    """Empty where the report does not say."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a crash report says."""

    header: DumpHeader
    """`thread` is a place in `threads`; its modules are those images that have an address, each address once."""
    os_version: str
    """Such as `macOS 13.6.9`; the build is in the header."""
    images: tuple[ReportImage, ...]
    """In the order of the report."""
    arch: str
    exception: CrashException
    threads: tuple[ReportThread, ...]
    registers: dict[str, int]
    """Of the crashed thread."""
    last_exception: tuple[int, ...] = ()
    """Return addresses from where an uncaught exception was thrown, the innermost first; empty if none was."""
    information: tuple[str, ...] = ()
    """Application-specific information: what libraries and program left to be reported, line by line."""


def is_report(path: Path) -> bool:
    """Return whether a file begins as a crash report does."""
    with path.open("rb") as file:
        start = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    return start.startswith((b"{", b"Process:", b"Incident Identifier:", b"-----", b"Translated Report"))


def read_report(path: Path, *, threads: bool = True) -> Report:
    """Read a `.ips` or `.crash` file, as `parse_report`. Raises DumpError, OSError."""
    if (size := path.stat().st_size) > _MAX_FILE:
        raise DumpError(f"{path}: {size} bytes are too many for a crash report", hint=f"at most {_MAX_FILE} are read")
    return parse_report(path.read_bytes().decode("utf-8", "replace"), str(path), threads=threads)


def parse_report(text: str, name: str, *, threads: bool = True) -> Report:
    """Parse a report of either kind; `name` stands in messages. Raises DumpError.

    Without `threads`, a report is taken that has none, or whose images have no addresses: it still says which they are.
    """
    text = text.lstrip("\ufeff \t\r\n")
    report = _parse_ips(text, name, threads=threads) if text.startswith("{") else _parse_crash(text, name)
    if not (report.header.modules if threads else report.images):
        raise DumpError(f"{name}: the crash report names no modules", hint="it is cut: copy it again")
    if threads and not report.threads:
        raise DumpError(f"{name}: the crash report has no thread", hint="it is cut: copy it again")
    return report


def _parse_ips(text: str, name: str, *, threads: bool) -> Report:
    try:
        head, position = json.JSONDecoder().raw_decode(text)
        rest = text[position:].lstrip()
        body = json.loads(rest) if rest else head
    except (ValueError, RecursionError) as error:
        raise DumpError(f"{name}: not a JSON crash report: {error}", hint="copy the .ips file again") from error
    body, head = _dict(body), _dict(head)
    kind = str(head.get("bug_type"))[:20]
    raw_images = _list(body, "usedImages", _MAX_IMAGES, name, kind)
    raw_threads = (
        _list(body, "threads", _MAX_THREADS, name, kind) if threads or isinstance(body.get("threads"), list) else []
    )
    bases = [_address(image.get("base")) for image in raw_images]
    images = []
    for image, base in zip(raw_images, bases, strict=True):
        uuid, path = _uuid(image.get("uuid")), _text(image.get("path")) or _text(image.get("name"))
        if uuid or path:  # frames in no image are gathered under one with neither
            size = _address(image.get("size")) or 0
            images.append(ReportImage(base, size, path, uuid, _text(image.get("arch"))))
    found: list[ReportThread] = []
    faulting = body.get("faultingThread")
    crashed = faulting if isinstance(faulting, int) and 0 <= faulting < len(raw_threads) else 0
    for number, thread in enumerate(raw_threads):
        if thread.get("triggered") is True and not isinstance(faulting, int):
            crashed = number
        found.append(ReportThread(number, _text(thread.get("name")), tuple(_ips_frames(thread, bases))))
    system, cache = _dict(body.get("osVersion")), _dict(body.get("sharedCache"))
    bundle = _dict(body.get("bundleInfo"))
    version, build = _system(_text(head.get("os_version")))
    if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", stated := _text(system.get("build"))):
        build = stated
    header = DumpHeader(
        executable=_text(body.get("procPath")) or _text(body.get("procName")),
        bundle_version=_text(bundle.get("CFBundleShortVersionString")) or _text(head.get("app_version")),
        thread=crashed,
        modules=_modules(images, _text(body.get("procPath"))),
        os_build=build or None,
        cache_uuid=_uuid(cache.get("uuid")),
        cache_base=_address(cache.get("base")),
    )
    raised = _dict(body.get("exception"))
    exception = _exception(
        _text(raised.get("signal")),
        _text(raised.get("type")),
        _text(raised.get("subtype")) or _text(raised.get("codes")),
    )
    state = _dict(raw_threads[crashed].get("threadState")) if raw_threads else {}
    arch = "arm64" if "ARM" in _text(body.get("cpuType")).upper() else "x86_64"
    version = _text(system.get("train")) or version
    return Report(
        *(header, version, tuple(images), arch, exception, tuple(found), _ips_registers(state)),
        last_exception=tuple(_ips_frames({"frames": body.get("lastExceptionBacktrace")}, bases)),
        information=_lines(_ips_information(body.get("asi"))),
    )


def _ips_information(asi: Any) -> Iterator[str]:
    """Yield the messages, which are by the image that left them."""
    for messages in _dict(asi).values():
        for message in messages if isinstance(messages, list) else [messages]:
            if isinstance(message, str):
                yield message[: _MAX_INFORMATION * _MAX_TEXT]


def _lines(messages: Iterable[str]) -> tuple[str, ...]:
    """Return lines of text, as many and as long as are kept, without what would drive a terminal."""
    lines = (line.replace("\t", " ") for message in messages for line in message.splitlines())
    visible = ("".join(c if c.isprintable() else "\ufffd" for c in line[:_MAX_TEXT]).rstrip() for line in lines)
    return tuple(itertools.islice((line for line in visible if line), _MAX_INFORMATION))


def _ips_frames(thread: dict[str, Any], bases: list[int | None]) -> list[int]:
    found = []
    frames = thread.get("frames")
    for frame in frames[:_MAX_FRAMES] if isinstance(frames, list) else []:
        if not isinstance(frame, dict) or frame.get("inline"):  # inlined ones are found again
            continue
        index, offset = frame.get("imageIndex"), _address(frame.get("imageOffset"))
        if isinstance(index, int) and 0 <= index < len(bases) and offset is not None:
            found.append(((bases[index] or 0) + offset) % _ADDRESS)
    return found


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


def _parse_crash(text: str, name: str) -> Report:
    fields: dict[str, str] = {}
    names: dict[int, str] = {}
    frames: dict[int, list[int]] = {}
    images: list[ReportImage] = []
    registers: dict[str, int] = {}
    thrown: list[int] = []
    information: list[str] = []
    crashed = current = 0
    listed = False
    part = "fields"
    for line in text.splitlines():
        if len(line) > _MAX_LINE:
            continue
        if match := _THREAD.match(line):
            part, current = "frames", int(match[1])
            if len(frames) >= _MAX_THREADS:
                raise DumpError(f"{name}: more than {_MAX_THREADS} threads")
            frames[current] = []
            names.setdefault(current, (match[3] or "")[:_MAX_TEXT])
            crashed = current if match[2] else crashed
        elif line.startswith("Binary Images:") and not images:
            part, listed = "images", True
        elif part == "information" and line.strip():
            if len(information) < _MAX_INFORMATION:
                information.append(line)
        elif line.startswith(_INFORMATION) and not information:
            part = "information"
        elif line.startswith(_LAST) and not thrown:
            part = "thrown"
        elif part == "thrown" and (match := _BARE_FRAMES.match(line)) and not thrown:
            thrown = [int(one, 16) for one in match[1].split()[:_MAX_FRAMES]]
        elif part == "thrown" and (match := _FRAME.match(line + " ")) and len(thrown) < _MAX_FRAMES:
            thrown.append(int(match[1], 16))
        elif part in {"information", "thrown"} and not line.strip():
            part = "fields"
        elif match := _NAME.match(line):
            names[int(match[1])] = match[2][:_MAX_TEXT]
        elif match := _STATE.match(line):
            part, crashed = "registers", int(match[1])
        elif part == "frames" and (match := _FRAME.match(line + " ")) and len(frames[current]) < _MAX_FRAMES:
            frames[current].append(int(match[1], 16))
        elif part == "registers":
            registers |= {key: int(value, 16) for key, value in _REGISTER.findall(line)}
        elif part == "images" and (match := _IMAGE.match(line)):
            if len(images) >= _MAX_IMAGES:
                raise DumpError(f"{name}: more than {_MAX_IMAGES} binary images")
            images.append(_crash_image(match))
        elif part == "images" and images and not line.strip():
            part = "rest"
        elif part == "fields" and (match := _FIELD.match(line)):
            fields.setdefault(match[1], match[2].strip()[:_MAX_TEXT])
    if not listed:
        raise DumpError(
            f"{name}: names no modules: it has no list of binary images", hint="name a .zip, .ips or .crash"
        )
    order = sorted(frames)
    threads = tuple(ReportThread(number, names.get(number, ""), tuple(frames[number])) for number in order)
    path = fields.get("Path", "")
    kind = fields.get("Exception Type", "")
    version, build = _system(fields.get("OS Version", ""))
    header = DumpHeader(
        executable=path or fields.get("Process", "").partition(" [")[0],
        bundle_version=fields.get("Version", "").partition(" (")[0],
        thread=order.index(crashed) if crashed in frames else 0,
        modules=_modules(images, path),
        os_build=build or None,
    )
    exception = _exception(
        _match(_SIGNAL, kind),
        kind.partition(" (")[0],
        fields.get("Exception Subtype") or fields.get("Exception Codes", ""),
    )
    arch = "arm64" if fields.get("Code Type", "").upper().startswith("ARM") else "x86_64"
    return Report(
        *(header, version, tuple(images), arch, exception, threads, registers),
        last_exception=tuple(thrown),
        information=_lines(information),
    )


def _crash_image(match: re.Match[str]) -> ReportImage:
    start, words = int(match[1], 16), match[3].split()
    size = max(0, int(match[2], 16) + 1 - start) if _END.fullmatch(match[2]) else 0
    path = match[5].strip() or words[0].lstrip("+")
    arch = next((word for word in reversed(words) if word in _ARCHS), "")
    return ReportImage(start, size, path[:_MAX_TEXT], _uuid(match[4]), arch)


def _exception(signal: str, kind: str, detail: str) -> CrashException:
    at = _AT.search(detail)
    words = ", ".join(word for word in (kind, detail) if word)
    description = f"{signal}: {words}" if signal and words else signal or words or "the report names no exception"
    return CrashException(description, signal or None, int(at[1], 16) if at else None)


def _modules(images: list[ReportImage], path: str) -> tuple[DumpModule, ...]:
    """Return the images that have an address, the executable in front, as in a dump."""
    modules = {i.address: DumpModule(i.address, i.path, i.uuid) for i in images if i.address is not None}
    return tuple(sorted(modules.values(), key=lambda m: not (path and m.path == path)))


def _system(text: str) -> tuple[str, str]:
    """Split `macOS 13.6.9 (22G830)`; two empty strings where it is nothing of the kind."""
    found = _SYSTEM.match(text)
    return (found[1], found[2]) if found else ("", "")


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(body: dict[str, Any], key: str, most: int, name: str, kind: str) -> list[dict[str, Any]]:
    value = body.get(key)
    if not isinstance(value, list):
        raise DumpError(f"{name}: has no {key} (bug_type {kind!r})", hint="only reports of crashes and hangs have it")
    if len(value) > most:
        raise DumpError(f"{name}: {len(value)} {key} where at most {most} were expected")
    return [_dict(one) for one in value]


def _text(value: Any) -> str:
    """Return a text, without lone surrogates: JSON may hold them, and nothing can print them."""
    return value[:_MAX_TEXT].encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _address(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < _ADDRESS else None


def _uuid(value: Any) -> UUID | None:
    if not isinstance(value, str) or not re.fullmatch(_UUID, value):
        return None
    uuid = UUID(value)
    return uuid if uuid.int else None


def _match(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""
