"""Old headers over several writable mappings: one field, and several slide infos."""

from __future__ import annotations

import struct
from pathlib import Path
from uuid import UUID

import pytest

from symcache.dyld import SharedCache, extract_all
from tests.dyld.macho_reader import read
from tests.dyld.tiny import PAGE, Cache, Image

BASE = 0x1_8000_0000
SECOND = BASE + 0x1800_0000
_FIRST_START, _SECOND_START = 0x10, 0x40


def _version_5(*starts: int) -> bytes:
    return struct.pack(f"<3I4xQ{len(starts)}H", 5, PAGE, len(starts), BASE, *starts)


def _version_3(*starts: int) -> bytes:
    return struct.pack(f"<3I4xQ{len(starts)}H", 3, PAGE, len(starts), BASE, *starts)


def _version_2(*starts: int) -> bytes:
    return struct.pack(
        f"<6I2Q{len(starts)}H", 2, PAGE, 0x28, len(starts), 0, 0, 0xFFFF << 40, BASE, *(s // 4 for s in starts)
    )


def _old_cache(folder: Path, infos: list[bytes], field: int, *, more_pages: int, raw: int, header: int) -> Path:
    """Two images whose data lies in mappings of its own, and slide infos from the start of __LINKEDIT on.

    `field` is slideInfoOffset, from the start of __LINKEDIT; negative for 0.
    """
    data = b"".ljust(_FIRST_START, b"\0") + struct.pack("<Q", raw + 0x4000)
    images = [Image("/a", UUID(int=1), data=data), Image("/b", UUID(int=2), data_vmaddr=SECOND)]
    cache = Cache(images, arch="arm64e", base=BASE, header_size=header, slide=bytes(0x100), data_size=PAGE)
    out = bytearray(cache.build())
    link = struct.unpack_from("<3Q", out, header + 0x40)[2]
    cache.extra_mappings = [(SECOND, PAGE * more_pages, len(out), 3)]
    out = bytearray(cache.build())
    out += (bytes(_SECOND_START) + struct.pack("<Q", raw + 0x8000)).ljust(PAGE * more_pages, b"\0")
    out[link : link + sum(map(len, infos))] = b"".join(infos)
    struct.pack_into("<2Q", out, 0x38, *((link + field, 0x100) if field >= 0 else (0, 0)))
    path = folder / "dyld_shared_cache_arm64e"
    path.write_bytes(out)
    return path


@pytest.mark.parametrize("header", [0x48, 0x138])
@pytest.mark.parametrize("field", [-1, 0, 0x8000], ids=["none", "the first one", "something else"])
@pytest.mark.parametrize("swapped", [False, True], ids=["in order", "the other way round"])
@pytest.mark.parametrize("more_pages", [1, 2], ids=["equal sizes", "different sizes"])
@pytest.mark.parametrize(
    ("info", "raw", "none"),
    [(_version_5, 0, 0xFFFF), (_version_3, 1 << 63, 0xFFFF), (_version_2, 0, 0x4000 * 4)],
    ids=["v5", "v3", "v2"],
)
def test_each_writable_mapping_gets_its_own_slide_info(
    tmp_path: Path, info: object, raw: int, none: int, more_pages: int, swapped: bool, field: int, header: int
) -> None:
    assert callable(info)
    infos = [info(_FIRST_START), info(_SECOND_START, *[none] * (more_pages - 1))]
    path = _old_cache(tmp_path, infos[::-1] if swapped else infos, field, more_pages=more_pages, raw=raw, header=header)
    with SharedCache.open(path) as opened:
        assert len(opened.warnings) == 1
        assert "writable" in opened.warnings[0]
        report = extract_all(opened, tmp_path / "out", jobs=1)
    assert not report.failed
    words = []
    for extracted, place in zip(report.extracted, (_FIRST_START, _SECOND_START), strict=True):
        made = read(extracted.file)
        words.append(struct.unpack_from("<Q", made.bytes_of(made.segment("__DATA")), place)[0])
    assert words == [BASE + 0x4000, BASE + 0x8000]


def test_pointers_that_are_plain_already_are_left_alone_though_an_info_is_there(tmp_path: Path) -> None:
    infos = [_version_5(_FIRST_START), _version_5(_SECOND_START)]
    path = _old_cache(tmp_path, infos, -1, more_pages=1, raw=BASE, header=0x48)
    with SharedCache.open(path) as opened:
        assert not opened.warnings
        made = read(extract_all(opened, tmp_path / "out", jobs=1).extracted[0].file)
    assert struct.unpack_from("<Q", made.bytes_of(made.segment("__DATA")), _FIRST_START)[0] == BASE + 0x4000
