"""The code signature of a cache file: every page is held against it, whoever signed."""

from __future__ import annotations

import hashlib
import shutil
import struct
from pathlib import Path

import pytest

from symcache.dyld import check_pages, platform_identifier
from symcache.errors import SharedCacheError
from tests.cachewriter import CacheOptions, build_cache
from tests.cachewriter.samples import sample
from tests.support.apple import apple_caches

_OPTIONS = CacheOptions(arch="arm64e", split="v2")


@pytest.fixture
def main(tmp_path: Path) -> Path:
    return build_cache(sample(_OPTIONS)[:4], _OPTIONS).write(tmp_path)


def signature_at(path: Path) -> int:
    """dyld_cache_header.codeSignatureOffset"""
    return int(struct.unpack_from("<Q", path.read_bytes(), 0x28)[0])


def test_every_page_of_what_apple_built_is_what_was_signed() -> None:
    counted: dict[str, int] = {}
    for file in sorted(apple_caches().glob("*/dyld*_shared_cache_*")):
        if file.name.endswith(".map"):
            continue
        pages = check_pages(file)
        if pages is None:
            counted[file.parent.name] = 0
            continue
        assert pages.damaged == (), file
        assert pages.count * pages.page_size >= signature_at(file) > (pages.count - 1) * pages.page_size
        counted[file.parent.name] = counted.get(file.parent.name, 0) + pages.count
    # dyld-360 signed none.
    assert [name for name, count in counted.items() if not count] == ["macos10.11-x86_64-slide-v1"]
    assert len(counted) > 15


def test_one_bit_is_named_by_its_page(main: Path) -> None:
    assert check_pages(main) is not None
    data = bytearray(main.read_bytes())
    end = signature_at(main)
    for at in (0x4000 * 2 + 77, end - 1):
        data[at] ^= 0x10
    main.write_bytes(data)
    pages = check_pages(main)
    assert pages is not None
    assert pages.damaged == (2, (end - 1) // 0x4000)
    assert f"pages 2, {(end - 1) // 0x4000} of {-(-end // 0x4000)} (of 16384 bytes, the first at 0x8000)" in str(pages)


def test_of_two_directories_the_stronger_one_counts(main: Path, tmp_path: Path) -> None:
    """As in caches of 2018, which have SHA-1 and SHA-256."""
    data, end = main.read_bytes(), signature_at(main)
    pages = [data[i : min(i + 0x1000, end)] for i in range(0, end, 0x1000)]

    def directory(kind: int, size: int, hashes: bytes) -> bytes:
        head = struct.pack(
            ">9I4BI", 0xFADE0C02, 44 + len(hashes), 0x20001, 0, 44, 0, 0, len(pages), end, size, kind, 0, 12, 0
        )
        return head + hashes

    wrong = directory(1, 20, bytes(20 * len(pages)))
    right = directory(2, 32, b"".join(hashlib.sha256(p).digest() for p in pages))
    blobs = (
        struct.pack(">7I", 0xFADE0CC0, 28 + len(wrong) + len(right), 2, 0, 28, 0x1000, 28 + len(wrong)) + wrong + right
    )
    header = bytearray(data[:end])
    struct.pack_into("<Q", header, 0x30, len(blobs))
    # The first page holds that size.
    pages[0] = bytes(header[:0x1000])
    right = directory(2, 32, b"".join(hashlib.sha256(p).digest() for p in pages))
    blobs = blobs[: 28 + len(wrong)] + right
    (tmp_path / "two").mkdir()
    copy = tmp_path / "two" / main.name
    copy.write_bytes(bytes(header) + blobs)
    checked = check_pages(copy)
    assert checked is not None
    assert (checked.damaged, checked.page_size) == ((), 0x1000)


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        (0, 0xFADE0CC1, "which is none"),
        (8, 1 << 30, "which is none"),
        (16, 1 << 30, "ends within its tables"),
        (20 + 28, 1 << 20, "pages, where"),
        (20 + 32, 0x4000, "bytes lie before it"),
        (20 + 36, 0x20630E00, "no directory of hashes"),
        (20 + 36, 0x20020100, "bytes lie before it"),
        (20 + 16, 1 << 20, "ends within its hashes"),
    ],
)
def test_a_signature_that_contradicts_itself_is_refused(at: int, value: int, says: str, main: Path) -> None:
    data, start = bytearray(main.read_bytes()), signature_at(main)
    struct.pack_into(">I", data, start + at, value)
    main.write_bytes(data)
    with pytest.raises(SharedCacheError, match=says):
        check_pages(main)


def test_a_directory_that_says_it_is_shorter_than_its_fields_is_refused(main: Path) -> None:
    data, start = bytearray(main.read_bytes()), signature_at(main)
    assert platform_identifier(bytes(data[start:]), "it") == 0
    struct.pack_into(">I", data, start + 20 + 4, 8)  # CS_CodeDirectory.length
    main.write_bytes(data)
    for refused in (lambda: check_pages(main), lambda: platform_identifier(bytes(data[start:]), "it")):
        with pytest.raises(SharedCacheError, match="the code directory in its signature is cut"):
            refused()


def test_a_signature_beyond_the_end_is_refused(main: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    shutil.copy(main, cut)
    with cut.open("r+b") as file:
        file.truncate(signature_at(main) + 100)
    with pytest.raises(SharedCacheError, match="beyond the end of the file"):
        check_pages(cut)


@pytest.mark.parametrize("at", [1 << 63, (1 << 64) - 1])
def test_a_signature_where_no_file_reaches_is_refused(at: int, main: Path) -> None:
    data = bytearray(main.read_bytes())
    struct.pack_into("<Q", data, 0x28, at)  # dyld_cache_header.codeSignatureOffset
    main.write_bytes(data)
    with pytest.raises(SharedCacheError, match="beyond the end of the file"):
        check_pages(main)
