"""Write a dump: a zip whose member is an XML header with a Mach-O core behind it. Independent of the project's own.

Structures are those of <mach-o/loader.h>, <mach/i386/_structs.h> and <mach/arm/_structs.h>.
"""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr

from tests.corpus.emulate import Machine, Thread
from tests.corpus.process import Region

MEMBER = "minidump.dmp"
_PAGE = 0x1000
_USER_CS = 0x2B


@dataclass
class DumpModule:
    """One element of m_vecmodule; what is None is left out."""

    address: int
    path: str | None
    version: int | None
    uuid: str | None


@dataclass
class CoreThread:
    """One LC_THREAD: (flavor, state) in the order they are written."""

    states: list[tuple[int, bytes]]


@dataclass
class Dump:
    """All that goes into a dump file. Change it before `to_zip` to make a variant."""

    executable: str
    bundle_version: str
    thread: int
    modules: list[DumpModule]
    cpu: tuple[int, int]
    regions: list[Region]
    threads: list[CoreThread]
    notes: list[tuple[str, bytes]] = field(default_factory=list)
    version: int = 1

    def xml(self) -> bytes:
        """The header, from <root> to </root>."""
        parts = [
            f"<root><version val={quoteattr(str(self.version))}/><PersistentType>",
            f"<m_strExecutable>{escape(self.executable)}</m_strExecutable>",
            f"<m_strBundleVersion>{escape(self.bundle_version)}</m_strBundleVersion>",
            f'<m_nThread val="{self.thread}"/><m_vecmodule length="{len(self.modules)}">',
        ]
        for module in self.modules:
            parts.append(f'<elem><m_pvStartAddress val="{module.address}"/>')
            if module.path is not None:
                parts.append(f"<m_strPath>{escape(module.path)}</m_strPath>")
            if module.version is not None:
                parts.append(f'<m_modver val="{module.version}"/>')
            if module.uuid is not None:
                parts.append(f'<m_uuid val="{module.uuid}"/>')
            parts.append("</elem>")
        parts.append("</m_vecmodule></PersistentType></root>")
        return "".join(parts).encode()

    def core(self) -> bytes:
        """The MH_CORE file. Stacks have bytes, everything else is only named."""
        commands = []
        regions = sorted(self.regions, key=lambda r: r.address)
        threads = b""
        for thread in self.threads:
            state = b"".join(struct.pack("<II", flavor, len(data) // 4) + data for flavor, data in thread.states)
            threads += struct.pack("<II", 0x4, 8 + len(state)) + state
        size = 32 + 72 * len(regions) + len(threads) + 40 * len(self.notes)
        at = -(-size // _PAGE) * _PAGE
        payload = bytearray()
        for owner, data in self.notes:
            commands.append(struct.pack("<II16sQQ", 0x31, 40, owner.encode(), at + len(payload), len(data)))
            payload += data
        payload += bytes(-len(payload) % _PAGE)
        for region in regions:
            data = region.data.ljust(region.size, b"\0") if region.stack else b""
            commands.append(
                struct.pack(
                    "<II16sQQQQiiII", 0x19, 72, b"", region.address, region.size, at + len(payload) if data else 0,
                    len(data), region.protection, region.protection, 0, 0,
                )
            )  # fmt: skip
            payload += data
        count = len(commands) + len(self.threads)
        head = struct.pack("<IIIIIIII", 0xFEEDFACF, *self.cpu, 4, count, size - 32, 0, 0)
        return (head + b"".join(commands) + threads).ljust(at, b"\0") + bytes(payload)

    def to_zip(self) -> bytes:
        """The file; the same content gives the same bytes."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            member = zipfile.ZipInfo(MEMBER, (2024, 7, 29, 12, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            member.create_system = 3
            archive.writestr(member, self.xml() + self.core())
        return buffer.getvalue()


def _thread_states(thread: Thread, arch: str) -> CoreThread:
    registers, fault = thread.registers, thread.fault
    if arch == "x86_64":
        order = ("rax", "rbx", "rcx", "rdx", "rdi", "rsi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)), "rip")
        general = struct.pack("<21Q", *(registers[n] for n in order), registers["rflags"], _USER_CS, 0, 0)
        # T_PAGE_FLT with the CPU's error code: 1 present, 2 write, 4 user. A waiting thread: 0x85 is a system call,
        # and the error code its number.
        error = 4 | (2 if fault and fault.write else 0) | (1 if fault and fault.present else 0)
        exception = (
            struct.pack("<HHIQ", 14, 0, error, fault.address)
            if fault
            else struct.pack("<HHIQ", 133, 0, registers["rax"], 0)
        )
        return CoreThread([(4, general), (6, exception)])
    order = (*(f"x{n}" for n in range(29)), "fp", "lr", "sp", "pc")
    general = struct.pack("<33QII", *(registers[n] for n in order), registers["cpsr"], 0)
    # ESR_EL1: exception class (data abort or SVC from a lower level), 32-bit instruction, WnR, fault status.
    esr = 0x92000000 | (0x40 if fault and fault.write else 0) | (0xF if fault and fault.present else 0x6)
    exception = struct.pack("<QII", fault.address, esr, 0) if fault else struct.pack("<QII", 0, 0x56000080, 0)
    return CoreThread([(6, general), (7, exception)])


def make_dump(machine: Machine, *, bundle_version: str) -> Dump:
    """Describe a finished run as a dump."""
    process = machine.process
    crashed = next(i for i, t in enumerate(machine.threads) if t.fault)
    return Dump(
        process.modules[0].path,
        bundle_version,
        crashed,
        [DumpModule(m.load_address, m.path, m.version, m.uuid.lower()) for m in process.modules],
        (0x01000007, 3) if process.arch == "x86_64" else (0x0100000C, 0),
        list(process.regions),
        [_thread_states(t, process.arch) for t in machine.threads],
    )
