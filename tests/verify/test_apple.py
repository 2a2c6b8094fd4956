"""Shared caches that Apple's builder laid out: nothing is found wanting in them, and Apple's extractor agrees."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from symcache.dyld import SharedCache
from symcache.library import Library, ingest
from symcache.verify import Expectations, Level, verify
from symcache.verify.holdings import Unit
from symcache.verify.raw_cache import RawCache
from tests.support.apple import AppleCache, every_apple_cache
from tests.support.extracted import stage_extracted

BUILD = "22G120"


def harvested(main: Path, scratch: Path) -> Library:
    """Store a cache as a harvest does: its raw files and every image."""
    staged = stage_extracted(main, scratch / "extracted", BUILD)
    library = Library.open(scratch / "library", create=True)
    assert ingest(library, staged).sealed
    return library


@pytest.mark.parametrize("apple", every_apple_cache())
def test_nothing_is_wanting_in_what_was_extracted_from_it(apple: AppleCache, tmp_path: Path) -> None:
    with harvested(apple.main, tmp_path) as library:
        report = verify(library, [BUILD], level=Level.BYTES, expectations=Expectations.nothing())
    assert report.findings == []
    assert report.images == len(apple.images)


@pytest.mark.parametrize("apple", every_apple_cache())
def test_apples_extractor_has_as_many_symbols_as_an_image_must_have(apple: AppleCache) -> None:
    with SharedCache.open(apple.main) as cache:
        raw = RawCache(cache, Unit("system", cache.arch, cache.uuid))
        for image in apple.images:
            reference = raw.reference(image["path"], UUID(image["uuid"]) if image.get("uuid") else None)
            assert reference
            # Type 0b: re-exports, some of which the extractor adds.
            added = sum(line.split()[1] == "0b" for line in image["symbols"]) - reference.indirect
            assert len(image["symbols"]) - added == reference.symbols, image["path"]
            assert reference.address == image["address"]
            text = next(s for s in image["segments"] if s["name"] == "__TEXT")
            assert (reference.text_size, reference.commands_end) == (
                text["vmsize"],
                image["text_after_load_commands_from"],
            )
