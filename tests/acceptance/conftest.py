"""A stand-in for the Mac that is tried: a root of its own with OpenSSH, and the programs of a Mac."""

from __future__ import annotations

import dataclasses
import json
import os
import plistlib
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from symcache.demo.layouts import LAYOUTS
from symcache.dump.lldb_child import finder
from symcache.dyld import SharedCache, extract_image
from symcache.own_program import own_python
from symcache_provisioning.extractors.bundle_helper import HELPER
from tests.acceptance import crashes
from tests.acceptance.mac import Mac, Options
from tests.dyld.macho_reader import read
from tests.support.corpus import CACHES, HOST, app, dump_path, whole_truth
from tests.support.mac import PASSWORD, OddMac, make_mac, need_a_root

CHECKOUT = Path(__file__).parents[2]
COMPUTER, SERIAL = "Zoe's Wonder Machine", "C02ZQ0XYMD6R"
HARDWARE_UUID = "6B1D3C52-7F65-5C1A-9F0B-2D7A0E8C4411"
PERSONAL = ("zoe", "bob", "tess", "Wonder", SERIAL, HARDWARE_UUID, "192.168.64.7")
UUID = "4C4C4498-5555-3144-A1BE-5EBD5F33CF3B"
"""Of the demo's program for arm64, as llvm-dwarfdump prints it."""
_IOREG = f"""<?xml version="1.0"?><plist version="1.0"><array><dict>
<key>IOPlatformSerialNumber</key><string>{SERIAL}</string>
<key>IOPlatformUUID</key><string>{HARDWARE_UUID}</string></dict></array></plist>
"""


