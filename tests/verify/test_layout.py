"""What load commands say of where an image's parts lie, held against the file: images made to order."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from symcache.errors import MachOError
from symcache.library import Library
from symcache.macho import MAX_COMMANDS
from symcache.model import Kind
from symcache.store import put_blob
from symcache.verify import FindingCode
from symcache.verify.contents import Content, check_content
from symcache.verify.layout import HEADER_SIZE, commands_end

# <mach-o/loader.h>, <mach/machine.h>
MH_DYLIB, MH_DSYM, ARM64E = 6, 10, (0x0100_000C, 0x8000_0002)
LC_SYMTAB, LC_DYSYMTAB, LC_SEGMENT_64, LC_FUNCTION_STARTS, LC_DYLD_INFO_ONLY = 0x2, 0xB, 0x19, 0x26, 0x8000_0022
S_REGULAR, S_ZEROFILL = 0, 1
SIZE = 0x1000


def command(cmd: int, *numbers: int) -> bytes:
    return struct.pack(f"<{2 + len(numbers)}I", cmd, 8 + 4 * len(numbers), *numbers)


def segment(name: str, fileoff: int, filesize: int, *sections: tuple[int, int]) -> bytes:
    """Return a segment with sections of (size, type)."""
    body = name.encode().ljust(16, b"\0") + struct.pack("<4Q4I", 0, 0x4000, fileoff, filesize, 5, 5, len(sections), 0)
    for size, kind in sections:
        body += b"__some".ljust(16, b"\0") + name.encode().ljust(16, b"\0")
        body += struct.pack("<2Q8I", 0, size, fileoff, 0, 0, 0, kind, 0, 0, 0)
    return struct.pack("<2I", LC_SEGMENT_64, 8 + len(body)) + body


def image(*commands: bytes, filetype: int = MH_DYLIB) -> bytes:
    """Return a thin arm64e image of `SIZE` bytes."""
    all_commands = [struct.pack("<2I", 0x1B, 24) + UUID(int=1).bytes, *commands]
    size = sum(map(len, all_commands))
    header = struct.pack("<8I", 0xFEEDFACF, *ARM64E, filetype, len(all_commands), size, 0, 0)
    return b"".join((header, *all_commands)).ljust(SIZE, b"\0")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    with Library.open(tmp_path_factory.mktemp("layout") / "library", create=True) as opened:
        yield opened


Check = Callable[..., list[tuple[FindingCode, str]]]


@pytest.fixture
def check(library: Library, tmp_path: Path) -> Check:
    def stored(data: bytes, kind: Kind = Kind.EXECUTABLE, *, every_byte: bool = False) -> list[tuple[FindingCode, str]]:
        (tmp_path / "content").write_bytes(data)
        sha256, size, _ = put_blob(library.store, tmp_path / "content")
        return check_content(library, Content(sha256, size, UUID(int=1), kind, "arm64e"), every_byte=every_byte)

    return stored


def dyld_info(number: int, offset: int, length: int) -> bytes:
    return command(LC_DYLD_INFO_ONLY, *[0] * (2 * number), offset, length, *[0] * (8 - 2 * number))


PARTS: list[tuple[str, int, Callable[[int, int], bytes]]] = [
    ("__LINKEDIT", 1, lambda offset, count: segment("__LINKEDIT", offset, count)),
    ("the symbol table", 16, lambda offset, count: command(LC_SYMTAB, offset, count, 0, 0)),
    ("the string pool", 1, lambda offset, count: command(LC_SYMTAB, 0, 0, offset, count)),
    ("indirect symbol table", 4, lambda offset, count: command(LC_DYSYMTAB, *[0] * 12, offset, count, *[0] * 4)),
    ("the data of LC_FUNCTION_STARTS", 1, lambda offset, count: command(LC_FUNCTION_STARTS, offset, count)),
    ("rebase info", 1, lambda offset, count: dyld_info(0, offset, count)),
    ("bind info", 1, lambda offset, count: dyld_info(1, offset, count)),
    ("weak bind info", 1, lambda offset, count: dyld_info(2, offset, count)),
    ("lazy bind info", 1, lambda offset, count: dyld_info(3, offset, count)),
    ("export info", 1, lambda offset, count: dyld_info(4, offset, count)),
]


@pytest.mark.parametrize(("what", "unit", "part"), PARTS, ids=[what for what, _, _ in PARTS])
def test_every_part_of_the_link_edit_ends_within_the_file(
    check: Check, what: str, unit: int, part: Callable[[int, int], bytes]
) -> None:
    assert check(image(part(SIZE - 8 * unit, 8))) == []
    assert check(image(part(SIZE + 8, 0))) == []  # what is not there lies nowhere
    text = f"{what} ends at {SIZE + unit:#x}, the file at {SIZE:#x}"
    assert check(image(part(SIZE - 7 * unit, 8))) == [(FindingCode.TRUNCATED_LINKEDIT, text)]


def test_segments_end_within_the_file_and_have_bytes_where_their_sections_need_them(check: Check) -> None:
    linkedit = segment("__LINKEDIT", SIZE, 8)
    whole = segment("__TEXT", 0, SIZE, (8, S_REGULAR))
    assert check(image(whole, segment("__ZERO", SIZE + 8, 0), segment("__BSS", 0, 0, (8, S_ZEROFILL)))) == []
    assert check(image(whole, segment("__EMPTY", 0, 0, (0, S_REGULAR)))) == []
    beyond = (FindingCode.TRUNCATED, "segment __DATA ends at 0x1001, the file at 0x1000")
    assert check(image(linkedit, whole, segment("__DATA", 1, SIZE))) == [beyond]
    hollow = segment("__DATA", 0, 0, (0, S_REGULAR), (8, S_REGULAR))
    nothing = (FindingCode.TRUNCATED, "segment __DATA has sections but not one byte in the file")
    assert check(image(linkedit, whole, hollow)) == [nothing]
    assert check(image(hollow, filetype=MH_DSYM), Kind.DEBUGINFO) == []


def test_one_image_in_a_fat_file_is_not_thin(check: Check) -> None:
    fat = struct.pack(">7I", 0xCAFE_BABE, 1, *ARM64E, 0x40, SIZE, 6)
    ((code, text),) = check(fat.ljust(0x40, b"\0") + image())
    assert code is FindingCode.MALFORMED
    assert text.endswith(": holds 1 images where one thin Mach-O was expected")


def test_load_commands_are_read_whole_however_many_but_for_a_number_that_is_absurd(check: Check) -> None:
    many = image(*[command(0x7777, *[0] * 0x3FFE)] * 40)
    assert check(many) == check(many, every_byte=True) == []
    assert commands_end(many[:HEADER_SIZE]) == HEADER_SIZE + 24 + 40 * 0x10000
    assert commands_end(b"<html>Not found</html>".ljust(HEADER_SIZE)) == 0
    head = bytearray(image()[:HEADER_SIZE])
    struct.pack_into("<I", head, 20, MAX_COMMANDS)
    assert commands_end(bytes(head)) == HEADER_SIZE + MAX_COMMANDS
    struct.pack_into("<I", head, 20, MAX_COMMANDS + 1)
    with pytest.raises(MachOError, match="at most"):
        commands_end(bytes(head))
