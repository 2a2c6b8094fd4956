"""Chained pointers made plain, against a decoder that follows one pointer after the other as the kernel does."""

from __future__ import annotations

import struct
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symcache.dyld import SharedCache, extract_all
from symcache.dyld.slide import SlideInfo
from symcache.errors import SharedCacheError
from tests.dyld.macho_reader import read
from tests.dyld.tiny import PAGE, Cache, Image

NO = 0xFFFF


def _info(
    version: int, page_size: int, starts: list[int], *, extras: tuple[int, ...] = (), mask: int = 0, add: int = 0
) -> bytes:
    if version in {3, 5}:
        return struct.pack(f"<3I4xQ{len(starts)}H", version, page_size, len(starts), add, *starts)
    at = 0x28 + 2 * len(starts)
    return struct.pack(
        f"<6I2Q{len(starts) + len(extras)}H",
        version,
        page_size,
        0x28,
        len(starts),
        at,
        len(extras),
        mask,
        add,
        *starts,
        *extras,
    )


def _extract(tmp_path: Path, cache: Cache) -> bytes:
    """The data of the first image, in its extracted file."""
    with SharedCache.open(cache.write(tmp_path)) as opened:
        report = extract_all(opened, tmp_path / "out", jobs=1)
    assert not report.failed, report.failed
    made = read(report.extracted[0].file)
    return made.bytes_of(made.segment("__DATA"))


def _words(values: dict[int, int], size: int = 8) -> bytes:
    out = bytearray(PAGE)
    for at, value in values.items():
        out[at : at + size] = value.to_bytes(size, "little")
    return bytes(out)


