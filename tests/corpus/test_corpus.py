"""The corpus is what its sources make, and LLDB alone says about its dumps what the emulator saw."""

from __future__ import annotations

import dataclasses
import json
import plistlib
import shutil
import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import lief
import pytest
from defusedxml import ElementTree

from tests.corpus.assets import ASSETS, PATH_HELPER, ROOT, TOOLCHAIN, TRUTH, toolchain, write_all
from tests.corpus.build import ARCHES, DYLD
from tests.corpus.dumpfile import MEMBER
from tests.corpus.process import parse
from tests.support import corpus
from tests.support.toolchain import need_toolchain

_FIELDS = ("pc", "uuid", "function", "file", "line", "inlined")
_CAN_BE_SIGNED = "target.process.virtual-addressable-bits 47"


def _member(archive: Path) -> tuple[bytes, bytes]:
    """XML header and core of a dump."""
    with zipfile.ZipFile(archive) as opened:
        head, end, core = opened.read(MEMBER).partition(b"</root>")
    return head + end, core


def _in_lldb(core: bytes, variant: corpus.Variant, folder: Path, *settings: str) -> list[dict[str, Any]]:
    (folder / "core").write_bytes(core)
    request = {
        "triple": f"{variant.build.arch}-apple-macosx",
        "core": str(folder / "core"),
        "settings": settings,
        "modules": [
            {
                "file": str(m.file),
                "symbols": str(m.debug) if m.debug else None,
                "uuid": m.uuid,
                "segments": [(name, loaded) for name, _, loaded, _ in m.segments],
            }
            for m in variant.process.modules
        ],
    }
    (folder / "request.json").write_text(json.dumps(request))
    done = subprocess.run(
        [sys.executable, "-m", "tests.corpus.plain_lldb", str(folder / "request.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def _rows(frames: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    rows = [tuple(f[name] for name in _FIELDS) for f in frames]
    # Into what a function was inlined, LLDB gives the pc at which the inlined code begins.
    return [(None, *row[1:]) if n and frames[n - 1]["inlined"] else row for n, row in enumerate(rows)]


def _said(threads: list[dict[str, Any]]) -> list[list[tuple[Any, ...]]]:
    return [_rows(thread["frames"]) for thread in threads]


def _true(threads: tuple[corpus.Thread, ...]) -> list[list[tuple[Any, ...]]]:
    return [_rows([dataclasses.asdict(f) for f in thread.frames]) for thread in threads]


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything anew: `assets` and `truth` below the folder."""
    need_toolchain()
    folder = tmp_path_factory.mktemp("corpus")
    write_all(folder / "work", folder / "assets", folder / "truth")
    return folder


def _content(root: Path) -> dict[str, Path]:
    return {p.relative_to(root).as_posix(): p for p in sorted(root.rglob("*")) if p.is_file()}


def _same_toolchain() -> None:
    if TOOLCHAIN.read_text() != toolchain():
        pytest.skip(f"the assets were built by {TOOLCHAIN.read_text().strip()}, here is {toolchain().strip()}")


def _functions(file: Path) -> set[str]:
    done = subprocess.run(["llvm-nm-19", "-j", file], capture_output=True, text=True, check=False)
    return set(done.stdout.split())


def test_committed_files_have_the_names_and_functions_of_the_sources(rebuilt: Path) -> None:
    committed, fresh = _content(ASSETS), _content(rebuilt / "assets")
    assert committed.keys() == fresh.keys()
    assert {n: _functions(p) for n, p in committed.items()} == {n: _functions(p) for n, p in fresh.items()}


def test_committed_files_are_bit_for_bit_what_the_same_toolchain_makes(rebuilt: Path) -> None:
    _same_toolchain()
    committed, fresh = _content(ASSETS), _content(rebuilt / "assets")
    # How well zlib packs is not the point.
    different = [n for n, p in committed.items() if not n.endswith(".zip") and p.read_bytes() != fresh[n].read_bytes()]
    assert different == []


@pytest.mark.parametrize("arch", ARCHES)
def test_emulation_reproduces_the_committed_dump(rebuilt: Path, arch: str) -> None:
    _same_toolchain()
    assert _member(corpus.dump_path(arch)) == _member(rebuilt / "assets" / "dumps" / f"crash-{arch}.zip")
    name = f"crash-{arch}.json"
    assert (TRUTH / name).read_text() == (rebuilt / "truth" / name).read_text()


@pytest.mark.parametrize("arch", ARCHES)
def test_plain_lldb_agrees_with_the_emulator_about_the_committed_dump(arch: str, tmp_path: Path) -> None:
    variant = corpus.variant(arch)
    _same_toolchain()
    core = _member(corpus.dump_path(arch))[1]
    settings = [_CAN_BE_SIGNED] if arch == "arm64" else []
    assert _said(_in_lldb(core, variant, tmp_path, *settings)) == _true(corpus.whole_truth(arch).threads)


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("options", [{"layout_seed": 7}, {"frameless": True}, {"inlined": True}], ids=str)
def test_plain_lldb_agrees_about_variants(arch: str, options: dict[str, Any], tmp_path: Path) -> None:
    variant = corpus.variant(arch, **options)
    assert _said(_in_lldb(variant.dump.core(), variant, tmp_path)) == _true(variant.truth.threads)


def test_plain_lldb_agrees_about_signed_return_addresses(tmp_path: Path) -> None:
    variant = corpus.variant("arm64", signed=True)
    said = _said(_in_lldb(variant.dump.core(), variant, tmp_path, _CAN_BE_SIGNED))
    assert said == _true(variant.truth.threads)


def test_signed_return_addresses_break_a_debugger_that_does_not_expect_them(tmp_path: Path) -> None:
    variant = corpus.variant("arm64", signed=True)
    said = _said(_in_lldb(variant.dump.core(), variant, tmp_path))
    assert said != _true(variant.truth.threads)


@pytest.mark.parametrize("arch", ARCHES)
def test_the_crash_crosses_executable_own_dylib_and_system(arch: str) -> None:
    crashed, waiting = corpus.truth(arch)
    assert crashed.crashed and not waiting.crashed
    modules = [Path(f.module).name for f in crashed.frames]
    assert modules[0] == "Ledger" and modules[-1] == "dyld" and crashed.frames[-1].function == "start"
    assert {"LedgerKit", "CoreFoundation", "libsystem_c.dylib"} < set(modules)
    assert Path(waiting.frames[0].module).name == "libsystem_kernel.dylib"
    assert waiting.frames[-1].function == "thread_start"
    assert {f.file for f in crashed.frames} == {"/Users/dev/Ledger/main.c", "/Users/dev/Ledger/LedgerKit.c", None}


@pytest.mark.parametrize("arch", ARCHES)
def test_inlined_functions_have_frames(arch: str) -> None:
    frames = corpus.variant(arch, inlined=True).truth.threads[1].frames
    inlined = [(f, after) for f, after in pairwise(frames) if f.inlined]
    assert [(f.function, after.function) for f, after in inlined] == [("wait_for_change", "journal_main")]
    assert all(f.pc == after.pc for f, after in inlined)


def test_layouts_share_uuids_and_differ_in_addresses() -> None:
    first, second = (corpus.variant("x86_64", layout_seed=seed) for seed in (0, 7))
    addresses = [{p.path: (p.uuid, p.address) for p in v.cache.placed} for v in (first, second)]
    assert {path: uuid for path, (uuid, _) in addresses[0].items()} == {
        path: uuid for path, (uuid, _) in addresses[1].items()
    }
    assert addresses[0] != addresses[1]


@pytest.mark.parametrize("arch", ARCHES)
def test_the_header_lists_the_modules_executable_first(arch: str) -> None:
    root = ElementTree.fromstring(_member(corpus.dump_path(arch))[0])
    listed = [
        (e.findtext("m_strPath"), e.find("m_uuid").get("val").upper(), int(e.find("m_pvStartAddress").get("val")))
        for e in root.iter("elem")
    ]
    known = corpus.whole_truth(arch)
    assert tuple(listed) == known.modules
    assert root.findtext("PersistentType/m_strExecutable") == listed[0][0] == known.executable
    assert root.find("PersistentType/m_vecmodule").get("length") == str(len(listed))
    assert root.find("PersistentType/m_nThread").get("val") == str(known.crashed_thread)


@pytest.mark.parametrize("arch", ARCHES)
def test_the_core_is_a_core_of_its_architecture(arch: str, tmp_path: Path) -> None:
    (tmp_path / "core").write_bytes(_member(corpus.dump_path(arch))[1])
    header = parse(tmp_path / "core").header
    assert header.file_type == lief.MachO.Header.FILE_TYPE.CORE
    assert header.cpu_type == getattr(lief.MachO.Header.CPU_TYPE, arch.upper())


@pytest.mark.parametrize(
    ("arch", "crashed", "waiting"),
    [
        # Page fault, a write by the user; system call 305. <mach/i386/thread_status.h>
        ("x86_64", [14, 6, 8], [133, 0x02000131, 0]),
        # Data abort by a write, translation fault; a supervisor call. <mach/arm/_structs.h>, ESR_EL1
        ("arm64", [8, 0x92000046, 0], [0, 0x56000080, 0]),
    ],
)
def test_exception_states_say_what_stopped_each_thread(
    arch: str, crashed: list[int], waiting: list[int], tmp_path: Path
) -> None:
    said = _in_lldb(_member(corpus.dump_path(arch))[1], corpus.variant(arch), tmp_path)
    assert [thread["exception"] for thread in said] == [crashed, waiting]
    assert corpus.whole_truth(arch).fault_address == 8


def test_universal_files_hold_both_architectures() -> None:
    if not shutil.which("llvm-lipo-19"):
        pytest.skip("not installed: llvm-lipo-19 (apt-get install llvm-19)")
    for path, magic in ((DYLD, 0xCAFEBABE), ("/usr/bin/true", 0xCAFEBABE), (PATH_HELPER, 0xCAFEBABF)):
        file = corpus.HOST / path[1:]
        assert int.from_bytes(file.read_bytes()[:4], "big") == magic
        done = subprocess.run(["llvm-lipo-19", "-archs", file], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["x86_64", "arm64e"]


def test_the_host_says_which_macos_it_is() -> None:
    for file in corpus.HOST.rglob("SystemVersion.plist"):
        version = plistlib.loads(file.read_bytes())
        assert (version["ProductVersion"], version["ProductBuildVersion"]) == ("13.6.9", "22G830")


def test_assets_are_small_and_know_nothing_of_the_machine_that_built_them() -> None:
    content = {n: p.read_bytes() for n, p in _content(ASSETS).items()}
    assert sum(map(len, content.values())) < 2 << 20
    for foreign in (b"/tmp/", b"symcache-corpus", str(ROOT).encode(), str(Path.home()).encode() + b"/"):
        assert [n for n, data in content.items() if foreign in data] == []


def test_a_module_that_nobody_has_is_one_nobody_has() -> None:
    known = corpus.variant("x86_64")
    changed = corpus.unknown_module(known.dump, corpus.KIT)
    assert [m.uuid for m in changed.modules].count(corpus.NOBODYS_UUID.lower()) == 1
    assert [m.uuid for m in known.dump.modules].count(corpus.NOBODYS_UUID.lower()) == 0
    assert len(corpus.without_module(known.dump, corpus.KIT).modules) == len(known.dump.modules) - 1
