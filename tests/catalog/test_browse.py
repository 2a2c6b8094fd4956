"""What pages ask the catalog: parts of names in any case, a page of a release at a time, what came when."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import pytest

from symcache.catalog import Catalog, ImageOrder
from symcache.model import (
    CacheFile,
    HarvestRecord,
    ManifestEntry,
    ObjectEntry,
    Record,
    Release,
    ReleaseId,
    TombstoneRecord,
)
from tests.catalog.test_catalog import record_id

_CACHE = UUID("AAAAAAAA-0000-0000-0000-000000000000")
MINE = ReleaseId("macOS", "24E248")
_KIT = "/System/Library/Frameworks/Kit.framework/Versions/A/Kit"


def _entry(path: str, uuid: int, sha: str, size: int = 10) -> ObjectEntry:
    return ObjectEntry(path=path, arch="arm64e", uuid=UUID(int=uuid), sha256=sha * 64, size=size)


def _harvest(
    build: str, *entries: ObjectEntry, finished: str = "2026-01-01T00:00:00+00:00", caches: Sequence[CacheFile] = ()
) -> HarvestRecord:
    return HarvestRecord(
        release=Release(version="15.4", build=build),
        finished=finished,
        sealed=True,
        objects=entries,
        manifest=tuple(ManifestEntry(path=e.path, arch=e.arch, uuid=e.uuid) for e in entries),
        cache_files=tuple(caches),
    )


def _fold(*records: Record) -> Catalog:
    catalog = Catalog(None)
    for record in records:
        catalog.fold(f"records/w/{record_id(record)}", record_id(record), record)
    return catalog


@pytest.fixture
def catalog() -> Catalog:
    return _fold(
        _harvest(
            "24E248",
            *(_entry("/usr/lib/libSystem.B.dylib", 1, "1"), _entry("/usr/lib/libz.1.dylib", 2, "2", 500)),
            *(_entry("/usr/lib/system/libsystem_c.dylib", 3, "3"), _entry(_KIT, 4, "4")),
            *(_entry("/usr/lib/my_kitchen.dylib", 5, "5"), _entry("/usr/lib/100%.dylib", 6, "6")),
        ),
        _harvest("24E249", _entry("/usr/lib/libSystem.B.dylib", 7, "7")),
    )


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        (["LIBSYSTEM"], ["/usr/lib/libSystem.B.dylib", "/usr/lib/system/libsystem_c.dylib"]),
        (["libsystem", "dylib"], ["/usr/lib/libSystem.B.dylib", "/usr/lib/system/libsystem_c.dylib"]),
        (["kit"], [_KIT, "/usr/lib/my_kitchen.dylib"]),
        (["frameworks", "kit"], [_KIT]),
        (["%"], ["/usr/lib/100%.dylib"]),
        (["_kit"], ["/usr/lib/my_kitchen.dylib"]),
        (["nothing"], []),
        ([], []),
    ],
)
def test_a_part_of_a_name_in_any_case_finds_it_and_the_best_name_comes_first(
    catalog: Catalog, words: list[str], paths: list[str]
) -> None:
    assert [found.path for found in catalog.paths_like(words, 10)] == paths


def test_letters_that_are_not_ascii_are_found_as_they_are() -> None:
    catalog = _fold(_harvest("24E248", _entry("/usr/lib/libÉcran.dylib", 1, "1")))
    assert [o.path for o in catalog.by_part("LIBÉ*", 10)] == ["/usr/lib/libÉcran.dylib"]
    assert [o.path for o in catalog.by_part("LIBÉ", 10)] == ["/usr/lib/libÉcran.dylib"]


def test_a_path_is_summed_up_over_all_releases(catalog: Catalog) -> None:
    (found,) = catalog.paths_like(["libSystem.B"], 10)
    assert (found.uuids, found.builds, found.newest) == (2, 2, "24E249")


def test_what_only_removed_releases_had_is_not_found() -> None:
    gone = _harvest("24E248", *(_entry(f"/usr/lib/lib{n}.dylib", n + 1, "1") for n in range(9)))
    kept = _harvest("24E249", _entry("/usr/lib/lib_long_name.dylib", 20, "2"))
    catalog = _fold(gone, kept, TombstoneRecord(removes=(record_id(gone),)))
    assert [found.path for found in catalog.paths_like(["lib"], 2)] == ["/usr/lib/lib_long_name.dylib"]
    assert catalog.images_of_release(MINE).total == 0


def test_images_of_a_release_come_sorted_filtered_and_a_page_at_a_time(catalog: Catalog) -> None:
    def names(**options: object) -> list[str]:
        return [o.path.rpartition("/")[2] for o in catalog.images_of_release(MINE, **options).rows]  # type: ignore[arg-type]

    assert catalog.images_of_release(MINE).total == 6
    assert names(order=ImageOrder.SIZE, descending=True)[0] == "libz.1.dylib"
    assert names(order=ImageOrder.NAME)[-2:] == ["libz.1.dylib", "my_kitchen.dylib"]
    assert names(words=["USR", "system"]) == ["libSystem.B.dylib", "libsystem_c.dylib"]
    every = names()
    assert [name for offset in (0, 2, 4) for name in names(offset=offset, limit=2)] == every
    beyond = catalog.images_of_release(MINE, offset=100)
    assert (beyond.total, beyond.rows) == (6, [])


def test_an_image_that_several_harvests_have_is_listed_once() -> None:
    one, other = (_harvest("24E248", _entry(_KIT, 4, "4"), finished=f"2026-01-0{n}") for n in (1, 2))
    assert _fold(one, other).images_of_release(MINE).total == 1


def test_growth_counts_each_content_on_the_day_it_first_came() -> None:
    raw = CacheFile(
        name="dyld_shared_cache_arm64e", cache_uuid=_CACHE, arch="arm64e", path="/x", sha256="f" * 64, size=7
    )
    first = _harvest("24E248", _entry("/a", 1, "1", 100), finished="2026-01-05T10:00:00+00:00")
    both = _entry("/a", 1, "1", 100), _entry("/b", 2, "2", 30)
    again = _harvest("24E249", *both, finished="2026-01-09T10:00:00+00:00", caches=[raw])
    catalog = _fold(again, first)
    assert [tuple(day) for day in catalog.growth()] == [("2026-01-05", 100, 0), ("2026-01-09", 30, 7)]
    assert tuple(catalog.size_of_release(ReleaseId("macOS", "24E249"))) == (2, 130, 1, 7)


def test_the_latest_harvests_come_first_with_who_and_where() -> None:
    records = [_harvest(f"24E{n}", _entry("/a", n, "1"), finished=f"2026-01-0{n}T00:00:00+00:00") for n in (1, 3, 2)]
    catalog = _fold(*records)
    assert [h.build for h in catalog.harvests(2)] == ["24E3", "24E2"]
    assert [h.build for h in catalog.harvests(5, ReleaseId("macOS", "24E1"))] == ["24E1"]
    assert catalog.records_by_release()[ReleaseId("macOS", "24E3")] == (record_id(records[1]),)
