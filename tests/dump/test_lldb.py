"""Backtraces of real compiled code through the real LLDB, around a stack laid out by hand."""

from __future__ import annotations

import json
import plistlib
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from symcache.dump import Analysis, Limits, LldbProcess, Mode, Search, analyze, load_dump, open_dump, open_in_lldb
from symcache.errors import DumpError
from symcache.images import ImageFile, ImageRequest
from symcache.macho import identify
from symcache.model import Kind, uuid_text
from symcache.resolve import CacheGuess, FolderResolver
from tests.dump.builder import (
    CoreFile,
    Module,
    Region,
    arm_thread,
    header,
    small_core,
    states,
    structured,
    write_dump,
    x86_thread,
)
from tests.dump.scene import EXE_BASE, LIB_BASE, STACK, Scene
from tests.support.toolchain import lipo

Scenes = Callable[..., Scene]
ARCHES = pytest.mark.parametrize("arch", ["x86_64", "arm64"])


def frames(analysis: Analysis, *, lines: bool = True) -> list[tuple[str, str, int | None]]:
    return [
        (f.module.loaded.module.name if f.module else "?", f.function, f.line if lines else None)
        for f in analysis.crashed.frames
    ]


@pytest.mark.parametrize(("arch", "signed"), [("x86_64", False), ("arm64", False), ("arm64", True)])
def test_functions_and_lines(scenes: Scenes, arch: str, signed: bool) -> None:
    """Signed: return addresses carry pointer authentication codes, as in every arm64e process."""
    scene = scenes(arch, signed=signed)
    analysis = analyze(scene.write(thread=1), FolderResolver([scene.folder]))
    assert frames(analysis) == scene.frames
    assert [(m.status, m.debug_info, m.detail) for m in analysis.modules] == [("have", True, "")] * 2
    assert analysis.exception.signal == "SIGSEGV"
    assert analysis.exception.access == "write"
    assert analysis.exception.address == 0x10
    assert [f.function for f in analysis.threads[0].frames] == ["middle", "main"]


