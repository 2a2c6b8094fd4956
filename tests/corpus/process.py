"""The address space of a macOS process: executable, own dylib and shared cache, bound and slid, with stacks.

Images outside the shared cache are read with LIEF, so that nothing here depends on the project's own readers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lief

READ, WRITE, EXECUTE = 1, 2, 4
# Where things lie, as macOS would place them; all slides are multiples of both page sizes.
_PLACES = {
    "x86_64": {
        "executable_slide": 0x09A14000, "dylibs": 0x109A94000, "cache_slide": 0x02D30000,
        "stack": 0x7FF7B64EC000, "threads": 0x70000D2F8000,
    },
    "arm64": {
        "executable_slide": 0x02A58000, "dylibs": 0x102AEC000, "cache_slide": 0x07C14000,
        "stack": 0x16D3A8000, "threads": 0x16D3AC000,
    },
}  # fmt: skip
STACK_SIZE = 0x80000
PAGE = {"x86_64": 0x1000, "arm64": 0x4000}


@dataclass
class Region:
    """A stretch of memory; `data` is shorter than `size` where the rest is zero."""

    address: int
    size: int
    protection: int
    data: bytes
    name: str
    stack: bool = False


@dataclass
class Module:
    """An image in the process. `segments`: (name, address in `file`, address in the process, size)."""

    path: str
    uuid: str
    file: Path
    segments: list[tuple[str, int, int, int]]
    version: int | None
    debug: Path | None = None

    @property
    def load_address(self) -> int:
        return next(loaded for name, _, loaded, _ in self.segments if name == "__TEXT")

    def file_address(self, address: int) -> int | None:
        """Where an address of the process lies in `file`, or None when it is not this module's."""
        for name, original, loaded, size in self.segments:
            if name != "__LINKEDIT" and loaded <= address < loaded + size:
                return original + address - loaded
        return None

    def loaded_address(self, address: int) -> int:
        """Where an address of `file` lies in the process."""
        for name, original, loaded, size in self.segments:
            if name != "__LINKEDIT" and original <= address < original + size:
                return loaded + address - original
        raise ValueError(f"{self.path} has no address {address:#x}")


@dataclass
class Process:
    """Memory and modules; the executable is the first module."""

    arch: str
    regions: list[Region] = field(default_factory=list)
    modules: list[Module] = field(default_factory=list)

    def module_at(self, address: int) -> Module | None:
        return next((m for m in self.modules if m.file_address(address) is not None), None)

    @property
    def stack_top(self) -> int:
        return _PLACES[self.arch]["stack"]

    def add_stack(self, name: str) -> Region:
        """Make a stack below the last one's place: the first is the main thread's."""
        number = sum(r.stack for r in self.regions)
        if number == 0:
            base = self.stack_top - STACK_SIZE
        else:
            base = _PLACES[self.arch]["threads"] + (number - 1) * (STACK_SIZE + PAGE[self.arch])
        region = Region(base, STACK_SIZE, READ | WRITE, b"", name, stack=True)
        self.regions.append(region)
        return region


@dataclass(frozen=True)
class AppImage:
    """An image that is not in the shared cache."""

    path: str
    file: Path
    debug: Path | None = None


def parse(file: Path) -> Any:
    """The only slice of a thin file, as LIEF reads it."""
    fat = lief.MachO.parse(str(file))
    if fat is None or fat.size != 1:
        raise ValueError(f"{file} is not a thin Mach-O file")
    return fat.at(0)


def version_of(binary: Any) -> int | None:
    """current_version of LC_ID_DYLIB in its packed form, xxxx.yy.zz in 16.8.8 bits; None when there is none."""
    for command in binary.commands:
        if command.command == lief.MachO.LoadCommand.TYPE.ID_DYLIB:
            major, minor, patch = command.current_version[:3]
            return int(major << 16 | minor << 8 | patch)
    return None


def uuid_of(binary: Any) -> str:
    """LC_UUID as 32 upper-case hexadecimal digits."""
    return bytes(binary.uuid.uuid).hex().upper()


