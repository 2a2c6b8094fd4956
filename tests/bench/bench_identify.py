"""Which images a file holds: against LIEF's quick parse, and one llvm-objdump process a file.

LIEF reads the whole file, so its rate falls with the size; the peers get Qt's universal frameworks (2.3 MB each on
average), which is the size of an application's own binaries.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import lief

from symcache.macho import identify
from tests.bench.harness import ROUNDS, Row, compare, figure
from tests.support.wheels import fetch_wheel

_WHEELS = (
    ("PySide6_Essentials==6.7.3", "macosx_11_0_universal2"),
    ("pyobjc_core==13.0", "macosx_10_13_universal2"),
    ("numpy==2.0.2", "macosx_14_0_arm64"),
    ("scipy==1.14.1", "macosx_14_0_arm64"),
)
_PEER_FILES = 20
"""The peers are slow: they get some of the files, evenly spread, and rates are compared."""


def run(scratch: Path) -> list[Row]:
    """Return files a second over real wheels, from a warm cache."""
    del scratch
    trees = [fetch_wheel(name, platform) for name, platform in _WHEELS]
    files = [f for tree in trees for f in sorted(tree.rglob("*")) if f.is_file() and identify(f)]
    qt = [f for f in files if f.is_relative_to(trees[0])]
    some = qt[:: max(1, len(qt) // _PEER_FILES)]
    repeat = 10

    def ours() -> None:
        for _ in range(repeat):
            for file in files:
                identify(file)

    def ours_some() -> None:
        for _ in range(repeat * 20):
            for file in some:
                identify(file)

    def lief_quick() -> None:
        for file in some:
            fat = lief.MachO.parse(str(file), lief.MachO.ParserConfig.quick)
            assert fat is not None
            for binary in fat:
                assert binary.has_uuid

    def objdump() -> None:
        for file in some:
            command = ["llvm-objdump-19", "--macho", "--private-headers", str(file)]
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)

    rates = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        ours()
        rates.append(repeat * len(files) / (time.perf_counter() - start))
    rows = [figure("identify Mach-O files", sorted(rates)[ROUNDS // 2], "files/s", at_least=20_000)]
    factor = repeat * 20
    for name, peer, goal in (("LIEF quick parse", lief_quick, 200), ("llvm-objdump a file", objdump, 500)):
        row = compare("identify Mach-O files", ours_some, name, peer, amount=len(some), unit="files/s")
        ratio = (row.ratio or 0) * factor  # ours went over the files that many times
        rows.append(
            Row(row.name, row.value * factor, row.unit, name, row.peer_value, ratio, f">= {goal}", ratio >= goal)
        )
    return rows
