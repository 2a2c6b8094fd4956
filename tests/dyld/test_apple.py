"""Images out of caches that Apple's own builder laid out, held against what Apple's own extractor made of them."""

from __future__ import annotations

import functools
import hashlib
import struct
from pathlib import Path
from typing import Any

import pytest

from symcache.dyld import SharedCache, extract_all
from tests.dyld.macho_reader import LC_DATA_IN_CODE, LC_FUNCTION_STARTS, MachO, read
from tests.support.apple import AppleCache, every_apple_cache

_CPU_SUBTYPE_MASK = 0x00FF_FFFF
_N_INDR = 0xA
_ZERO_FILL = {0x1, 0xC, 0x12}


class Extracted:
    """One cache, all of its images, and what Apple made of them."""

    def __init__(self, apple: AppleCache, output: Path) -> None:
        with SharedCache.open(apple.main) as cache:
            self.report = extract_all(cache, output, jobs=1)
            self.images = cache.images
        self.expected = {i["path"]: i for i in apple.images}
        self._files = {e.path: e.file for e in self.report.extracted}
        self.read = functools.lru_cache(None)(lambda path: read(self._files[path]))

    def pairs(self) -> list[tuple[dict[str, Any], MachO]]:
        return [(expected, self.read(path)) for path, expected in self.expected.items()]


@pytest.fixture(scope="module")
def extracted_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @functools.lru_cache(None)
    def extract(apple: AppleCache) -> Extracted:
        return Extracted(apple, tmp_path_factory.mktemp("extracted"))

    return extract


@pytest.fixture
def extracted(request: pytest.FixtureRequest, extracted_of: Any) -> Extracted:
    return extracted_of(request.param)


all_caches = pytest.mark.parametrize("extracted", every_apple_cache(), indirect=True)


@all_caches
def test_every_image_is_there_and_no_other(extracted: Extracted) -> None:
    assert not extracted.report.failed
    assert {e.path for e in extracted.report.extracted} == set(extracted.expected)
    assert {i.path: i.address for i in extracted.images} == {p: e["address"] for p, e in extracted.expected.items()}


@all_caches
def test_identity(extracted: Extracted) -> None:
    uuids = {i.path: i.uuid for i in extracted.images}
    for expected, image in extracted.pairs():
        path = expected["path"]
        assert (image.cputype, image.cpusubtype & _CPU_SUBTYPE_MASK, image.filetype) == (
            expected["cputype"],
            expected["cpusubtype"] & _CPU_SUBTYPE_MASK,
            expected["filetype"],
        ), path
        wanted = expected.get("uuid")
        assert (str(image.uuid).upper() if image.uuid else None) == (wanted or None), path
        assert image.uuid == uuids[path]
        assert not image.flags & 0x8000_0000, f"{path} still says that it is in a cache"


@all_caches
def test_segments_are_apples_with_plain_pointers(extracted: Extracted) -> None:
    for expected, image in extracted.pairs():
        own = [s for s in image.segments if s.name != "__LINKEDIT"]
        assert [(s.name, s.vmaddr, s.vmsize) for s in own] == [
            (s["name"], s["vmaddr"], s["vmsize"]) for s in expected["segments"]
        ]
        for segment, wanted in zip(own, expected["segments"], strict=True):
            data = image.bytes_of(segment)
            if segment.name == "__TEXT":
                data = data[expected["text_after_load_commands_from"] :]
            assert hashlib.sha256(data).hexdigest() == wanted["sha256"], (expected["path"], segment.name)


@all_caches
def test_symbols(extracted: Extracted) -> None:
    for expected, image in extracted.pairs():
        lines = []
        for s in image.symbols:
            value = image.string(s.value) if s.type & 0xE == _N_INDR else f"{s.value:x}"
            lines.append(f"{value} {s.type:02x} {s.sect} {s.desc:04x} {s.name}")
        assert sorted(lines) == sorted(expected["symbols"]), expected["path"]


