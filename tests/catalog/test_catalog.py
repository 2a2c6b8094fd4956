"""The catalog answers from records alone: which content is preferred never depends on when a record came."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import pytest

from symcache.catalog import Catalog, MissingImage, release_order
from symcache.errors import StorageError
from symcache.model import (
    CacheFile,
    HarvestRecord,
    Kind,
    ManifestEntry,
    ObjectEntry,
    Origin,
    Record,
    Release,
    ReleaseId,
    Trust,
)


def record_id(record: Record) -> str:
    """Return what names a record: the hash of what is written."""
    return hashlib.sha256(record.model_dump_json().encode()).hexdigest()


U1 = UUID("23516BE4-29BE-350C-91C9-F36E7999F0F1")
U2 = UUID("00000000-0000-0000-0000-000000000002")
CACHE_A = UUID("AAAAAAAA-0000-0000-0000-000000000000")
CACHE_B = UUID("BBBBBBBB-0000-0000-0000-000000000000")


def _record(version: str, build: str, sha: str, **changes: object) -> HarvestRecord:
    entry = {
        "path": "/usr/lib/libz.dylib",
        "arch": "arm64e",
        "uuid": U1,
        "origin": Origin.CACHE,
        "cache_uuid": CACHE_A,
        "extractor": "symcache",
        "revision": 1,
        "sha256": sha * 64,
        "size": 10,
    } | changes
    trust = entry.pop("trust", Trust.HARVEST)
    sealed = entry.pop("sealed", True)
    return HarvestRecord.model_validate(
        {
            "trust": trust,
            "sealed": sealed,
            "release": Release(version=version, build=build),
            "objects": [entry],
            "manifest": [{k: entry[k] for k in ("path", "arch", "uuid", "cache_uuid")}],
        }
    )


def _fold(records: list[HarvestRecord]) -> Catalog:
    catalog = Catalog(None)
    for record in records:
        identity = record_id(record)
        catalog.fold(f"records/w/{identity}", identity, record)
    return catalog


PREFERENCES = {
    "a newer release": (_record("13.6", "22G120", "1"), _record("13.10", "22H5", "2", cache_uuid=CACHE_B)),
    "a newer build of one version": (
        _record("13.6", "22G90", "1"),
        _record("13.6", "22G120", "2", cache_uuid=CACHE_B),
    ),
    "a sealed harvest": (_record("14.0", "23A1", "1", sealed=False), _record("13.6", "22G120", "2")),
    "our own extractor": (
        _record("13.6", "22G120", "1", extractor="dyld_shared_cache_util", revision=9),
        _record("13.6", "22G120", "2"),
    ),
    "a later revision": (_record("13.6", "22G120", "1"), _record("13.6", "22G120", "2", revision=2)),
    "a harvest over an added file": (_record("14.0", "23A1", "1", trust=Trust.ADDED), _record("13.6", "22G1", "2")),
}


@pytest.mark.parametrize("name", PREFERENCES)
def test_preference_does_not_depend_on_the_order_of_folding(name: str) -> None:
    for order in itertools.permutations(PREFERENCES[name]):
        found = _fold(list(order)).resolve(U1, Kind.EXECUTABLE)
        assert [o.sha256[0] for o in found] == ["2", "1"]


def test_a_pin_to_a_cache_or_build_gives_that_layout() -> None:
    catalog = _fold([_record("13.6", "22G120", "1"), _record("14.0", "23A1", "2", cache_uuid=CACHE_B)])
    assert [o.sha256[0] for o in catalog.resolve(U1, cache=CACHE_A)] == ["1"]
    assert [o.sha256[0] for o in catalog.resolve(U1, build="23A1")] == ["2"]
    assert catalog.resolve(U1, build="21A1") == []
    assert catalog.resolve(U2) == []


def test_folding_a_record_again_changes_nothing() -> None:
    catalog, record = Catalog(None), _record("13.6", "22G120", "1")
    assert catalog.fold("records/w/1", "0" * 64, record)
    assert not catalog.fold("records/w/1", "0" * 64, record)
    assert catalog.known_keys() == {"records/w/1"}
    assert len(catalog.resolve(U1)) == 1


def test_a_dsym_and_its_binary_are_told_apart() -> None:
    record = _record("13.6", "22G120", "1")
    dsym = record.objects[0].model_copy(update={"kind": Kind.DEBUGINFO, "sha256": "2" * 64})
    catalog = _fold([record.model_copy(update={"objects": (*record.objects, dsym)})])
    assert [o.sha256[0] for o in catalog.resolve(U1, Kind.DEBUGINFO)] == ["2"]
    assert [o.sha256[0] for o in catalog.resolve(U1, Kind.EXECUTABLE)] == ["1"]


def test_many_uuids_are_answered_in_one_call() -> None:
    uuids = [UUID(int=i) for i in range(1, 2002)]
    objects = tuple(
        ObjectEntry(path=f"/lib{i}", arch="x86_64", uuid=u, sha256=f"{i:064x}", size=i) for i, u in enumerate(uuids)
    )
    catalog = _fold([HarvestRecord(release=Release(version="1", build="1A1"), objects=objects)])
    found = catalog.holdings([*uuids[::2], UUID(int=99999)])
    assert set(found) == set(uuids[::2])
    assert found[uuids[4]][0].path == "/lib4"


def test_names_and_paths_match_by_glob() -> None:
    catalog = _fold([_record("13.6", "22G120", "1")])
    assert len(catalog.by_name("libz.dylib")) == 1
    assert len(catalog.by_name("libz*")) == 1
    assert len(catalog.by_name("/usr/lib/*")) == 1
    assert catalog.by_name("z.dylib") == []


def test_releases_are_listed_newest_first() -> None:
    catalog = _fold([_record("13.6", "22G120", "1"), _record("14.1", "23B5", "2"), _record("13.6", "22G90", "3")])
    assert [(r.build, r.sealed, r.images) for r in catalog.releases()] == [
        ("23B5", True, 1),
        ("22G120", True, 1),
        ("22G90", True, 1),
    ]


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (("10.15.7", "19H15"), ("11.0", "20A1")),
        (("13.3", "22E252"), ("13.3.1", "22E261")),
        (("13.3.1", "22E261"), ("13.3.1", "22E772610a")),
        (("9.9", "9A9"), ("10.0", "10A1")),
    ],
)
def test_releases_sort_by_number_not_by_text(older: tuple[str, str], newer: tuple[str, str]) -> None:
    assert release_order(*older) < release_order(*newer)


def test_a_catalog_of_another_version_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE records (nonsense TEXT)")
        other.execute("PRAGMA user_version = 77")
    other.close()
    catalog = Catalog(path)
    assert catalog.known_keys() == set()
    catalog.close()


def test_manifest_and_cache_files_are_kept(tmp_path: Path) -> None:
    record = HarvestRecord(
        release=Release(version="13.6", build="22G120"),
        manifest=(ManifestEntry(path="/a", arch="x86_64", uuid=None),),
        cache_files=(
            CacheFile(name="c.01", cache_uuid=CACHE_A, arch="x86_64", path="/System/c.01", sha256="1" * 64, size=3),
        ),
    )
    catalog = Catalog(tmp_path / "c.db")
    catalog.fold("records/w/1", "0" * 64, record)
    row = catalog.records_of(ReleaseId("macOS", "22G120"))[0]
    assert [m.path for m in catalog.manifest_of(row.id)] == ["/a"]
    assert [f.name for f in catalog.cache_files_of(CACHE_A)] == ["c.01"]
    catalog.close()


def test_nothing_is_folded_into_what_another_version_has_made_anew(tmp_path: Path) -> None:
    ours, path = Catalog(tmp_path / "catalog.db"), tmp_path / "catalog.db"
    with contextlib.closing(sqlite3.connect(path)) as newer, newer:
        newer.execute("PRAGMA user_version = 9999")
    record = _many(1)[0]
    with pytest.raises(StorageError, match="schema 9999") as refused:
        ours.fold("records/w/1", record_id(record), record)
    assert refused.value.hint and "restart" in refused.value.hint
    ours.close()
    with contextlib.closing(Catalog(path)) as again:  # what was begun now has it to itself
        assert again.fold("records/w/1", record_id(record), record)


def test_readers_see_the_old_or_the_new_catalog_while_another_one_replaces_it(tmp_path: Path) -> None:
    """As `symcache rebuild` does beside a running server; the numbers of rows change with every rebuild."""
    records = [(f"records/w/{n}", record_id(r), r) for n, r in enumerate(_many(30))]
    Catalog(tmp_path / "catalog.db").close()
    reader, writer = Catalog(tmp_path / "catalog.db"), Catalog(tmp_path / "catalog.db")
    writer.fold_many(records)
    expected = [o.sha256 for o in reader.resolve(U1)]
    assert len(expected) == 30
    done, asked = threading.Event(), threading.Event()

    def replace() -> None:
        for number in itertools.count(1):
            if number > 30 and asked.is_set():
                break
            turn = number % 30
            fresh = Catalog(tmp_path / f"fresh{number}.db", filling=True)
            fresh.fold_many(records[turn:] + records[:turn])
            fresh.filled()
            writer.replace_with(fresh)
            fresh.close()
        done.set()

    thread = threading.Thread(target=replace)
    thread.start()
    questions = 0
    try:
        while not done.is_set():
            assert [o.sha256 for o in reader.resolve(U1)] == expected
            questions += 1
            if questions > 20:
                asked.set()
    finally:
        asked.set()
        thread.join()
    reader.close()
    writer.close()


_CLOSE = """
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from symcache.catalog import Catalog
from symcache.errors import StorageError

