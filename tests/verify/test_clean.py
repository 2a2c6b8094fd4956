"""A whole release gives no finding, at any level, whatever is odd about it."""

from __future__ import annotations

import itertools
import json
import struct
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from symcache.dyld import SharedCache
from symcache.errors import SharedCacheError
from symcache.library import Library, ingest
from symcache.verify import Expectations, FindingCode, Level, verify
from symcache.verify.contents import check_content
from symcache.verify.holdings import Unit
from symcache.verify.layout import Problem
from symcache.verify.raw_cache import RawCache
from tests.cachewriter.variants import built
from tests.library.images import Image, harvest
from tests.support.extracted import stage_extracted
from tests.verify.releases import ARCHS, BUILD, Workshop

_LC_NOTHING = 0x7F
"""A load command that nobody knows."""


@pytest.mark.parametrize("level", Level)
def test_a_whole_release_is_complete(harvested: Path, level: Level) -> None:
    with Library.open(harvested) as library:
        report = verify(library, [BUILD], level=level)
    assert report.findings == []
    assert {(c["family"], c["arch"]) for c in report.releases[0].caches if c["uuid"]} == {("system", a) for a in ARCHS}
    # Per architecture: seven images of its cache; outside: two slices of dyld and a tool.
    assert report.images == 7 * 3 + 3
    assert json.loads(json.dumps(report.to_json()))["complete"] is True


def test_commands_that_apples_extractor_leaves_behind_cut_nothing_off(workshop: Workshop) -> None:
    """LC_ATOM_INFO and its like still have the file offset that they had in the cache."""

    def leave(image: bytearray) -> bytes:
        at = image.index(struct.pack("<2I", 0x29, 16))
        struct.pack_into("<4I", image, at, 0x36, 16, 0x7000_0000, 0x20)
        return bytes(image)

    workshop.change_content("/usr/lib/libplain.dylib", "arm64e", leave)
    with workshop.open() as library:
        assert verify(library, [BUILD], level=Level.BYTES).findings == []


