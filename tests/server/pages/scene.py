"""A library to look at: three releases and a beta, each lacking something else; conflicts, own and hostile binaries."""

from __future__ import annotations

import subprocess
import zlib
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from symcache.dyld import REVISION
from symcache.library import Library, Staged, StagedCacheFile, StagedObject, ingest, stage_paths
from symcache.model import ManifestEntry, Origin, Release, Trust
from tests.support.servers import set_uuid
from tests.support.tiny_image import tiny_image
from tests.support.toolchain import compile_image, dsym

__all__ = ["CONFLICT", "CRYPTO", "EVIL", "OWN", "crash_report", "make_library"]

CRYPTO = UUID("C0FFEE00-1234-3678-9ABC-DEF012345678")
"""Of an image that all releases have, with the same UUID; each of their caches lays it out anew."""
CONFLICT = UUID("DEC1DE00-0000-3000-8000-000000000001")
OWN = UUID("0E000000-0000-3000-8000-0000000000AA")
EVIL = (
    "/usr/lib/<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">'\u202e{{7*7}}.dylib",
    "/usr/lib/" + "very_long_" * 20 + ".dylib",
    "/usr/lib/\x1b[31mred\r\nX: y\x00.dylib",
)
_NAMES = (
    *("AppKit", "AVFoundation", "CFNetwork", "CloudKit", "CoreAudio", "CoreData", "CoreFoundation", "CoreGraphics"),
    *("CoreImage", "CoreMedia", "CoreML", "CoreServices", "CoreText", "CryptoKit", "Foundation", "GameController"),
    *("IOKit", "JavaScriptCore", "MapKit", "Metal", "Network", "PDFKit", "QuartzCore", "SceneKit", "Security"),
    *("SwiftUI", "SystemConfiguration", "UserNotifications", "VideoToolbox", "WebKit"),
)
_LIBRARIES = (
    *("libSystem.B", "libobjc.A", "libc++.1", "libc++abi", "libz.1", "libsqlite3", "libxml2.2", "swift/libswiftCore"),
    *("system/libdispatch", "system/libsystem_c", "system/libsystem_kernel", "system/libsystem_malloc"),
    *("system/libsystem_platform", "system/libsystem_pthread", "system/libdyld"),
)
PATHS = (
    *(f"/System/Library/Frameworks/{name}.framework/Versions/A/{name}" for name in _NAMES),
    *(f"/System/Library/PrivateFrameworks/{name}Internal.framework/Versions/A/{name}Internal" for name in _NAMES),
    *(f"/usr/lib/{name}.dylib" for name in _LIBRARIES),
)
_SOURCE = """
int balance(int sum, int factor) __asm__("__ZN6ledger7balanceERKNS_5EntryEi");
int balance(int sum, int factor) { return sum * factor; }
int crypto_seal(int x) { return x ^ 42; }
int crypto_open(int x) { return crypto_seal(x) + 1; }
"""

_OWN_SOURCE = """
static inline __attribute__((always_inline)) int round_up(int *cents) {
  *cents += 99;
  return *cents / 100;
}
int total(int *cents) {
  return round_up(cents) + 1;
}
int report(int *cents) { return total(cents) + *cents; }
"""
_NOBODYS = UUID("BADC0DE0-0000-3000-8000-000000000003")


def crash_report(library: Path) -> str:
    """Return a report as macOS 11 writes it: its program's library has a dSYM here, a system's one has symbols.

    Of the others nobody has the one; the other has no names. A user's name and a hostile one are in it.
    """
    own = library.parent / "work/own/libledger.dylib"
    listed = subprocess.run(["llvm-nm-19", own], capture_output=True, text=True, check=True).stdout
    at = {line.split()[2]: int(line.split()[0], 16) for line in listed.splitlines() if " T " in line}
    bases = {"libledger.dylib": 0x1_0400_0000, "libcrypto_seal.dylib": 0x1_8000_0000, "AppKit": 0x1_9000_0000}
    bases |= {"Ledger": 0x1_0200_0000, "<img src=x>.dylib": 0x1_0600_0000}
    frames = [
        ("libledger.dylib", at["_total"] + 4),
        ("libledger.dylib", at["_report"] + 9),
        ("libcrypto_seal.dylib", 0x330),
        ("AppKit", 0x1234),
        ("<img src=x>.dylib", 0x40),
        ("Ledger", 0x3F00),
    ]
    paths = {"libledger.dylib": ("/Applications/Ledger.app/Contents/Frameworks/libledger.dylib", OWN)}
    paths |= {"libcrypto_seal.dylib": ("/usr/lib/libcrypto_seal.dylib", CRYPTO)}
    paths |= {"AppKit": ("/System/Library/Frameworks/AppKit.framework/Versions/C/AppKit", _NOBODYS)}

    def stack(rows: list[tuple[str, int]]) -> list[str]:
        return [f"{n:<4}{i:<30}\t{bases[i] + o:#018x} {bases[i]:#x} + {o}" for n, (i, o) in enumerate(rows)]

    images = [
        f"{base:#18x} - {base + 0xFFFF:#18x} {name} (1.0) <{str(paths.get(name, ('', UUID(int=base)))[1]).upper()}>"
        f" {paths.get(name, (f'/Users/ada/{name}', None))[0]}"
        for name, base in bases.items()
    ]
    return "\n".join(
        [
            "Process:               Ledger [4711]",
            "Path:                  /Applications/Ledger.app/Contents/MacOS/Ledger",
            "Version:               3.1 (310)",
            "Code Type:             X86-64 (Native)",
            "OS Version:            macOS 14.5 (23F79)",
            "",
            "Exception Type:        EXC_BAD_ACCESS (SIGSEGV)",
            "Exception Codes:       KERN_INVALID_ADDRESS at 0x0000000000000010",
            "",
            "Thread 0:: Dispatch queue: com.apple.main-thread",
            *stack(frames[3:]),
            "",
            "Thread 1 Crashed:: worker",
            *stack(frames),
            "",
            "Binary Images:",
            *images,
            "",
        ]
    )