@all_caches
def test_indirect_symbols(extracted: Extracted) -> None:
    for expected, image in extracted.pairs():
        symbols = image.symbols
        names = ["LOCAL" if i & 0x8000_0000 else "ABS" if i & 0x4000_0000 else symbols[i].name for i in image.indirect]
        # What is flagged as local names no symbol; Apple's extractor moves its low bits all the same: `?80000008`.
        wanted = ["LOCAL" if name.startswith("?8") else name for name in expected["indirect_symbols"]]
        assert names == wanted, expected["path"]


@all_caches
def test_function_starts_and_data_in_code(extracted: Extracted) -> None:
    for expected, image in extracted.pairs():
        for key, kind in (("function_starts", LC_FUNCTION_STARTS), ("data_in_code", LC_DATA_IN_CODE)):
            payload = image.payload(kind)
            wanted = expected.get(key) or {"size": 0, "sha256": hashlib.sha256(b"").hexdigest()}
            assert len(payload) == wanted["size"], (expected["path"], key)
            assert hashlib.sha256(payload).hexdigest() == wanted["sha256"], (expected["path"], key)


@all_caches
def test_files_are_laid_out_as_strict_tools_want_them(extracted: Extracted) -> None:
    """Where Apple's extractor is careless: aligned offsets, right symbol ranges, the exports trie, no stale command."""
    for expected, image in extracted.pairs():
        path, size = expected["path"], len(image.data)
        end = 0
        page = 0x1000 if image.cputype in {7, 0x0100_0007} else 0x4000
        for segment in image.segments:
            if not segment.vmsize:
                continue
            assert segment.fileoff % page == 0, (path, segment)
            assert segment.fileoff >= end, (path, segment)
            end = segment.fileoff + segment.filesize
            assert end <= size, (path, segment)
            if segment.name not in {"__TEXT", "__LINKEDIT"}:
                filled = [
                    s.addr + s.size - segment.vmaddr for s in segment.sections if s.flags & 0xFF not in _ZERO_FILL
                ]
                needed = max(len(image.bytes_of(segment).rstrip(b"\0")), *filled, 0)
                assert needed <= segment.filesize < needed + page, (path, segment)
            for section in segment.sections:
                if section.flags & 0xFF in _ZERO_FILL:
                    assert section.offset == 0, (path, section)
                elif section.size:
                    assert section.offset - segment.fileoff == section.addr - segment.vmaddr, (path, section)
        ilocal, nlocal, iext, next_, iundef, nundef = image.dysymtab[:6]
        symbols = image.symbols
        if image.command(0xB):
            assert (ilocal, iext, iundef, nlocal + next_ + nundef) == (0, nlocal, nlocal + next_, len(symbols)), path
            assert not any(s.type & 1 for s in symbols[:nlocal] if not s.type & 0xE0), path
            assert all(s.type & 1 for s in symbols[iext:]), path
            assert all(s.type & 0xE for s in symbols[iext : iext + next_]), path
            assert not any(s.type & 0xE for s in symbols[iundef:]), path
        address_of = {s.name: s.value for s in symbols if s.type & 0xE == 0xE}
        for name, payload in image.exports().items():
            if payload[0] == 0 and name in address_of:
                offset = _uleb(payload[1:])  # of 64 bits: data may lie in front of the text
                assert (offset + image.segments[0].vmaddr) % 2**64 == address_of[name], (path, name)
        for command, data in image.commands:
            if command in {0x1E, 0x1D, 0x2B, 0x2E, 0x80000034, 0x36, 0x37, 0x38, 0x3A, 0x21, 0x2C}:
                pytest.fail(f"{path}: command {command:#x} points at what is not carried over")
            if command in {0x22, 0x80000022}:
                assert struct.unpack_from("<8I", data, 8) == (0,) * 8, path


def _uleb(data: bytes) -> int:
    value = 0
    for number, byte in enumerate(data):
        value |= (byte & 0x7F) << 7 * number
        if byte < 0x80:
            return value
    raise AssertionError(data)
