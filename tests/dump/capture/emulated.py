"""A process that ran under Unicorn, seen through the `Task` protocol; dyld's lists are laid into its memory by hand."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from symcache.dump.capture import Region, ThreadCapture
from symcache.errors import EnvironmentFailure
from tests.corpus.dumpfile import make_dump
from tests.corpus.emulate import Machine

INFOS_AT = 0x2_0000_0000
CACHE_UUID = bytes(range(16))
CACHE_BASE = 0x7FF8_1234_0000


class EmulatedTask:
    """See `symcache.dump.capture.Task`. `calls` notes what was asked, in order."""

    def __init__(self, machine: Machine) -> None:
        dump = make_dump(machine, bundle_version="")
        self.cputype, self.cpusubtype = dump.cpu
        self.machine = machine
        self._threads = dump.threads
        self.calls: list[str] = []
        self.unreadable: set[int] = set()
        # struct dyld_image_info { header, path, modification date }, then the paths, then struct dyld_all_image_infos.
        modules = machine.process.modules
        dyld = next(m for m in modules if m.path == "/usr/lib/dyld")
        listed = [m for m in modules if m is not dyld]
        listed = [*listed[1:], listed[0]]  # the executable last: whoever lists it first must look for it
        paths_at = INFOS_AT + 0x1000 + 24 * len(listed)
        infos, paths = b"", b""
        for module in listed:
            infos += struct.pack("<3Q", module.load_address, paths_at + len(paths), 0)
            paths += module.path.encode() + b"\0"
        head = struct.pack("<IIQQ8xQ", 17, len(listed), INFOS_AT + 0x1000, 0, dyld.load_address)
        head = head.ljust(152, b"\0") + struct.pack("<Q16sQ", 0, CACHE_UUID, CACHE_BASE)
        self._dyld = (head.ljust(0x1000, b"\0") + infos + paths).ljust(0x8000, b"\0")

    def suspend(self) -> None:
        self.calls.append("suspend")

    def resume(self) -> None:
        self.calls.append("resume")

    def threads(self) -> list[ThreadCapture]:
        self.calls.append("threads")
        name = "rsp" if self.machine.intel else "sp"
        return [
            ThreadCapture(0x1000 + number, thread.registers[name], tuple(captured.states))
            for number, (thread, captured) in enumerate(zip(self.machine.threads, self._threads, strict=True))
        ]

    def regions(self) -> Iterator[Region]:
        for region in sorted(self.machine.process.regions, key=lambda r: r.address):
            yield Region(region.address, region.size, region.protection, region.stack)

    def read(self, address: int, size: int) -> bytes:
        if address >= INFOS_AT and address + size <= INFOS_AT + len(self._dyld):
            return self._dyld[address - INFOS_AT :][:size]
        if any(address <= page < address + size for page in self.unreadable):
            raise EnvironmentFailure(f"{address:#x}: gone")
        for region in self.machine.process.regions:
            if region.address <= address and address + size <= region.address + region.size:
                return region.data.ljust(region.size, b"\0")[address - region.address :][:size]
        raise EnvironmentFailure(f"{size} bytes at {address:#x}: nothing is mapped there")

    def dyld_all_image_infos(self) -> int:
        return INFOS_AT

    def os_build(self) -> str:
        return "22G830"

    def addressable_bits(self) -> int:
        return 0 if self.machine.intel else 47