def script(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def program_of(module: str) -> list[str]:
    return ["/usr/bin/env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-m", f"tests.acceptance.stand_in.{module}"]


def write_programs(folder: Path, version: str, build: str) -> None:
    """Write what a Mac's programs print, by their manuals and by what is known of them."""
    folder.mkdir()
    printed = rf"printf 'ProductName:\t\tmacOS\nProductVersion:\t\t{version}\nBuildVersion:\t\t{build}\n'"
    script(
        folder,
        "sw_vers",
        f"case $1 in -productVersion) echo {version};; -buildVersion) echo {build};; *) {printed};; esac",
    )
    script(folder, "csrutil", "echo 'System Integrity Protection status: enabled.'")
    script(folder, "uname", "echo arm64")
    script(folder, "sysctl", "case $2 in hw.model) echo Mac15,12;; hw.memsize) echo 17179869184;; *) echo 0;; esac")
    script(folder, "scutil", f"echo {shlex.quote(COMPUTER)}")
    script(folder, "ioreg", f"cat <<'END'\n{_IOREG}END")
    script(folder, "lipo", "echo 'x86_64 arm64e'")
    script(
        folder,
        "codesign",
        'echo "Executable=$2" >&2; case $2 in */platform-tool) echo "Platform identifier=${PLANT:-15}" >&2;; esac',
    )
    script(folder, "arch", 'echo "arch: posix_spawnp: $2: Bad CPU type in executable" >&2; exit 1')
    script(folder, "defaults", 'echo "The domain/default pair of ($2, $3) does not exist" >&2; exit 1')
    script(folder, "systemsetup", "echo 'You need administrator access to run this tool... exiting!'; exit 0")
    script(
        folder,
        "tart",
        f"case $1 in list) echo '{json.dumps([{'Name': 'x', 'State': 'stopped'}])}';; *) echo 2.30.0;; esac",
    )
    lines = [f"    frame #{n}: 0x0000000100{n:06x} crash`{f} at crash.c:{n}:3" for n, f in enumerate(crashes.FRAMES)]
    shown = "\n".join(["* thread #1, stop reason = signal SIGSEGV", *lines])
    # The program that it compiles ends at once; its dSYM is that of the demo's, whose dump the handler writes.
    script(
        folder,
        "xcrun",
        f"""case $1 in
lldb) cat <<'END'
{shown}
END
;;
clang)
    for last; do :; done
    printf '#!/bin/sh\nexit 0\n' > "$last"
    chmod 755 "$last"
    cp -R {app("arm64")}/* "${{last%/*}}" ;;
dsymutil) mkdir -p "$2.dSYM/Contents/Resources/DWARF"; cp "${{2%/*}}"/Ledger.app.dSYM/Contents/Resources/DWARF/Ledger \
    "$2.dSYM/Contents/Resources/DWARF/crash" ;;
esac""",
    )


def write_symcache(folder: Path, *, real: bool) -> None:
    """Write what is run as symcache: what a Mac alone can do is done by halves, and, if not `real`, the rest, too.

    That speaks JSON as it is documented.
    """
    vm = {"throwaway": [{"check": "ssh", "verdict": "ok", "text": "zoe@192.168.64.7 lets us in"}]}
    cases = [
        f'"dump --handler") cat >/dev/null; cp {dump_path("arm64")} "$4" ;;',
        f"\"vm doctor\") echo '{json.dumps(vm)}' ;;",
    ]
    if not real:
        known = whole_truth("arm64")
        modules = [{"index": n, "path": module[0]} for n, module in enumerate(known.modules)]
        of = {m["path"]: m["index"] for m in modules}
        frames = [{"function": f.function, "module_index": of.get(f.module)} for f in known.threads[0].frames]
        analysis = {"threads": [{"crashed": True, "frames": frames}], "modules": modules}
        (folder.parent / "analysis.json").write_text(json.dumps(analysis))
        script(folder, "symcache-with-lldb", f"cat {folder.parent / 'analysis.json'}")
        plist = plistlib.dumps({UUID: {"DBGDSYMPath": "/x"}}).decode()
        cases += [
            f"\"dsymforuuid {UUID}\") cat <<'END'\n{plist}END\n;;",
            '"serve --port") echo \'{"url": "http://127.0.0.1:1/"}\'; exec sleep 60 ;;',
            '"vm list") echo \'{"orphans": []}\' ;;',
            '"setup lldb") [ "$3" = --undo ] && rm "$5" || : > "$6" ;;',
            "*) ;;",
        ]
    cases.append(f'*) exec {shlex.join(own_python("-m", "symcache"))} "$@" ;;')
    script(folder, "symcache", 'case "$1 $2" in\n' + "\n".join(cases) + "\nesac")


def put_signed_programs(folder: Path) -> None:
    """Put a program there that is signed for nobody, and one whose code directory says platform 15."""
    shutil.copy(HELPER, folder / "any-tool")
    data = bytearray(HELPER.read_bytes())
    at = data.index(bytes.fromhex("fade0c02"))
    data[at + 38] = 15  # CS_CodeDirectory.platform
    (folder / "platform-tool").write_bytes(data)


def write_report(home: Path, *, name: str = "") -> None:
    """Write a report of a crash in a function of a system image, by the name that its symbol table has, or another."""
    folder = home / "Library/Logs/DiagnosticReports"
    folder.mkdir(parents=True, exist_ok=True)
    with SharedCache.open(CACHES / "dyld_shared_cache_arm64e") as cache, TemporaryDirectory() as scratch:
        image = next(i for i in cache.images if i.path.endswith("libsystem_c.dylib"))
        extract_image(cache, image, Path(scratch) / "image")
        symbols = read(Path(scratch) / "image").symbols
    function = next(s for s in symbols if s.type == 0xF and s.sect == 1 and s.value > image.address)
    at = function.value - image.address + 4
    head = {"app_name": "Ledger", "bug_type": "309", "os_version": "macOS 13.6.9 (22G830)"}
    named = {"symbol": name or function.name.removeprefix("_"), "symbolLocation": 4}
    body = {
        "procName": "Ledger",
        "procPath": "/Users/zoe/Ledger.app/Contents/MacOS/Ledger",
        "cpuType": "ARM-64",
        "exception": {"type": "EXC_BAD_ACCESS", "signal": "SIGSEGV"},
        "faultingThread": 0,
        "threads": [{"id": 1, "triggered": True, "frames": [{"imageIndex": 0, "imageOffset": at, **named}]}],
        "usedImages": [
            {"arch": "arm64e", "base": 0x180000000, "size": 0x4000, "uuid": str(image.uuid), "path": image.path}
        ],
    }
    (folder / "Ledger-2026-11-24-120000.ips").write_text(json.dumps(head) + "\n" + json.dumps(body))


@pytest.fixture(scope="session")
def odd_mac(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OddMac]:
    """The demo's host as an odd Mac, up."""
    need_a_root()
    root = tmp_path_factory.mktemp("macs") / "13"
    shutil.copytree(HOST, root, symlinks=True)
    make_mac(root, dataclasses.replace(LAYOUTS["13"], caches=()))
    shutil.copytree(HOST, root, symlinks=True, dirs_exist_ok=True)  # its own SystemVersion.plist
    (root / "usr/lib/dsc_extractor.bundle").touch()
    put_signed_programs(root / "usr/bin")
    with OddMac(root) as up:
        yield up


@pytest.fixture
def mac(odd_mac: OddMac, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mac:
    """The Mac that is tried, with the wheel's LLDB alone."""
    pytest.importorskip("lldb", reason="no LLDB wheel: pip install lldb-for-pwndbg")
    wheel = next(lldb for lldb in finder.candidates() if lldb.origin.startswith("lldb-for-pwndbg"))
    monkeypatch.setattr("tests.acceptance.mac.candidates", lambda: [wheel])
    monkeypatch.setenv("MAC_PASSWORD", PASSWORD)
    monkeypatch.setattr("getpass.getuser", lambda: "zoe")
    monkeypatch.setattr("socket.gethostname", lambda: "Zoes-Wonder-Machine.local")
    (tmp_path / "work").mkdir()
    made = Mac(
        tmp_path / "work",
        Options(
            archs=("arm64e",),
            images=1,
            addresses=100,
            ssh=odd_mac.url("zoe"),
            password_env="MAC_PASSWORD",
            host_key=odd_mac.fingerprint,
            vm=("tart", "zoes-image"),
        ),
        root=odd_mac.root,
        home=odd_mac.root / "Users/zoe",
    )
    write_programs(tmp_path / "bin", made.release.version, made.release.build)
    write_symcache(tmp_path / "bin", real=bool(os.environ.get("SYMCACHE_TEST_ACCEPTANCE")))
    write_report(made.home)
    own = {path.name: [str(path)] for path in (tmp_path / "bin").iterdir()}
    made.programs = own | {"atos": program_of("atos"), "extract-cache": program_of("extract_cache")}
    return made
