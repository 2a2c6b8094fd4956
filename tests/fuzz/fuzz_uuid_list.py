"""Lists of UUIDs, read line by line from whoever sends them."""

from __future__ import annotations

from symcache.errors import SymcacheError
from symcache.verify import parse_uuid_list

__all__ = ["SEEDS", "one_input"]

_LIST = """\
# a comment
23516be4-29be-350c-91c9-f36e7999f0f1
UUID: 11111111-2222-3333-4444-555555555555 (arm64e) /usr/lib/libz.dylib
<22222222-2222-3333-4444-555555555555> /usr/lib/libmore.dylib
"""


def SEEDS() -> list[bytes]:
    """Return a list with a line of every kind."""
    return [_LIST.encode()]


def one_input(data: bytes) -> None:
    """Read `data` as a list."""
    try:
        found = parse_uuid_list(data.decode("utf-8", "replace"), "fuzz")
    except SymcacheError:
        return
    if not found.modules:
        raise AssertionError("a list without modules")
