"""What `dyld_shared_cache_util -info` prints of a cache."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from symcache.demo.cache_files import CacheFile
from symcache.model import uuid_text

__all__ = ["info_lines"]

_PLATFORMS = {1: "macOS", 2: "iOS", 3: "tvOS", 4: "watchOS", 5: "bridgeOS", 6: "macCatalyst", 10: "driverKit"}
_TYPES = {0: "development", 1: "production", 2: "universal"}
_LOCALLY_BUILT, _EXPECTED_ON_DISK = 1 << 10, 1 << 8
_ROSETTA = (("Rosetta RO:", 0x1A0), ("Rosetta RW:", 0x1B0))
_DYNAMIC_DATA = 0x1F0


def info_lines(files: list[CacheFile]) -> Iterator[str]:
    """Yield the lines for a main file and its sub-caches."""
    header = files[0].header
    yield f"uuid: {uuid_text(header.uuid) if header.uuid else 'n/a'}"
    yield f"platform: {_PLATFORMS.get(header.platform, 'unknown')}"
    yield f"built by: {'local machine' if header.flags & _LOCALLY_BUILT else 'B&I'}"
    yield f"cache type: {_TYPES.get(header.cache_type, 'unknown')}"
    if header.flags & _EXPECTED_ON_DISK:
        yield "dylibs expected on disk: true"
    if header.cache_type == 2:
        yield f"cache sub-type: {_TYPES.get(header.cache_sub_type, 'unknown')}"
    yield f"image count: {len(files[0].images())}"
    yield f"ASLR entropy: {_entropy(header.max_slide, header.arch)}-bits ({header.max_slide >> 20}MB)"
    yield "mappings:"
    dynamic = _pair(files[0], _DYNAMIC_DATA)
    for number, file in enumerate(files):
        last = number == len(files) - 1
        yield from _file_lines(number, file, dynamic if last else None, files[0].mappings[0].address)


def _entropy(max_slide: int, arch: str) -> int:
    """Return the bits of slide, counted in the steps that captured output shows for either architecture."""
    if not max_slide:
        return 0
    return (max_slide - 1).bit_length() - (14 if arch.startswith("x86_64") else 12)


def _file_lines(number: int, file: CacheFile, dynamic: tuple[int, int] | None, base: int) -> Iterator[str]:
    header = file.header
    for m in file.mappings:
        yield (
            f"{m.name:>20} {m.size >> 20:4}MB,  file offset: #{number}/0x{m.file_offset:08X} ->"
            f" 0x{m.file_offset + m.size:08X},  address: 0x{m.address:08X} -> 0x{m.address + m.size:08X},"
            f" {_protection(m.init_prot)} -> {_protection(m.max_prot)}"
        )
    if dynamic and dynamic[1]:
        # An offset from the main file's header, behind all files; the kernel makes this region.
        yield _region(f"{'dynamic config':>16} {dynamic[1] >> 10:4}KB,", 69, base + dynamic[0], dynamic[1])
    if header.code_signature_offset:
        end = header.code_signature_offset + header.code_signature_size
        yield (
            f"{'code sign':>20} {header.code_signature_size >> 20:4}MB,  file offset:"
            f" #{number}/0x{header.code_signature_offset:08X} -> 0x{end:08X}"
        )
    for title, offset in _ROSETTA:
        if (region := _pair(file, offset)) and region[1]:
            yield _region(f"{title}{region[1] >> 20:10}MB,", 66, *region)
    for m in file.mappings:
        if m.slide_info_size:
            end = m.slide_info_offset + m.slide_info_size
            yield (
                f"slide info:{m.slide_info_size >> 10:10}KB,  file offset:"
                f" #{number}/0x{m.slide_info_offset:08X} -> 0x{end:08X}"
            )
    if header.local_symbols_offset:
        end = header.local_symbols_offset + header.local_symbols_size
        yield (
            f"local symbols:{header.local_symbols_size >> 20:7}MB,  file offset:"
            f" #{number}/0x{header.local_symbols_offset:08X} -> 0x{end:08X}"
        )


def _region(title: str, column: int, address: int, size: int) -> str:
    """Return a line of something that no file holds."""
    return f"{title:{column}}address: 0x{address:08X} -> 0x{address + size:08X}"


def _pair(file: CacheFile, offset: int) -> tuple[int, int] | None:
    """Return two 64-bit header fields, or None where the header ends before them."""
    if offset + 16 > file.header.mapping_offset:
        return None
    first, second = struct.unpack_from("<2Q", file.data, offset)
    return first, second


def _protection(prot: int) -> str:
    return "".join(letter if prot & bit else "-" for letter, bit in (("r", 1), ("w", 2), ("x", 4)))
