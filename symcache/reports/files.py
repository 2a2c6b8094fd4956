"""Tells crash reports from other files, and reads them whichever format they are in."""

from __future__ import annotations

import codecs
import re
from dataclasses import replace
from pathlib import Path

from symcache.errors import DumpError
from symcache.reports.document import Document, find_document, text_of
from symcache.reports.ips import parse_ips
from symcache.reports.kinds import CRASHES, MARKS, Kind, kind_of_document, kind_of_text
from symcache.reports.model import MAX_LINES, MAX_TEXT, Report, split_system
from symcache.reports.text import parse_crash, too_many_lines

__all__ = ["decoded", "is_escaped", "is_report", "parse_report", "read_report", "unquoted"]

_MAX_FILE = 64 << 20
_SPACED = 8
_SINGLE = re.compile(r"[^\n]\n[^\n]")
_ESCAPES = (
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("&quot;", '"'),
    ("&#39;", "'"),
    ("&#x27;", "'"),
    ("&nbsp;", " "),
    ("&amp;", "&"),
)
_MAX_START = 16 << 10
_MAX_WORDS = 1 << 20
"""Characters within which a report begins."""
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_TEXT = re.compile(
    r"^([> \t|]{0,80})(?:"
    r"(?:Crashed Thread|Triggered by Thread|Exception Type|Incident Identifier|Hardware Model|Process):|"
    r"Thread \d{1,7}(?: [A-Z][a-z]+)?:|Thread \d{1,7} (?:name:|crashed with)|Binary Images:|Translated Report)",
    re.MULTILINE,
)
"""What other tools' texts do not have, and what somebody's web page or mail has in front of every line."""
_JSON = re.compile(
    r"^([> \t|]{0,80})\{[\s>|]{0,80}\"(?:app_name|bug_type|name|timestamp|uptime|procName)\"", re.MULTILINE
)
_ESCAPED_JSON = re.compile(r"^[> \t|]{0,80}\{[\s>|]{0,80}&quot;", re.MULTILINE)
_NO_BACKTRACE = re.compile(r"^Backtrace not available", re.MULTILINE)
_CUT = "the file ends too early, or was damaged: have it copied whole"


def is_report(path: Path) -> bool:
    """Return whether a file looks, by its beginning, like a report of Apple's, be it quoted by mail or a web page."""
    with path.open("rb") as file:
        start = file.read(_MAX_START)
    if b"\0" in start and not start.startswith(_UTF_16):
        return False
    text = decoded(start).lstrip("\ufeff \t\r\n")
    return text.startswith("{") or any(p.search(text) for p in (_TEXT, _JSON, _ESCAPED_JSON, MARKS))


def read_report(path: Path, *, threads: bool = True) -> Report:
    """Read a `.ips` or `.crash` file, as `parse_report`. Raises DumpError, OSError."""
    with path.open("rb") as file:
        return parse_report(file.read(_MAX_FILE + 1), str(path), threads=threads)


def parse_report(report: str | bytes, name: str, *, threads: bool = True) -> Report:
    """Parse a report of either format, or the file of one; `name` stands in messages.

    With `threads=False`, a report without threads is accepted: it still lists the images. Raises DumpError; if the
    file is of another kind, its message says of which.
    """
    if len(report) > _MAX_FILE:
        raise DumpError(f"{name}: is too large for a crash report", hint=f"at most {_MAX_FILE} bytes are read")
    text = (decoded(report) if isinstance(report, bytes) else report).lstrip("\ufeff")
    if text.count("\n") > MAX_LINES:
        raise too_many_lines(name)
    begin = len(text) - len(text.lstrip())
    text = unquoted(text[text.rfind("\n", 0, begin) + 1 :])  # with the blanks in front of the first line
    document = find_document(text)
    if document is None:
        parsed = _parse_text(text, name, {})
    elif all(isinstance(document.body.get(key), list) for key in ("usedImages", "threads")):
        parsed = parse_ips(document, name)
    else:
        parsed = _parse_rest(text, document, name, threads=threads)
    if threads and not parsed.threads:
        raise DumpError(f"{name}: the crash report has no thread", hint=_CUT)
    return parsed


def _parse_rest(text: str, document: Document, name: str, *, threads: bool) -> Report:
    """Parse a report that is not JSON as a whole: text in front of a document, or behind its first line."""
    head, body = document.head, document.body
    if kind := kind_of_document(document):
        raise _other_kind(name, kind)
    if _TEXT.search(before := text[: document.start]):
        return _parse_text(before, name, head)
    if not threads and isinstance(body.get("usedImages"), list):
        return parse_ips(document, name)
    if document.error:
        raise DumpError(f"{name}: its JSON is damaged, cut or too large: {document.error}", hint=_CUT)
    if not body and document.rest:  # until macOS 11 and iOS 14
        return _parse_text(document.rest, name, head)
    missing = " and ".join(key for key in ("usedImages", "threads") if not isinstance(body.get(key), list))
    if document.bug_type in CRASHES:
        raise DumpError(f"{name}: the crash report is cut: its JSON has no {missing}", hint=_CUT)
    raise DumpError(
        f"{name}: is no crash report that is known: its JSON (bug_type {document.bug_type!r}) has no {missing}",
        hint="only reports of crashes name frames",
    )


def _parse_text(text: str, name: str, head: dict[str, object]) -> Report:
    if kind := kind_of_text(text):
        raise _other_kind(name, kind)
    report = parse_crash(text, name)
    if not report.threads and _NO_BACKTRACE.search(text):
        said = "; ".join([report.exception.description, *report.cause])[:MAX_TEXT]
        raise DumpError(
            f"{name}: the crash report is whole, but has no backtrace: its reporter found no thread ({said})",
            hint="if it happens again, that report may have one",
        )
    if not report.images and not report.threads:
        raise DumpError(
            f"{name}: is no crash report, or too little of one: it has neither threads nor a list of images",
            hint="name a whole .ips or .crash file; of dumps, `symcache analyze` names the frames",
        )
    version, build = split_system(text_of(head.get("os_version")))
    return report if report.os_build else replace(report, os_version=report.os_version or version, os_build=build)


def _other_kind(name: str, kind: Kind) -> DumpError:
    return DumpError(f"{name}: is {kind.name}, not the report of a crash", hint=kind.hint)


def decoded(data: bytes) -> str:
    """Return the text of a report, however it is encoded."""
    return data.decode("utf-16" if data.startswith(_UTF_16) else "utf-8", "replace")


def unquoted(text: str) -> str:
    """Return a report without what quoting has put in front of its lines, and made of its `<` and line ends."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.count("\n\n") > _SPACED and not _SINGLE.search(text):  # some web pages double every line end
        text = text.replace("\n\n", "\n")
    if _ESCAPED_JSON.search(text, 0, _MAX_WORDS):
        text = _unescaped(text)
    match = _JSON.search(text, 0, _MAX_WORDS) or _TEXT.search(text, 0, _MAX_WORDS)
    if match and match[1]:
        text = re.sub(rf"^(?:{re.escape(match[1])}|{re.escape(match[1].rstrip())}$)", "", text, flags=re.MULTILINE)
    return _unescaped(text) if match and is_escaped(text) and not text.startswith("{") else text.lstrip()


def is_escaped(text: str) -> bool:
    """Return whether a web page has escaped `<`, `>` and `&`: one that was cut may have brackets of one kind only."""
    return "&lt;" in text or "&gt;" in text


def _unescaped(text: str) -> str:
    for escape, character in _ESCAPES:
        text = text.replace(escape, character)
    return text
