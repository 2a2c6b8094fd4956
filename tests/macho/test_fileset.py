"""What lies in collections of kernel extensions."""

from __future__ import annotations

import struct
from pathlib import Path
from uuid import UUID

import pytest

from symcache.errors import MachOError
from symcache.kinds import Kind
from symcache.macho import fileset_entries, identify
from tests.support.kernel_collection import COLLECTION, ENTRIES, kernel_collection


def test_a_collection_is_one_image_with_entries(tmp_path: Path) -> None:
    file = tmp_path / "BootKernelExtensions.kc"
    file.write_bytes(kernel_collection())
    (image,) = identify(file)
    assert (image.uuid, image.kind) == (COLLECTION, Kind.EXECUTABLE)
    assert {e.name: e.uuid for e in fileset_entries(file, image)} == ENTRIES


def test_one_slice_of_a_universal_file_is_read_where_it_lies(tmp_path: Path) -> None:
    data = kernel_collection()
    fat = struct.pack(">IIIIIII", 0xCAFEBABE, 1, 0x0100_000C, 2, 0x4000, len(data), 14).ljust(0x4000, b"\0")
    file = tmp_path / "kernelcache"
    file.write_bytes(fat + data)
    (image,) = identify(file)
    assert {e.name: e.uuid for e in fileset_entries(file, image)} == ENTRIES


@pytest.mark.parametrize("offset", [0x7FFF_FFFF_0000, 0x10, (1 << 63) - 8, (1 << 64) - 1])
def test_an_entry_that_lies_nowhere_is_refused(tmp_path: Path, offset: int) -> None:
    data = bytearray(kernel_collection())
    at = data.index(struct.pack("<I", 0x8000_0035))
    data[at + 16 : at + 24] = struct.pack("<Q", offset)
    file = tmp_path / "kernelcache"
    file.write_bytes(data)
    with pytest.raises(MachOError, match="no Mach-O header"):
        fileset_entries(file, identify(file)[0])


def test_entries_that_all_lead_to_one_long_list_of_commands_are_refused(tmp_path: Path) -> None:
    data = bytearray(kernel_collection({f"com.example.{n}": UUID(int=n + 1) for n in range(20)}))
    place = len(data)
    data += struct.pack("<10I", 0xFEEDFACF, 0x0100_000C, 2, 11, 1, 1 << 20, 0, 0, 0x7777, 1 << 20).ljust(32 + (1 << 20))
    at = 0
    while (at := data.find(struct.pack("<I", 0x8000_0035), at + 1)) > 0:
        struct.pack_into("<Q", data, at + 16, place)
    file = tmp_path / "kernelcache"
    file.write_bytes(data)
    with pytest.raises(MachOError, match=r"kernelcache: .* bytes of commands"):
        fileset_entries(file, identify(file)[0])