catalog, begun, answers = Catalog(Path(sys.argv[1])), threading.Event(), []
catalog.database.conn.create_function("begun", 0, begun.set)
NUMBERS = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 1000000)"

def ask():
    answers.extend(catalog._all(f"SELECT begun() UNION ALL SELECT * FROM ({NUMBERS} SELECT count(*) FROM c)"))

thread = threading.Thread(target=ask)
thread.start()
begun.wait()
catalog.close()
thread.join()
assert answers == [(None,), (1000000,)], answers
try:
    catalog.known_keys()
except StorageError:
    print("closed")
"""


def test_a_catalog_is_closed_while_another_thread_asks(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _CLOSE, str(tmp_path / "catalog.db")]  # which would end by a signal
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "closed\n"), done.stderr


def _many(count: int) -> list[HarvestRecord]:
    return [_record(f"13.{n}", f"22G{n}", "1", sha256=f"{n:064x}", cache_uuid=UUID(int=n + 1)) for n in range(count)]


def test_of_several_builds_that_lack_an_image_or_have_a_cache_the_newest_is_named() -> None:
    """By number, not by text."""
    harvests = [_record("13.6", build, "1") for build in ("22G120", "22G90")]
    catalog = _fold([h.model_copy(update={"objects": ()}) for h in harvests])
    assert catalog.missing_images([U1]) == {U1: MissingImage("22G120", "/usr/lib/libz.dylib")}
    assert catalog.builds_of_caches([CACHE_A]) == {CACHE_A: "22G120"}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_catalog_that_may_not_be_made_is_a_matter_of_permissions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(StorageError, match=os.strerror(number)) as raised:
        Catalog(tmp_path / "new" / "catalog.db")
    assert "permissions" in raised.value.hint


def test_releases_are_counted_right_while_another_process_folds_the_catalog_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which numbers the records otherwise."""
    twice = [_record("13.6", "22G120", "1"), _record("13.6", "22G120", "2", uuid=U2)]
    records = [*twice, _record("14.0", "23A1", "3", uuid=U2)]
    reader, writer = Catalog(tmp_path / "catalog.db"), Catalog(tmp_path / "catalog.db")
    for record in records:
        reader.fold(record_id(record), record_id(record), record)
    real = Catalog._count_uuids

    def count(catalog: Catalog, numbers: Sequence[int]) -> int:
        writer.replace_with(_fold(records[::-1]))
        return real(catalog, numbers)

    monkeypatch.setattr(Catalog, "_count_uuids", count)
    assert [(r.build, r.images) for r in reader.releases()] == [("23A1", 1), ("22G120", 2)]
    reader.close()
    writer.close()
