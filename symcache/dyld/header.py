"""struct dyld_cache_header of every era, and the small tables behind it.

Source: dyld's `cache-builder/dyld_cache_format.h`, versions 95 to 1378. The struct only ever grew, and
`mappingOffset` is the size that the producing builder knew: a field is there if it ends at or before it, and what lies
beyond is the mapping table, never to be read as fields. All numbers are little-endian.
"""

from __future__ import annotations

import mmap
import re
import struct
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from symcache.errors import SharedCacheError

__all__ = ["HEAD_SIZE", "Header", "Mapping", "SubcacheEntry", "parse_header", "parse_mappings", "parse_subcaches"]

HEAD_SIZE = 1 << 20
"""A read of this size holds the header and the table that names other files. That table lies behind those of the
images, 64 bytes an image: 16,000 images fit, four times what any macOS has had."""
MAX_HEADER = 0x400
"""Bytes of a header that are looked at: more than any has."""
_MAX_MAPPINGS = 20
_MAX_SUBCACHES = 1024
_MAGIC = b"dyld_v1"
_ARCH = re.compile(r"[A-Za-z0-9_]{1,8}")

# name, offset, struct format. Only what is used here; offsets as in the struct.
_FIELDS = (
    ("mapping_offset", 0x10, "I"),
    ("mapping_count", 0x14, "I"),
    ("images_offset_old", 0x18, "I"),
    ("images_count_old", 0x1C, "I"),
    ("code_signature_offset", 0x28, "Q"),
    ("code_signature_size", 0x30, "Q"),
    ("slide_info_offset", 0x38, "Q"),
    ("slide_info_size", 0x40, "Q"),
    ("local_symbols_offset", 0x48, "Q"),
    ("local_symbols_size", 0x50, "Q"),
    ("uuid", 0x58, "16s"),
    ("cache_type", 0x68, "Q"),
    ("images_text_offset", 0x88, "Q"),
    ("images_text_count", 0x90, "Q"),
    ("platform", 0xD8, "I"),
    ("flags", 0xDC, "I"),
    ("max_slide", 0xF0, "Q"),
    ("dylibs_trie_address", 0x108, "Q"),
    ("dylibs_trie_size", 0x110, "Q"),
    ("mapping_with_slide_offset", 0x138, "I"),
    ("mapping_with_slide_count", 0x13C, "I"),
    ("os_version", 0x16C, "I"),
    ("subcache_array_offset", 0x188, "I"),
    ("subcache_array_count", 0x18C, "I"),
    ("symbol_file_uuid", 0x190, "16s"),
    ("images_offset_new", 0x1C0, "I"),
    ("images_count_new", 0x1C4, "I"),
    ("cache_sub_type", 0x1C8, "I"),
    ("cputype", 0x228, "I"),
    ("cpusubtype", 0x22C, "I"),
)
_IMAGES_TABLE_MOVED = 0x1C8
_SUFFIXES_STORED = 0x1C8
"""Entries carry their file's suffix in headers larger than this."""


