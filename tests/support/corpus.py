"""The demo's assets and variants of its crash, for the tests of every room.

Paths and ground truth of the committed dumps need nothing. `variant` compiles and emulates (about two seconds for each
build, then kept for the session); it skips the test where the toolchain is missing.
"""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.cachewriter import BuiltCache
from tests.corpus.assets import ASSETS, CACHE_FOLDER, TRUTH, app_tree
from tests.corpus.build import ARCHES, SYSTEM_ARCH, Build, build
from tests.corpus.dumpfile import Dump, DumpModule
from tests.corpus.process import Process
from tests.corpus.scenario import EXECUTABLE, KIT, cache_memory, crash, make_cache
from tests.corpus.truth import Frame, Thread, Truth
from tests.support.toolchain import need_toolchain

__all__ = [
    "ARCHES",
    "CACHES",
    "EXECUTABLE",
    "HOST",
    "KIT",
    "NOBODYS_UUID",
    "SYSTEM_ARCH",
    "Dump",
    "DumpModule",
    "Frame",
    "Thread",
    "Truth",
    "Variant",
    "app",
    "crowded",
    "dump_path",
    "edited",
    "truth",
    "unknown_module",
    "variant",
    "whole_truth",
    "without_module",
    "write_dump",
]

HOST = ASSETS / "host"
CACHES = HOST / CACHE_FOLDER[1:]
NOBODYS_UUID = "0B5E55ED0000400080000000DEADBEEF"


def app(arch: str) -> Path:
    """Return the folder with Ledger.app, Ledger.app.dSYM and LedgerKit.framework.dSYM (`arch`: x86_64 or arm64)."""
    return ASSETS / "app" / arch


def dump_path(arch: str) -> Path:
    """Return the demo's dump."""
    return ASSETS / "dumps" / f"crash-{arch}.zip"


def whole_truth(arch: str) -> Truth:
    """Return all that is known about the demo's dump."""
    return Truth.from_json((TRUTH / f"crash-{arch}.json").read_text())


def truth(arch: str) -> list[Thread]:
    """Return the threads of the demo's dump with their frames, innermost first."""
    return list(whole_truth(arch).threads)


@dataclass(frozen=True)
class Variant:
    """Another run of the crash. `dump` is the caller's own to change."""

    dump: Dump
    truth: Truth
    build: Build
    cache: BuiltCache
    process: Process

    def write_app(self, folder: Path) -> Path:
        """Write the application and its dSYMs as `app(arch)` has them; return `folder`."""
        app_tree(folder, self.build)
        return folder


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="symcache-corpus-")


_CODE = {
    "frames": (),
    "frameless": ("-fomit-frame-pointer", "-momit-leaf-frame-pointer"),
    "tables": ("-fomit-frame-pointer", "-momit-leaf-frame-pointer", "-fforce-dwarf-frame"),
    "inlined": ("-Dnoinline=always_inline",),
}


@functools.cache
def _build(arch: str, code: str) -> Build:
    return build(arch, Path(_scratch().name) / f"{arch}-{code}", app_flags=_CODE[code])


@functools.cache
def _variant(arch: str, layout_seed: int, code: str, signed: bool) -> Variant:
    one = _build(arch, code)
    cache = make_cache(one, layout_seed=layout_seed)
    result = crash(one, cache_memory(one, cache), signed=signed)
    return Variant(result.dump, result.truth, one, cache, result.machine.process)


def variant(
    arch: str,
    *,
    layout_seed: int = 0,
    frameless: bool = False,
    tables: bool = False,
    inlined: bool = False,
    signed: bool = False,
) -> Variant:
    """Run the crash anew.

    `layout_seed`: other than 0, the same system libraries (same UUIDs) lie elsewhere in the shared cache, as in another
    build of macOS. `frameless`: the application is compiled without frame pointers; `tables`: likewise, and
    its dSYMs have unwind tables; `inlined`: with functions inlined
    into their callers; so it has other UUIDs. `signed`: the return addresses that arm64e libraries save carry their
    signature above bit 47, as on a real Mac.
    """
    need_toolchain()
    code = "tables" if tables else "frameless" if frameless else "inlined" if inlined else "frames"
    found = _variant(arch, layout_seed, code, signed)
    return Variant(copy.deepcopy(found.dump), found.truth, found.build, found.cache, found.process)


def edited(dump: Dump, edit: Callable[[Dump], object]) -> Dump:
    """Return a changed copy of a dump."""
    changed = copy.deepcopy(dump)
    edit(changed)
    return changed


def _index(dump: Dump, path: str) -> int:
    return next(i for i, m in enumerate(dump.modules) if m.path == path)


def unknown_module(dump: Dump, path: str, uuid: str = NOBODYS_UUID) -> Dump:
    """Return a copy in which the module at `path` is of a build that nobody has."""
    return edited(dump, lambda d: setattr(d.modules[_index(d, path)], "uuid", uuid.lower()))


def without_module(dump: Dump, path: str) -> Dump:
    """Return a copy whose module list does not name `path`."""
    return edited(dump, lambda d: d.modules.pop(_index(d, path)))


def crowded(dump: Dump, count: int) -> Dump:
    """Return a copy with `count` more modules behind the others: plug-ins of a large process that nobody has."""
    base = 0x2_0000_0000 if dump.cpu[0] == 0x0100000C else 0x1_4000_0000
    extra = [
        DumpModule(
            base + n * 0x10_0000,
            f"/Library/Ledger/Plug-Ins/P{n}.bundle/Contents/MacOS/P{n}",
            0x1_0000 + n,
            f"{0x0B5E55ED << 96 | 0x4000_8000 << 48 | n:032x}",
        )
        for n in range(count)
    ]
    return edited(dump, lambda d: d.modules.extend(extra))


def write_dump(dump: Dump, path: Path) -> Path:
    """Write a dump to a file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dump.to_zip())
    return path
