"""Why the system ended a process: namespace and code, and what they mean in words.

Source: `OS_REASON_*` in xnu's <sys/reason.h>; Apple's "Understanding the exception types in a crash report".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Termination", "exception_words", "namespace_name", "parse_termination"]

_NAMESPACES = (
    *("INVALID", "JETSAM", "SIGNAL", "CODESIGNING", "HANGTRACER", "TEST", "DYLD", "LIBXPC", "OBJC", "EXEC"),
    *("SPRINGBOARD", "TCC", "REPORTCRASH", "COREANIMATION", "AGGREGATED", "RUNNINGBOARD", "SKYWALK", "SETTINGS"),
    *("LIBSYSTEM", "FOUNDATION", "WATCHDOG", "METAL", "WATCHKIT", "GUARD", "ANALYTICS", "SANDBOX", "SECURITY"),
    *("ENDPOINTSECURITY", "PAC_EXCEPTION", "BLUETOOTH_CHIP", "PORT_SPACE", "WEBKIT", "BACKLIGHTSERVICES", "MEDIA"),
    *("ROSETTA", "LIBIGNITION", "BOOTMOUNT"),
)
"""By their numbers."""
_CODES = {
    0x8BADF00D: "the watchdog: it took too long to launch, to respond or to end",
    0xDEAD10CC: "it held a lock of a file or a database while it was suspended",
    0xBAADCA11: "it did not report a call that a push notification announced",
    0xBAD22222: "it was started too often for calls over the network",
    0xC00010FF: "the device was too hot",
    0xDEADFA11: "the user forced it to quit",
}
_CODES_OF = {
    ("EXC_BAD_ACCESS", 0x105): "a pointer authentication code is not right",
    ("EXC_BAD_ACCESS", 0x106): "a memory tag is not that of the pointer",
    ("EXC_BAD_ACCESS", 0x107): "a pointer with a memory tag that is not canonical",
    ("CODESIGNING", 1): "the code signature is not valid",
    ("CODESIGNING", 2): "a page does not have the content that the code signature says",
    ("CODESIGNING", 3): "a task port that its code signature does not allow",
    ("CODESIGNING", 4): "a launch constraint was not met",
    ("EXEC", 1): "the executable is no Mach-O file that this system runs",
    ("EXEC", 13): "the system runs no 32-bit programs",
    ("EXEC", 14): "the executable is for another platform",
}
_FIRST_CODE = re.compile(r"(?:#\d\s+)?(0x[0-9A-Fa-f]{1,16})\b")
_REASON = re.compile(
    r"(?:Namespace\s+)?(?P<namespace><0x[0-9A-Fa-f]{1,8}>|[A-Z][A-Z0-9_]{2,30}(?=[\s,]|\Z))"
    r"(?:\s*,)?\s*(?:Code\s+)?(?:\[?(?P<code>0x[0-9A-Fa-f]{1,16}|\d{1,20})\]?(?=[\s,]|\Z))?\s*,?\s*(?P<words>.*)\Z"
)
"""`Namespace DYLD, Code 1 Library missing`, `Namespace SIGNAL, Code 0xb`, `DYLD, [0x4] Symbol missing`,
`FRONTBOARD 2343432205`, `TCC, ` and a sentence."""
_DECIMAL = 4096
"""Codes below are small numbers of their namespace; those above mean something in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Termination:
    """Who ended the process, and why. Texts are empty where the report does not say."""

    namespace: str
    code: int | None
    indicator: str
    """What the code means, as the report says it."""
    reasons: tuple[str, ...]
    """Behind it: reasons and details, line by line."""
    by: str
    """The process that ended it."""

    def words(self) -> Iterator[str]:
        """Yield sentences, the first of which names namespace and code."""
        code = "" if self.code is None else f", code {self.code if self.code < _DECIMAL else hex(self.code)}"
        meaning = _code_words(self.code, self.namespace)
        explained = f" ({meaning})" if meaning else ""
        if self.namespace or code or self.indicator:
            said = f": {self.indicator}" if self.indicator else ""
            yield f"terminated: {self.namespace or 'unknown namespace'}{code}{explained}{said}"
        yield from self.reasons


def _code_words(code: int | None, namespace: str = "") -> str:
    """Return what a code means, empty if that is not known."""
    if code is None:
        return ""
    return _CODES_OF.get((namespace, code)) or _CODES.get(code, "")


def exception_words(codes: str, kind: str) -> str:
    """Return what the codes of an exception mean beyond its kind, empty if that is not known."""
    match = _FIRST_CODE.match(codes)
    code = int(match[1], 16) if match else None
    words = _code_words(code, kind)
    return f"code {code:#x} ({words})" if words else ""


def namespace_name(text: str) -> str:
    """Return a namespace's name, also where a report has its number: `<0xF>`."""
    number = re.fullmatch(r"<?(0x[0-9A-Fa-f]{1,8}|\d{1,3})>?", text.strip())
    value = int(number[1], 0 if number[1].startswith("0x") else 10) if number else -1
    return _NAMESPACES[value] if 0 <= value < len(_NAMESPACES) else text.strip()


def parse_termination(reason: str, more: tuple[str, ...], by: str) -> Termination:
    """Parse what a text report says behind `Termination Reason:`; `more` are the lines below."""
    match = _REASON.match(reason.strip())
    if match is None:
        return Termination("", None, reason.strip(), more, by)
    code = match["code"]
    return Termination(
        namespace_name(match["namespace"]),
        None if code is None else int(code, 16 if code.startswith("0x") else 10),
        match["words"].strip(),
        more,
        by,
    )
