"""Real third-party libraries from macOS wheels: into a cache, out again, and held against what they were."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from symcache.dyld import SharedCache, extract_all
from symcache.macho import identify
from tests.cachewriter import CacheOptions, DylibInput, build_cache
from tests.dyld.macho_reader import LC_DATA_IN_CODE, LC_FUNCTION_STARTS, read
from tests.support.wheels import wheel_tree

_WHEELS = [("numpy==2.0.2", "macosx_11_0_arm64", "arm64"), ("numpy==2.0.2", "macosx_10_9_x86_64", "x86_64")]
_MOST = 5
_SMALLEST, _LARGEST = 20_000, 3_000_000


def _dylibs(tree: Path, arch: str) -> list[DylibInput]:
    """A few libraries of very different sizes, at most one of each name."""
    found: dict[str, Path] = {}
    for path in sorted(tree.rglob("*")):
        if path.suffix in {".so", ".dylib"} and _SMALLEST < path.stat().st_size < _LARGEST:
            slices = identify(path)
            if [s.arch for s in slices] == [arch] and slices[0].offset == 0:
                found.setdefault(path.name, path)
    by_size = sorted(found.values(), key=lambda p: p.stat().st_size)
    chosen = by_size[:: max(1, len(by_size) // _MOST)] + by_size[-1:]
    return [DylibInput(f"/usr/lib/{p.name}", p) for p in dict.fromkeys(chosen)]


@functools.cache
def _can_be_moved(dylib: DylibInput, arch: str) -> bool:
    """Return whether the cache writer can take this code apart; hand-written assembly it refuses."""
    try:
        build_cache([dylib], CacheOptions(arch=arch))
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(("wheel", "platform", "arch"), _WHEELS, ids=[w[2] for w in _WHEELS])
@pytest.mark.parametrize(
    "options",
    [{"header_size": 0x138}, {"header_size": 0x228, "split": "v2-kinds", "layout_seed": 4}],
    ids=["10.15", "15.4"],
)
def test_a_wheels_libraries_survive_the_cache(
    tmp_path: Path, wheel: str, platform: str, arch: str, options: dict[str, Any]
) -> None:
    inputs = [i for i in _dylibs(wheel_tree(wheel, platform), arch) if _can_be_moved(i, arch)]
    assert len(inputs) >= 3
    made = build_cache(inputs, CacheOptions(arch=arch, **options))
    with SharedCache.open(made.write(tmp_path / "cache")) as cache:
        report = extract_all(cache, tmp_path / "out", jobs=1)
    assert not report.failed
    sources = {i.path: i.file for i in inputs}
    for extracted in report.extracted:
        image, before, expected = read(extracted.file), read(sources[extracted.path]), made.expected(extracted.path)
        assert image.uuid == before.uuid
        assert image.payload(LC_FUNCTION_STARTS).rstrip(b"\0") == before.payload(LC_FUNCTION_STARTS).rstrip(b"\0")
        assert image.payload(LC_DATA_IN_CODE) == before.payload(LC_DATA_IN_CODE)
        assert sorted(s.name for s in image.symbols) == sorted(s.name for s in before.symbols)
        for segment, wanted in zip(image.segments, expected.segments, strict=False):
            start = expected.text_after_load_commands if segment.name == "__TEXT" else 0
            assert image.bytes_of(segment)[start:] == wanted.content[start:], (extracted.path, segment.name)
        names = [
            "LOCAL" if i & 0x8000_0000 else "ABS" if i & 0x4000_0000 else image.symbols[i].name for i in image.indirect
        ] if len(image.indirect) < 50 else None  # fmt: skip
        assert names in (None, expected.indirect_symbols)
