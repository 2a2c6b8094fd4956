"""A dump of 300 modules, from nothing to its backtrace: against LLDB alone that has all files on disk already.

Ours starts two Pythons, asks a server on this machine for 300 binaries, checks and keeps them, and runs LLDB; the peer
is the shortest script that does the LLDB part. Both import LLDB in a fresh process, as users do. What the peer loses is
mostly that it lets LLDB read the symbols of every module, where ours has it read those of the modules on the stack; a
peer that knows the same switches stands beside.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from uuid import UUID

from symcache.library import Library, Staged, StagedObject, ingest
from symcache.model import Trust
from tests.bench.harness import Row, compare
from tests.dump.builder import CoreFile, Module, Region, header, write_dump, x86_thread
from tests.support.servers import serve, set_uuid
from tests.support.toolchain import compile_image

_MODULES, _FUNCTIONS, _FRAMES = 300, 4000, 40
_BASE, _SPACING, _STACK = 0x7FF8_0000_0000, 0x100_0000, 0x7FF7_0000_0000
PEER = """
import json, sys
import lldb
plan = json.load(open(sys.argv[1]))
debugger = lldb.SBDebugger.Create(False)
debugger.SetInternalVariable("target.preload-symbols", "false", debugger.GetInstanceName())
debugger.SetInternalVariable("symbols.enable-external-lookup", "false", debugger.GetInstanceName())
if sys.argv[2:]:
    debugger.SetScriptLanguage(lldb.eScriptLanguageNone)
    debugger.GetCommandInterpreter().HandleCommand(
        "plugin disable instrumentation-runtime", lldb.SBCommandReturnObject()
    )
error = lldb.SBError()
target = debugger.CreateTarget("", "x86_64-apple-macosx", None, False, error)
process = target.LoadCore(plan["core"])
for path, address in plan["modules"]:
    module = target.AddModule(path, "x86_64-apple-macosx", None, None)
    base = module.GetObjectFileHeaderAddress().GetFileAddress()
    target.SetModuleLoadAddress(module, address - base)
thread = process.GetThreadAtIndex(0)
names = [thread.GetFrameAtIndex(n).GetFunctionName() for n in range(thread.GetNumFrames())]
assert len(names) == plan["frames"] and all(names), names
import os
os._exit(0)
"""


def run(scratch: Path) -> list[Row]:
    """Return dumps a second, cold and warm, with LLDB alone beside."""
    files = _images(scratch / "images")
    dump, core = _dump(scratch, files)
    with Library.open(scratch / "library", create=True) as library:
        objects = [
            StagedObject(file, 0, file.stat().st_size, f"/usr/lib/{file.name}", "x86_64", uuid)
            for file, uuid in files.items()
        ]
        staged = Staged(None, "bench", trust=Trust.ADDED, objects=objects)
        assert not ingest(library, staged).problems
    plan = scratch / "plan.json"
    plan.write_text(
        json.dumps(
            {
                "core": str(core),
                "frames": _FRAMES,
                "modules": [[str(f), _BASE + n * _SPACING] for n, f in enumerate(files)],
            }
        )
    )
    peer_script = scratch / "peer.py"
    peer_script.write_text(PEER)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("SYMCACHE_", "DEBUGINFOD_"))},
        "XDG_DATA_HOME": str(scratch / "nobody"),
    }

    def forget() -> None:
        # Another folder, and the old one stays: ext4 passes over what was deleted within the last seconds when it
        # looks for a free inode, and that would take longer than everything that is measured.
        environment["SYMCACHE_CACHE_DIR"] = tempfile.mkdtemp(prefix="cache-", dir=scratch)

    def peer(*options: str) -> None:
        subprocess.run([sys.executable, "-I", str(peer_script), str(plan), *options], check=True)

    with serve(scratch / "library", scratch / "server") as server:
        command = [sys.executable, "-m", "symcache", "open", str(dump), "--server", server.url]

        def ours() -> None:
            done = subprocess.run(
                command, check=True, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL
            )
            assert done.stderr == "", done.stderr
            assert done.stdout.count("frame #") == _FRAMES
            assert done.stdout.count("`work") == _FRAMES

        name = f"open a dump of {_MODULES} modules"
        shared = {"amount": 1.0, "unit": "dumps/s"}
        cold = compare(f"{name}, cold cache", ours, "LLDB alone", peer, **shared, at_least=1 / 1.5, prepare=forget)  # type: ignore[arg-type]
        warm = compare(f"{name}, warm cache", ours, "LLDB alone", peer, **shared, at_least=1 / 1.15)  # type: ignore[arg-type]
        frugal = compare(f"{name}, warm cache", ours, "LLDB, same switches", lambda: peer("frugal"), **shared)  # type: ignore[arg-type]
    return [cold, warm, frugal]


def _images(folder: Path) -> dict[Path, UUID]:
    """Return 300 dylibs and their UUIDs: one compiled, the others its copies with a UUID of their own."""
    body = "".join(
        f"__attribute__((noinline)) int work{n}(int x) {{ return x * {n} + 1; }}\n" for n in range(_FUNCTIONS)
    )
    calls = " + ".join(f"work{n}(x)" for n in range(0, _FUNCTIONS, 16))
    original = compile_image(folder / "original", "lib.dylib", f"{body}int all(int x) {{ return {calls}; }}\n")
    subprocess.run(["llvm-strip-19", "-S", str(original)], check=True)
    files = {}
    for number in range(_MODULES):
        file = folder / f"libbench{number}.dylib"
        shutil.copyfile(original, file)
        set_uuid(file, uuid := UUID(int=(0xBE << 120) + number + 1, version=4))
        files[file] = uuid
    return files


def _dump(scratch: Path, files: dict[Path, UUID]) -> tuple[Path, Path]:
    """Return a dump whose crashed thread has a frame in every seventh module, and its core alone."""
    one = next(iter(files))
    text = subprocess.run(["llvm-nm-19", "-U", str(one)], capture_output=True, text=True, check=True).stdout
    entry = {line.split()[2]: int(line.split()[0], 16) for line in text.splitlines()}["_work100"]
    inside = entry + 4  # behind `push rbp; mov rbp, rsp`
    size = one.stat().st_size
    bases = [_BASE + n * _SPACING for n in range(_MODULES)]
    chain = [bases[n * 7] + inside for n in range(_FRAMES)]
    stack = bytearray(0x4000)
    for number, address in enumerate([*chain[1:], 0]):
        last = number == len(chain) - 1
        struct.pack_into("<2Q", stack, 16 * number, 0 if last else _STACK + 16 * (number + 1), address)
    thread = x86_thread((14, 6, 0x10), rip=chain[0], rbp=_STACK, rsp=_STACK)
    regions = [Region(_STACK, len(stack), bytes(stack), 3), *(Region(b, size + 0xFFF & -0x1000) for b in bases)]
    core = CoreFile(regions=regions, threads=[thread]).bytes()
    modules = [Module(b, f"/usr/lib/{f.name}", u.hex) for b, (f, u) in zip(bases, files.items(), strict=True)]
    (scratch / "core").write_bytes(core)
    return write_dump(scratch / "crash.zip", header(modules, executable="libbench0.dylib"), core), scratch / "core"