def exports_of(binary: Any) -> dict[str, int]:
    """Exported symbols of an image: name, address in the file."""
    return {
        str(s.name): int(s.value)
        for s in binary.symbols
        if s.has_export_info or (s.type == lief.MachO.Symbol.TYPE.SECTION and s.raw_type & 1)
    }


def _align(value: int, page: int) -> int:
    return -(-value // page) * page


def _map_image(process: Process, image: AppImage, slide: int, resolve: Callable[[str], int]) -> Module:
    binary = parse(image.file)
    raw = image.file.read_bytes()
    segments = []
    contents: list[tuple[Any, bytearray]] = []
    for segment in binary.segments:
        if segment.name == "__PAGEZERO":
            continue
        data = bytearray(raw[segment.file_offset : segment.file_offset + segment.file_size])
        data += bytes(max(0, segment.virtual_size - len(data)))
        contents.append((segment, data))
        segments.append((segment.name, segment.virtual_address, segment.virtual_address + slide, segment.virtual_size))

    def store(address: int, value: int) -> None:
        segment, data = next((s, d) for s, d in contents if 0 <= address - s.virtual_address < s.virtual_size)
        at = address - segment.virtual_address
        data[at : at + 8] = value.to_bytes(8, "little")

    for relocation in binary.relocations:
        store(relocation.address, relocation.target + slide)
    for binding in binary.bindings:
        store(binding.address, resolve(binding.symbol.name) + binding.addend)
    page = PAGE[process.arch]
    for segment, data in contents:
        # dyld makes __DATA_CONST read-only once it is bound.
        protection = READ if segment.name == "__DATA_CONST" else int(segment.init_protection)
        process.regions.append(
            Region(
                segment.virtual_address + slide, _align(segment.virtual_size, page), protection, bytes(data),
                f"{segment.name} {image.path}",
            )
        )  # fmt: skip
    module = Module(image.path, uuid_of(binary), image.file, segments, version_of(binary), image.debug)
    process.modules.append(module)
    return module


@dataclass
class SystemMemory:
    """The shared cache of a process: its images and (address, bytes, protection) of its mappings, slid."""

    modules: list[Module]
    memory: list[tuple[int, bytes, int]]


def side_by_side(arch: str, libraries: dict[str, Path]) -> SystemMemory:
    """Lay libraries out one after the other as they are: a shared cache without a cache builder."""
    scratch = Process(arch)
    exports: dict[str, int] = {}
    base = (0x7FF800000000 if arch == "x86_64" else 0x180000000) + _PLACES[arch]["cache_slide"]
    for path, file in libraries.items():
        # Every library lies behind those that it needs.
        module = _map_image(scratch, AppImage(path, file), base, exports.__getitem__)
        _offer(module, exports)
        base = _align(max(place + size for _, _, place, size in module.segments), 0x10000)
    return SystemMemory(scratch.modules, [(r.address, r.data, r.protection) for r in scratch.regions])


def _offer(module: Module, exports: dict[str, int]) -> None:
    if not module.path.endswith("/dyld"):  # nothing links with dyld
        for name, address in exports_of(parse(module.file)).items():
            exports.setdefault(name, module.loaded_address(address))


def make_process(arch: str, executable: AppImage, dylibs: Iterable[AppImage], system: SystemMemory) -> Process:
    """Lay out a process: executable, own dylibs, shared cache, all bound."""
    process, scratch = Process(arch), Process(arch)
    exports: dict[str, int] = {}
    for module in system.modules:
        _offer(module, exports)
    at = _PLACES[arch]["dylibs"]
    for dylib in dylibs:
        module = _map_image(scratch, dylib, at, exports.__getitem__)
        _offer(module, exports)
        at = _align(max(place + size for _, _, place, size in module.segments), 0x10000)
    _map_image(process, executable, _PLACES[arch]["executable_slide"], exports.__getitem__)
    process.modules += [*scratch.modules, *system.modules]
    process.regions += scratch.regions
    page = PAGE[arch]
    for number, (address, data, protection) in enumerate(system.memory):
        process.regions.append(
            Region(address, _align(len(data), page), protection, data, f"shared cache mapping {number}")
        )
    return process


def cache_slide(arch: str) -> int:
    """The slide of the shared cache in this process, in bytes."""
    return _PLACES[arch]["cache_slide"]
