"""What a cache says it holds, against what Apple's own dyld_shared_cache_util printed of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from symcache.dyld import SharedCache, find_caches
from tests.support.apple import apple_caches, listed_caches, util_output

_FIELDS = {
    "mappingOffset": "mapping_offset", "mappingCount": "mapping_count", "codeSignatureOffset": "code_signature_offset",
    "codeSignatureSize": "code_signature_size", "localSymbolsOffset": "local_symbols_offset",
    "localSymbolsSize": "local_symbols_size", "cacheType": "cache_type", "imagesTextOffset": "images_text_offset",
    "imagesTextCount": "images_text_count", "maxSlide": "max_slide", "subCacheArrayCount": "subcache_array_count",
    "subCacheArrayOffset": "subcache_array_offset", "dylibsTrieAddr": "dylibs_trie_address",
    "dylibsTrieSize": "dylibs_trie_size", "imagesOffset": "images_offset_new", "imagesCount": "images_count_new",
    "mappingWithSlideOffset": "mapping_with_slide_offset", "mappingWithSlideCount": "mapping_with_slide_count",
}  # fmt: skip


@pytest.fixture(params=listed_caches())
def opened(request: pytest.FixtureRequest) -> tuple[SharedCache, Path]:
    main = find_caches(apple_caches() / request.param)[0]
    return SharedCache.open(main), util_output() / request.param


def test_images_addresses_sizes_and_uuids(opened: tuple[SharedCache, Path]) -> None:
    cache, said = opened
    rows = re.findall(r"(0x\w+) -> (0x\w+)  <([\w-]+)>  (\S.*)", (said / "text_info.out").read_text())
    assert rows
    assert {(i.path, i.address, i.address + i.text_size) for i in cache.images} == {
        (path, int(start, 16), int(end, 16)) for start, end, _, path in rows
    }
    uuids = {path: uuid for _, _, uuid, path in rows}
    assert all(str(i.uuid).upper() == uuids[i.path] for i in cache.images if i.uuid)


def test_images_and_aliases_together_are_what_is_listed(opened: tuple[SharedCache, Path]) -> None:
    """The list of Apple's tool does not tell aliases from images: compare as a set, never count its lines."""
    cache, said = opened
    rows = re.findall(r"^(0x\w+) <.*?> (\S.*)$", (said / "list-uuid-vmaddr.out").read_text(), re.MULTILINE)
    own = {(i.address, i.path) for i in cache.images}
    own |= {(cache.images[index].address, path) for path, index in cache.aliases.items()}
    assert own == {(int(address, 16), path) for address, path in rows}


def test_fields_of_the_header(opened: tuple[SharedCache, Path]) -> None:
    """Of the main file: for sub-caches Apple's tool prints the main file's fields again."""
    cache, said = opened
    block = (said / "cache_header.out").read_text().partition("Cache #1")[0]
    compared = 0
    for name, value in re.findall(r"- (\w+): (0x\w+)", block):
        if name in _FIELDS:
            assert getattr(cache.main.header, _FIELDS[name]) == int(value, 16), name
            compared += 1
    assert compared > 10
    assert f"- uuid: {str(cache.uuid).upper()}" in block


def test_segments_of_every_image_lie_where_the_map_says(opened: tuple[SharedCache, Path]) -> None:
    cache, said = opened
    rows = re.findall(r"(0x\w+) - (0x\w+) (__\w+) (\S.*)", (said / "map.out").read_text())
    text = {path: int(start, 16) for start, _, name, path in rows if name == "__TEXT"}
    assert text == {i.path: i.address for i in cache.images}
    for start, end, name, path in rows:
        if name != "__LINKEDIT" and int(end, 16) > int(start, 16):
            cache.space.view(int(start, 16), int(end, 16) - int(start, 16), f"{path} {name}")
