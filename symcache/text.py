"""Foreign text made safe to show: in a terminal, a page, a log, a message, a JSON document.

Names and paths come out of dumps, binaries, file systems of other machines and responses of servers. Whoever made them
may have put in escape sequences that drive a terminal, marks that turn the direction of the text around them, or bytes
that are no text at all. `symcache.dump.lldb_child.worker` loads this file by itself: standard library only, Python 3.9.
"""

from __future__ import annotations

import re

__all__ = ["counted", "encodable", "excerpt", "json_printable", "printable", "printable_value"]

_SURROGATE = re.compile("[\ud800-\udfff]")
_SUSPECT = re.compile("[^ -~]")
"""What may not be printable: each is looked at, while the ASCII text around it is not."""
_SUSPECT_IN_JSON = re.compile("[^ -~\n]")


def printable(text: str | bytes, *, keep: str = "", limit: int | None = None) -> str:
    r"""Return text in which whatever is not printable is a visible escape: `\n`, `\x1b`, `\u202e`, `\U000e0001`.

    Not printable are control characters (C0, DEL, C1), and so all escape sequences; marks of direction and other
    characters without a shape (Unicode's categories Cf, Co, Cn, Zl, Zp, Zs but for the space); and lone surrogates, as
    Python writes bytes that are no UTF-8: those become the byte, `\xff`. Backslashes stay as they are.

    `keep`: characters that may pass nevertheless, such as a tab or a newline. `limit`: at most so many characters are
    returned, of which the last is `…` where something was left out; no more than that of `text` is looked at.
    """
    if limit is not None:
        text = text[: 4 * limit + 4] if isinstance(text, bytes) else text[: limit + 1]
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if not text.isprintable():
        text = _SUSPECT.sub(lambda match: match[0] if match[0] in keep else _escaped(match[0]), text)
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"


def counted(number: int, one: str, many: str = "") -> str:
    """Return `1 finding`, `2 findings`; `many` where that is no `s` more."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def printable_value(value: object) -> object:
    """Return a value as templates may show it: text `printable`, all else as it is (Jinja2: `finalize`)."""
    return printable(value) if type(value) is str else value


def excerpt(text: str | bytes, limit: int = 300) -> str:
    """Return the beginning of a text, `printable` and without white space around it, fit for one line of a message."""
    return printable(text[: 4 * limit + 4].strip(), limit=limit)


def encodable(text: str) -> str:
    r"""Return text without lone surrogates, which no encoding can hold: `\xff` for a foreign byte, else `\ud800`.

    Python keeps bytes that are no UTF-8, in paths and in what LLDB says, as surrogates. Anything else stays as it is.
    """
    return _SURROGATE.sub(lambda match: _escaped(match[0]), text)


def json_printable(document: str) -> str:
    r"""Return a JSON document whose strings have what is not printable as `\u` escapes: it means the same.

    But for lone surrogates: their strings become those that `encodable` returns. Newlines between values stay.
    """
    return _SUSPECT_IN_JSON.sub(lambda match: _json_escaped(match[0]), document)


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if 0xD800 <= code <= 0xDFFF:
        return f"\\u{code:04x}"
    return character.encode("unicode_escape").decode("ascii")


def _json_escaped(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if 0xD800 <= code <= 0xDFFF:
        return "\\" + _escaped(character)
    units = character.encode("utf-16-be").hex()
    return "".join(f"\\u{units[n : n + 4]}" for n in range(0, len(units), 4))
