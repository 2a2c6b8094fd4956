"""Every variant of cache that the tests' own writer makes, image by image: what went in comes out."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from symcache.dyld import SharedCache, extract_all
from tests.cachewriter import CacheOptions, build_cache
from tests.cachewriter.matrix import matrix
from tests.cachewriter.samples import sample
from tests.dyld.macho_reader import LC_DATA_IN_CODE, LC_FUNCTION_STARTS, MachO, read
from tests.support.toolchain import need_toolchain

_N_INDR = 0xA


def _symbol_lines(image: MachO) -> list[str]:
    lines = []
    for s in image.symbols:
        value = image.string(s.value) if s.type & 0xE == _N_INDR else f"{s.value:x}"
        lines.append(f"{value} {s.type:02x} {s.sect} {s.desc:04x} {s.name}")
    return sorted(lines)


@pytest.mark.parametrize("options", [pytest.param(options, id=name) for name, options in matrix()])
def test_what_went_into_the_cache_comes_out(tmp_path: Path, options: CacheOptions) -> None:
    need_toolchain()
    made = build_cache(sample(options), options)
    main = made.write(tmp_path / "cache")
    with SharedCache.open(main) as cache:
        assert cache.warnings == []
        assert {i.path for i in cache.images} == {p.path for p in made.placed}
        assert {p: cache.images[i].path for p, i in cache.aliases.items()} == (
            options.aliases if options.header_size < 0x118 or options.dylibs_trie else {}
        )
        report = extract_all(cache, tmp_path / "out", jobs=1)
    assert not report.failed
    for extracted in report.extracted:
        path, image = extracted.path, read(extracted.file)
        expected, placed = made.expected(path), made.placed_image(path)
        assert (image.uuid.bytes if image.uuid else bytes(16)) == placed.uuid and not image.flags & 0x8000_0000
        segments = [s for s in image.segments if s.name != "__LINKEDIT"]
        wanted = [(s.name, s.vmaddr, s.content) for s in expected.segments if s.name != "__LINKEDIT"]
        assert [(s.name, s.vmaddr) for s in segments] == [(name, vmaddr) for name, vmaddr, _ in wanted], path
        for segment, (name, _, content) in zip(segments, wanted, strict=True):
            data = image.bytes_of(segment)
            start = expected.text_after_load_commands if name == "__TEXT" else 0
            assert data[start:] == content[start:], f"{path} {name}"
        assert _symbol_lines(image) == sorted(expected.symbol_lines), path
        assert image.payload(LC_FUNCTION_STARTS) == expected.function_starts, path
        assert image.payload(LC_DATA_IN_CODE) == expected.data_in_code, path
        symbols = image.symbols
        names = ["LOCAL" if i & 0x8000_0000 else "ABS" if i & 0x4000_0000 else symbols[i].name for i in image.indirect]
        assert names == expected.indirect_symbols, path


@pytest.mark.parametrize("split", ["single", "v2-kinds"])
def test_commands_of_later_linkers_go_with_what_they_point_at(tmp_path: Path, split: str) -> None:
    """Of the same shape as others that point into __LINKEDIT; what merely has that shape stays."""
    need_toolchain()
    inside, outside = (0x70, 0x20, 0x40), (0x71, -0x10, 0x8)
    options = CacheOptions(arch="arm64", split=split, commands=(inside, outside))
    with SharedCache.open(build_cache(sample(options), options).write(tmp_path / "cache")) as cache:
        in_cache = sum(bytes(part.data).count(struct.pack("<2I", inside[0], 16)) for part in cache.files)
        assert in_cache == len(cache.images)
        report = extract_all(cache, tmp_path / "out", jobs=1)
    assert not report.failed
    for extracted in report.extracted:
        kinds = [cmd for cmd, _ in read(extracted.file).commands]
        assert 0x70 not in kinds and 0x71 in kinds, extracted.path