@dataclass(frozen=True, slots=True)
class Header:
    """The fields of one cache file's header; zero where the builder did not know a field."""

    arch: str
    """As the magic spells it: `x86_64`, `arm64e`, `arm64ex1`, …"""
    magic: bytes
    mapping_offset: int
    mapping_count: int
    images_offset_old: int
    images_count_old: int
    code_signature_offset: int
    code_signature_size: int
    slide_info_offset: int
    slide_info_size: int
    local_symbols_offset: int
    local_symbols_size: int
    uuid: UUID | None
    """Of this file; None before 10.9."""
    cache_type: int
    images_text_offset: int
    images_text_count: int
    platform: int
    """Mach-O platform number: 1 macOS, 10 DriverKit, …; 0 unknown."""
    flags: int
    max_slide: int
    dylibs_trie_address: int
    dylibs_trie_size: int
    mapping_with_slide_offset: int
    mapping_with_slide_count: int
    os_version: int
    subcache_array_offset: int
    subcache_array_count: int
    symbol_file_uuid: UUID | None
    """Of the `.symbols` companion; None when there is none."""
    images_offset_new: int
    images_count_new: int
    cache_sub_type: int
    cputype: int
    cpusubtype: int

    @property
    def images_table(self) -> tuple[int, int]:
        """(file offset, count) of the dyld_cache_image_info array."""
        if self.mapping_offset >= _IMAGES_TABLE_MOVED and self.images_offset_new:
            return self.images_offset_new, self.images_count_new
        return self.images_offset_old, self.images_count_old

    @property
    def stores_suffixes(self) -> bool:
        """True when sub-cache entries are of the 56-byte form that names its file."""
        return self.mapping_offset > _SUFFIXES_STORED

    @property
    def has_wide_local_symbols(self) -> bool:
        """True when local-symbol entries are of the 16-byte form, keyed by VM offset."""
        return self.mapping_offset >= 0x190


class Mapping(NamedTuple):
    """One dyld_cache_mapping_and_slide_info, or the older mapping_info with no slide info of its own."""

    address: int
    size: int
    file_offset: int
    slide_info_offset: int
    slide_info_size: int
    flags: int
    max_prot: int
    init_prot: int

    @property
    def name(self) -> str:
        """A name from protection and flags, as Apple's tools derive it."""
        if self.init_prot & 4:
            return "__TEXT_STUBS" if self.flags & 8 else "__TEXT"
        if self.max_prot & 2:
            base = "__AUTH" if self.flags & 1 else "__DATA"
            for bit, suffix in ((2, "_DIRTY"), (0x40, "_TPRO_CONST"), (4, "_CONST")):
                if self.flags & bit:
                    return base + suffix
            return base
        return "__READ_ONLY" if self.flags & 0x20 else "__LINKEDIT"


class SubcacheEntry(NamedTuple):
    """One dyld_subcache_entry."""

    uuid: UUID | None
    vm_offset: int
    """Of the sub-cache's first mapping, from that of the main file."""
    suffix: str
    """What is appended to the base path."""


def parse_header(data: bytes | mmap.mmap, name: str) -> Header:
    """Return the header at the start of `data` (bytes or a mapped file). Raises SharedCacheError naming `name`."""
    head = bytes(data[:MAX_HEADER])
    size = int.from_bytes(head[0x10:0x14], "little") if len(head) >= 0x28 else 0x28
    if head[:7] == _MAGIC and len(head) < size <= MAX_HEADER:
        raise SharedCacheError(
            f"{name}: has {len(head):#x} bytes, but its header alone {size:#x}",
            hint="the copy is cut: copy the file again",
        )
    if head[:7] != _MAGIC or len(head) < 0x28 or head[15] != 0:
        raise SharedCacheError(
            f"{name}: not a dyld shared cache (it starts with {head[:16]!r})",
            hint="name the main file, e.g. dyld_shared_cache_arm64e; a copy may be encrypted, compressed or empty",
        )
    arch = head[7:15].decode("ascii", "replace").strip(" \0")
    if not _ARCH.fullmatch(arch):
        raise SharedCacheError(f"{name}: the architecture in its magic, {head[7:15]!r}, is no name")
    if arch == "ppc":
        raise SharedCacheError(
            f"{name}: a PowerPC cache of Mac OS X 10.5 or 10.6, whose numbers are big-endian: not supported",
            hint="name the cache of an Intel architecture beside it",
        )
    if not 0x28 <= size <= MAX_HEADER:
        raise SharedCacheError(f"{name}: mappingOffset {size:#x} where 0x28 to {MAX_HEADER:#x} was expected")
    values: dict[str, int | bytes] = {}
    for field, offset, kind in _FIELDS:
        present = offset + struct.calcsize(kind) <= size
        values[field] = (
            struct.unpack_from("<" + kind, head, offset)[0] if present else (b"" if kind.endswith("s") else 0)
        )
    uuid, symbol_uuid = values.pop("uuid"), values.pop("symbol_file_uuid")
    header = Header(
        arch=arch,
        magic=bytes(head[:16]),
        uuid=_uuid(uuid),
        symbol_file_uuid=_uuid(symbol_uuid),
        **values,  # type: ignore[arg-type]  # the remaining fields are all int
    )
    if not 1 <= header.mapping_count <= _MAX_MAPPINGS:
        raise SharedCacheError(f"{name}: mappingCount {header.mapping_count} where 1 to {_MAX_MAPPINGS} was expected")
    return header


