"""Small macOS systems to harvest: folders as macOS lays them out, of compiled Mach-O files and shared caches."""

from __future__ import annotations

import plistlib
import shutil
import stat
import sys
from pathlib import Path

from tests.cachewriter import CacheOptions, build_cache
from tests.cachewriter.samples import sample
from tests.support.apple import apple_caches
from tests.support.toolchain import compile_image, lipo

__all__ = [
    "BUILD",
    "CACHES",
    "CACHE_FOLDER",
    "images_in",
    "make_endless_util",
    "make_system",
    "make_util",
    "system_version",
]

BUILD = "22G120"
CACHE_FOLDER = "System/Volumes/Preboot/Cryptexes/OS/System/Library/dyld"
CACHES = {
    "arm64e": CacheOptions(arch="arm64e", header_size=0x228, split="v2", unmapped_locals=".symbols"),
    "x86_64": CacheOptions(arch="x86_64", header_size=0x228, split="v2"),
}
"""The caches of a system, by architecture."""


def system_version(**more: str) -> bytes:
    """Return a SystemVersion.plist."""
    return plistlib.dumps({"ProductName": "macOS", "ProductVersion": "13.5.1", "ProductBuildVersion": BUILD, **more})


def images_in(*archs: str) -> int:
    """Return how many images the caches of these architectures hold."""
    return sum(len(sample(CACHES[arch])) for arch in archs)


def make_system(
    root: Path, *, caches: tuple[str, ...] = tuple(CACHES), apple: tuple[str, ...] = (), files: bool = True
) -> Path:
    """Make a system of macOS 13: caches in the cryptex, links to it, and Mach-O files outside of them.

    Without all caches that each Mac of 13 has, it is called one of 28. `apple` names caches that Apple's builder made,
    to be used beside those of `caches`.
    """
    services = root / "System/Library/CoreServices"
    services.mkdir(parents=True)
    # Each Mac of macOS 13 has both; of a later one nobody can say yet what it has.
    version = {} if {"arm64e", "x86_64"} <= {*caches, *apple} else {"ProductVersion": "28.0"}
    (services / "SystemVersion.plist").write_bytes(system_version(**version))
    folder = root / CACHE_FOLDER
    folder.mkdir(parents=True)
    for arch in caches:
        build_cache(sample(CACHES[arch]), CACHES[arch]).write(folder)
    for cache in apple:
        for file in (apple_caches() / cache).glob("dyld_shared_cache_*"):
            shutil.copy(file, folder)
    (root / "System/Cryptexes").mkdir()
    (root / "System/Cryptexes/OS").symlink_to("../Volumes/Preboot/Cryptexes/OS")
    if files:
        _files(root)
    return root


def _files(root: Path) -> None:
    source = "int answer(int x) { return x * 42; }"
    work = root.parent / f".{root.name}-build"
    thin = [compile_image(work / arch, "libtrampolines.dylib", source, arch=arch) for arch in ("x86_64", "arm64")]
    (root / "usr/lib").mkdir(parents=True)
    lipo(root / "usr/lib/libtrampolines.dylib", *thin)
    tool = compile_image(work, "tool", "int main(void) { return 3; }", dylib=False)
    (root / "usr/bin").mkdir(parents=True)
    shutil.copy(tool, root / "usr/bin/tool")
    framework = root / "System/Library/Frameworks/Ledger.framework"
    (framework / "Versions/A").mkdir(parents=True)
    (framework / "Versions/Current").symlink_to("A")
    (framework / "Ledger").symlink_to("Versions/Current/Ledger")
    shutil.copy(compile_image(work, "Ledger", source + " int version = 7;"), framework / "Versions/A/Ledger")
    # As since macOS 11: links to a binary that only the cache has.
    dangling = root / "System/Library/Frameworks/Gone.framework"
    dangling.mkdir()
    (dangling / "Gone").symlink_to("Versions/Current/Gone")
    # What is no Mach-O, though the first begins as a universal file does.
    (root / "usr/lib/Main.class").write_bytes(bytes.fromhex("cafebabe00000034") + bytes(64))
    (root / "usr/lib/empty.dylib").touch()
    (root / "usr/bin/script").write_text("#!/bin/sh\nexit 0\n" + "# \n" * 50)


def make_util(folder: Path) -> Path:
    """Make a `dyld_shared_cache_util` that a real server can run: the stand-in behind a script.

    The folders that it extracted into are listed beside it, in `dyld_shared_cache_util.folders`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "dyld_shared_cache_util"
    checkout = Path(__file__).parents[2]
    program.write_text(
        f'#!/bin/sh\n[ "$1" != -extract ] || echo "$2" >> {program}.folders\n'
        f'cd / && PYTHONPATH="{checkout}" exec "{sys.executable}" -m symcache.demo.cache_util "$@"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return program


def make_endless_util(folder: Path) -> tuple[Path, Path]:
    """Make one that extracts for ever (`sleep 631.4`); return it, and the file that then names its folder there."""
    util, program, mark = make_util(folder / "bin"), folder / "dyld_shared_cache_util", folder / "extracting"
    note = f'echo "$2" > {mark}.part; mv {mark}.part {mark}'
    program.write_text(f'#!/bin/sh\n[ "$1" != -extract ] || {{ {note}; exec sleep 631.4; }}\nexec {util} "$@"\n')
    program.chmod(0o755)
    return program, mark
