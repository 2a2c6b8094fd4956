"""The catalog is a function of the set of records: order, batches and clocks of folding make no difference."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from symcache.catalog import Catalog
from symcache.model import (
    CacheFile,
    HarvestRecord,
    Kind,
    ManifestEntry,
    ObjectEntry,
    Origin,
    PreferenceRecord,
    Record,
    Release,
    ReleaseId,
    SourceNote,
    TombstoneRecord,
    Trust,
)
from tests.catalog.test_catalog import record_id

UUIDS = [UUID(int=i) for i in range(1, 4)]
CACHES = [None, UUID(int=0xA), UUID(int=0xB)]
SHAS = [c * 64 for c in "1234"]

objects = st.builds(
    ObjectEntry,
    path=st.sampled_from(["/usr/lib/a.dylib", "/usr/lib/b.dylib"]),
    arch=st.sampled_from(["arm64e", "x86_64"]),
    uuid=st.sampled_from([*UUIDS, None]),
    kind=st.sampled_from(list(Kind)),
    origin=st.sampled_from(list(Origin)),
    cache_uuid=st.sampled_from(CACHES),
    extractor=st.sampled_from(["", "symcache", "dyld_shared_cache_util"]),
    revision=st.integers(0, 2),
    sha256=st.sampled_from(SHAS),
    size=st.integers(0, 3),
    symbols=st.sampled_from([None, 0, 5, 9]),
    code=st.sampled_from(["", "a" * 16, "b" * 16]),
    sources=st.lists(
        st.builds(SourceNote, recorded=st.sampled_from(["/a", "/b"]), place=st.sampled_from(["/x", "git:/y@z"])),
        max_size=2,
    ).map(tuple),
)
manifest = st.builds(
    ManifestEntry,
    path=st.sampled_from(["/usr/lib/a.dylib", "/usr/lib/b.dylib"]),
    arch=st.just("arm64e"),
    uuid=st.sampled_from([*UUIDS, None]),
    cache_uuid=st.sampled_from(CACHES),
)
files = st.builds(
    CacheFile,
    name=st.sampled_from(["c", "c.01"]),
    cache_uuid=st.sampled_from(CACHES),
    arch=st.just("arm64e"),
    path=st.just("/System/c"),
    sha256=st.sampled_from(SHAS),
    size=st.integers(0, 3),
)
releases = st.sampled_from(
    [None, *(Release(version=v, build=b) for v, b in (("13.6", "22G120"), ("13.10", "22H5"), ("9", "9A1")))]
)
times = st.sampled_from(["2026-01-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00", ""])


@st.composite
def record_sets(draw: st.DrawFn) -> list[Record]:
    """Draw records that supersede, remove and prefer what any of the earlier ones hold."""
    records: list[Record] = []
    ids: list[str] = []
    for _ in range(draw(st.integers(1, 6))):
        named = draw(st.lists(st.sampled_from([*ids, "f" * 64]), max_size=2, unique=True))
        choice = draw(st.sampled_from(["harvest"] * 4 + ["tombstone", "preference"]))
        record: Record
        if choice == "harvest":
            record = HarvestRecord(
                trust=draw(st.sampled_from(list(Trust))),
                release=draw(releases),
                source=draw(st.sampled_from(["a", "b"])),
                sealed=draw(st.booleans()),
                finished=draw(times),
                supersedes=tuple(named),
                objects=tuple(draw(st.lists(objects, max_size=4))),
                manifest=tuple(draw(st.lists(manifest, max_size=3))),
                cache_files=tuple(draw(st.lists(files, max_size=2))),
            )
        elif choice == "tombstone":
            record = TombstoneRecord(removes=tuple(named), finished=draw(times))
        else:
            record = PreferenceRecord(
                supersedes=tuple(named),
                uuid=draw(st.sampled_from(UUIDS)),
                kind=draw(st.sampled_from(list(Kind))),
                cache_uuid=draw(st.sampled_from(CACHES)),
                sha256=draw(st.sampled_from(SHAS)),
                finished=draw(times),
            )
        records.append(record)
        ids.append(record_id(record))
    return records


def answers(catalog: Catalog) -> list[object]:
    """Ask everything that a user can ask."""
    result: list[object] = [catalog.releases(), catalog.conflicts(), catalog.holdings(UUIDS), catalog.known_keys()]
    for uuid, kind, cache, build in itertools.product(UUIDS, [None, *Kind], CACHES, [None, "22G120", "22H5"]):
        result.append(catalog.resolve(uuid, kind, cache=cache, build=build))
    result += [catalog.by_name(p) for p in ("a.dylib", "*", "/usr/lib/b*")]
    for build in ("22G120", "22H5"):
        for row in catalog.records_of(ReleaseId("macOS", build)):
            files = sorted(repr(f._replace(record=0)) for f in catalog.cache_files_of_record(row.id))
            entries = sorted(map(repr, catalog.manifest_of(row.id)))
            result.append((row._replace(id=0), catalog.objects_of(row.id), entries, files))
    result += [catalog.is_live(sha256) for sha256 in SHAS]
    for view in ("releases", "caches", "images", "occurrences", "manifests", "missing"):
        result.append(sorted(map(repr, catalog.database.execute(f"SELECT * FROM {view}"))))
    result.append(catalog.fingerprint())
    return result


@settings(max_examples=80, deadline=None)
@given(records=record_sets(), data=st.data())
def test_any_order_and_split_of_folding_gives_what_a_rebuild_gives(records: list[Record], data: st.DataObject) -> None:
    placed = [(f"records/w{n % 2}/{n:010d}.json.zst", record_id(r), r) for n, r in enumerate(records)]
    # The same record may lie in two places, after an upload that was repeated.
    if data.draw(st.booleans()):
        placed.append(("records/again/0000000001.json.zst", *placed[0][1:]))
    rebuilt = Catalog(None)
    rebuilt.fold_many(placed)
    folded = Catalog(None)
    rest = data.draw(st.permutations(placed))
    while rest:
        count = data.draw(st.integers(1, len(rest)))
        again = data.draw(st.booleans())
        folded.fold_many(rest[:count])
        if again:
            assert folded.fold_many(rest[:count]) == 0
            folded.resolve(UUIDS[0])
        rest = rest[count:]
    assert answers(folded) == answers(rebuilt)
    rebuilt.close()
    folded.close()


@settings(max_examples=20, deadline=None)
@given(records=record_sets())
def test_a_snapshot_answers_as_the_catalog_it_was_made_of(records: list[Record]) -> None:
    catalog = Catalog(None)
    catalog.fold_many([(f"records/w/{n:010d}.json.zst", record_id(r), r) for n, r in enumerate(records)])
    with tempfile.TemporaryDirectory() as folder:
        catalog.snapshot(Path(folder) / "snapshot.db")
        copy = Catalog(Path(folder) / "snapshot.db")
        assert answers(copy) == answers(catalog)
        copy.close()
    catalog.close()
