"""Files of a site: waivers, and its table of what releases should have."""

from __future__ import annotations

import tempfile
from pathlib import Path

from symcache.errors import SymcacheError
from symcache.verify import Expectations, Finding, FindingCode, load_waivers

__all__ = ["SEEDS", "one_input"]

_FINDING = Finding(FindingCode.MISSING, "gone", "22G830", "/usr/lib/libz.dylib", "arm64e", "U")


def SEEDS() -> list[bytes]:
    """Return one of each."""
    return [
        b'[[waiver]]\ncode = "missing"\nbuild = "22G*"\nreason = "known"\nexpires = 2999-01-01\n',
        b'expect_builds = ["22G830"]\n[[release]]\nfrom = "13"\nbefore = "14.1"\nexpect = { system = ["arm64e"] }\n',
    ]


def one_input(data: bytes) -> None:
    """Read `data` as either."""
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(data)
        file.flush()
        try:
            for waiver in load_waivers(Path(file.name)):
                waiver.fits(_FINDING)
                str(waiver)
        except SymcacheError:
            pass
        try:
            Expectations.load(Path(file.name)).of("macOS", "13.6.9", "22G830")
        except SymcacheError:
            pass
