"""One crash as each kind of dump has it: two modules of which nothing but what is handed out can be found."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from tests.dump.builder import ARM_REGISTERS, X86_REGISTERS, CoreFile, states
from tests.dump.minidump import MiniThread, minidump
from tests.dump.scene import Scene, build_scene


@dataclass
class CrashFiles:
    scene: Scene
    symbols: Path
    """Binaries and dSYMs."""
    dumps: dict[str, Path]
    """By the name that the table of LLDBs has for the kind."""
    uuids: dict[str, UUID]
    """Of the binaries in the scene's folder, by name."""

    def outcome(self, text: str) -> str:
        """Return what a backtrace, as some LLDB prints it, shows of the crashed thread, in the table's words."""
        frames = re.findall(r"frame #\d+: 0x[0-9a-f]+(.*)", text.rpartition("thread #2")[2])
        if not frames:
            return "refused"
        wanted = [(name, f" at {module}.c:{line}") for module, name, line in self.scene.frames]
        named = [name in shown for shown, (name, _) in zip(frames, wanted, strict=False)]
        if len(frames) == len(wanted) and all(named):
            return "works" if all(line in shown for shown, (_, line) in zip(frames, wanted, strict=True)) else "names"
        assert not any(named)
        return "modules" if self.scene.frames[0][0] in frames[0] else "addresses"


def make(folder: Path, arch: str) -> CrashFiles:
    scene = build_scene(folder / "built", arch)
    for file in scene.folder.glob("*.o"):
        file.unlink()  # LLDB would have lines from there
    symbols, dumps = folder / "symbols", folder / "dumps"
    dumps.mkdir()
    scene.folder.rename(symbols)
    scene.folder, scene.exe, scene.lib = dumps, symbols / scene.exe.name, symbols / scene.lib.name
    files = {"ours": scene.write("ours.zip", thread=1)}
    for name, data in (
        ("core with a list of images", with_images(scene)),
        ("core without", scene.core.bytes()),
        ("Crashpad's minidump", as_minidump(scene)),
        ("Breakpad's minidump", as_minidump(scene, breakpad=True)),
    ):
        files[name] = dumps / name.replace(" ", "-")
        files[name].write_bytes(data)
    uuids = {image.name: UUID(m.uuid) for image, m in zip((scene.exe, scene.lib), scene.modules, strict=True)}
    return CrashFiles(scene, symbols, files, uuids)


def with_images(scene: Scene) -> bytes:
    """Return the core with the note `all image infos`: struct all_image_infos_header, image_entry, segment_vmaddr."""
    modules, core = scene.modules, scene.core

    def noted(at: int) -> CoreFile:
        table_at = at + 24 + 48 * len(modules)
        names_at = table_at + 32 * len(modules)
        entries, table, names = b"", b"", b""
        for number, module in enumerate(modules):
            place = names_at + len(names), UUID(module.uuid).bytes, module.address, table_at + 32 * number, 1, 1
            entries += struct.pack("<Q16s2Q2I", *place)
            table += struct.pack("<16s2Q", b"__TEXT", module.address, 0)
            names += (module.path or "").encode() + b"\0"
        note = struct.pack("<2IQ2I", 1, len(modules), at + 24, 48, 0) + entries + table + names
        return CoreFile(core.cputype, core.subtype, core.regions, core.threads, [(b"all image infos", note)])

    return noted(noted(0).bytes().index(struct.pack("<2IQ2I", 1, len(modules), 24, 48, 0))).bytes()


def as_minidump(scene: Scene, *, breakpad: bool = False) -> bytes:
    """Return it as Crashpad lays it out, or as Breakpad does.

    The flags of its x86_64 contexts name no parts, as with rust-minidump's writer, and its arm64 contexts have the old
    layout.
    """
    stack = scene.core.regions[-1]
    names = X86_REGISTERS if scene.arch == "x86_64" else ARM_REGISTERS
    general = 4 if scene.arch == "x86_64" else 6
    threads = []
    for thread in scene.core.threads:
        values = struct.unpack_from(f"<{len(names)}Q", dict(states(thread))[general])
        threads.append(MiniThread(dict(zip(names, values, strict=True)), stack.address, stack.data))
    modules = [(m.address, 0x4000, m.path or "", UUID(m.uuid)) for m in scene.modules]
    flags = 0x100000 if breakpad else 0x10001F
    return minidump(modules, threads, 1, (1, 2, 0x10), arch=scene.arch, old=breakpad, flags=flags)
