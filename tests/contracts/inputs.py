"""What the commands of the contracts are run on: systems, binaries, dumps and lists, the same for every version.

`python -m tests.contracts.inputs` made `inputs.tar.xz` from the demo's assets, once. They are kept beside what the
versions wrote, since the demo's may change: then nothing could be compared any more.

::

    host/                     a system with build 22G830, and below Volumes/ others with the same binaries
    app/ARCH/, sources/       own binaries with their dSYMs, one of which notes where its sources are; those sources
    rival/Ledger              other code under the UUID of one of them
    share/                    as think-cell's minidump scripts left it
    dumps/                    one crash in every form that is read, and a file that is no dump
    available.txt, releases.toml, uuids.txt, waivers.toml, lldbinit
"""

from __future__ import annotations

import json
import plistlib
import shutil
import struct
import tempfile
import zipfile
from pathlib import Path
from uuid import UUID

from tests.contracts.archive import INPUTS, pack
from tests.contracts.story import LEDGER
from tests.corpus.assets import ASSETS, TRUTH
from tests.dump.minidump import MiniThread, minidump
from tests.reports.writers import crash, ips

_VOLUMES = {
    "Early": ("13.5", "", "22G74"),
    "Halfway": ("13.5.1", "", "22G90"),
    "Rapid": ("13.4.1", "(c)", "22F770820d"),
    "Withdrawn": ("13.3", "", "22E252"),
}
"""Folder to version, extra and build."""
_BROKEN = bytes.fromhex("cffaedfe0700000103000000060000000500000000ff0000") + bytes(99)
"""Begins as a dylib does; its load commands reach behind its end."""


def _main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "inputs"
        _systems(folder / "host")
        _own_binaries(folder)
        _dumps(folder / "dumps")
        _lists(folder)
        pack(INPUTS, folder)


def _systems(host: Path) -> None:
    shutil.copytree(ASSETS / "host", host)
    for name, (version, extra, build) in _VOLUMES.items():
        volume = shutil.copytree(ASSETS / "host", host / "Volumes" / name)
        for plist in volume.rglob("SystemVersion.plist"):
            told = plistlib.loads(plist.read_bytes())
            told |= {"ProductBuildVersion": build, "ProductVersion": version, "ProductUserVisibleVersion": version}
            plist.write_bytes(plistlib.dumps(told | ({"ProductVersionExtra": extra} if extra else {})))
        if name in {"Early", "Halfway"}:
            (volume / "usr/lib/libbroken.dylib").write_bytes(_BROKEN)
    (host / "Volumes/Early/usr/libexec/path_helper").unlink()


def _own_binaries(folder: Path) -> None:
    shutil.copytree(ASSETS / "app", folder / "app")
    shutil.copytree(Path(__file__).parents[1] / "corpus" / "src" / "ledger", folder / "sources")
    note = {
        "DBGVersion": "3",
        "DBGSourcePathRemapping": {"/Users/dev/Ledger": "/srv/sources/Ledger"},
        "SymcacheSources": {"/Users/dev/Ledger": "git:/srv/git/ledger.git@v2.4"},
    }
    bundle = folder / "app/arm64/Ledger.app.dSYM/Contents/Resources"
    (bundle / f"{LEDGER}.plist").write_bytes(plistlib.dumps(note))
    code = bytearray((folder / "app/x86_64/Ledger.app/Contents/MacOS/Ledger").read_bytes())
    section = code.index(b"__text\0")  # struct section_64: two names of 16 bytes, address, size, offset
    code[struct.unpack_from("<I", code, section + 48)[0]] ^= 1
    (folder / "rival").mkdir()
    (folder / "rival/Ledger").write_bytes(code)
    release = folder / "share/macOS Binaries/12.6_21G115"
    extracted = release / "System/Library/dyld/dyld_shared_cache_x86_64/usr/lib"
    for place in (release / "usr/bin", extracted, folder / "share/kits"):
        place.mkdir(parents=True)
    shutil.copy(ASSETS / "host/usr/bin/true", release / "usr/bin/true")
    shutil.copy(ASSETS / "app/x86_64/Ledger.app/Contents/MacOS/Ledger", extracted / "libledger.dylib")
    kit = ASSETS / "app/x86_64/Ledger.app/Contents/Frameworks/LedgerKit.framework/Versions/A/LedgerKit"
    shutil.copy(kit, folder / "share/kits/LedgerKit")
    (folder / "share/uuidsources.txt").write_text("# more binaries\nkits\nnot there\n")


def _dumps(folder: Path) -> None:
    folder.mkdir()
    for arch in ("arm64", "x86_64"):
        shutil.copy(ASSETS / "dumps" / f"crash-{arch}.zip", folder / f"{arch}.zip")
    with zipfile.ZipFile(folder / "arm64.zip") as zipped:
        (folder / "arm64.core").write_bytes(zipped.read("minidump.dmp").partition(b"</root>")[2])
    real = json.loads((TRUTH / "crash-arm64.json").read_text())
    (folder / "ledger.ips").write_text(ips(real))
    (folder / "ledger.crash").write_text(crash(real))
    modules = [(base, 4096, path, UUID(uuid)) for path, uuid, base in real["modules"]]
    top = real["threads"][0]["frames"][0]["pc"]
    threads = [MiniThread({"pc": top, "sp": 0x16D3A7E00, "fp": 0x16D3A7E00}, 0x16D3A7E00, bytes(64))]
    (folder / "ledger.dmp").write_bytes(minidump(modules, threads, 0, (1, 1, 8), arch="arm64"))
    with zipfile.ZipFile(folder / "none.zip", "w") as zipped:
        zipped.writestr(zipfile.ZipInfo("letter.txt"), "no dump\n")


def _lists(folder: Path) -> None:
    (folder / "available.txt").write_text("22G830  13.6.9\n22G74   13.5\n23G93   14.6.1   # not harvested\n")
    (folder / "uuids.txt").write_text(f"UUID: {LEDGER} (arm64) Ledger\nUUID: {UUID(int=1)} (arm64) libnobody.dylib\n")
    (folder / "lldbinit").write_text("settings set stop-disassembly-display never\n")
    (folder / "releases.toml").write_text(
        'expect_builds = ["22G830", "23H723"]\n\n[[release]]\nbuilds = ["22G830"]\n'
        'expect = { system = ["arm64e", "x86_64"] }\n'
    )
    (folder / "waivers.toml").write_text(
        '[[waiver]]\ncode = "no-harvest"\nbuild = "23H*"\nreason = "not released yet"\nexpires = 9999-12-31\n\n'
        '[[waiver]]\ncode = "cache-missing"\narch = "x86_64h"\nreason = "no Intel Mac"\nexpires = 2001-03-24\n'
    )


if __name__ == "__main__":
    _main()
