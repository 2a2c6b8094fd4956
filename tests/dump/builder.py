"""Dumps and cores put together by hand, after the format description and <mach-o/loader.h>, without the reader."""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

X86_64, ARM64 = 0x0100_0007, 0x0100_000C
X86_REGISTERS = [
    *("rax", "rbx", "rcx", "rdx", "rdi", "rsi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
    *("rip", "rflags", "cs", "fs", "gs"),
]
ARM_REGISTERS = [*(f"x{n}" for n in range(29)), "fp", "lr", "sp", "pc"]
PAGE = 0x1000


@dataclass
class Region:
    address: int
    size: int
    data: bytes = b""
    protection: int = 5
    truncate_to: int | None = None


@dataclass
class CoreFile:
    cputype: int = X86_64
    subtype: int = 3
    regions: list[Region] = field(default_factory=list)
    threads: list[bytes] = field(default_factory=list)
    notes: list[tuple[bytes, bytes]] = field(default_factory=list)
    filetype: int = 4
    extra_commands: list[bytes] = field(default_factory=list)
    ncmds: int | None = None
    sizeofcmds: int | None = None

    def bytes(self) -> bytes:
        size = 72 * len(self.regions) + sum(8 + len(t) for t in self.threads) + 40 * len(self.notes)
        size += sum(len(c) for c in self.extra_commands)
        offset = (32 + size + PAGE - 1) & -PAGE
        commands, tail = b"", b""
        for region in self.regions:
            kept = len(region.data)
            place = (region.address, region.size, offset if kept else 0, kept)
            commands += struct.pack("<2I16s4Q4I", 0x19, 72, b"", *place, 7, region.protection, 0, 0)
            tail += region.data
            offset += kept
        for thread in self.threads:
            commands += struct.pack("<2I", 4, 8 + len(thread)) + thread
        for owner, payload in self.notes:
            commands += struct.pack("<2I16s2Q", 0x31, 40, owner, offset, len(payload))
            tail += payload
            offset += len(payload)
        commands += b"".join(self.extra_commands)
        count = len(self.regions) + len(self.threads) + len(self.notes) + len(self.extra_commands)
        head = struct.pack(
            "<8I",
            0xFEEDFACF,
            self.cputype,
            self.subtype,
            self.filetype,
            count if self.ncmds is None else self.ncmds,
            len(commands) if self.sizeofcmds is None else self.sizeofcmds,
            0,
            0,
        )
        whole = head + commands
        return whole + bytes(-len(whole) % PAGE) + tail


def x86_thread(exception: tuple[int, int, int] | None = None, **registers: int) -> bytes:
    state = struct.pack("<2I", 4, 42) + struct.pack("<21Q", *(registers.get(r, 0) for r in X86_REGISTERS))
    state += struct.pack("<2I", 5, 131) + bytes(131 * 4)
    if exception:
        number, code, address = exception
        state += struct.pack("<2I", 6, 4) + struct.pack("<2HIQ", number, 1, code, address)
    return state


def arm_thread(exception: tuple[int, int, int] | None = None, **registers: int) -> bytes:
    values = [registers.get(r, 0) for r in ARM_REGISTERS]
    state = struct.pack("<2I", 6, 68) + struct.pack("<33Q2I", *values, 0x6000_0000, 0)
    if exception:
        number, esr, address = exception
        state += struct.pack("<2I", 7, 4) + struct.pack("<QII", address, esr, number)
    return state


THREAD_STRUCTURES = {
    X86_64: (744, {4: (8, 16, 42), 5: (184, 192, 131), 6: (720, 728, 4)}),
    ARM64: (864, {6: (8, 16, 68), 17: (288, 304, 132), 7: (832, 840, 4)}),
}
"""think-cell's structure of a thread's command: its size and, by flavor, where header and state lie, and its count.
The one of arm64 is the same with arm64's states. A test has a compiler check it against Apple's headers."""


def states(thread: bytes) -> list[tuple[int, bytes]]:
    """Return the (flavor, state) that lie one behind the other."""
    found = []
    while thread:
        flavor, count = struct.unpack_from("<2I", thread)
        found.append((flavor, thread[8 : 8 + 4 * count]))
        thread = thread[8 + 4 * count :]
    return found


def structured(cputype: int, thread: bytes, padding: bytes) -> bytes:
    """Lay the states of a thread out as a compiler does: what belongs to no member is whatever lay there."""
    size, places = THREAD_STRUCTURES[cputype]
    data = bytearray((padding * size)[:size])
    held = dict(states(thread))
    for flavor, (header, content, count) in places.items():
        struct.pack_into("<2I", data, header, flavor, count)
        state = held.get(flavor) or (VECTORS if flavor == 17 else bytes(4 * count))
        data[content : content + len(state)] = state
    return bytes(data[8:])


VECTORS = struct.pack("<64Q2I", *(0x0101_0101_0101_0101 * n for n in range(64)), 0x11, 0x22)
"""ARM_NEON_STATE64 without the padding at its end: v0 to v31, fpsr, fpcr."""


@dataclass
class Module:
    address: int
    path: str | None = None
    uuid: str | None = None
    version: int | None = None

    def xml(self) -> str:
        parts = [f'<m_pvStartAddress val="{self.address}"/>']
        if self.path is not None:
            parts.append(f"<m_strPath>{escape(self.path)}</m_strPath>")
        if self.version is not None:
            parts.append(f'<m_modver val="{self.version}"/>')
        if self.uuid is not None:
            parts.append(f'<m_uuid val="{self.uuid}"/>')
        return f"<elem>{''.join(parts)}</elem>"


def header(
    modules: list[Module],
    *,
    executable: str = "Ledger",
    bundle_version: str = "",
    thread: int | str = 0,
    length: int | str | None = None,
    extra: str = "",
) -> bytes:
    count = len(modules) if length is None else length
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="yes"?><root><version val="25000"/><PersistentType>'
        f"<m_strExecutable>{escape(executable)}</m_strExecutable>"
        f"<m_strBundleVersion>{escape(bundle_version)}</m_strBundleVersion>"
        f'<m_nThread val="{thread}"/>{extra}'
        f'<m_vecmodule length="{count}">{"".join(m.xml() for m in modules)}</m_vecmodule>'
        "</PersistentType></root>"
    ).encode()


def zipped(content: bytes, member: str = "minidump.dmp", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr(member, content)
    return buffer.getvalue()


def write_dump(path: Path, head: bytes, core: bytes) -> Path:
    path.write_bytes(zipped(head + core))
    return path


def small_core(threads: int = 1) -> CoreFile:
    """Return a core with a stack and some code, whose threads do nothing in particular."""
    stack = Region(0x7000_0000_0000, 0x2000, bytes(0x2000), protection=3)
    code = Region(0x1_0000_0000, 0x4000)
    states = [x86_thread((14, 6, 0x10), rip=0x1_0000_1000, rsp=0x7000_0000_1000, rbp=0x7000_0000_1000)]
    return CoreFile(regions=[code, stack], threads=states * threads)


MODULE = Module(
    0x1_0000_0000, "/Applications/Ledger.app/Contents/MacOS/Ledger", "0123456789abcdef0123456789abcdef", 65536
)
