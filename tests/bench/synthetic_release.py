"""`python -m tests.bench.synthetic_release FOLDER SCALE`: a whole macOS release, made up, as a folder to harvest.

At scale 1 it has the shape of macOS 26 on Apple silicon: the caches of arm64e in a dozen files and of x86_64 in six, 10
GB and 7,200 images together, DriverKit's small ones, and 800 Mach-O files outside of them.
"""

from __future__ import annotations

import plistlib
import sys
from functools import partial
from pathlib import Path

from tests.bench.synthetic_cache import Shape, build
from tests.bench.synthetic_content import OS
from tests.bench.synthetic_files import machine_code, write_dylibs

__all__ = ["BUILD", "build_release"]

BUILD = "25F71"
_CRYPTEX = "System/Volumes/Preboot/Cryptexes/OS/System"
_DRIVERKIT = partial(Shape, platform=10, prefix="/System/DriverKit", largest_symbols=5000)


def build_release(root: Path, scale: float) -> int:
    """Write the files below `root`; return how many images there are."""
    code = machine_code()
    big, small, loose = round(3600 * scale), max(2, round(30 * scale)), max(5, round(800 * scale))
    library, driverkit = root / _CRYPTEX / "Library/dyld", root / _CRYPTEX / "DriverKit/System/Library/dyld"
    shapes = {
        Shape("arm64e", big, round(5.4e9 * scale), slide=5, parts=4, separate=True, seed=1): library,
        Shape("x86_64", big, round(4.6e9 * scale), slide=2, parts=6, seed=2): library,
        _DRIVERKIT("arm64e", small, round(30e6 * scale), slide=3, seed=3): driverkit,
        _DRIVERKIT("x86_64", small, round(30e6 * scale), slide=2, seed=4): driverkit,
    }
    for shape, folder in shapes.items():
        folder.mkdir(parents=True, exist_ok=True)
        build(folder, shape, code)
    for number, name in enumerate(("usr/lib", "usr/libexec", "usr/bin", "System/Library/PrivateFrameworks", "sbin")):
        for _ in write_dylibs(root / name, code, loose // 5, median=150 << 10, seed=10 + number):
            pass
    version = root / "System/Library/CoreServices/SystemVersion.plist"
    version.parent.mkdir(parents=True)
    said = {"ProductName": "macOS", "ProductVersion": f"{OS}.5", "ProductBuildVersion": BUILD}
    version.write_bytes(plistlib.dumps(said))
    return 2 * big + 2 * small + loose // 5 * 5


if __name__ == "__main__":
    print(build_release(Path(sys.argv[1]), float(sys.argv[2])))
