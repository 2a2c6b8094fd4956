"""Byte ranges (RFC 9110 14)."""

from __future__ import annotations

import re

__all__ = ["parse_range"]

_RANGE = re.compile(r"\s*bytes\s*=\s*([0-9]*)\s*-\s*([0-9]*)\s*", re.IGNORECASE)
_ENDLESS = 10**20
"""More bytes than any content has."""


def parse_range(text: str, length: int) -> tuple[int, int] | tuple[()] | None:
    """Return (first, last) of a Range field (RFC 9110 14.2); `()` if it lies outside; None if it is to be ignored.

    Ignored are malformed ranges, other units and several ranges at once: a server may send the whole instead.
    """
    matched = _RANGE.fullmatch(text)
    if matched is None or not (matched[1] or matched[2]):
        return None
    if not matched[1]:
        suffix = min(_number(matched[2]), length)
        return (length - suffix, length - 1) if suffix else ()
    first = _number(matched[1])
    last = _number(matched[2]) if matched[2] else length - 1
    if last < first and matched[2]:
        return None
    return (first, min(last, length - 1)) if first < length else ()


def _number(digits: str) -> int:
    """Return a number of however many digits, or `_ENDLESS` where it is larger."""
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= 20 else _ENDLESS
