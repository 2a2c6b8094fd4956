"""Text of any origin, made fit for what can only hold text that is valid."""

from __future__ import annotations

import re

__all__ = ["readable"]

_SURROGATES = re.compile("[\ud800-\udfff]")


def readable(text: str, backslash: str = "\\") -> str:
    """Return text with what no encoding can hold written out: foreign bytes as `\\xff`, lone surrogates as `\\ud800`.

    Python keeps bytes that are no UTF-8, in paths and in what LLDB says, as surrogates. `backslash`: how it is written.
    """
    return _SURROGATES.sub(lambda match: backslash + _code(ord(match[0])), text)


def _code(surrogate: int) -> str:
    byte = surrogate - 0xDC00
    return f"x{byte:02x}" if 0x80 <= byte <= 0xFF else f"u{surrogate:04x}"