def parse_mappings(head: bytes | mmap.mmap, header: Header, name: str) -> tuple[Mapping, ...]:
    """Return the mappings of one file, with their slide info where the header knows it."""
    count = header.mapping_count
    if header.mapping_with_slide_offset and header.mapping_with_slide_count:
        if header.mapping_with_slide_count != count:
            raise SharedCacheError(
                f"{name}: mappingWithSlideCount {header.mapping_with_slide_count} differs from mappingCount {count}"
            )
        raw = _table(head, header.mapping_with_slide_offset, count, 0x38, f"{name}: mappings with slide info")
        rows = [Mapping(*struct.unpack_from("<6Q2I", raw, i * 0x38)) for i in range(count)]
    else:
        raw = _table(head, header.mapping_offset, count, 0x20, f"{name}: mappings")
        rows = []
        for i in range(count):
            address, size, offset, max_prot, init_prot = struct.unpack_from("<3Q2I", raw, i * 0x20)
            # Before slide info per mapping, one blob described the second mapping alone.
            slide = (header.slide_info_offset, header.slide_info_size) if i == 1 else (0, 0)
            rows.append(Mapping(address, size, offset, *slide, 0, max_prot, init_prot))
    for i, row in enumerate(rows):
        if row.address + row.size >= 1 << 64 or row.file_offset + row.size >= 1 << 62:
            raise SharedCacheError(f"{name}: mapping {i} at {row.address:#x}, size {row.size:#x}, is absurd")
    return tuple(rows)


def parse_subcaches(head: bytes | mmap.mmap, header: Header, name: str) -> tuple[SubcacheEntry, ...]:
    """Return the sub-cache entries of a main file. Raises SharedCacheError for suffixes that are no file names."""
    count = header.subcache_array_count
    if not count:
        return ()
    if count > _MAX_SUBCACHES:
        raise SharedCacheError(f"{name}: subCacheArrayCount {count} where at most {_MAX_SUBCACHES} was expected")
    size = 0x38 if header.stores_suffixes else 0x18
    raw = _table(head, header.subcache_array_offset, count, size, f"{name}: sub-cache entries")
    entries = []
    for i in range(count):
        uuid, vm_offset = struct.unpack_from("<16sQ", raw, i * size)
        suffix = f".{i + 1}"
        if header.stores_suffixes:
            text = raw[i * size + 0x18 : (i + 1) * size].partition(b"\0")[0]
            suffix = text.decode("ascii", "replace")
            if not suffix.startswith(".") or not all(c.isalnum() or c in "._-" for c in suffix) or ".." in suffix:
                raise SharedCacheError(f"{name}: sub-cache {i} has the suffix {text!r}, which is no file name")
        entries.append(SubcacheEntry(_uuid(uuid), vm_offset, suffix))
    return tuple(entries)


def _table(head: bytes | mmap.mmap, offset: int, count: int, size: int, what: str) -> bytes:
    if offset < 0x28 or offset + count * size > len(head):
        raise SharedCacheError(
            f"{what}: {count} entries at {offset:#x} lie beyond the {len(head):#x} bytes there are",
            hint="the copy is cut: copy the file again",
        )
    return bytes(head[offset : offset + count * size])


def _uuid(raw: int | bytes) -> UUID | None:
    return UUID(bytes=raw) if isinstance(raw, bytes) and len(raw) == 16 and any(raw) else None
