"""Builds `extract-cache` from its source: `python -m symcache_provisioning.extractors.bundle_helper.build`.

Needs clang-19, lld-19 and llvm-19, and no Mac or SDK. The same tools give the same bytes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from symcache_provisioning.extractors.bundle_helper import HELPER

__all__ = ["TOOLS", "build"]

TOOLS = ("clang-19", "ld64.lld-19", "llvm-lipo-19")
ARCHS = ("x86_64", "arm64")
_SOURCE = Path(__file__).with_name("extract_cache.c")
_MACOS = "11.0"
"""The first that comes with the bundle."""
_LIBSYSTEM = """\
--- !tapi-tbd
tbd-version: 4
targets: [ x86_64-macos, arm64-macos ]
install-name: '/usr/lib/libSystem.B.dylib'
exports:
  - targets: [ x86_64-macos, arm64-macos ]
    symbols: [ __NSConcreteGlobalBlock, _dlerror, _dlopen, _dlsym, _dprintf, dyld_stub_binder ]
...
"""


def build(target: Path) -> None:
    """Build the universal program at `target`. Raises subprocess.CalledProcessError, OSError without the tools."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "libSystem.tbd").write_text(_LIBSYSTEM)
        shutil.copy(_SOURCE, folder)
        thin = []
        for arch in ARCHS:
            (folder / arch).mkdir()
            # The signature names the file that the linker writes, and paths must be no part of the result.
            obj, program = f"{arch}/{_SOURCE.stem}.o", f"{arch}/{HELPER.name}"
            compiler = ("clang-19", "-target", f"{arch}-apple-macos{_MACOS}", "-std=c11", "-fblocks", "-O2", "-g0")
            _run(folder, *compiler, "-Wall", "-Wextra", "-Werror", "-c", _SOURCE.name, "-o", obj)
            linker = ("ld64.lld-19", "-arch", arch, "-platform_version", "macos", _MACOS, _MACOS, "-e", "_main")
            # Apple silicon runs only signed programs; an ad hoc signature is enough.
            _run(folder, *linker, "-adhoc_codesign", "libSystem.tbd", obj, "-o", program)
            thin.append(program)
        _run(folder, "llvm-lipo-19", "-create", *thin, "-output", "universal")
        shutil.copyfile(folder / "universal", target)


def _run(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, check=True)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else HELPER)
