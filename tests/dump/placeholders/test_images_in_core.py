"""Dumps that keep all memory: modules that nobody has are there, with names and unwind tables; the emulator knows."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from symcache.dump import LoadedDump, Search, analyze, load_dump
from symcache.resolve import FolderResolver
from tests.corpus.process import Module
from tests.dump.builder import PAGE, CoreFile, header, write_dump
from tests.dump.builder import Module as Listed
from tests.dump.formats.test_core_images import Process, process
from tests.dump.systems import ASSETS
from tests.dump.test_corpus import ARCHES, expected, found


def segments_of(module: Module, name: str) -> list[tuple[int, int]]:
    return [(loaded, size) for segment, _, loaded, size in module.segments if segment == name]


def core_of(made: Process) -> CoreFile:
    dump = made.run.dump
    threads = [b"".join(struct.pack("<2I", f, len(s) // 4) + s for f, s in t.states) for t in dump.threads]
    return CoreFile(*dump.cpu, regions=[r for r in made.regions if r.size], threads=threads)


def write(made: Process, core: CoreFile, path: Path) -> Path:
    listed = [Listed(m.load_address, m.path, m.uuid.lower()) for m in made.modules]
    thread = made.run.truth.crashed_thread
    return write_dump(path, header(listed, executable=made.modules[0].path, thread=thread), core.bytes())


def loaded(path: Path, scratch: Path, symbols: Path) -> LoadedDump:
    scratch.mkdir()
    return load_dump(path, scratch, Search(FolderResolver([symbols])))


def all_images(made: Process, core: CoreFile, *, segments: bool) -> tuple[bytes, bytes]:
    """Return the note that other writers put into cores; it is the only one, so it lies behind the regions."""
    start = len(CoreFile(core.cputype, core.subtype, core.regions, core.threads, [(b"x", b"")]).bytes())
    modules = made.modules
    places = start + 24 + 48 * len(modules)
    names_at = places + 32 * sum(len(m.segments) for m in modules)
    entries, table, names = b"", b"", b""
    for m in modules:
        count = len(m.segments) if segments else 0
        place = (names_at + len(names), bytes.fromhex(m.uuid), m.load_address, places + len(table), count, 1)
        entries += struct.pack("<Q16s2Q2I", *place)
        table += b"".join(struct.pack("<16s2Q", n.encode(), at, 0) for n, _, at, _ in m.segments)
        names += m.path.encode() + b"\0"
    table = table.ljust(names_at - places, b"\0")
    return b"all image infos", struct.pack("<2IQ2I", 1, len(modules), start + 24, 48, 0) + entries + table + names


@ARCHES
@pytest.mark.parametrize("noted", ["", "with segments"])
def test_every_frame_of_every_thread_is_true(arch: str, noted: str, tmp_path: Path) -> None:
    """There are dSYMs of the application, and nothing else."""
    made = process(arch)
    core = core_of(made)
    if noted:
        core.notes = [all_images(made, core, segments=True)]
    path = write(made, core, tmp_path / "big.zip")
    analysis = analyze(path, FolderResolver(sorted((ASSETS / "app" / arch).glob("*.dSYM"))))
    assert found(analysis) == expected(arch)
    assert {m.status for m in analysis.modules} == {"memory"}
    assert analysis.missing == []


@ARCHES
@pytest.mark.parametrize("why", ["no room", "noted without segments", "other content", "no symbols"])
def test_where_lldb_cannot_take_them_the_chain_is_kept(arch: str, why: str, tmp_path: Path) -> None:
    made = process(arch)
    if why == "other content":  # the address was mapped again since
        for region in made.regions:
            if any(region.address == m.load_address for m in made.modules[:2]):
                region.data = bytes(region.size)
    if why == "no symbols":
        kept = [place for m in made.modules for place, _ in segments_of(m, "__LINKEDIT")]
        for region in made.regions:
            if any(region.address <= place < region.address + region.size for place in kept):
                region.data = b"" if region.protection & 4 == 0 else region.data
    core = core_of(made)
    if why == "noted without segments":
        core.notes = [all_images(made, core, segments=False)]
    if why == "no room":
        commands = 32 + 72 * len(core.regions) + sum(8 + len(t) for t in core.threads)
        size = -commands % PAGE or PAGE
        size += PAGE if size < 8 else 0
        core.extra_commands = [struct.pack("<2I", 0x7FFF, size - 8) + bytes(size - 16)]
    path = write(made, core, tmp_path / "big.zip")
    plan = loaded(path, tmp_path / "scratch", ASSETS / "app" / arch)
    if why in {"no room", "noted without segments"}:
        assert plan.dump.core_path.read_bytes()[: len(core.bytes())].count(b"all image infos") == len(core.notes)
    analysis = analyze(path, FolderResolver([ASSETS / "app" / arch]))
    mine, real = found(analysis)[0], expected(arch)[0]
    assert [f[0] for f in mine] == [f[0] for f in real]
    assert [f[3] for f in mine if f[1] and "Ledger" in f[1]] == [f[3] for f in real if "Ledger" in f[1]]
