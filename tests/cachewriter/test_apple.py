"""Caches that Apple's own builder laid out: they judge the plain reader, and show what the writer's must look like."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.cachewriter import CacheOptions, build_cache
from tests.cachewriter.plainreader import FIELDS, PlainCache
from tests.cachewriter.samples import FRAMEWORK, sample
from tests.support.apple import AppleCache, every_apple_cache

THREE = (".1", ".2", ".3")


@pytest.mark.parametrize("apple", every_apple_cache())
def test_the_plain_reader_reads_apples_caches_right(apple: AppleCache) -> None:
    plain = PlainCache(apple.main)
    for told in apple.images:
        address = plain.images[told["path"]]
        image = plain.commands(address)
        assert address == told["address"]
        for segment in told["segments"]:
            content = plain.read(segment["vmaddr"], segment["vmsize"])
            skipped = told["text_after_load_commands_from"] if segment["name"] == "__TEXT" else 0
            assert hashlib.sha256(content[skipped:]).hexdigest() == segment["sha256"], segment["name"]
        lines, _ = plain.symbols(image)
        wanted = [line for line in told["symbols"] if " 0b 0 0000 " not in line]
        assert sorted(lines) == sorted(wanted)
        for key, command in (("function_starts", 0x26), ("data_in_code", 0x29)):
            if key in told:
                assert hashlib.sha256(plain.payload(image, command)).hexdigest() == told[key]["sha256"], key


def _shape(plain: PlainCache) -> dict[str, Any]:
    """What caches of one era and kind have in common, whatever lies in them."""
    # What the writer has no use for: dyld's own entry, objc and Swift tables, prebuilt loaders, builder's choice.
    ignored = ("dyldInCache", "cacheType", "cacheSubType", "bits", "altPlatform", "osVersion", "tpro", "dynamicData")
    names = [
        n for n, (offset, _) in FIELDS.items() if offset < plain.header("mappingOffset") and not n.startswith(ignored)
    ]
    return {
        "filled fields": {n for n in names if plain.header(n) not in (0, bytes(16))},
        "magic": plain.header("magic"),
        "platform": plain.header("platform"),
        "protections": {(m.maxprot, m.initprot, m.flags) for m in plain.mappings},
        "slide versions": {plain.files[m.file][m.slide_offset] for m in plain.mappings if m.slide_offset},
        "addresses": plain.mappings[0].address,
    }


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x86_64-mac", CacheOptions("x86_64", 0x200)),
        ("x86_64-split", CacheOptions("x86_64", 0x200, split=(".01", ".02", ".03"), unmapped_locals=".symbols")),
        ("arm64-reexp", CacheOptions("arm64", 0x200, unmapped_locals=".symbols")),
        (
            "v1-entries-x86_64-split",
            CacheOptions("x86_64", 0x1C8, split=(".1", ".2", ".3"), unmapped_locals=".symbols"),
        ),
    ],
)
def test_shape_equals_that_of_apples_builder(name: str, options: CacheOptions, tmp_path: Path) -> None:
    folder = Path(os.environ.get("SYMCACHE_TEST_CACHES", "/nowhere")) / name
    if not folder.is_dir():
        pytest.skip(f"SYMCACHE_TEST_CACHES is not set to a folder with {name}")
    theirs = PlainCache(folder / json.loads((folder / "expected.json").read_text())["cache"])
    few = [d for d in sample(options) if d.path != FRAMEWORK]
    ours = PlainCache(build_cache(few, options).write(tmp_path))
    assert _shape(ours) == _shape(theirs)
