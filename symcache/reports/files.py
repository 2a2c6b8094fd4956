"""Tells crash reports from other files, and reads them whichever format they are in."""

from __future__ import annotations

import html
import re
from contextlib import suppress
from pathlib import Path

from symcache.errors import DumpError
from symcache.reports.ips import decode_ips, parse_ips
from symcache.reports.model import Report
from symcache.reports.text import parse_crash

__all__ = ["is_report", "parse_report", "read_report"]

_MAX_FILE = 64 << 20
_MAX_START = 16 << 10
_BEGINNINGS = (
    *("Process:", "Incident Identifier:", "Hardware Model:", "Exception Type:", "Thread 0"),
    *("-----", "Translated Report"),
)
"""Of reports that are text."""
_QUOTED = re.compile(r"^([> \t]*)(?:Crashed Thread|Triggered by Thread|Exception Type):", re.MULTILINE)
"""A field that other tools' texts do not have, and what somebody's web page or mail has in front of every line."""
_FULL_REPORT = re.compile(r"^-+\s+Full Report\s+-+\s+(?=\{)", re.MULTILINE)
"""Between a report that was translated to text and that itself, which says more: in one file, as Console copies it."""


def is_report(path: Path) -> bool:
    """Return whether a file begins as a crash report does, or with the words of somebody who quotes one."""
    with path.open("rb") as file:
        start = file.read(_MAX_START).lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith((b"{", *(beginning.encode() for beginning in _BEGINNINGS))):
        return True
    return b"\0" not in start and _QUOTED.search(start.decode("utf-8", "replace")) is not None


def read_report(path: Path, *, threads: bool = True) -> Report:
    """Read a `.ips` or `.crash` file, as `parse_report`. Raises DumpError, OSError."""
    if (size := path.stat().st_size) > _MAX_FILE:
        raise DumpError(f"{path}: {size} bytes are too many for a crash report", hint=f"at most {_MAX_FILE} are read")
    return parse_report(path.read_bytes().decode("utf-8", "replace"), str(path), threads=threads)


def parse_report(text: str, name: str, *, threads: bool = True) -> Report:
    """Parse a report of either kind; `name` stands in messages. Raises DumpError.

    Without `threads`, a report is taken that has none, or whose images have no addresses: it still says which they are.
    """
    text = _unquoted(text.lstrip("\ufeff \t\r\n"))
    if text.startswith("{"):
        # Until macOS 11, what follows the object in the first line is text.
        rest = text.partition("\n")[2].lstrip()
        text = rest if rest.startswith(_BEGINNINGS) else text
    document = decode_ips(text, name) if text.startswith("{") else None
    if document is None and (full := _FULL_REPORT.search(text)):
        with suppress(DumpError):  # cut: there is the text
            document = decode_ips(text[full.end() :], name)
    report = parse_ips(document, name, threads=threads) if document else parse_crash(text, name)
    if not (any(i.address is not None for i in report.images) if threads else report.images):
        raise DumpError(f"{name}: the crash report names no modules", hint="it is cut: copy it again")
    if threads and not report.threads:
        raise DumpError(f"{name}: the crash report has no thread", hint="it is cut: copy it again")
    return report


def _unquoted(text: str) -> str:
    """Return a text report without what quoting has put in front of its lines, and made of its `<`."""
    match = None if text.startswith("{") else _QUOTED.search(text)
    if match and match[1]:
        text = re.sub(rf"^{re.escape(match[1])}", "", text, flags=re.MULTILINE)
    return html.unescape(text) if match and "&lt;" in text else text
