"""A crash laid out by hand around real compiled code: two images, a stack with a frame chain, its true frames.

Where calls return to comes from llvm-objdump, which line that is from llvm-symbolizer.
"""

from __future__ import annotations

import itertools
import re
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.dump.builder import ARM64, X86_64, CoreFile, Module, Region, arm_thread, header, write_dump, x86_thread
from tests.support.toolchain import compile_image, dsym

LIB = """
__attribute__((noinline)) int lib_inner(volatile int *p, int x) {
    *p = x;
    return x + 1;
}
__attribute__((noinline)) int lib_outer(volatile int *p, int x) {
    return lib_inner(p, x * 2) + 1;
}
"""
EXE = """
int (*volatile outer)(volatile int *, int);
__attribute__((noinline)) int middle(int x) {
    return outer((volatile int *)16, x) + 3;
}
int main(void) {
    return middle(4) + 1;
}
"""
EXE_BASE, LIB_BASE, STACK = 0x1_0432_0000, 0x1_8765_0000, 0x7000_0000_0000
STACK_SIZE = 0x4000
AUTHENTICATION = 0x0055_0000_0000_0000
"""Signature bits as pointer authentication puts them above the address."""


@dataclass
class Scene:
    arch: str
    folder: Path
    exe: Path
    lib: Path
    frames: list[tuple[str, str, int]] = field(default_factory=list)
    """Module, function, line: top frame first."""
    core: CoreFile = field(default_factory=CoreFile)
    modules: list[Module] = field(default_factory=list)

    def write(self, name: str = "crash.zip", **changes: object) -> Path:
        return write_dump(self.folder / name, header(self.modules, **changes), self.core.bytes())  # type: ignore[arg-type]


def _uuid(image: Path) -> str:
    text = subprocess.run(
        ["llvm-dwarfdump-19", "--uuid", str(image)], capture_output=True, text=True, check=True
    ).stdout
    return text.split()[1]


def _disassembly(image: Path) -> dict[str, list[tuple[int, str]]]:
    """Return address and mnemonic of every instruction, by function."""
    out = subprocess.run(
        ["llvm-objdump-19", "-d", "--no-show-raw-insn", str(image)], capture_output=True, text=True, check=True
    ).stdout
    functions: dict[str, list[tuple[int, str]]] = {}
    for line in out.splitlines():
        if match := re.match(r"[0-9a-f]+ <_(\w+)>:", line):
            current = functions.setdefault(match[1], [])
        elif (match := re.match(r"\s*([0-9a-f]+):\s+(.*)", line)) and functions:
            current.append((int(match[1], 16), match[2]))
    return functions


def _after_call(code: list[tuple[int, str]]) -> int:
    """Return the address behind the first call of a function."""
    for (_, text), (following, _) in itertools.pairwise(code):
        if re.match(r"(callq?|bl|blr)\s", text):
            return following
    raise AssertionError("no call")


def _line(debug: Path, address: int) -> int:
    out = subprocess.run(
        ["llvm-symbolizer-19", f"--obj={debug}", hex(address)], capture_output=True, text=True, check=True
    ).stdout
    return int(out.splitlines()[1].rsplit(":", 2)[1])


def build_scene(folder: Path, arch: str, *, signed: bool = False) -> Scene:
    exe = compile_image(folder, "Ledger", EXE, arch=arch, dylib=False)
    lib = compile_image(folder, "libmath.dylib", LIB, arch=arch)
    exe_code, lib_code = _disassembly(exe), _disassembly(lib)
    exe_dwarf = dsym(exe) / "Contents/Resources/DWARF/Ledger"
    lib_dwarf = dsym(lib) / "Contents/Resources/DWARF/libmath.dylib"
    store = next(a for a, text in lib_code["lib_inner"] if re.match(r"(movl\s+%esi, \(|str\s+w1, \[x0)", text))
    returns = [
        ("libmath.dylib", "lib_outer", _after_call(lib_code["lib_outer"]), lib_dwarf),
        ("Ledger", "middle", _after_call(exe_code["middle"]), exe_dwarf),
        ("Ledger", "main", _after_call(exe_code["main"]), exe_dwarf),
    ]
    linked = 0x1_0000_0000  # executables are linked above 4 GiB, dylibs at 0
    pc = LIB_BASE + store
    live = [LIB_BASE + returns[0][2], *(EXE_BASE + r[2] - linked for r in returns[1:])]
    frames = [("libmath.dylib", "lib_inner", _line(lib_dwarf, store))]
    frames += [(module, name, _line(dwarf, address - 1)) for module, name, address, dwarf in returns]

    scene = Scene(arch, folder, exe, lib, frames)
    stack = bytearray(STACK_SIZE)
    place = 0x2000
    first = STACK + place
    mark = AUTHENTICATION if signed else 0
    chain = live if arch == "x86_64" else live[1:]
    for address in chain:
        frame = STACK + place + 0x40
        last = address == chain[-1]
        struct.pack_into("<2Q", stack, place, frame, address | mark)
        place += 0x40
        if last:
            struct.pack_into("<2Q", stack, place, 0, 0)
    if arch == "x86_64":
        thread = x86_thread((14, 6, 0x10), rip=pc, rbp=first, rsp=first - 0x10 + 0x10, rdi=0x10, rsi=8)
        other = x86_thread(rip=live[1], rbp=first + 0x80, rsp=first + 0x70)
    else:
        # lib_inner is a leaf without a frame: it returns to lr, and fp is lib_outer's.
        esr = 0x24 << 26 | 1 << 25 | 0x40 | 0x04  # data abort, write, translation fault of level 0
        thread = arm_thread((1, esr, 0x10), pc=pc, lr=live[0] | mark, fp=first, sp=first - 0x10, x0=0x10, x1=8)
        other = arm_thread(pc=live[1], lr=live[1], fp=first + 0x40, sp=first + 0x30)
    scene.core = CoreFile(
        ARM64 if arch == "arm64" else X86_64,
        0 if arch == "arm64" else 3,
        [
            Region(EXE_BASE, 0x4000),
            Region(EXE_BASE + 0x4000, 0x4000, protection=3),
            Region(LIB_BASE, 0x4000),
            Region(STACK, STACK_SIZE, bytes(stack), protection=3),
        ],
        [other, thread],
    )
    scene.modules = [
        Module(EXE_BASE, "/Applications/Ledger.app/Contents/MacOS/Ledger", _uuid(exe).replace("-", "").lower()),
        Module(LIB_BASE, "/Applications/Ledger.app/Contents/Frameworks/libmath.dylib", _uuid(lib), 0x10203),
    ]
    return scene
