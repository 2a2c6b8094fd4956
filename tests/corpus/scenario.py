"""The crash of the corpus: Ledger sorts its book through LedgerKit, CoreFoundation and libsystem_c, and its own
comparison writes through a null pointer while a second thread waits in the kernel.
"""

from __future__ import annotations

import plistlib
from dataclasses import dataclass
from pathlib import Path

from tests.cachewriter import BuiltCache, CacheOptions, DylibInput, build_cache
from tests.corpus.build import DYLD, SYSTEM_ARCH, Build, Product, symbol_table
from tests.corpus.dumpfile import Dump, make_dump
from tests.corpus.emulate import Machine
from tests.corpus.process import AppImage, Module, SystemMemory, cache_slide, make_process, parse, uuid_of, version_of
from tests.corpus.truth import Truth, ground_truth

APP = "/Applications/Ledger.app"
EXECUTABLE = f"{APP}/Contents/MacOS/Ledger"
KIT = f"{APP}/Contents/Frameworks/LedgerKit.framework/Versions/A/LedgerKit"
APP_VERSION = "2.4"
MACOS_BUILD = "22G830"
MACOS_VERSION = (13, 6, 9)


@dataclass
class Crash:
    """One run: the machine as it stopped, what is true about it, and its dump."""

    machine: Machine
    truth: Truth
    dump: Dump


def make_cache(build: Build, **changes: object) -> BuiltCache:
    """Build the shared cache of the stand-in host for the system libraries of a build."""
    options = CacheOptions(arch=SYSTEM_ARCH[build.arch], build=MACOS_BUILD, os_version=MACOS_VERSION, **changes)  # type: ignore[arg-type]
    return build_cache([DylibInput(path, file) for path, file in build.system.items()], options)


def cache_memory(build: Build, cache: BuiltCache) -> SystemMemory:
    """Return what a process sees of a cache: images and mappings at their slid addresses."""
    slide = cache_slide(build.arch)
    modules = []
    for image in cache.placed:
        binary = parse(build.system[image.path])
        modules.append(
            Module(
                image.path,
                uuid_of(binary),
                build.system[image.path],
                [(name, original, placed + slide, size) for name, original, placed, size in image.segments],
                version_of(binary),
            )
        )
    return SystemMemory(modules, list(cache.memory(slide)))


def _app_image(path: str, product: Product) -> AppImage:
    dwarf = product.dsym / "Contents" / "Resources" / "DWARF"
    return AppImage(path, product.file, next(dwarf.iterdir()))


def crash(build: Build, system: SystemMemory, *, signed: bool = False) -> Crash:
    """Run Ledger from dyld's start to the fault. `signed`: with pointer authentication (arm64)."""
    process = make_process(build.arch, _app_image(EXECUTABLE, build.ledger), [_app_image(KIT, build.ledgerkit)], system)
    machine = Machine(process, signed=signed)
    dyld = next(m for m in system.modules if m.path == DYLD)
    entry = dyld.loaded_address(symbol_table(dyld.file)["__dyld_start"])
    machine.start(entry, process.modules[0].load_address, [EXECUTABLE])
    machine.run()
    machine.finish()
    symbols: dict[str, Path] = {EXECUTABLE: build.ledger.unstripped, KIT: build.ledgerkit.unstripped}
    return Crash(machine, ground_truth(machine, symbols), make_dump(machine, bundle_version=APP_VERSION))


def system_version() -> bytes:
    """SystemVersion.plist of the stand-in host."""
    return plistlib.dumps(
        {
            "ProductBuildVersion": MACOS_BUILD,
            "ProductCopyright": "none: a stand-in",
            "ProductName": "macOS",
            "ProductUserVisibleVersion": ".".join(map(str, MACOS_VERSION)),
            "ProductVersion": ".".join(map(str, MACOS_VERSION)),
            "iOSSupportVersion": "16.6",
        }
    )
