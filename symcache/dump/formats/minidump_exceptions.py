"""The exception streams of a minidump: what stopped which thread.

Sources: MINIDUMP_EXCEPTION_STREAM (minidumpapiset.h); Breakpad's minidump_exception_mac.h: Mach's type and code stand
in code and flags of the exception; LLDB's MinidumpFileBuilder, which tells in words what stopped a thread.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import NamedTuple

from symcache.crash import CrashException
from symcache.dump.formats.exceptions import mach_exception, signal_name
from symcache.text import printable

__all__ = ["EXCEPTION_STREAM", "NO_EXCEPTION", "Raised", "blamed", "is_passing", "read_exception", "stopping"]

EXCEPTION_STREAM = struct.Struct("<I4x2I8xQI4x15Q2I")
"""Thread, type, code, address, number of parameters, parameters; size and place of the registers."""
_TYPE_AT, _CONTEXT_AT = 8, 160
"""Offsets of the type, and of size and place of the registers."""
NO_EXCEPTION = "the minidump names no exception"
_ASKED_FOR = {
    0x4350_7378: "no crash: the program asked Crashpad for this dump",
    0x4350_6E78: "an uncaught NSException, of which the program had Crashpad make this dump",
    0xFFFF_FFFF: "no crash: the program asked Breakpad for this dump",
}
"""In the place of Mach's type: `CPsx`, `CPnx`, and what Breakpad has for a dump on request."""
_LLDB = int.from_bytes(b"LLDB", "big")
"""In the place of the code: LLDB tells in words what stopped the thread."""
_FAULT = re.compile(r"address[:=] ?0x([0-9a-fA-F]{1,16})\b")
_SOFTWARE, _CRASH, _RESOURCE, _GUARD, _LAST = 5, 10, 11, 12, 13
"""Types of Mach exceptions: <mach/exception_types.h>."""
_SOFT_SIGNAL = 0x10003
_STOPPING = frozenset({3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 15})
"""Signals at which LLDB stops."""


class Raised(NamedTuple):
    """An exception of a thread."""

    thread: int
    """Its id."""
    exception: CrashException
    context: tuple[int, int]
    """Size and place of the registers when it was raised."""
    is_mach: bool
    """It is a Mach exception, or else a signal or something that was asked for."""


def read_exception(raw: bytes) -> Raised:
    """Return what an exception stream says. Raises struct.error."""
    thread, kind, code, address, count, *rest = EXCEPTION_STREAM.unpack_from(raw)
    *parameters, size, place = rest
    context = (size, place)
    if code == _LLDB:
        text = struct.pack("<15Q", *parameters).partition(b"\0")[0].decode("ascii", "replace")
        words = printable(text) or NO_EXCEPTION
        at = _FAULT.search(words)
        exception = CrashException(words, None, int(at[1], 16) if at else None)
        return Raised(thread, exception, context, is_mach=not words.startswith("signal "))
    if kind in _ASKED_FOR:
        return Raised(thread, CrashException(_ASKED_FOR[kind]), context, is_mach=False)
    if not code and not count and kind > _LAST:  # LLDB's, of before it wrote words
        return Raised(thread, CrashException(f"signal {signal_name(kind) or kind}"), context, is_mach=False)
    return Raised(thread, _mach(kind, code, address, parameters[:count]), context, is_mach=kind <= _LAST)


def _mach(kind: int, code: int, address: int, parameters: Sequence[int]) -> CrashException:
    """Return what Mach's type and code mean, with their full width from the `parameters` where they are there.

    Writers take the exception that it came from out of EXC_CRASH (type in bits 20 to 23 of its code, signal in 24 to
    31). Crashpad's parameters are of the exception as it was delivered; rust-minidump's have the type that was found.
    """
    if len(parameters) > 1:
        delivered, first = parameters[:2]
        wrapped = kind != _CRASH and first >> 20 & 0xF == kind and first & 0xF_FFFF == code and first >> 24 & 0xFF
        if delivered in {kind, _CRASH} and wrapped:
            return mach_exception(kind or _CRASH, code, address, signal_name(first >> 24 & 0xFF))
        if delivered == kind:
            return mach_exception(kind, first, parameters[2] if len(parameters) > 2 else address)
    if kind in {_RESOURCE, _GUARD}:
        code <<= 32  # their upper half is what says most
    if not kind and not code:
        return CrashException(NO_EXCEPTION)
    return mach_exception(kind, code, address)


def blamed(raised: Sequence[Raised], threads: Sequence[int]) -> Raised | None:
    """Return the one of some exceptions that is to blame; LLDB writes one for every thread that was stopped."""
    known = [one for one in raised if one.thread in threads]
    return min(known, key=lambda one: not one.is_mach, default=None)


def is_passing(raw: bytes) -> bool:
    """Return whether a stream has an exception at which LLDB would not stop, and wait for another one for ever.

    It takes the address of EXC_SOFTWARE for the number of a signal.
    """
    _, kind, code, address, *_ = EXCEPTION_STREAM.unpack_from(raw)
    return (kind, code) == (_SOFTWARE, _SOFT_SIGNAL) and address not in _STOPPING


def stopping(raw: bytes, context: tuple[int, int]) -> bytes:
    """Return the stream as one at which LLDB stops, with size and place of the registers."""
    stream = bytearray(raw)
    if is_passing(raw):
        struct.pack_into("<I", stream, _TYPE_AT, _CRASH)
    struct.pack_into("<2I", stream, _CONTEXT_AT, *context)
    return bytes(stream)
