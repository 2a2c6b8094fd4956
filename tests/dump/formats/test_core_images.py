"""Cores without notes: the images of an emulated process, found in its memory; the emulator knows which they are."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from symcache.dump import analyze, header_of_core, read_core
from symcache.dump.formats.header import DumpHeader
from symcache.model import uuid_text
from symcache.resolve import ChainResolver, FolderResolver, LibraryResolver
from tests.corpus.process import PAGE, Module
from tests.dump.builder import ARM64 as ARM64_CPU
from tests.dump.builder import CoreFile, Region, arm_thread
from tests.dump.systems import ASSETS
from tests.dump.test_corpus import ARCHES, expected, found
from tests.support.corpus import Variant, variant
from tests.support.toolchain import compile_image

ARM64 = (ARM64_CPU, 0)
INFOS, LISTS, DYLD = 0x2_0000_0000, 0x2_0000_4000, 0x2_1000_0000
CACHE_UUID, CACHE_BASE = UUID(int=0xCAC4E), 0x7FF8_0000_0000


@dataclass
class Process:
    """An emulated process and how much of its memory a core is given."""

    run: Variant
    infos: int = INFOS
    regions: list[Region] = field(default_factory=list)
    dyld: int = 0
    notes: list[tuple[bytes, bytes]] = field(default_factory=list)

    @property
    def modules(self) -> list[Module]:
        return self.run.process.modules

    def add_lists(self, *, version: int = 17, paths: bool = True, uuids: bool = False) -> None:
        """Lay dyld's lists into the memory: struct dyld_all_image_infos, dyld_image_info, dyld_uuid_info, paths."""
        listed = [*self.modules[1:], self.modules[0]]  # the executable last: it must be looked for
        at = LISTS + 24 * len(listed)
        entries, names = b"", b""
        for module in listed:
            entries += struct.pack("<3Q", module.load_address, at + len(names) if paths else 0, 0)
            names += module.path.encode() + b"\0"
        own = b"".join(struct.pack("<Q16s", m.load_address, UUID(m.uuid).bytes) for m in listed)
        place = LISTS + 0x4000
        head = struct.pack("<IIQQ8xQ", version, len(listed), LISTS, 0, self.dyld).ljust(88, b"\0")
        head += struct.pack("<3Q", len(listed) if uuids else 0, place if uuids else 0, self.infos).ljust(72, b"\0")
        head += struct.pack("<16sQ", CACHE_UUID.bytes, CACHE_BASE)
        assert len(head) == 184
        inside = next((r for r in self.regions if r.address <= self.infos < r.address + r.size), None)
        if inside is None:
            self.regions.append(Region(self.infos & -0x4000, 0x4000, bytes(self.infos % 0x4000) + head, 3))
        else:
            start = self.infos - inside.address
            inside.data = inside.data[:start] + head + inside.data[start + len(head) :]
        self.regions.append(Region(LISTS, 0x4000, (entries + names).ljust(0x4000, b"\0"), 3))
        if uuids:
            self.regions.append(Region(place, 0x4000, own.ljust(0x4000, b"\0"), 3))

    def write(self, path: Path) -> Path:
        dump = self.run.dump
        threads = [b"".join(struct.pack("<2I", f, len(s) // 4) + s for f, s in t.states) for t in dump.threads]
        kept = [r for r in self.regions if r.size]
        path.write_bytes(CoreFile(*dump.cpu, regions=kept, threads=threads, notes=self.notes).bytes())
        return path


def process(arch: str, keep: Callable[[Any], bool] = lambda region: True) -> Process:
    """Return the emulated process; of regions that are not to be kept, a core has the address only."""
    run = variant(arch)
    made = Process(run)
    for region in run.process.regions:
        data = region.data.ljust(region.size, b"\0") if keep(region) else b""
        made.regions.append(Region(region.address, region.size, data, region.protection))
    return made


def add_dyld(made: Process, arch: str, folder: Path) -> Module:
    """Load a dynamic linker that keeps its list in a section of its own, as Apple's does; return what it is."""
    source = """
    struct { char raw[256]; } dyld_all_image_infos __attribute__((section("__DATA,__all_image_info"), aligned(16))) = {
        "to be filled"
    };
    int padding[16384] = {1};
    """
    image = compile_image(folder, "dyld", source, arch=arch)
    data = bytearray(image.read_bytes())
    struct.pack_into("<I", data, 12, 7)  # MH_DYLINKER
    ncmds, position = struct.unpack_from("<I", data, 16)[0], 32
    segments = []
    for _ in range(ncmds):
        cmd, size = struct.unpack_from("<2I", data, position)
        if cmd == 0xD:
            struct.pack_into("<I", data, position, 0xF)  # LC_ID_DYLINKER
        elif cmd == 0x1B:
            uuid = UUID(bytes=bytes(data[position + 8 : position + 24]))
        elif cmd == 0x19:
            name, vmaddr, vmsize, offset, filesize, _, protection = struct.unpack_from("<16s4Q2I", data, position + 8)
            segments.append((name.rstrip(b"\0").decode(), vmaddr, vmsize, offset, filesize, protection))
        position += size
    out = subprocess.check_output(["llvm-nm-19", "--defined-only", image], text=True)
    made.infos = DYLD + int(next(line.split()[0] for line in out.splitlines() if "_dyld_all_image_infos" in line), 16)
    made.dyld = DYLD
    for _, vmaddr, vmsize, offset, filesize, protection in segments:
        content = bytes(data[offset : offset + filesize]).ljust(vmsize, b"\0")
        made.regions.append(Region(DYLD + vmaddr, -(-vmsize // PAGE[arch]) * PAGE[arch], content, protection))
    parts = [(name, vmaddr, DYLD + vmaddr, vmsize) for name, vmaddr, vmsize, *_ in segments]
    return Module("/usr/lib/dyld", uuid.hex, image, parts, None)


def told(path: Path) -> DumpHeader:
    return header_of_core(path, read_core(path))


def true(modules: list[Module], *, paths: bool = True) -> list[tuple[int, str, UUID, int | None]]:
    return sorted((m.load_address, m.path if paths else "", UUID(m.uuid), m.version) for m in modules)


def listed(header: DumpHeader) -> list[tuple[int, str, UUID | None, int | None]]:
    return sorted((m.address, m.path, m.uuid, m.version) for m in header.modules)


@ARCHES
def test_the_list_is_found_through_dyld(arch: str, tmp_path: Path) -> None:
    made = process(arch)
    dyld = add_dyld(made, arch, tmp_path)
    made.add_lists()
    header = told(made.write(tmp_path / "core"))
    assert listed(header) == true([*made.modules, dyld])
    assert header.executable == header.modules[0].path == made.modules[0].path
    assert (header.cache_uuid, header.cache_base) == (CACHE_UUID, CACHE_BASE)
    assert header.thread == made.run.dump.thread


def for_lldb(arch: str, folder: Path, *, uuids: bool = False) -> Process:
    """Return the process without its own dyld's header: that has no such list, and LLDB would stop there."""
    made = process(arch)
    address = next(m for m in made.modules if m.path == "/usr/lib/dyld").load_address
    region = next(r for r in made.regions if r.address <= address < r.address + len(r.data))
    at = address - region.address
    region.data = region.data[:at] + bytes(4) + region.data[at + 4 :]
    add_dyld(made, arch, folder)
    made.add_lists(uuids=uuids)
    return made


_PLAIN_LLDB = """
import json, lldb, os, sys
debugger = lldb.SBDebugger.Create(False)
debugger.HandleCommand("settings set symbols.enable-external-lookup false")
target = debugger.CreateTarget("", sys.argv[2], None, False, lldb.SBError())
process = target.LoadCore(sys.argv[1], lldb.SBError())
modules = [
    (m.GetUUIDString(), m.GetObjectFileHeaderAddress().GetLoadAddress(target)) for m in target.module_iter()
]
print(json.dumps(modules), flush=True)
os._exit(0)
"""


@ARCHES
def test_lldb_finds_the_same(arch: str, tmp_path: Path) -> None:
    path = for_lldb(arch, tmp_path).write(tmp_path / "core")
    output = subprocess.check_output([sys.executable, "-c", _PLAIN_LLDB, path, f"{arch}-apple-macosx"], timeout=60)
    ours = [[uuid_text(m.uuid), m.address] for m in told(path).modules if m.uuid]
    assert sorted(json.loads(output)) == sorted(ours)


_SAVING_LLDB = """
import lldb, os, sys
core, triple, kind, style, saved = sys.argv[1:]
debugger = lldb.SBDebugger.Create(False)
debugger.HandleCommand("settings set symbols.enable-external-lookup false")
target = debugger.CreateTarget("", triple, None, False, lldb.SBError())
process = target.LoadCore(core, lldb.SBError())
debugger.HandleCommand(f"process save-core --plugin-name={kind} --style={style} {saved}")
os._exit(0)
"""


def saved_by_lldb(core: Path, arch: str, kind: str, style: str) -> Path:
    """Have LLDB open a core and save it as one of its kinds, `mach-o` or `minidump`; return the new file."""
    saved = core.with_name("saved")
    command = [sys.executable, "-c", _SAVING_LLDB, core, f"{arch}-apple-macosx", kind, style, saved]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    return saved


@ARCHES
@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize("style", ["full", "modified-memory", "stack"])
def test_cores_that_lldb_saves(style: str, noted: bool, arch: str, system: LibraryResolver, tmp_path: Path) -> None:
    """LLDB's own writer chooses what is kept; its note of the images may be missing, as older ones write none."""
    made = for_lldb(arch, tmp_path, uuids=True)
    saved = saved_by_lldb(made.write(tmp_path / "core"), arch, "mach-o", style)
    data = saved.read_bytes()
    assert data.count(b"all image infos") == 1
    if not noted:
        saved.write_bytes(data.replace(b"all image infos", b"somebody else's"))
    names = {m.load_address: (m.path, UUID(m.uuid)) for m in made.modules if m.path != "/usr/lib/dyld"}
    modules = {m.address: (m.path, m.uuid) for m in told(saved).modules}
    if style == "stack":  # with the note: the images that have frames
        assert bool(modules) == noted
    else:
        assert names.items() <= modules.items()
        assert len(modules) == len(names) + 1 + (not noted)  # dyld; the list has the emulator's, too
    if style != "stack" or noted:
        analysis = analyze(saved, ChainResolver([FolderResolver([ASSETS / "app" / arch]), system]))
        for mine, real in zip(found(analysis), expected(arch), strict=True):
            known = [f for f in real if f[1] != "/usr/lib/dyld"]
            assert mine[: len(known)] == known


@ARCHES
def test_a_module_that_the_core_holds_has_the_lines_of_its_dsym(arch: str, tmp_path: Path) -> None:
    """Nobody has a binary: LLDB takes all of them out of the core's memory."""
    saved = saved_by_lldb(for_lldb(arch, tmp_path, uuids=True).write(tmp_path / "core"), arch, "mach-o", "full")
    analysis = analyze(saved, FolderResolver(sorted((ASSETS / "app" / arch).glob("*.dSYM"))))
    status = {m.loaded.module.name: (m.status, m.debug_info) for m in analysis.modules}
    assert status["Ledger"] == status["LedgerKit"] == ("memory", True)
    assert status["CoreFoundation"] == ("memory", False)
    for mine, real in zip(found(analysis), expected(arch), strict=True):
        known = [f for f in real if f[1] != "/usr/lib/dyld"]
        assert mine[: len(known)] == known


@ARCHES
def test_the_list_is_found_by_its_own_address(arch: str, tmp_path: Path) -> None:
    """Only what was written to is there: no headers, so no paths and UUIDs but those in dyld's lists."""
    made = process(arch, keep=lambda region: region.stack)
    made.infos = INFOS + 0x1238
    made.add_lists(uuids=True)
    header = told(made.write(tmp_path / "core"))
    assert [(a, p, u) for a, p, u, _ in listed(header)] == [(a, p, u) for a, p, u, _ in true(made.modules)]
    assert header.cache_uuid == CACHE_UUID


@ARCHES
def test_the_list_is_found_where_all_memory_may_only_be_read(arch: str, tmp_path: Path) -> None:
    made = process(arch, keep=lambda region: region.stack)
    made.add_lists(uuids=True)
    for region in made.regions:
        region.protection = 1
    assert {(m.address, m.uuid) for m in told(made.write(tmp_path / "core")).modules} == {
        (m.load_address, UUID(m.uuid)) for m in made.modules
    }


@ARCHES
@pytest.mark.parametrize("kind", [2, 4])
def test_a_note_tells_where_dyld_or_its_list_is(kind: int, arch: str, tmp_path: Path) -> None:
    """A kernel that panics notes dyld (2), others may note the list (4); nothing else leads there."""
    made = process(arch)
    dyld = add_dyld(made, arch, tmp_path)
    made.add_lists()
    region = next(r for r in made.regions if r.address <= made.infos < r.address + r.size)
    at = made.infos - region.address + 104  # where it keeps its own address
    region.data = region.data[:at] + bytes(8) + region.data[at + 8 :]
    text = next(r for r in made.regions if r.address == DYLD)
    text.address, text.data, text.protection = DYLD - 0x200, bytes(0x200) + text.data[:-0x200], 1
    place = DYLD if kind == 2 else made.infos
    made.notes.append((b"main bin spec", struct.pack("<2IQ16s2I", 1, kind, place, UUID(dyld.uuid).bytes, 14, 0)))
    header = told(made.write(tmp_path / "core"))
    assert listed(header) == true([*made.modules, dyld])
    assert header.executable == header.modules[0].path == made.modules[0].path
    assert header.cache_uuid == CACHE_UUID


@ARCHES
def test_paths_that_are_not_there_are_those_that_the_images_were_linked_with(arch: str, tmp_path: Path) -> None:
    made = process(arch)
    made.add_lists(paths=False)
    header = told(made.write(tmp_path / "core"))
    names = {m.address: m.path for m in header.modules}
    for module in made.modules[1:]:
        assert names[module.load_address].rpartition("/")[2] == module.path.rpartition("/")[2]
    assert names[made.modules[0].load_address] == ""


@ARCHES
def test_without_a_list_headers_in_executable_memory_count(arch: str, tmp_path: Path) -> None:
    made = process(arch)
    # A file that was read, and one that is of another processor, are no images.
    header = made.regions[0].data[:0x1000]
    other = header[:4] + struct.pack("<I", 0x0100_0007 if arch == "arm64" else 0x0100_000C) + header[8:]
    made.regions += [Region(0x3_0000_0000, 0x4000, header, 3), Region(0x3_1000_0000, 0x4000, other, 5)]
    found_ = told(made.write(tmp_path / "core"))
    assert [(a, u) for a, _, u, _ in listed(found_)] == [(a, u) for a, _, u, _ in true(made.modules)]
    assert found_.modules[0].address == made.modules[0].load_address
    names = {m.path.rpartition("/")[2] for m in found_.modules[1:]}
    assert names == {m.path.rpartition("/")[2] for m in made.modules[1:]}


@ARCHES
@pytest.mark.parametrize("lists", [True, False])
def test_every_frame_of_every_thread_is_true(lists: bool, arch: str, system: LibraryResolver, tmp_path: Path) -> None:
    made = process(arch)
    if lists:
        made.add_lists()
    path = made.write(tmp_path / "core")
    analysis = analyze(path, ChainResolver([FolderResolver([ASSETS / "app" / arch]), system]))
    # Without the list, images have the names that they were linked with.
    seen, real = [
        [[(f[0], *f[1 if lists else 2 :]) for f in t] for t in one] for one in (found(analysis), expected(arch))
    ]
    assert seen == real
    assert {m.status for m in analysis.modules} == {"have"}


@pytest.mark.parametrize(
    ("offset", "value"),
    [(4, struct.pack("<I", 0x7FFF_FFFF)), (8, struct.pack("<Q", 0)), (8, struct.pack("<Q", 0x5_0000_0000))],
)
def test_a_list_that_cannot_be_is_none(offset: int, value: bytes, tmp_path: Path) -> None:
    made = process("arm64")
    made.add_lists()
    region = next(r for r in made.regions if r.address == INFOS)
    region.data = region.data[:offset] + value + region.data[offset + len(value) :]
    header = told(made.write(tmp_path / "core"))
    assert [(a, u) for a, _, u, _ in listed(header)] == [(a, u) for a, _, u, _ in true(made.modules)]
    assert header.cache_uuid is None


def test_headers_and_lists_that_overlap_and_lead_nowhere(tmp_path: Path) -> None:
    """Thousands of pages that each begin with a header whose load commands reach over all the following ones."""
    header = struct.pack("<8I", 0xFEEDFACF, *ARM64, 7, 0x1_0000, 0x8_0000, 0, 0)
    page = header + struct.pack("<2I", 1, 8) * ((0x1000 - len(header)) // 8)
    path = tmp_path / "core"
    memory = Region(0x1_0000_0000, len(page) * 2048, page * 2048)
    path.write_bytes(CoreFile(*ARM64, regions=[memory], threads=[arm_thread(pc=4)]).bytes())
    assert len(told(path).modules) <= 2048


def test_a_core_that_keeps_little_has_no_modules(tmp_path: Path) -> None:
    path = process("x86_64", keep=lambda region: region.stack).write(tmp_path / "core")
    assert told(path).modules == ()
