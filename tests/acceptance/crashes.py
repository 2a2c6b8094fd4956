"""The crash handler on a program that crashes, and its dump in every LLDB that is here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from importlib import resources
from pathlib import Path
from typing import Any

from tests.acceptance.mac import Mac
from tests.acceptance.part import Fact, Part, SkippedError

__all__ = ["DWARF", "FRAMES", "crashes"]

FRAMES = ("compare_entries", "LKBookSort", "main")
"""Functions of crash.c, the innermost first; the system's qsort is between the first two."""
DWARF = "crash.dSYM/Contents/Resources/DWARF/crash"
"""The dSYM of the program, in its folder."""
_SOURCE = Path(__file__).with_name("crash.c")
_MAC_ARCHS = ("arm64", "x86_64")
_LLDBS = {"Xcode's LLDB": "xcode-select --install", "lldb-for-pwndbg": "pip install lldb-for-pwndbg"}
_ROSETTA = "install Rosetta: softwareupdate --install-rosetta"
_SYSTEM = ("/usr/lib/", "/System/")
_SECONDS = 180


def crashes(mac: Mac, part: Part) -> None:
    """Once for each architecture that runs here."""
    for wanted, todo in _LLDBS.items():
        if not any(lldb.origin.startswith(wanted) and version for lldb, version in mac.lldbs):
            part.skipped.append((f"{wanted} is not here", todo))
    machine = mac.says("uname", "-m")
    for arch in _MAC_ARCHS if machine == "arm64" else ("x86_64",):
        with part.optional(f"a crash of {arch}"):
            if arch != machine and mac.run("arch", f"-{arch}", "/usr/bin/true", seconds=60).returncode:
                raise SkippedError(f"programs of {arch} do not run here", _ROSETTA)
            program = _compile(mac, arch)
            with part.timed(f"writing the dump, {arch}"):
                dump = _crash(mac, part, program, arch)
            mac.dumps[arch] = dump, program.parent
            library = mac.libraries.get(mac.native_arch if arch == machine else "x86_64")
            for lldb, version in mac.lldbs:
                if version:
                    with part.optional(f"{lldb.origin}, {arch}"), part.timed(f"{lldb.origin}, {arch}"):
                        _analysis(mac, part, dump, lldb.origin, arch, library)


def _compile(mac: Mac, arch: str) -> Path:
    folder = mac.work / f"crash-{arch}"
    folder.mkdir(exist_ok=True)
    (folder / "symcache_marshal.h").write_bytes(
        (resources.files("symcache.dump.capture") / "symcache_marshal.h").read_bytes()
    )
    source = shutil.copy(_SOURCE, folder)
    program = folder / "crash"
    done = mac.run("xcrun", "clang", "-g", "-O0", "-arch", arch, "-I", folder, source, "-o", program)
    if done.returncode or not program.is_file():
        raise SkippedError(f"clang does not compile for {arch}: {done.stderr.strip()[:200]}", "xcode-select --install")
    mac.run("xcrun", "dsymutil", program)
    return program


def _crash(mac: Mac, part: Part, program: Path, arch: str) -> Path:
    """Run handler and program, tied together by two pipes, and return the dump. Raises OSError where there is none."""
    folder = program.parent / "dumps"
    folder.mkdir(exist_ok=True)
    handler_reads, program_writes = os.pipe()
    program_reads, handler_writes = os.pipe()
    handler = subprocess.Popen(
        [*mac.command("symcache"), "dump", "--handler", "-o", str(folder)],
        env=mac.environment,
        cwd=mac.work,
        stdin=handler_reads,
        stdout=handler_writes,
        stderr=subprocess.PIPE,
        text=True,
    )
    crashing = subprocess.Popen(
        [str(program), str(program_writes), str(program_reads)], pass_fds=(program_writes, program_reads), cwd=mac.work
    )
    for descriptor in (handler_reads, handler_writes, program_writes, program_reads):
        os.close(descriptor)
    try:
        status = crashing.wait(_SECONDS)
        said = handler.communicate(timeout=_SECONDS)[1]
    except subprocess.TimeoutExpired:
        raise OSError(f"handler or program did not end within {_SECONDS} seconds") from None
    finally:
        for process in (crashing, handler):
            if process.poll() is None:
                process.kill()
    part.check(status == 0, "symcache_marshal failed", arch=arch, status=status)
    part.check(handler.returncode == 0, "the handler failed", arch=arch, status=handler.returncode, said=said.strip())
    dumps = sorted(folder.glob("*.zip"))
    if not dumps:
        raise OSError(f"no dump was written: {said.strip()[-300:]}")
    part.row("dumps", arch=arch, bytes=dumps[-1].stat().st_size, entries=len(zipfile.ZipFile(dumps[-1]).namelist()))
    return dumps[-1]


def _analysis(mac: Mac, part: Part, dump: Path, origin: str, arch: str, library: Path | None) -> None:
    """Check that the functions of crash.c are there in their order, and that those of the system have names."""
    arguments: list[str | Path] = ["analyze", dump, "--json", "--symbols", dump.parent.parent]
    arguments += ["--library", library] if library else []
    done = mac.run("symcache-with-lldb", origin, *arguments, seconds=600)
    if done.returncode:
        raise OSError(f"symcache analyze ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    analysis = json.loads(done.stdout)
    frames: list[dict[str, Any]] = next((thread["frames"] for thread in analysis["threads"] if thread["crashed"]), [])
    left = iter([frame["function"] for frame in frames])
    about: dict[str, Fact] = {"who": origin, "arch": arch}
    part.check(all(name in left for name in FRAMES), "the backtrace is another", **about, frames=len(frames))
    paths = {module["index"]: module["path"] or "" for module in analysis["modules"]}
    system = [f for f in frames if paths.get(f["module_index"], "").startswith(_SYSTEM)]
    unnamed = sum(not f["function"] for f in system)
    part.check(bool(system), "no frame is in the system", **about)
    part.check(not (library and unnamed), "frames of the system have no name", **about, unnamed=unnamed)
    part.row("backtraces", **about, frames=len(frames), system=len(system), unnamed=unnamed)