def _packed(flavor: int, state: bytes) -> bytes:
    return struct.pack("<2I", flavor, len(state) // 4) + state


@ARCHES
@pytest.mark.parametrize("form", ["wrapped", "exception first"])
@pytest.mark.parametrize("bare", [False, True])
def test_states_that_lldb_does_not_read(scenes: Scenes, arch: str, form: str, bare: bool, tmp_path: Path) -> None:
    """Of x86_64, LLDB reads the first state of a thread alone, and of neither architecture a wrapped one."""
    scene = scenes(arch)
    wrappers = {4: 7, 5: 8, 6: 9} if arch == "x86_64" else {6: 1}
    threads = []
    for thread in scene.core.threads:
        found = states(thread)
        if form == "wrapped":
            pack = [_packed(wrappers[f], _packed(f, s)) if f in wrappers else _packed(f, s) for f, s in found]
        else:
            pack = [_packed(f, s) for f, s in reversed(found)]
        threads.append(b"".join(pack))
    core = CoreFile(scene.core.cputype, scene.core.subtype, list(scene.core.regions), threads).bytes()
    if bare:
        path = tmp_path / "core"
        path.write_bytes(core)
    else:
        path = write_dump(tmp_path / "dump.zip", header(scene.modules, thread=1), core)
    analysis = analyze(path, FolderResolver([scene.folder]))
    assert analysis.exception.address == 0x10
    if bare:  # without notes, it names no modules
        assert analysis.crashed.frames[0].address
        assert path.read_bytes() == core
    else:
        assert frames(analysis) == scene.frames


@ARCHES
def test_states_that_a_compiler_laid_out(scenes: Scenes, arch: str, tmp_path: Path) -> None:
    """As think-cell's writer has them: members of one structure, with padding of any value between."""
    scene = scenes(arch)
    threads = [structured(scene.core.cputype, t, b"\xb5\x00\x6b\xb1") for t in scene.core.threads]
    core = replace(scene.core, threads=threads).bytes()
    path = write_dump(tmp_path / "dump.zip", header(scene.modules, thread=1), core)
    analysis = analyze(path, FolderResolver([scene.folder]))
    assert frames(analysis) == scene.frames
    assert [f.function for f in analysis.threads[0].frames] == ["middle", "main"]
    told = analysis.exception
    assert (told.signal, told.access, told.address) == ("SIGSEGV", "write", 0x10)
    (tmp_path / "scratch").mkdir()
    opened = open_dump(path, tmp_path / "scratch")
    output = subprocess.check_output([sys.executable, "-c", _PLAIN_LLDB, opened.core_path], text=True, timeout=120)
    if arch == "arm64":  # of x86_64, LLDB reads none of this in a core
        assert json.loads(output) == ["ESR_EC_DABORT_EL0 (fault address: 0x10)", 0x11, 0x22]


_PLAIN_LLDB = """
import json, lldb, os, sys
debugger = lldb.SBDebugger.Create(False)
debugger.HandleCommand("settings set symbols.enable-external-lookup false")
process = debugger.CreateTarget("", None, None, False, lldb.SBError()).LoadCore(sys.argv[1], lldb.SBError())
thread = process.GetThreadAtIndex(1)
vectors = [thread.GetFrameAtIndex(0).FindRegister(name).GetValueAsUnsigned() for name in ("fpsr", "fpcr")]
print(json.dumps([thread.GetStopDescription(99), *vectors]), flush=True)
os._exit(0)
"""


@ARCHES
@pytest.mark.parametrize("bare", [False, True])
def test_threads_of_the_other_command(scenes: Scenes, arch: str, bare: bool, tmp_path: Path) -> None:
    """LLDB does not see a thread in LC_UNIXTHREAD."""
    scene = scenes(arch)
    commands = [struct.pack("<2I", 5, 8 + len(t)) + t for t in scene.core.threads]
    core = replace(scene.core, threads=[], extra_commands=commands).bytes()
    path = tmp_path / "dump"
    if bare:
        path.write_bytes(core)
    else:
        write_dump(path, header(scene.modules, thread=1), core)
    analysis = analyze(path, FolderResolver([scene.folder]))
    assert len(analysis.threads) == 2
    assert analysis.exception.address == 0x10
    if bare:
        assert path.read_bytes() == core
    else:
        assert frames(analysis) == scene.frames


@ARCHES
def test_a_thread_without_registers_costs_only_its_own_frames(scenes: Scenes, arch: str, tmp_path: Path) -> None:
    scene = scenes(arch)
    other, crashed = scene.core.threads
    core = replace(scene.core, threads=[other, b"", crashed, _packed(99, bytes(16))]).bytes()
    analysis = analyze(
        write_dump(tmp_path / "d.zip", header(scene.modules, thread=2), core), FolderResolver([scene.folder])
    )
    assert frames(analysis) == scene.frames
    assert [len(t.frames) for t in analysis.threads] == [2, 0, len(scene.frames), 0]
    path = write_dump(tmp_path / "d.zip", header(scene.modules, thread=1), core)
    lost = analyze(path, FolderResolver([scene.folder])).to_json()
    assert (lost["crashed_thread"], lost["registers"]) == (1, {})
    assert {t["index"]: len(t["frames"]) for t in lost["threads"]} == {0: 2, 1: 0, 2: len(scene.frames), 3: 0}


@ARCHES
def test_a_module_that_nobody_has_keeps_its_place_in_the_chain(
    scenes: Scenes, arch: str, only: Callable[..., Path]
) -> None:
    scene = scenes(arch)
    analysis = analyze(scene.write(thread=1), FolderResolver([only(scene.exe)]))
    assert frames(analysis, lines=False) == [
        ("libmath.dylib", "", None),
        ("libmath.dylib", "", None),
        ("Ledger", "middle", None),
        ("Ledger", "main", None),
    ]
    assert [m.loaded.module.name for m in analysis.missing] == ["libmath.dylib"]
    report = analysis.to_json()
    assert report["modules"][1]["status"] == "missing"
    assert report["threads"][0]["frames"][1]["module_offset"] == analysis.crashed.frames[1].address - LIB_BASE


@ARCHES
def test_code_in_the_core_does_not_cost_a_caller(scenes: Scenes, arch: str, tmp_path: Path) -> None:
    """A big dump holds the code of a module that nobody has; on arm64 the top frame in it is a leaf without a frame."""
    scene = scenes(arch)
    regions = list(scene.core.regions)
    number = next(n for n, r in enumerate(regions) if r.address == LIB_BASE)
    regions[number] = Region(LIB_BASE, 0x4000, scene.lib.read_bytes()[:0x4000].ljust(0x4000, b"\0"))
    core = CoreFile(scene.core.cputype, scene.core.subtype, regions, list(scene.core.threads)).bytes()
    path = write_dump(tmp_path / "big.zip", header(scene.modules, thread=1), core)
    (tmp_path / "have").mkdir()
    shutil.copy(scene.exe, tmp_path / "have")
    analysis = analyze(path, FolderResolver([tmp_path / "have"]))
    assert [m for m, _, _ in frames(analysis)] == [m for m, _, _ in scene.frames]


@ARCHES
def test_with_no_module_at_all_the_chain_is_there(scenes: Scenes, arch: str, tmp_path: Path) -> None:
    analysis = analyze(scenes(arch).write(thread=1), FolderResolver([tmp_path]))
    names = [f.module.loaded.module.name if f.module else "?" for f in analysis.crashed.frames]
    assert names == ["libmath.dylib", "libmath.dylib", "Ledger", "Ledger"]


@ARCHES
def test_modules_without_uuid_or_path(scenes: Scenes, arch: str) -> None:
    scene = scenes(arch)
    modules = [scene.modules[0], Module(LIB_BASE)]
    path = write_dump(scene.folder / "nameless.zip", header(modules, thread=1), scene.core.bytes())
    analysis = analyze(path, FolderResolver([scene.folder]))
    assert [m.status for m in analysis.modules] == ["have", "no-uuid"]
    assert [n for _, n, _ in frames(analysis)][-2:] == ["middle", "main"]
    assert analysis.crashed.frames[0].module is analysis.modules[1]


@ARCHES
@pytest.mark.parametrize("missing", ["", "dSYM only", "all"])
def test_modules_without_paths_have_the_names_of_their_files(
    scenes: Scenes, arch: str, missing: str, only: Callable[..., Path], tmp_path: Path
) -> None:
    """A name that holds an address would make another signature of each crash."""
    scene = scenes(arch)
    folder = scene.folder
    if missing == "dSYM only":
        bundles = [
            scene.folder / f"{image.name}.dSYM/Contents/Resources/DWARF" / image.name
            for image in (scene.exe, scene.lib)
        ]
        folder = only(*bundles)
    elif missing == "all":
        folder = tmp_path
    nameless = [replace(module, path=None) for module in scene.modules]
    path = write_dump(tmp_path / "d.zip", header(nameless, executable="Ledger", thread=1), scene.core.bytes())
    analysis = analyze(path, FolderResolver([folder]))
    named = analyze(scene.write(thread=1), FolderResolver([folder]))
    if missing == "all":
        uuid = uuid_text(UUID(scene.modules[1].uuid))
        assert analysis.signature()[1][1] == f"{uuid}+{analysis.crashed.frames[0].address - LIB_BASE:#x}"
        assert [m.loaded.module.name for m in analysis.modules] == ["Ledger", f"module-{LIB_BASE:#x}"]
    else:
        assert frames(analysis) == scene.frames
        assert analysis.signature() == named.signature()


def test_a_universal_file_gives_its_slice(scenes: Scenes, tmp_path: Path) -> None:
    both = lipo(tmp_path / "universal", scenes("x86_64").lib, scenes("arm64").lib)
    for arch in ("x86_64", "arm64"):
        scene = scenes(arch)
        analysis = analyze(scene.write(thread=1), FolderResolver([both]))
        assert [n for _, n, _ in frames(analysis)][:2] == ["lib_inner", "lib_outer"], arch


def test_an_arm64e_image_is_taken_into_an_arm64_process(scenes: Scenes, tmp_path: Path) -> None:
    """System libraries are arm64e even where the process is arm64: only the UUID counts."""
    scene = scenes("arm64")
    image = bytearray(scene.lib.read_bytes())
    image[8:12] = struct.pack("<I", 0x8000_0002)
    (tmp_path / "libmath.dylib").write_bytes(image)
    assert identify(tmp_path / "libmath.dylib")[0].arch == "arm64e"
    analysis = analyze(scene.write(thread=1), FolderResolver([tmp_path]))
    assert [n for _, n, _ in frames(analysis)][:2] == ["lib_inner", "lib_outer"]


class _Lying:
    """Gives the same files for whatever is asked."""

    def __init__(self, files: dict[Kind, Path]) -> None:
        self._files = files

    def resolve(self, wanted: Sequence[ImageRequest], progress: object = None) -> dict[ImageRequest, ImageFile]:
        return {w: ImageFile(self._files[w.kind], "a liar") for w in wanted if w.kind in self._files}

    def guess_caches(self, loads: Mapping[UUID, int]) -> list[CacheGuess]:
        return []


def test_a_file_with_another_uuid_is_not_used(scenes: Scenes) -> None:
    scene = scenes("x86_64")
    analysis = analyze(scene.write(thread=1), _Lying({Kind.EXECUTABLE: scene.exe}))
    assert [m.status for m in analysis.modules] == ["have", "rejected"]
    assert analysis.modules[1].detail
    assert frames(analysis, lines=False)[0] == ("libmath.dylib", "", None)
    assert "lib_inner" not in [f.function for f in analysis.crashed.frames]


def test_debug_info_with_another_uuid_is_said_to_be_ignored(scenes: Scenes) -> None:
    scene = scenes("x86_64")
    wrong = scene.folder / "libmath.dylib.dSYM/Contents/Resources/DWARF/libmath.dylib"
    analysis = analyze(scene.write(thread=1), _Lying({Kind.EXECUTABLE: scene.exe, Kind.DEBUGINFO: wrong}))
    assert not analysis.modules[0].debug_info
    assert analysis.modules[0].detail == f"{wrong} is not its debug info"


def test_signature_is_of_names_not_addresses(scenes: Scenes) -> None:
    scenes_of = [scenes("x86_64"), scenes("arm64"), scenes("arm64", signed=True)]
    signatures = [analyze(s.write(thread=1), FolderResolver([s.folder])).signature() for s in scenes_of]
    assert len({identity for identity, _ in signatures}) == 1
    assert signatures[0][1] == [
        "SIGSEGV",
        "libmath.dylib`lib_inner",
        "libmath.dylib`lib_outer",
        "Ledger`middle",
        "Ledger`main",
    ]
    scene = scenes_of[0]
    other = analyze(scene.write("other.zip", thread=0), FolderResolver([scene.folder])).signature()
    assert other[0] != signatures[0][0]


def test_open_prints_the_backtrace(scenes: Scenes) -> None:
    scene = scenes("arm64")
    with LldbProcess(Mode.PRINT) as lldb:
        printed = open_in_lldb(scene.write(thread=1), FolderResolver([scene.folder]), lldb)
    backtrace, _, source = printed.partition("\n\n")
    assert source.startswith("source of frame #0"), "the scene was compiled on this machine"
    lines = backtrace.splitlines()
    assert lines[0].startswith("* thread #2")
    assert "libmath.dylib`lib_inner" in lines[1]
    for line, (module, function, _) in zip(lines[1:], scene.frames, strict=True):
        assert f"{module}`{function}" in line


def test_files_beside_a_hostile_dump_do_not_run(
    scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python modules, LLDB start files and scripts in a dSYM: all would run in a debugger that is not on its guard."""
    scene = scenes("x86_64")
    folder = tmp_path / "hostile"
    folder.mkdir()
    marker = tmp_path / "ran"
    code = f"open({str(marker)!r}, 'a').write(__name__)\n"
    for name in ("numpy", "lldb", "json", "six", "resource", "sitecustomize", "usercustomize"):
        (folder / f"{name}.py").write_text(code)
    (folder / ".lldbinit").write_text(f"script {code}")
    (folder / ".lldbinit-symcache").write_text(f"script {code}")
    bundle = folder / "Ledger.dSYM" / "Contents" / "Resources"
    (bundle / "DWARF").mkdir(parents=True)
    (bundle / "Python").mkdir()
    (bundle / "Python" / "Ledger.py").write_text(code + f"def __lldb_init_module(*_):\n    {code}")
    dwarf = scene.folder / "Ledger.dSYM/Contents/Resources/DWARF/Ledger"
    (bundle / "DWARF" / "Ledger").write_bytes(dwarf.read_bytes())
    (folder / "Ledger").write_bytes(scene.exe.read_bytes())
    dump = folder / "crash.zip"
    dump.write_bytes(scene.write(thread=1).read_bytes())
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("PYTHONSTARTUP", str(folder / "numpy.py"))
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("LLDB_DEBUGSERVER_PATH", str(folder))
    analysis = analyze(Path("crash.zip"), FolderResolver([Path()]))
    assert analysis.modules[0].debug_info  # the bundle with the script was used
    with LldbProcess(Mode.PRINT) as lldb:
        open_in_lldb(Path("crash.zip"), FolderResolver([Path()]), lldb)
    assert not marker.exists()


def test_a_frame_chain_without_end_is_cut(scenes: Scenes) -> None:
    scene = scenes("x86_64")
    core = CoreFile(regions=list(scene.core.regions), threads=list(scene.core.threads))
    stack = core.regions[-1]
    cells = stack.size // 16 - 2
    data = b"".join(
        struct.pack("<2Q", stack.address + 16 * (n + 1), EXE_BASE + 0x400 + n % 64) for n in range(cells)
    ) + bytes(32)
    core.regions[-1] = Region(stack.address, stack.size, data, 3)
    core.threads = [x86_thread(rip=EXE_BASE + 0x400, rbp=stack.address, rsp=stack.address)]
    path = write_dump(scene.folder / "endless.zip", header(scene.modules), core.bytes())
    analysis = analyze(path, FolderResolver([]), limits=Limits(max_frames=100))
    assert 50 < len(analysis.crashed.frames) <= 100


def test_nothing_is_left_behind(scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    scene = scenes("x86_64")
    analyze(scene.write(thread=1), FolderResolver([scene.folder]))
    with pytest.raises(DumpError):
        analyze(scene.write("bad.zip", thread=7), FolderResolver([]))
    assert list(temporary.iterdir()) == []


def test_thousands_of_threads_of_nothing(tmp_path: Path) -> None:
    core = small_core(2000)
    uuid = UUID(int=7).hex
    path = write_dump(
        tmp_path / "many.zip", header([Module(0x1_0000_0000, "/x/Ledger", uuid)], thread=1999), core.bytes()
    )
    analysis = analyze(path, FolderResolver([]))
    assert len(analysis.threads) == 2000
    assert analysis.to_json()["threads"][0]["index"] == 1999


@ARCHES
def test_a_bare_core_with_notes_needs_no_container(scenes: Scenes, arch: str, tmp_path: Path) -> None:
    """As LLDB's own `process save-core` writes it: modules in a note, offsets from the start of the file."""
    scene = scenes(arch)
    core = CoreFile(scene.core.cputype, scene.core.subtype, list(scene.core.regions), list(scene.core.threads))
    core.notes = [(b"all image infos", bytes(24))]
    data = bytearray(core.bytes())
    names = [m.path.encode() + b"\0" for m in scene.modules if m.path]
    place = len(data)
    table, offset = b"", place
    for module, name in zip(scene.modules, names, strict=True):
        uuid = UUID(module.uuid)
        table += struct.pack("<Q16s2Q2I", offset, uuid.bytes, module.address, (1 << 64) - 1, 0, 0)
        offset += len(name)
    data[-24:] = struct.pack("<2IQ2I", 1, len(names), offset, 48, 0)
    path = tmp_path / "core"
    path.write_bytes(bytes(data) + b"".join(names) + table)
    before = path.read_bytes()
    analysis = analyze(path, FolderResolver([scene.folder]))
    assert frames(analysis) == scene.frames  # the thread with an exception is the crashed one
    assert analysis.loaded.header.executable == scene.modules[0].path
    assert path.read_bytes() == before


def test_a_dsym_says_where_its_sources_are(scenes: Scenes, tmp_path: Path) -> None:
    scene = scenes("x86_64")
    bundle = tmp_path / "Ledger.dSYM"
    shutil.copytree(scene.folder / "Ledger.dSYM", bundle)
    uuid = UUID(scene.modules[0].uuid)
    (tmp_path / "sources" / "deep").mkdir(parents=True)
    noted = {
        "DBGVersion": "3",
        "DBGSourcePathRemapping": {"/b": str(tmp_path / "sources"), "/b/deep": str(tmp_path / "sources" / "deep")},
        "DBGBuildSourcePath": "/gone",
        "DBGSourcePath": str(tmp_path / "nowhere"),
    }
    plist = bundle / "Contents" / "Resources" / f"{str(uuid).upper()}.plist"
    plist.write_bytes(plistlib.dumps(noted))

    def mapped() -> list[list[str]]:
        scratch = Path(tempfile.mkdtemp(dir=tmp_path))
        loaded = load_dump(
            scene.write(thread=1), scratch, Search(FolderResolver([bundle]), source_map=[("/a", "/here")])
        )
        return [list(pair) for pair in loaded.plan.source_map]

    sources = str(tmp_path / "sources")
    assert mapped() == [["/a", "/here"], ["/b/deep", f"{sources}/deep"], ["/b", sources]]
    for wrong in (
        b"",
        b"<plist>",
        b"<!DOCTYPE a [<!ENTITY b 'c'>]><plist><string>&b;</string></plist>",
        b"bplist00" + bytes(40),
    ):
        plist.write_bytes(wrong)
        assert mapped() == [["/a", "/here"]]


def _dsym_alone(scene: Scene, folder: Path, change: Callable[[bytearray], None] = lambda data: None) -> Path:
    """Copy the library's dSYM, changed, and the executable into a folder: the library itself is not there."""
    folder.mkdir()
    (folder / "Ledger").write_bytes(scene.exe.read_bytes())
    data = bytearray((scene.folder / "libmath.dylib.dSYM/Contents/Resources/DWARF/libmath.dylib").read_bytes())
    change(data)
    (folder / "libmath.dwarf").write_bytes(data)
    return folder


@pytest.mark.parametrize(("arch", "signed"), [("x86_64", False), ("arm64", False), ("arm64", True)])
def test_a_dsym_without_its_binary(scenes: Scenes, arch: str, signed: bool, tmp_path: Path) -> None:
    """On arm64 the top frame is a leaf that keeps no frame, so its caller is found by its return address alone."""
    scene = scenes(arch, signed=signed)
    folder = _dsym_alone(scene, tmp_path / "alone")
    analysis = analyze(scene.write(thread=1), FolderResolver([folder]))
    assert frames(analysis) == scene.frames
    assert [(m.status, m.debug_info) for m in analysis.modules] == [("have", False), ("symbols", True)]
    assert analysis.missing == []
    with LldbProcess(Mode.PRINT) as lldb:
        printed = open_in_lldb(scene.write(thread=1), FolderResolver([folder]), lldb)
    for line, (module, function, _) in zip(printed.splitlines()[1:], scene.frames, strict=False):
        assert f"{module}`{function}" in line


@ARCHES
def test_a_function_that_calls_itself_keeps_its_frames(scenes: Scenes, arch: str, tmp_path: Path) -> None:
    """A stack overflow: the function has just been entered, without a frame yet, and all its other calls have one."""
    scene = scenes(arch)
    nm = subprocess.run(["llvm-nm-19", scene.lib], capture_output=True, text=True, check=True).stdout
    start = LIB_BASE + next(int(line.split()[0], 16) for line in nm.splitlines() if line.endswith(" _lib_outer"))
    frame = STACK + 0x2000
    back = struct.unpack_from("<Q", scene.core.regions[-1].data, 0x2008)[0]
    if arch == "x86_64":  # the return address into it is on top of the stack
        thread = x86_thread((14, 6, 0x10), rip=start, rbp=frame + 0x40, rsp=frame + 8)
    else:
        code = next(s for s in states(scene.core.threads[1]) if s[0] == 6)[1]
        back = struct.unpack_from("<Q", code, 8 * 30)[0]
        thread = arm_thread((1, 0x24 << 26 | 1 << 25 | 0x44, 0x10), pc=start, lr=back, fp=frame, sp=frame - 0x10)
    assert LIB_BASE < back < LIB_BASE + 0x4000
    core = CoreFile(scene.core.cputype, scene.core.subtype, list(scene.core.regions), [thread]).bytes()
    path = write_dump(tmp_path / "deep.zip", header(scene.modules, thread=0), core)
    analysis = analyze(path, FolderResolver([_dsym_alone(scene, tmp_path / "alone")]))
    assert [n for _, n, _ in frames(analysis)] == ["lib_outer", "lib_outer", "middle", "main"]
    assert [m.status for m in analysis.modules] == ["have", "symbols"]


def _commands(data: bytes) -> dict[bytes, int]:
    """Return where the LC_SEGMENT_64s of a Mach-O are, by the segments' names."""
    found, place = {}, 32
    for _ in range(struct.unpack_from("<I", data, 16)[0]):
        cmd, size = struct.unpack_from("<2I", data, place)
        if cmd == 0x19:
            found[bytes(data[place + 8 : place + 24]).rstrip(b"\0")] = place
        place += size
    return found


@pytest.mark.parametrize(
    ("segment", "at", "form", "value"),
    [
        (b"__TEXT", 24, "<Q", (1 << 64) - 0x1000),  # vmaddr
        (b"__TEXT", 24, "<Q", 0x123),
        (b"__TEXT", 32, "<Q", 1 << 62),  # vmsize
        (b"__TEXT", 32, "<Q", 0),
        (b"__TEXT", 64, "<I", 0xFFFF_FFFF),  # nsects
        (b"__TEXT", 72 + 32, "<Q", 0xFFFF_FFFF_FFFF_FFF0),  # address of its first section
        (b"__TEXT", 72 + 40, "<Q", 1 << 63),  # and its size
        (b"__TEXT", 8, "<7s", b"__DATA\0"),
    ],
)
@ARCHES
def test_a_dsym_with_absurd_load_commands_is_left_out(
    scenes: Scenes, arch: str, segment: bytes, at: int, form: str, value: object, tmp_path: Path
) -> None:
    scene = scenes(arch)
    folder = _dsym_alone(
        scene, tmp_path / "alone", lambda data: struct.pack_into(form, data, _commands(data)[segment] + at, value)
    )
    analysis = analyze(scene.write(thread=1), FolderResolver([folder]))
    assert [m for m, _, _ in frames(analysis)] == [m for m, _, _ in scene.frames]
    assert analysis.modules[1].status == "missing"
    assert "libmath.dwarf" in analysis.modules[1].detail


@ARCHES
def test_a_dsym_of_another_build_names_nothing(scenes: Scenes, arch: str, tmp_path: Path) -> None:
    scene = scenes(arch)
    wrong = scene.folder / "Ledger.dSYM/Contents/Resources/DWARF/Ledger"
    analysis = analyze(scene.write(thread=1), _Lying({Kind.DEBUGINFO: wrong}))
    assert analysis.modules[1].status == "missing"
    assert analysis.modules[1].detail == f"{wrong} is not its debug info"
    assert [(m, n) for m, n, _ in frames(analysis)][:2] == [("libmath.dylib", "")] * 2


@ARCHES
def test_a_dsym_whose_code_would_lie_over_another_module_is_left_out(scenes: Scenes, arch: str, tmp_path: Path) -> None:
    scene = scenes(arch)
    distance = LIB_BASE - EXE_BASE

    def change(data: bytearray) -> None:
        struct.pack_into("<Q", data, _commands(data)[b"__TEXT"] + 32, 1 << 29)
        for name, place in _commands(data).items():
            if name != b"__TEXT":
                struct.pack_into("<Q", data, place + 24, (1 << 40) + place * 0x10_0000)

    assert distance > 1 << 29
    modules = [*scene.modules, Module(LIB_BASE + 0x10_0000, "/x/libother.dylib", UUID(int=77).hex)]
    path = write_dump(tmp_path / "three.zip", header(modules, thread=1), scene.core.bytes())
    analysis = analyze(path, FolderResolver([_dsym_alone(scene, tmp_path / "alone", change)]))
    assert analysis.modules[1].status == "missing"
    assert [m for m, _, _ in frames(analysis)] == [m for m, _, _ in scene.frames]


@ARCHES
def test_code_of_no_module_keeps_its_place_in_the_chain(scenes: Scenes, arch: str, tmp_path: Path) -> None:
    """Made at run time, or of a module whose address in the header makes no sense."""
    scene = scenes(arch)
    exe, lib = scene.modules
    for listed in ([exe], [exe, replace(lib, address=1 << 64)]):
        path = write_dump(tmp_path / "d.zip", header(listed, thread=1), scene.core.bytes())
        analysis = analyze(path, FolderResolver([scene.folder]))
        assert [f.function for f in analysis.crashed.frames] == ["", "", *(name for _, name, _ in scene.frames[2:])]
        assert [f.module.index if f.module else None for f in analysis.crashed.frames] == [None, None, 0, 0]


def _as_mac_mini_dump(scene: Scene) -> bytes:
    """Return the scene's core as macMiniDump writes it: notes, threads, then what is around each address on a stack.

    Its executable is in the note `main bin spec` only, with a slide in the place of an address.
    """
    exe, lib = scene.modules
    stack = scene.core.regions[-1]
    threads, windows = [], [(stack.address, stack.data, 3)]
    for thread in scene.core.threads:
        kept = dict(states(thread))
        general, exception = (4, 6) if scene.arch == "x86_64" else (6, 7)
        syscall = (
            struct.pack("<2HIQ", 0x85, 0, 0x0100_001F, 0) if general == 4 else struct.pack("<Q2I", 0, 0x5600_0080, 0)
        )
        told = {general: kept[general], exception: kept.get(exception, syscall)}
        threads.append(b"".join(struct.pack("<2I", f, len(d) // 4) + d for f, d in told.items()))
        pc = struct.unpack_from("<Q", kept[general], 128 if general == 4 else 256)[0]
        windows.append((pc - 256, bytes(513), 5))
    regions = [Region(address, len(data), data, protection) for address, data, protection in windows]
    slide = exe.address - 0x1_0000_0000
    main = struct.pack("<2I2Q16s2I", 2, 0, (1 << 64) - 1, slide, UUID(exe.uuid).bytes, 0, 0)
    path = (lib.path or "").encode() + b"\0"

    def core(at: int) -> CoreFile:
        images = struct.pack("<2IQ2I", 1, 1, at + 24, 48, 0)
        images += struct.pack("<Q16s2Q2I", at + 104, UUID(lib.uuid).bytes, lib.address, at + 72, 1, 1)
        images += struct.pack("<16s2Q", b"__TEXT", lib.address, 0) + path
        metadata = b'{"threads":[{"thread_id":259},{"thread_id":1234}]}'
        notes = [(b"all image infos", images), (b"addrable bits", struct.pack("<2IQ", 3, 47, 0)),
                 (b"main bin spec", main), (b"process metadata", metadata)]  # fmt: skip
        return CoreFile(
            scene.core.cputype, scene.core.subtype, sorted(regions, key=lambda r: r.address), threads, notes
        )

    data = core(0).bytes()
    return core(data.index(struct.pack("<2IQ2I", 1, 1, 24, 48, 0))).bytes()


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
def test_a_core_by_mac_mini_dump(arch: str, scenes: Callable[..., Scene], tmp_path: Path) -> None:
    scene = scenes(arch)
    path = tmp_path / "mini.core"
    path.write_bytes(_as_mac_mini_dump(scene))
    analysis = analyze(path, FolderResolver([scene.folder]))
    assert analysis.loaded.header.thread == 1
    assert [
        (f.module.loaded.module.name if f.module else "?", f.function, f.line) for f in analysis.crashed.frames
    ] == scene.frames
    assert [m.loaded.module.address for m in analysis.modules] == [m.address for m in scene.modules]
    assert analysis.to_json()["process"]["executable"].endswith("Ledger")
