"""Put the demo's assets together: the stand-in host's system tree, the application with its dSYMs, the dumps."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

from tests.corpus.build import ARCHES, DYLD, MTL_SERVICE, QUICKLOOK, Build, build, info_plist, run
from tests.corpus.scenario import APP_VERSION, Crash, cache_memory, crash, make_cache, system_version

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "symcache" / "demo" / "assets"
TRUTH = Path(__file__).parent / "truth"
TOOLCHAIN = TRUTH / "toolchain.txt"
CRYPTEX = "/System/Volumes/Preboot/Cryptexes/OS"
CACHE_FOLDER = f"{CRYPTEX}/System/Library/dyld"
SYSTEM_VERSION = "/System/Library/CoreServices/SystemVersion.plist"
PATH_HELPER = "/usr/libexec/path_helper"


def toolchain() -> str:
    """The compiler that is installed here, as it tells."""
    return run("clang-19", "--version", cwd=ROOT).splitlines()[0] + "\n"


def java_class() -> bytes:
    """A class file `Hello`: begins with CAFEBABE as a universal file does."""

    def text(value: str) -> bytes:
        return struct.pack(">BH", 1, len(value)) + value.encode()

    pool = text("Hello") + struct.pack(">BH", 7, 1) + text("java/lang/Object") + struct.pack(">BH", 7, 3)
    return struct.pack(">IHHH", 0xCAFEBABE, 0, 52, 5) + pool + struct.pack(">HHHHHHH", 0x21, 2, 4, 0, 0, 0, 0)


def _put(root: Path, path: str, data: bytes, *, executable: bool = False) -> None:
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    target.chmod(0o755 if executable else 0o644)


def host_tree(root: Path, builds: dict[str, Build]) -> None:
    """Write the stand-in host's system tree below `root`, without its symbolic links."""
    for one in builds.values():
        make_cache(one).write(root / CACHE_FOLDER[1:])
    version = system_version()
    _put(root, SYSTEM_VERSION, version)
    _put(root, CRYPTEX + SYSTEM_VERSION, version)
    work = root.parent / "universal"
    work.mkdir(parents=True, exist_ok=True)
    for path in (DYLD, *builds["arm64"].host):
        files = [one.system[path] if path == DYLD else one.host[path] for one in builds.values()]
        if path == QUICKLOOK:
            data = files[-1].read_bytes()  # thin
        else:
            kind = ["-fat64"] if path == PATH_HELPER else []
            run("llvm-lipo-19", "-create", *kind, *files, "-output", work / "joined", cwd=work)
            data = (work / "joined").read_bytes()
        _put(root, path, data, executable=True)
    shutil.rmtree(work)
    bundle = MTL_SERVICE.removesuffix("/MacOS/MTLCompilerService")
    _put(root, f"{bundle}/Info.plist", info_plist("dev.symcache.MTLCompilerService", "MTLCompilerService", "XPC!", "1"))
    # What begins as a Mach-O file does, or is named as one, and is none.
    _put(root, "/System/Library/Java/Hello.class", java_class())
    _put(root, "/private/etc/shells", b"/bin/bash\n/bin/sh\n/bin/zsh\n")
    _put(root, "/usr/bin/apropos", b'#!/bin/sh\nexec man -k "$@"\n', executable=True)
    _put(root, "/usr/lib/libnothing.dylib", b"")


def app_tree(root: Path, one: Build) -> None:
    """Write the application and its dSYM bundles, as a release build leaves them."""
    _put(root, "Ledger.app/Contents/Info.plist", info_plist("dev.symcache.Ledger", "Ledger", "APPL", APP_VERSION))
    _put(root, "Ledger.app/Contents/MacOS/Ledger", one.ledger.file.read_bytes(), executable=True)
    kit = "Ledger.app/Contents/Frameworks/LedgerKit.framework/Versions/A"
    _put(root, f"{kit}/LedgerKit", one.ledgerkit.file.read_bytes(), executable=True)
    _put(root, f"{kit}/Resources/Info.plist", info_plist("dev.symcache.LedgerKit", "LedgerKit", "FMWK", APP_VERSION))
    for name, product in (("Ledger.app", one.ledger), ("LedgerKit.framework", one.ledgerkit)):
        shutil.copytree(product.dsym, root / f"{name}.dSYM")


def build_all(work: Path) -> dict[str, Build]:
    """Build for both architectures below `work`."""
    return {arch: build(arch, work / arch) for arch in ARCHES}


def crash_all(builds: dict[str, Build]) -> dict[str, Crash]:
    """Run the crash on both architectures, each with its host's shared cache; arm64e code signs return addresses."""
    return {
        arch: crash(one, cache_memory(one, make_cache(one)), signed=arch == "arm64") for arch, one in builds.items()
    }


def write_all(work: Path, assets: Path, truth: Path) -> None:
    """Build and run everything below `work`, and put assets and ground truth where they belong, replacing both."""
    builds = build_all(work / "build")
    fresh = work / "assets"
    host_tree(fresh / "host", builds)
    for arch, one in builds.items():
        app_tree(fresh / "app" / arch, one)
    truth.mkdir(parents=True, exist_ok=True)
    (truth / TOOLCHAIN.name).write_text(toolchain())
    for arch, result in crash_all(builds).items():
        _put(fresh, f"dumps/crash-{arch}.zip", result.dump.to_zip())
        (truth / f"crash-{arch}.json").write_text(result.truth.to_json())
    if assets.exists():
        shutil.rmtree(assets)
    assets.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(fresh, assets, copy_function=shutil.copy)