def test_version_2_adds_to_what_is_not_zero_and_keeps_the_tag(tmp_path: Path) -> None:
    mask, add = 0x00FF_FF00_0000_0000, 0x7FF8_0000_0000
    raw = {
        8: 0x12345678 | 2 << 40,  # the next is 8 bytes on
        16: 0 | 3 << 40,  # zero stays zero
        28: 0x99 | 0xA5 << 56,  # four bytes off any alignment, with a tag in its top byte
        0x1000: 0x77,
        0x2800: 0xDEADBEEF,  # in no chain
    }
    starts = [8 // 4, 0, 0x4000, 0x4000]
    data = _extract(
        tmp_path,
        Cache([Image("/a", UUID(int=1), data=_words(raw))], slide=_info(2, 0x1000, starts, mask=mask, add=add)),
    )
    value = lambda at: int.from_bytes(data[at : at + 8], "little")  # noqa: E731
    assert value(8) == 0x7FF8_1234_5678
    assert value(16) == 0
    assert value(28) == (0xA5 << 56) + add + 0x99
    assert value(0x1000) == add + 0x77
    assert value(0x2800) == 0xDEADBEEF


def test_version_2_page_with_several_chains(tmp_path: Path) -> None:
    mask, add = 0xFFFF_0000_0000_0000, 0x1_0000
    raw = {0: 1, 0x100: 2 | 2 << 48, 0x108: 3, 0xFF8: 4}
    starts = [0x8000 | 1, 0x4000, 0x4000, 0x4000]
    extras = [0x8000, 0, 0x100 // 4, 0xFF8 // 4 | 0x8000]
    data = _extract(
        tmp_path,
        Cache(
            [Image("/a", UUID(int=1), data=_words(raw))],
            slide=_info(2, 0x1000, starts, extras=tuple(extras), mask=mask, add=add),
        ),
    )
    assert [int.from_bytes(data[at : at + 8], "little") for at in (0, 0x100, 0x108, 0xFF8)] == [
        add + 1, add + 2, add + 3, add + 4,
    ]  # fmt: skip


def test_version_2_pointer_that_straddles_two_pages_is_plain_already(tmp_path: Path) -> None:
    mask, add = 0x00FF_FF00_0000_0000, 0x7FF8_0000_0000
    straddling = 0x7FF8_1111_2222
    raw = {0xFF0: 0x10 | 3 << 40, 0xFFC: straddling}
    data = _extract(
        tmp_path,
        Cache(
            [Image("/a", UUID(int=1), data=_words(raw))],
            slide=_info(2, 0x1000, [0xFF0 // 4, 0x4000, 0x4000, 0x4000], mask=mask, add=add),
        ),
    )
    assert int.from_bytes(data[0xFF0:0xFF8], "little") == add + 0x10
    assert int.from_bytes(data[0xFFC:0x1004], "little") == straddling


def test_version_3_plain_and_authenticated(tmp_path: Path) -> None:
    auth_base = 0x1_8000_0000
    raw = {
        0x18: 0x1_8123_4567 | 0xB7 << 43 | 1 << 51,
        0x20: 0x89AB_CDEF | 0xBEEF << 32 | 1 << 48 | 2 << 49 | 4 << 51 | 1 << 63,
        0x40: 0x7FF_FFFF_FFFF,
    }
    cache = Cache(
        [Image("/a", UUID(int=1), data=_words(raw))], arch="arm64e", slide=_info(3, PAGE, [0x18], add=auth_base)
    )
    data = _extract(tmp_path, cache)
    value = lambda at: int.from_bytes(data[at : at + 8], "little")  # noqa: E731
    assert value(0x18) == 0xB7 << 56 | 0x1_8123_4567
    assert value(0x20) == auth_base + 0x89AB_CDEF
    assert value(0x40) == 0x7FF_FFFF_FFFF


def test_version_5_counts_both_kinds_from_the_base_of_the_cache(tmp_path: Path) -> None:
    add = 0x1_8000_0000
    raw = {
        0: 0x3_FFFF_FFFF | 0x5C << 34 | 2 << 52,
        0x10: 0x1_2345_6788 | 0xD1CE << 34 | 1 << 50 | 1 << 51 | 0x7F << 52 | 1 << 63,
        0x10 + 0x7F * 8: 0x40,
    }
    cache = Cache([Image("/a", UUID(int=1), data=_words(raw))], arch="arm64e", slide=_info(5, PAGE, [0], add=add))
    data = _extract(tmp_path, cache)
    value = lambda at: int.from_bytes(data[at : at + 8], "little")  # noqa: E731
    assert value(0) == 0x5C << 56 | add + 0x3_FFFF_FFFF
    assert value(0x10) == add + 0x1_2345_6788
    assert value(0x10 + 0x7F * 8) == add + 0x40


def test_version_4_keeps_small_numbers_of_either_sign(tmp_path: Path) -> None:
    add = 0x1A00_0000
    raw = {
        0: 0x0123_4568 | 1 << 30,
        4: 0x0000_7FFF | 1 << 30,  # small positive
        8: 0x3FFF_8001 | 1 << 30,  # small negative
        12: 0x0000_8000,
    }
    cache = Cache(
        [Image("/a", UUID(int=1), data=_words(raw, 4))],
        arch="arm64_32",
        base=add,
        slide=_info(4, PAGE, [0], mask=0xC000_0000, add=add),
    )
    data = _extract(tmp_path, cache)
    assert struct.unpack_from("<4I", data) == (add + 0x0123_4568, 0x7FFF, 0xFFFF_8001, add + 0x8000)


def test_version_1_and_no_slide_info_leave_pointers_alone(tmp_path: Path) -> None:
    raw = _words({0: 0x7FFF_8000_1234, 8: 0xFFFF_FFFF_FFFF_FFFF})
    for number, slide in enumerate((b"", struct.pack("<6I", 1, 24, 4, 32, 1, 128) + bytes(8 + 128))):
        cache = Cache([Image("/a", UUID(int=1), data=raw)], header_size=0x68, slide=slide)
        assert _extract(tmp_path / str(number), cache) == raw


def test_a_chain_runs_through_the_images_that_share_a_page(tmp_path: Path) -> None:
    """It starts at the start of the page, not at that of the image."""
    add = 0x1_8000_0000
    raw = {0: 1 | 1 << 51, 8: 2 | 0x1FF << 51, 8 + 0x1FF * 8: 3 | 1 << 51, 16 + 0x1FF * 8: 4}
    second = 8 + 0x1FF * 8
    images = [
        Image("/a", UUID(int=1), data=_words({at: v | 1 << 63 for at, v in raw.items()}), data_vmsize=16),
        Image("/b", UUID(int=2), data_vmaddr=0x7FF8_1000_0000 + second, data_vmsize=16),
    ]
    cache = Cache(images, arch="arm64e", slide=_info(3, PAGE, [0], add=add))
    with SharedCache.open(cache.write(tmp_path)) as opened:
        report = extract_all(opened, tmp_path / "out", jobs=1)
        one_alone = extract_all(opened, tmp_path / "one", image="/b")
    for extracted, values in zip([*report.extracted, *one_alone.extracted], [(1, 2), (3, 4), (3, 4)], strict=True):
        made = read(extracted.file)
        assert struct.unpack_from("<2Q", made.bytes_of(made.segment("__DATA"))) == tuple(add + v for v in values)


@pytest.mark.parametrize(
    ("slide", "message"),
    [
        (_info(6, PAGE, [0]), "version 6"),
        (_info(3, 0x2000, [0]), "page_size 0x2000"),
        (_info(3, PAGE, [0] * 200), "200 pages"),
        (_info(3, PAGE, [2]), "odd address"),
        (_info(3, PAGE, [PAGE - 4]), "leaves its page"),
        (_info(3, PAGE, [0])[:0x14], "20 bytes"),
        (struct.pack("<3I4xQ", 5, PAGE, 0xFFFF_FFFF, 0), "4294967295 page entries"),
        (_info(2, 0x1000, [0], mask=0), "delta_mask"),
        (_info(2, 0x1000, [0], mask=0x0F0F_0000_0000_0000), "delta_mask"),
        (_info(2, 0x1000, [0x8005], mask=0xFF << 40), "page extras"),
        (_info(2, 0x1000, [0x8000], extras=(0, 0), mask=0xFF << 40), "page extras"),
        (_info(2, 0x1000, [0x3FFF], mask=0xFF << 40), "leaves its page"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_broken_slide_info_fails_the_image_and_says_where(tmp_path: Path, slide: bytes, message: str) -> None:
    cache = Cache([Image("/a", UUID(int=1))], slide=slide)
    with SharedCache.open(cache.write(tmp_path)) as opened:
        report = extract_all(opened, tmp_path / "out", jobs=1)
    assert [f.path for f in report.failed] == ["/a"]
    assert message in report.failed[0].reason and "slide info of __DATA" in report.failed[0].reason


def test_a_broken_page_fails_only_the_images_in_it(tmp_path: Path) -> None:
    images = [Image(f"/lib{n}", UUID(int=n + 1), data=_words({0: 5})) for n in range(4)]
    images[2].data = _words({0: 0x7FF << 51})
    cache = Cache(images, arch="arm64e", slide=_info(3, PAGE, [0, 0, 8 * 0x7FF, 0], add=0))
    images[2].data = _words({8 * 0x7FF: 1 << 51})
    with SharedCache.open(cache.write(tmp_path)) as opened:
        report = extract_all(opened, tmp_path / "out", jobs=1)
    assert [f.path for f in report.failed] == ["/lib2"]
    assert [e.path for e in report.extracted] == ["/lib0", "/lib1", "/lib3"]


def test_chains_that_overlap_without_end_are_refused() -> None:
    """Every word starts a chain through all words behind it: as many pointers as words squared."""
    words = 0x1000 // 4
    data = np.zeros((16, 0x1000), np.uint8)
    data.view(np.uint32)[:, :-1] = 1 << 29
    extras = np.array([*range(words - 1), 0x8000 | (words - 1)], np.uint16)
    slide = SlideInfo(4, 0x1000, np.full(16, 0x8000, np.uint16), extras, 0xE000_0000, 0, "test")
    with pytest.raises(SharedCacheError, match="overlap"):
        slide.decode(data, np.arange(16), 4)


def _scalar(page: bytearray, starts: list[int], kind: int, mask: int, add: int) -> None:
    """One pointer after the other, straight from the description of the format."""
    for start in starts:
        at, on = start, True
        while on:
            raw = int.from_bytes(page[at : at + 8], "little")
            if kind == 2:
                shift = (mask & -mask).bit_length() - 1
                step = ((raw & mask) >> shift) * 4
                value = raw & ~mask
                value = (value + add) % (1 << 64) if value else 0
            elif kind == 3:
                step = (raw >> 51 & 0x7FF) * 8
                value = add + (raw & 0xFFFFFFFF) if raw >> 63 else (raw & (1 << 43) - 1) | (raw >> 43 & 0xFF) << 56
            else:
                step = (raw >> 52 & 0x7FF) * 8
                value = (add + (raw & (1 << 34) - 1)) | (0 if raw >> 63 else (raw >> 34 & 0xFF) << 56)
            page[at : at + 8] = value.to_bytes(8, "little")
            at += step
            on = step != 0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_chains_decode_as_one_after_the_other(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([2, 3, 5]))
    page_size = 0x1000 if kind == 2 else 0x4000
    add = data.draw(st.sampled_from([0, 0x1_8000_0000, 0x7FF8_0000_0000]))
    mask = 0x00FF_FF00_0000_0000 if kind == 2 else 0
    field = {2: 40, 3: 51, 5: 52}[kind]
    random = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    pages = data.draw(st.integers(1, 6))
    buffer = random.integers(0, 256, (pages, page_size), np.uint8)
    starts = []
    for page in buffer:
        places = np.sort(random.choice(page_size // 8 - 1, data.draw(st.integers(0, 300)), replace=False)) * 8
        starts.append(int(places[0]) if len(places) else -1)
        for number, at in enumerate(places):
            step = int(places[number + 1] - at) if number + 1 < len(places) else 0
            raw = int.from_bytes(page[at : at + 8].tobytes(), "little")
            clear = mask if kind == 2 else 0x7FF << field
            raw = raw & ~clear | (step // (4 if kind == 2 else 8)) << field
            page[at : at + 8] = np.frombuffer(raw.to_bytes(8, "little"), np.uint8)
    expected = []
    for page, start in zip(buffer, starts, strict=True):
        plain = bytearray(page.tobytes())
        _scalar(plain, [start] if start >= 0 else [], kind, mask, add)
        expected.append(bytes(plain))
    none = 0x4000 if kind == 2 else NO
    table = np.array([none if s < 0 else s // 4 if kind == 2 else s for s in starts], np.uint16)
    slide = SlideInfo(kind, page_size, table, np.zeros(0, np.uint16), mask, add, "test")
    slide.decode(buffer, np.arange(pages), 8)
    assert [p.tobytes() for p in buffer] == expected