class _Release:
    """A harvest as it is put together."""

    def __init__(self, folder: Path, version: str, build: str, source: str) -> None:
        self.folder, self.build = folder / f"{build}-{len(list(folder.iterdir()))}", build
        self.folder.mkdir()
        self.staged = Staged(Release(version=version, build=build), source, extractor="symcache")

    def add(self, path: str, arch: str, uuid: UUID, cache: UUID | None, file: Path, *, stored: bool = True) -> None:
        """List an image, and store it."""
        origin = Origin.CACHE if cache else Origin.FILE
        self.staged.manifest.append(ManifestEntry(path=path, arch=arch, uuid=uuid, origin=origin, cache_uuid=cache))
        if stored:
            made = ("symcache", REVISION) if cache else ("", 0)
            size = file.stat().st_size
            places = {"origin": origin, "cache_uuid": cache, "extractor": made[0], "revision": made[1]}
            self.staged.objects.append(StagedObject(file, 0, size, path, arch, uuid, **places))

    def cache(self, arch: str, crypto: Path | None = None, lacking: int = 0) -> UUID:
        """Add a shared cache with its raw file; of its images `lacking` are not stored."""
        cache = UUID(int=zlib.crc32(f"{self.build} {arch}".encode()) << 64 | 0x3000_8000_0000_0000)
        for number, path in enumerate(PATHS):
            # A third of the images keeps its UUID from release to release.
            name = f"{path} {arch}" if number % 3 == 0 else f"{path} {arch} {self.build}"
            uuid = UUID(int=(zlib.crc32(name.encode()) << 64) | zlib.adler32(name.encode()), version=3)
            file = tiny_image(self.folder, arch, uuid, zlib.crc32(f"{self.build}{path}{arch}".encode()))
            self.add(path, arch, uuid, cache, file, stored=number >= lacking)
        if crypto:
            self.add("/usr/lib/libcrypto_seal.dylib", arch, CRYPTO, cache, crypto)
        name = f"dyld_shared_cache_{arch}"
        raw = self.folder / name
        raw.write_bytes(f"dyld_v1 {self.build} {arch}".encode() * 1000)
        self.staged.cache_files.append(
            StagedCacheFile(raw, name, f"/System/Volumes/Preboot/Cryptexes/OS/System/Library/dyld/{name}", arch, cache)
        )
        return cache


def make_library(folder: Path) -> Path:
    """Make the library, and return its folder."""
    work = folder / "work"
    work.mkdir(parents=True)
    crypto = {b: _crypto(work / b, b) for b in ("22G120", "23F79", "24E248")}
    location = folder / "library"
    with Library.open(location, create=True) as library:
        whole = _Release(work, "14.5", "23F79", "ssh://admin@m2.farm.example")
        for arch in ("arm64e", "x86_64", "x86_64h"):
            whole.cache(arch, crypto["23F79"] if arch == "x86_64" else None)
        ingest(library, whole.staged)

        old = _Release(work, "13.6", "22G120", "ssh://admin@ventura.farm.example")
        cache = old.cache("x86_64", crypto["22G120"], lacking=3)
        old.cache("arm64e")
        old.add("/usr/lib/libconflict.dylib", "x86_64", CONFLICT, cache, tiny_image(work, "x86_64", CONFLICT, 1))
        old.staged.problems.append("/System/Library/Frameworks/AppKit.framework: permission denied")
        ingest(library, old.staged)
        again = _Release(work, "13.6", "22G120", "ssh://admin@other.farm.example")
        again.add("/usr/lib/libconflict.dylib", "x86_64", CONFLICT, cache, tiny_image(work, "x86_64", CONFLICT, 2))
        again.staged.problems.append("the connection was lost")
        ingest(library, again.staged)

        new = _Release(work, "15.4", "24E248", "ipsw:UniversalMac_15.4_24E248_Restore.ipsw")
        cache = new.cache("x86_64", crypto["24E248"])
        new.cache("arm64e")
        for path in EVIL:
            uuid = UUID(int=zlib.crc32(path.encode()) << 64, version=3)
            new.add(path.replace("\x00", ""), "arm64e", uuid, None, tiny_image(work, "arm64e", uuid, 3))
        ingest(library, new.staged)

        beta = _Release(work, "26.0", "25A5279m", "ssh://admin@beta.farm.example")
        beta.cache("arm64e")
        ingest(library, beta.staged)

        own = set_uuid(compile_image(work / "own", "libledger.dylib", _OWN_SOURCE), OWN)
        ingest(library, stage_paths([own, dsym(own)], work / "scratch"))
        pushed = stage_paths([_crypto(work / "pushed", "pushed")], work / "scratch2")
        ingest(library, replace(pushed, trust=Trust.PUSHED))
    return location


def _crypto(folder: Path, build: str) -> Path:
    source = _SOURCE.replace("42", str(zlib.crc32(build.encode()) % 1000))
    return set_uuid(compile_image(folder, "libcrypto_seal.dylib", source), CRYPTO)
