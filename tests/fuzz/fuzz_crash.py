"""Crash reports in text form, and lists of UUIDs: both are read line by line from whoever sends them."""

from __future__ import annotations

from symcache.errors import SymcacheError
from symcache.verify.crash_reports import parse_crash, parse_uuid_list

__all__ = ["SEEDS", "one_input"]

_CRASH = """\
Process:               Notes [812]
OS Version:            macOS 11.7.10 (20G1427)

Binary Images:
  0x10b1e0000 - 0x10b1f3fff +com.example.Notes (1.0 - 1) <11111111-2222-3333-4444-555555555555> /Applications/Notes
  0x182d1c000 - 0x182d5cfff libz.1.dylib arm64e  <aabbccddeeff00112233445566778899> /usr/lib/libz.1.dylib
  0x0 - 0xffffffffffffffff ??? (*) <00000000-0000-0000-0000-000000000000> ???

External Modification Summary:
"""
_LIST = """\
# a comment
23516be4-29be-350c-91c9-f36e7999f0f1
UUID: 11111111-2222-3333-4444-555555555555 (arm64e) /usr/lib/libz.dylib
<22222222-2222-3333-4444-555555555555> /usr/lib/libmore.dylib
"""


def SEEDS() -> list[bytes]:
    """Return one of each."""
    return [_CRASH.encode(), _LIST.encode()]


def one_input(data: bytes) -> None:
    """Read `data` as either."""
    text = data.decode("utf-8", "replace")
    for parse in (parse_crash, parse_uuid_list):
        try:
            if not parse(text, "fuzz").modules:
                raise AssertionError("a report without modules")
        except SymcacheError:
            pass
