"""Every byte of an image held against its own tables and against its raw cache, in whatever pieces it comes."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from symcache.verify import FindingCode
from symcache.verify.image_scan import ImageScan, Reference
from symcache.verify.layout import parse_layout
from tests.verify.test_layout import LC_SYMTAB, S_REGULAR, SIZE, command, image, segment

N_SECT_EXT, N_INDR_EXT = 0xF, 0xB  # n_type, <mach-o/nlist.h>
TEXT, SYMBOLS, POOL, POOL_SIZE = 0x800, 0x800, 0x900, 0x10
Problems = list[tuple[FindingCode, str]]


def made(
    *symbols: tuple[int, int], pool: int = POOL_SIZE, fileoff: int = 0, filesize: int = TEXT, text: str = "__TEXT"
) -> bytearray:
    """Return an image with symbols of (n_strx, n_type), and a string pool of NULs."""
    data = bytearray(
        image(
            segment("__LINKEDIT", SYMBOLS, SIZE - SYMBOLS),
            segment(text, fileoff, filesize, (8, S_REGULAR)),
            command(LC_SYMTAB, SYMBOLS, len(symbols), POOL, pool),
        )
    )
    for number, (name, kind) in enumerate(symbols):
        struct.pack_into("<I2BHQ", data, SYMBOLS + 16 * number, name, kind, 1, 0, 0)
    return data


def commands_end(data: bytes) -> int:
    return 32 + int(struct.unpack_from("<I", data, 20)[0])


def reference(data: bytes, symbols: int, indirect: int = 0) -> Reference:
    """Return what a raw cache says of an image that came out of it whole."""
    return Reference(0, 0x4000, commands_end(data), memoryview(bytes(data[:TEXT])), symbols, indirect)


def problems(data: bytes, against: Reference | None = None) -> Problems:
    """Return what is found, in one piece as in many of any size."""
    found: list[Problems] = []
    for size in (len(data), 1, 7, 24, 1000):
        scan = ImageScan(parse_layout(bytes(data), len(data)), against)
        for start in range(0, len(data), size):
            scan.feed(bytes(data[start : start + size]))
        found.append(list(scan.problems()))
    assert all(other == found[0] for other in found)
    return found[0]


PLAIN = [(1, N_SECT_EXT), (5, N_SECT_EXT), (POOL_SIZE - 1, N_SECT_EXT)]


def test_names_end_in_the_string_pool() -> None:
    assert problems(made(*PLAIN)) == []
    beyond = "a symbol's name lies at 0x10 of a string pool of 0x10 bytes"
    assert problems(made((POOL_SIZE, N_SECT_EXT), *PLAIN)) == [(FindingCode.TRUNCATED_LINKEDIT, beyond)]
    open_end = made(*PLAIN)
    open_end[POOL + POOL_SIZE - 1] = 0x41
    assert problems(open_end) == [(FindingCode.TRUNCATED_LINKEDIT, "the last name of the string pool does not end")]
    nothing = made()
    nothing[POOL + POOL_SIZE - 1] = 0x41
    assert problems(nothing) == []  # without symbols nobody reads it


def test_symbols_without_names_need_no_string_pool() -> None:
    nameless = made((0, N_SECT_EXT), pool=0)
    nameless[POOL - 1] = 0x41
    assert problems(nameless) == []
    ((code, _),) = problems(made((1, N_SECT_EXT), pool=0))
    assert code is FindingCode.TRUNCATED_LINKEDIT


@pytest.mark.parametrize(
    ("added", "symbols", "indirect", "text"),
    [
        (0, 3, 0, ""),
        (0, 4, 0, "3 symbols, 0 of them added, where the cache has 4"),
        (0, 2, 0, "3 symbols, 0 of them added, where the cache has 2"),
        (2, 3, 0, ""),
        (2, 5, 0, "5 symbols, 2 of them added, where the cache has 5"),
        (2, 4, 1, ""),
        (0, 4, 1, "3 symbols, 0 of them added, where the cache has 4"),  # the cache's own one is gone
    ],
)
def test_all_symbols_of_the_cache_are_there_besides_those_that_were_added(
    added: int, symbols: int, indirect: int, text: str
) -> None:
    data = made(*PLAIN, *[(1, N_INDR_EXT)] * added)
    expected = [(FindingCode.SYMBOL_COUNT, text)] if text else []
    assert problems(data, reference(data, symbols, indirect)) == expected


def test_an_image_without_a_symbol_table_has_no_symbols() -> None:
    data = image(segment("__TEXT", 0, TEXT, (8, S_REGULAR)))
    assert problems(data, reference(data, 0)) == []
    text = "0 symbols, 0 of them added, where the cache has 1"
    assert problems(data, reference(data, 1)) == [(FindingCode.SYMBOL_COUNT, text)]


def test_an_image_lies_where_the_cache_has_it() -> None:
    data = made(*PLAIN)
    for lies, where in (
        (replace(reference(data, 3), address=0x1000), "0x1000, 0x4000 bytes"),
        (replace(reference(data, 3), text_size=0x5000), "0x0, 0x5000 bytes"),
    ):
        text = f"__TEXT lies at 0x0, 0x4000 bytes where the cache has {where}"
        assert problems(data, lies) == [(FindingCode.WRONG_ADDRESS, text)]
    text = "__TEXT lies at nowhere where the cache has 0x0, 0x4000 bytes"
    assert problems(made(*PLAIN, text="__CODE"), reference(data, 3)) == [(FindingCode.WRONG_ADDRESS, text)]


def test_code_is_that_of_the_cache_behind_what_an_extractor_rewrites() -> None:
    whole = made(*PLAIN)
    whole[TEXT - 1] = 0x7F
    against = reference(whole, 3)
    header = bytearray(whole)
    header[commands_end(whole) - 1] ^= 1
    assert problems(header, against) == []
    for places, first in (((commands_end(whole), TEXT - 1), commands_end(whole)), ((TEXT - 1,), TEXT - 1)):
        data = bytearray(whole)
        for place in places:
            data[place] ^= 1
        text = f"__TEXT differs from the raw cache at offset {first:#x}"
        assert problems(data, against) == [(FindingCode.TEXT_DIFFERS, text)]
    longer = replace(against, commands_end=TEXT)
    assert problems(data, longer) == []  # the cache's own load commands were longer


def test_all_the_code_of_the_cache_is_in_the_file() -> None:
    whole = made(*PLAIN)
    against = reference(whole, 3)
    short = made(*PLAIN, filesize=TEXT - 8)
    assert problems(short, against) == [(FindingCode.TEXT_DIFFERS, "0x8 bytes of __TEXT are not in the file")]
    longer = made(*PLAIN, filesize=TEXT + 8)
    assert problems(longer, against) == []
    assert problems(whole, replace(against, text=memoryview(b""))) == []


def test_code_that_begins_behind_the_header_is_compared_from_there() -> None:
    data = made(*PLAIN, fileoff=0x40, filesize=TEXT - 0x40)
    data[0x40 + commands_end(data)] = 0x7F
    against = replace(reference(data, 3), text=memoryview(bytes(data[0x40:TEXT])))
    assert problems(data, against) == []
    data[0x40 + commands_end(data)] ^= 1
    text = f"__TEXT differs from the raw cache at offset {commands_end(data):#x}"
    assert problems(data, against) == [(FindingCode.TEXT_DIFFERS, text)]
