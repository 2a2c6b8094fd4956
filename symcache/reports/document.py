"""JSON that a foreign reporter wrote: its objects found among other text, its values taken for what they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from symcache.reports.model import ADDRESS_END, MAX_TEXT
from symcache.text import encodable

__all__ = ["Document", "address_of", "dict_of", "find_document", "strings_of", "text_of"]

_MAX_JSON = 32 << 20
"""Characters of what is parsed. Reports have some millions at most."""
_MAX_VALUES = 2_000_000
"""Objects and lists, which take the most memory: some hundred bytes each."""
_MAX_STARTS = 16
_START = re.compile(r"^\{(?=\s{0,80}(?:\"|\}|\Z))", re.MULTILINE)
_DECODER = json.JSONDecoder(strict=False)
"""Some reporters leave line ends in strings as they are."""
_KEYS = frozenset(
    (
        *("bug_type", "app_name", "incident_id", "usedImages", "threads", "procName", "panicString", "processByPid"),
        *("crashDiagnostics", "hangDiagnostics", "cpuExceptionDiagnostics", "diskWriteExceptionDiagnostics"),
        *("appLaunchDiagnostics", "largestProcess", "stackshot", "callStackTree", "crashReporterKey"),
    )
)
"""Each kind of Apple's documents has at least one of them."""


class Document(NamedTuple):
    """The objects of a report: the line that says what it is, and the report, which are one if there is only one."""

    start: int
    """Where in the text it begins."""
    head: dict[str, Any]
    body: dict[str, Any]
    """The second object, or the first if there is only one; empty if what follows the first is no JSON."""
    rest: str
    """The text behind the first object, if no second one could be read."""
    error: str
    """Why an object, the first or the second, could not be read; empty if none is wrong."""
    end: int
    """Where in the text `body` ends, or the first object where there is no other."""

    @property
    def bug_type(self) -> str:
        """Apple's number for what it is of, such as `309`; empty where it does not say."""
        value = self.head.get("bug_type", self.body.get("bug_type"))
        return str(value)[:20] if isinstance(value, str | int) else ""


def find_document(text: str) -> Document | None:
    """Return the objects that a report in JSON consists of, with other text around; None if there are none.

    Those count that end: a document in front of which there is text may be cut.
    """
    first = None
    for match, _ in zip(_START.finditer(text), range(_MAX_STARTS), strict=False):
        document = _decode(text, match.end() - 1)
        if document.head.keys() & _KEYS and not document.error:
            return document
        if first is None and (document.error or document.head.keys() & _KEYS):
            first = document
    return first


def _decode(text: str, start: int) -> Document:
    try:
        # Mostly the first object is one line; to parse it alone is to know at once what the rest is.
        head, end = _raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        return Document(start, {}, {}, text[start:], _reason(error), len(text))
    head = dict_of(head)
    rest = len(text) - len(text[end:].lstrip())
    if "usedImages" in head or "threads" in head or not text.startswith("{", rest):
        single = rest >= len(text) or "bug_type" not in head or "usedImages" in head
        return Document(start, head, head if single else {}, text[rest:], "", end)
    try:
        body, end = _raw_decode(text, rest)
    except (ValueError, RecursionError) as error:
        return Document(start, head, {}, text[rest:], _reason(error), end)
    return Document(start, head, dict_of(body), "", "", end)


def _raw_decode(text: str, start: int) -> tuple[Any, int]:
    text = text[: start + _MAX_JSON] if len(text) - start > _MAX_JSON else text
    if (values := text.count("{", start) + text.count("[", start)) > _MAX_VALUES:
        raise ValueError(f"{values} objects and lists where at most {_MAX_VALUES} are read")
    return _DECODER.raw_decode(text, start)


def _reason(error: Exception) -> str:
    return "it nests too deep" if isinstance(error, RecursionError) else str(error)


def dict_of(value: Any) -> dict[str, Any]:
    """Return an object; an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def strings_of(value: Any) -> Iterator[str]:
    """Yield the texts that a value is, or is a list of."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str):
            yield encodable(one)


def text_of(value: Any, most: int = MAX_TEXT) -> str:
    """Return a text, without lone surrogates: JSON may hold them, and nothing can print them."""
    return encodable(value[:most]) if isinstance(value, str) else ""


def address_of(value: Any) -> int | None:
    """Return a number of 64 bits; None in place of anything else."""
    return value if type(value) is int and 0 <= value < ADDRESS_END else None