def test_an_interrupted_verification_leaves_nothing_behind(harvested: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done >= 5:
            raise KeyboardInterrupt

    with Library.open(harvested) as library, pytest.raises(KeyboardInterrupt):
        verify(library, [BUILD], level=Level.BYTES, scratch=tmp_path, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_verification_reads_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, ending, given = [], threading.Event(), itertools.count(1)

    class Pool(ThreadPoolExecutor):
        def submit(self, *what: Any, **how: Any) -> Future[Any]:
            if next(given) == 5:
                raise KeyboardInterrupt  # as when it comes while the work is given out
            return super().submit(*what, **how)

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            ending.set()
            super().shutdown(wait)

    def one(*what: Any, **how: Any) -> list[Problem]:
        read.append(what)
        assert ending.wait(60)
        return check_content(*what, **how)

    monkeypatch.setattr("symcache.verify.check.ThreadPoolExecutor", Pool)
    monkeypatch.setattr("symcache.verify.check.check_content", one)
    with Library.open(tmp_path / "library", create=True) as library:
        ingest(library, harvest(tmp_path / "staged", [Image(f"/usr/lib/{n}", n) for n in range(1, 6)]))
        with pytest.raises(KeyboardInterrupt):
            verify(library, jobs=1)
    assert len(read) <= 1


@pytest.mark.parametrize("level", Level)
def test_progress_counts_up_to_all_contents(harvested_twice: Path, level: Level) -> None:
    seen: list[tuple[int, int]] = []
    with Library.open(harvested_twice) as library:
        assert verify(library, level=level, progress=lambda done, total: seen.append((done, total))).complete
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert all(done <= total for done, total in seen)
    # Two builds of 24 images each.
    assert seen[-1][0] >= 48
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize("level", [Level.BLOBS, Level.BYTES])
def test_all_load_commands_are_read_however_long_they_are(tmp_path: Path, level: Level) -> None:
    image, more = Image("/usr/lib/a", 1, symbols=1), 40_000
    data = bytearray(image.data)
    end, symtab, segment = 32 + 200, 32 + 24, 32 + 48
    # <mach-o/loader.h>: ncmds and sizeofcmds; symoff and stroff; vmsize and filesize; the offset of the section
    struct.pack_into("<2I", data, 16, 4, 200 + more)
    for at in (symtab + 8, symtab + 16, segment + 32, segment + 48, segment + 72 + 48):
        struct.pack_into("<I", data, at, struct.unpack_from("<I", data, at)[0] + more)
    image.data = bytes(data[:end] + struct.pack("<2I", _LC_NOTHING, more) + bytes(more - 8) + data[end:])
    with Library.open(tmp_path / "library", create=True) as library:
        ingest(library, harvest(tmp_path / "staged", [image]))
        assert verify(library, level=level, expectations=Expectations.nothing()).findings == []
        image.data = image.data[:-2010]  # and they are not read in vain: the symbols have gone
        ingest(library, harvest(tmp_path / "cut", [image], build="22G121"))
        (finding,) = verify(library, ["22G121"], level=level, expectations=Expectations.nothing()).findings
    assert finding.code is FindingCode.TRUNCATED_LINKEDIT


def test_contents_that_a_release_was_not_said_to_have_are_counted_from_the_start(tmp_path: Path) -> None:
    """What another source lists beside a sealed harvest is not counted as the release's, and is checked, too."""
    images = [Image(f"/usr/lib/{n}", n) for n in range(1, 6)]
    seen: list[tuple[int, int]] = []
    with Library.open(tmp_path / "library", create=True) as library:
        ingest(library, harvest(tmp_path / "whole", images[:2], source="whole"))
        ingest(library, harvest(tmp_path / "cut", images[2:], source="cut", problems=["cut"]))
        assert [r.listed for r in library.releases()] == [2]
        verify(library, jobs=1, progress=lambda done, total: seen.append((done, total)))
    assert [s for s in seen if s[0]] == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize(
    "layout",
    [
        "x86_64-0x228",
        # Local symbols in a table of their own, by file offset and by address, in the main file and in one of theirs.
        "x86_64-0x138-same-file",
        "arm64-0x228-same-file",
        "arm64-0x1c8-.symbols-v1",
        "arm64e-0x228-.symbols-v2-kinds",
    ],
)
def test_symbols_that_the_extractor_adds_are_none_too_many(tmp_path: Path, layout: str) -> None:
    """Images that re-export single symbols have more of them outside of the cache than in it."""
    main = built(layout).write(tmp_path / "dyld")
    with Library.open(tmp_path / "library", create=True) as library:
        assert ingest(library, stage_extracted(main, tmp_path / "extracted", BUILD)).sealed
        report = verify(library, [BUILD], level=Level.BYTES, expectations=Expectations.nothing())
    assert report.findings == []


def test_an_image_without_text_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    whole = built("x86_64-0x228")
    main, image = whole.write(tmp_path), whole.placed[0]
    uuid = UUID(bytes=image.uuid)
    main.write_bytes(main.read_bytes().replace(b"__TEXT".ljust(16, b"\0"), b"__CODE".ljust(16, b"\0")))
    with SharedCache.open(main) as cache:
        assert (image.path, uuid) in {(i.path, i.uuid) for i in cache.images}
        assert RawCache(cache, Unit("system", cache.arch, cache.uuid)).reference(image.path, uuid) is None


def test_an_image_whose_load_commands_no_cache_can_hold_is_no_reference(tmp_path: Path) -> None:
    whole = built("x86_64-0x228")
    main, image = whole.write(tmp_path), whole.placed[0]
    with SharedCache.open(main) as cache:
        place = cache.space.locate(image.address)
    assert place
    data = bytearray(main.read_bytes())
    struct.pack_into("<I", data, place.offset + 20, 0xFFFF_FFF0)  # sizeofcmds
    main.write_bytes(data)
    with SharedCache.open(main) as cache:
        raw = RawCache(cache, Unit("system", cache.arch, cache.uuid))
        uuid = next(i.uuid for i in cache.images if i.path == image.path)
        with pytest.raises(SharedCacheError, match=r"the raw cache: .* load commands"):
            raw.reference(image.path, uuid)
