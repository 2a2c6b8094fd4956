"""fsck finds each kind of damage and nothing else, and mends what can be mended."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import zstandard

from symcache.catalog import Catalog
from symcache.catalog.views import CONTENT
from symcache.errors import IntegrityError, StorageError, UsageError
from symcache.images import ImageRequest
from symcache.library import (
    FsckCode,
    Library,
    Subset,
    fsck,
    gc,
    ingest,
    prefer,
    remove_build,
    repair,
    write_snapshot,
)
from symcache.model import Trust
from symcache.store import RecordKey, blob_key
from tests.library.hooked import Hooked
from tests.library.images import Image, harvest
from tests.store.test_local_store import BadSectors

IMAGES = [Image(f"/usr/lib/{n}", n, size=5000) for n in range(1, 5)]


@pytest.fixture
def filled(local: Library, tmp_path: Path) -> Library:
    ingest(local, harvest(tmp_path / "1", IMAGES[:3], raw=[("cache", 9, b"raw" * 1000)]))
    ingest(local, harvest(tmp_path / "2", IMAGES[3:], build="23A1", version="14.0"))
    return local


def _root(library: Library) -> Path:
    return Path(library.store.location)


def _blob(library: Library, uuid: int = 1) -> Path:
    found = library.resolve(ImageRequest(UUID(int=uuid)))
    assert found
    return _root(library) / blob_key(found.sha256)


def _flip(path: Path, place: int, bit: int = 4) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.chmod(0o644)
    path.write_bytes(data)


def _codes(library: Library, **options: object) -> list[str]:
    return [f.code.value for f in fsck(library, **options).findings]  # type: ignore[arg-type]


def test_a_sound_library_is_clean(anywhere: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest(anywhere, harvest(tmp_path / "1", IMAGES, raw=[("cache", 9, b"raw" * 1000)]))
    write_snapshot(anywhere.store, anywhere.catalog)
    opened, real = list[str](), anywhere.store.open
    monkeypatch.setattr(anywhere.store, "open", lambda key: opened.append(key) or real(key))
    report = fsck(anywhere)
    assert (report.clean, report.records, report.blobs, report.unnamed, report.bytes_read) == (True, 1, 5, 0, 0)
    # An object store would send all of a blob for a look at its headers.
    looked = 0 if anywhere.store.location.startswith("s3://") else 5
    assert len([key for key in opened if key.startswith("blobs/")]) == looked
    monkeypatch.setattr(sys.modules["symcache.library.fsck"], "_BATCH", 2)  # the function has its name
    told: list[tuple[int, int]] = []
    report = fsck(anywhere, read=Subset(), progress=lambda *done: told.append(done))
    assert report.clean
    assert report.bytes_read == sum(len(i.data) for i in IMAGES) + 3000
    assert told == [(2, 5), (4, 5), (5, 5)]


DAMAGE: dict[str, tuple[Callable[[Library], object], FsckCode]] = {
    "a blob is gone": (lambda lib: _blob(lib).unlink(), FsckCode.BLOB_MISSING),
    "a blob is empty": (lambda lib: _blob(lib).write_bytes(b""), FsckCode.BLOB_DAMAGED),
    "a blob lacks its last byte": (
        lambda lib: _blob(lib).write_bytes(_blob(lib).read_bytes()[:-1]),
        FsckCode.BLOB_DAMAGED,
    ),
    "a blob goes on": (lambda lib: _blob(lib).write_bytes(_blob(lib).read_bytes() + b"x"), FsckCode.BLOB_DAMAGED),
    "a blob is of another size": (
        lambda lib: _blob(lib).write_bytes(zstandard.compress(b"short")),
        FsckCode.BLOB_DAMAGED,
    ),
    "a record is damaged": (
        lambda lib: _flip(next((_root(lib) / "records").rglob("*01.json.zst")), -1),
        FsckCode.RECORD_UNREADABLE,
    ),
    "a record is gone": (
        lambda lib: next((_root(lib) / "records").rglob("*01.json.zst")).unlink(),
        FsckCode.RECORD_LOST,
    ),
    "a strange blob": (lambda lib: (_root(lib) / "blobs" / "ab.zst").write_bytes(b""), FsckCode.STRAY),
    "a strange record": (lambda lib: (_root(lib) / "records" / "x").write_bytes(b""), FsckCode.STRAY),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_structural_damage_is_found_without_reading(filled: Library, name: str) -> None:
    damage, code = DAMAGE[name]
    for path in _root(filled).rglob("*.zst"):
        path.chmod(0o644)
    damage(filled)
    with Library.open(_root(filled)) as again:
        codes = _codes(again)
    assert set(codes) == {code.value}


@pytest.mark.parametrize("place", [5, 20, 1000, -1])
def test_a_flipped_bit_in_a_blob_is_found_by_reading_and_never_served(
    filled: Library, tmp_path: Path, place: int
) -> None:
    found = filled.resolve(ImageRequest(UUID(int=1)))
    assert found
    _flip(_blob(filled), place)
    assert _codes(filled, read=Subset()) == ["blob-damaged"]
    with pytest.raises(IntegrityError):
        filled.materialize(found.sha256, found.size, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_flipped_bit_in_a_record_is_found_by_reading(filled: Library) -> None:
    _flip(next((_root(filled) / "records").rglob("*01.json.zst")), 40)
    assert "record-unreadable" in _codes(filled, read=Subset())


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE objects SET sha256 = (SELECT sha256 FROM objects ORDER BY id DESC LIMIT 1) WHERE id = 1",
        "UPDATE objects SET uuid = x'00000000000000000000000000000001' WHERE id = 2",
        "UPDATE objects SET size = size + 1 WHERE id = 1",
        "UPDATE layouts SET cache_uuid = zeroblob(16) WHERE id = 1",
        "UPDATE records SET build = '23A1' WHERE id = 1",
        "UPDATE records SET trust = 1 WHERE id = 1",
    ],
)
def test_a_changed_catalog_is_found_and_never_believed(filled: Library, change: str) -> None:
    filled.close()
    with sqlite3.connect(_root(filled) / "catalog.db") as other:
        other.execute(change)
    other.close()
    with Library.open(_root(filled)) as again:
        with pytest.raises(StorageError, match="damaged"):
            again.resolve(ImageRequest(UUID(int=1)))
            again.resolve(ImageRequest(UUID(int=2)))
        assert _codes(again, read=Subset()) == ["catalog-damaged"]
        report = fsck(again, read=Subset(), rebuild=True)
        assert report.clean
        assert again.resolve(ImageRequest(UUID(int=1)))


def test_random_bit_flips_in_the_catalog_file_never_give_a_wrong_answer(filled: Library, tmp_path: Path) -> None:
    import random

    right = {n: filled.resolve(ImageRequest(UUID(int=n))) for n in range(1, 5)}
    filled.close()
    sound = (_root(filled) / "catalog.db").read_bytes()
    chance = random.Random(5)
    for _ in range(60):
        data = bytearray(sound)
        data[chance.randrange(100, len(data))] ^= 1 << chance.randrange(8)
        for name in ("catalog.db", "catalog.db-wal", "catalog.db-shm"):
            (_root(filled) / name).unlink(missing_ok=True)
        (_root(filled) / "catalog.db").write_bytes(data)
        for number, expected in right.items():
            try:
                with Library.open(_root(filled)) as again:
                    found = again.resolve(ImageRequest(UUID(int=number)))
            except StorageError:
                continue
            assert expected
            assert found is None or found.sha256 == expected.sha256


def test_a_damaged_snapshot_is_found(filled: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    key = write_snapshot(filled.store, filled.catalog)
    _flip(_root(filled) / key, 500)
    assert _codes(filled, read=Subset()) == ["snapshot-damaged"]
    (_root(filled) / "snapshots" / "stray").touch()
    real = filled.store.list
    collected = f"snapshots/v1-{1:010d}-{'0' * 64}.db.zst"  # at this moment
    before_it = {"snapshots/": [collected, "snapshots/stray"]}
    monkeypatch.setattr(
        filled.store, "list", lambda prefix: [*before_it.get(prefix, ()), *set(real(prefix)) - {"snapshots/stray"}]
    )
    findings = [(f.code, f.key) for f in fsck(filled, read=Subset()).findings]
    assert findings == [(FsckCode.STRAY, "snapshots/stray"), (FsckCode.SNAPSHOT_DAMAGED, key)]


@pytest.mark.parametrize(
    ("count", "said"), [(3, "/a1 of 22G120, /a2 of 22G120, /a3 of 22G120"), (4, "/a3 of 22G120, …")]
)
def test_a_blob_that_is_gone_is_told_by_what_it_was(local: Library, tmp_path: Path, count: int, said: str) -> None:
    ingest(local, harvest(tmp_path / "1", [Image(f"/a{n + 1}", 1) for n in range(count)]))
    _blob(local).unlink()
    (finding,) = fsck(local).findings
    assert finding.message.endswith(said)


def test_an_undecided_conflict_is_a_finding_until_somebody_decides(filled: Library, tmp_path: Path) -> None:
    rival = Image("/usr/lib/1", 1, seed=9)
    ingest(filled, harvest(tmp_path / "3", [rival], build="24A1"))
    assert _codes(filled) == ["conflict"]
    prefer(filled, UUID(int=1), filled.variants(UUID(int=1))[0].sha256)
    assert _codes(filled) == []


def test_a_damaged_snapshot_is_put_aside(filled: Library) -> None:
    key = write_snapshot(filled.store, filled.catalog)
    _flip(_root(filled) / key, 500)
    report = fsck(filled, read=Subset())
    repair(filled, report)
    assert report.clean
    assert list(filled.store.list("snapshots/")) == []
    assert list(filled.store.list("quarantine/")) == [f"quarantine/{key}"]
    assert fsck(filled, read=Subset()).findings == []


def test_a_damaged_blob_that_no_record_names_is_put_aside_and_not_searched_for(filled: Library) -> None:
    path = _blob(filled, 4)
    remove_build(filled, "23A1")
    _flip(path, 30)
    report = fsck(filled, read=Subset())
    assert (report.unnamed, [f.code for f in report.findings]) == (1, [FsckCode.BLOB_DAMAGED])
    assert report.bytes_read == sum(len(i.data) for i in IMAGES[:3]) + 3000
    repair(filled, report, fetch=[lambda wanted, folder: pytest.fail(f"{wanted} was fetched")])
    assert report.clean
    assert not path.exists()
    assert [p.name for p in (_root(filled) / "quarantine").rglob("*.zst")] == [path.name]


def test_a_wrong_catalog_is_folded_anew(filled: Library) -> None:
    filled.close()
    with sqlite3.connect(_root(filled) / "catalog.db") as other:
        other.execute("UPDATE objects SET size = size + 1 WHERE id = 1")
    other.close()
    with Library.open(_root(filled)) as again:
        report = fsck(again, read=Subset())
        assert not report.clean
        repair(again, report)
        assert report.clean
        assert fsck(again, read=Subset()).findings == []
        found = again.resolve(ImageRequest(UUID(int=1)))
        assert found
        assert found.size == len(IMAGES[0].data)


def test_damage_is_repaired_from_another_library(filled: Library, tmp_path: Path) -> None:
    shutil.copytree(_root(filled), tmp_path / "copy")
    _flip(_blob(filled, 1), 30)
    _blob(filled, 2).unlink()
    record = next((_root(filled) / "records").rglob("*02.json.zst"))
    record.unlink()
    report = fsck(filled, read=Subset())
    assert sorted(f.code for f in report.findings) == ["blob-damaged", "blob-missing", "record-lost"]
    seen: list[tuple[int, int]] = []
    with Library.open(tmp_path / "copy") as other:
        repair(filled, report, others=[other], progress=lambda done, total: seen.append((done, total)))
    assert {f.repaired for f in report.findings} == {f"copied from {tmp_path / 'copy'}"}
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert report.clean
    assert fsck(filled, read=Subset()).clean
    assert record.exists()
    assert filled.resolve(ImageRequest(UUID(int=4)))


def test_damage_is_repaired_by_asking_a_server_whose_answer_is_checked(filled: Library, tmp_path: Path) -> None:
    _blob(filled, 1).unlink()
    asked: list[str] = []
    answers = [b"something else", IMAGES[0].data]

    def fetch(wanted: object, folder: Path) -> Path:
        asked.append(wanted.path)  # type: ignore[attr-defined]
        path = folder / "answer"
        path.write_bytes(answers[len(asked) - 1])
        return path

    report = fsck(filled)
    repair(filled, report, fetch=[fetch])
    assert not report.clean
    report = fsck(filled)
    repair(filled, report, fetch=[fetch])
    assert report.clean
    assert asked == ["/usr/lib/1", "/usr/lib/1"]
    assert fsck(filled, read=Subset()).clean


def test_of_several_libraries_the_first_that_has_the_right_is_copied_from(filled: Library, tmp_path: Path) -> None:
    writer = filled.store.folders("records/")[0]
    lost, missing = RecordKey(writer, 2), _blob(filled, 2)
    for name in ("damaged", "whole"):
        shutil.copytree(_root(filled), tmp_path / name)
    for path in (missing.relative_to(_root(filled)), str(lost)):
        _flip(tmp_path / "damaged" / path, 30)
    with Library.open(tmp_path / "foreign", create=True) as foreign:
        for number in (6, 7):
            ingest(foreign, harvest(tmp_path / f"{number}", [Image("/usr/lib/foreign", number)]))
        assert foreign.store.stat(str(lost))
    missing.unlink()
    (_root(filled) / str(lost)).unlink()
    report = fsck(filled)
    others = [Library.open(tmp_path / name) for name in ("damaged", "foreign", "whole")]
    repair(filled, report, others=others)
    for other in others:
        other.close()
    assert [f.repaired for f in report.findings] == [f"copied from {tmp_path / 'whole'}"] * 2
    assert fsck(filled, read=Subset()).clean


def test_what_lies_in_several_places_is_asked_for_under_each_and_everywhere(filled: Library, tmp_path: Path) -> None:
    again = Image("/usr/lib/again", 1, size=5000)
    ingest(filled, harvest(tmp_path / "again", [again], build="23A1", version="14.0"))
    _blob(filled, 1).unlink()
    asked: list[str] = []

    def has_it(wanted: object, folder: Path) -> Path:
        asked.append(wanted.path)  # type: ignore[attr-defined]
        path = folder / "answer"
        path.write_bytes(again.data if len(asked) == 2 else b"something else")
        return path

    report = fsck(filled)
    repair(filled, report, fetch=[lambda wanted, folder: None, has_it])
    assert [f.repaired for f in report.findings] == ["fetched again"]
    assert sorted(asked) == ["/usr/lib/1", "/usr/lib/again"]


@pytest.mark.parametrize("moment", ["before the repair", "while it looks"])
def test_what_somebody_else_has_repaired_is_left_as_it_is(filled: Library, tmp_path: Path, moment: str) -> None:
    """They had it from elsewhere, and here it cannot be had again."""
    copy = Path(shutil.copytree(_root(filled), tmp_path / "copy"))
    blob, missing = _blob(filled, 1), _blob(filled, 2)
    record = next((_root(filled) / "records").rglob("*02.json.zst"))
    for path in (blob, record):
        _flip(path, 30)
    missing.unlink()
    store = Hooked(_root(filled))
    with Library(store, Catalog(tmp_path / "catalog.db")) as library:
        report = fsck(library, read=Subset())
        assert sorted(f.code for f in report.findings) == ["blob-damaged", "blob-missing", "record-unreadable"]

        def repair_it() -> None:
            with Library.open(copy) as other:
                repair(filled, fsck(filled, read=Subset()), others=[other])

        if moment == "before the repair":
            repair_it()
        else:
            store.on("after", "open blobs", repair_it)
        repair(library, report)
    fixed = {f.code: f.repaired for f in report.findings}
    assert "somebody else" in fixed[FsckCode.BLOB_DAMAGED]
    if moment == "before the repair":
        assert all("somebody else" in text for text in fixed.values())
    assert fsck(filled, read=Subset()).clean
    for path in (blob, missing, record):
        assert path.read_bytes() == (copy / path.relative_to(_root(filled))).read_bytes()


def test_a_record_of_another_library_does_not_take_the_place_of_one_that_is_known(
    filled: Library, tmp_path: Path
) -> None:
    """One writer has used the same number in two libraries."""
    with Library.open(tmp_path / "copy", create=True) as other:
        ingest(other, harvest(tmp_path / "other", [Image("/usr/lib/other", 8)]))
        _flip(next((_root(filled) / "records").rglob("*01.json.zst")), 40)
        report = fsck(filled, read=Subset())
        repair(filled, report, others=[other])
        assert [(f.code, f.repaired) for f in report.findings] == [("record-unreadable", "")]
        assert filled.resolve(ImageRequest(UUID(int=8))) is None


def test_a_blob_that_only_a_record_names_that_comes_back_is_repaired_with_it(filled: Library, tmp_path: Path) -> None:
    shutil.copytree(_root(filled), tmp_path / "copy")
    blob = _blob(filled, 4)
    _flip(blob, 30)
    next((_root(filled) / "records").rglob("*02.json.zst")).unlink()
    report = fsck(filled, read=Subset())
    with Library.open(tmp_path / "copy") as other:
        repair(filled, report, others=[other])
    assert report.clean
    assert fsck(filled, read=Subset()).clean
    assert filled.resolve(ImageRequest(UUID(int=4)))


def test_what_nobody_has_stays_a_finding(filled: Library) -> None:
    _flip(_blob(filled), 30)
    report = fsck(filled, read=Subset())
    repair(filled, report)
    assert not report.clean
    assert _codes(filled) == ["blob-missing"]
    assert len(list((_root(filled) / "quarantine").rglob("*.zst"))) == 1


def test_a_share_of_the_data_is_read(filled: Library) -> None:
    before = {path.name for path in _root(filled).iterdir()}
    seen = [fsck(filled, read=Subset.parse(f"{n}/3")).bytes_read for n in (1, 2, 3)]
    assert sum(seen) == fsck(filled, read=Subset()).bytes_read
    assert {path.name for path in _root(filled).iterdir()} == before  # the catalog to compare with is gone
    assert Subset.parse("5%") == Subset(0.05)
    assert Subset.parse("0.5%") == Subset(0.005)
    assert Subset.parse("100%") == Subset()
    assert Subset.parse("1/1") == Subset(part=1, parts=1)
    for text in ("0%", "101%", "0/3", "4/3", "x", "5"):
        with pytest.raises(UsageError):
            Subset.parse(text)


def test_records_keep_their_keys_in_a_repair(filled: Library) -> None:
    keys = [RecordKey.parse(k) for k in filled.store.list("records/")]
    assert sorted(k.sequence for k in keys if k) == [1, 2]


MOMENTS = [
    *("before scan records", "after scan records", "before list records", "after list records"),
    *("before open records", "after open records", "between two tables of the catalog", "before list snapshots"),
    *("before list blobs", "after list blobs", "before open blobs", "after open blobs"),
]


@pytest.mark.parametrize("shared", [True, False], ids=["one catalog", "two catalogs"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_what_others_do_meanwhile_is_no_finding(
    filled: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, shared: bool
) -> None:
    """Somebody pushes, removes a release, and has its blobs deleted."""
    done: list[str] = []

    def happen() -> None:
        ingest(filled, harvest(tmp_path / "push", [Image("/a", 7)], build=None, trust=Trust.PUSHED))
        remove_build(filled, "22G120")
        gc(filled, grace=-10)
        done.append(moment)

    class Tables(dict[str, str]):
        def items(self) -> Any:
            first, *rest = super().items()
            yield first
            if not done:
                happen()
            yield from rest

    write_snapshot(filled.store, filled.catalog)
    store, catalog = Hooked(_root(filled)), _root(filled) / "catalog.db" if shared else tmp_path / "catalog.db"
    with Library(store, Catalog(catalog)) as library:
        if moment.startswith("between"):
            monkeypatch.setattr("symcache.catalog.file.CONTENT", Tables(CONTENT))
        else:
            store.on(*moment.split(" ", 1), happen)
        report = fsck(library, read=Subset())
        assert (report.findings, done) == ([], [moment])
        assert fsck(library, read=Subset()).clean
        assert library.resolve(ImageRequest(UUID(int=7)))


@pytest.mark.parametrize(
    ("lost", "code", "said"),
    [
        (True, FsckCode.RECORD_LOST, "is not there any more"),
        (False, FsckCode.CATALOG_DAMAGED, "the catalog knows another record there"),
    ],
)
def test_a_record_that_goes_or_becomes_another_while_it_is_looked_at_is_told(
    filled: Library, tmp_path: Path, lost: bool, code: FsckCode, said: str
) -> None:
    store = Hooked(_root(filled))
    with Library(store, Catalog(tmp_path / "catalog.db")) as library:
        first, second = sorted((_root(filled) / "records").rglob("*.json.zst"))

        def change() -> None:
            first.unlink()
            if not lost:
                shutil.copyfile(second, first)

        store.on("before", "open records", change)
        report = fsck(library, read=Subset())
    assert [(f.code, f.key) for f in report.findings] == [(code, str(first.relative_to(_root(filled))))]
    assert said in report.findings[0].message


def test_a_listing_that_has_a_later_record_and_not_an_earlier_one_means_no_loss(
    filled: Library, tmp_path: Path
) -> None:
    """Listing takes time, and more records may come than there is time for."""
    store = Hooked(_root(filled))
    with Library(store, Catalog(tmp_path / "catalog.db")) as library:
        listed = list(filled.store.scan("records/"))
        for number in (5, 6):
            ingest(filled, harvest(tmp_path / str(number), [Image("/a", number)], build=f"24A{number}"))
        listed.append(max(filled.store.scan("records/")))
        store.scan = lambda prefix: iter(listed)  # type: ignore[method-assign]
        assert fsck(library).findings == []
        assert library.gaps() == []


@pytest.mark.parametrize("read", [None, Subset()], ids=["by headers", "by reading"])
def test_what_the_disk_cannot_read_is_a_finding_and_the_rest_is_looked_at(
    filled: Library, monkeypatch: pytest.MonkeyPatch, read: Subset | None
) -> None:
    write_snapshot(filled.store, filled.catalog)
    one, other = (blob_key(_blob(filled, uuid).stem) for uuid in (1, 2))
    (snapshot,) = filled.store.list("snapshots/")
    real = filled.store.open
    monkeypatch.setattr(
        filled.store, "open", lambda key: BadSectors(b"x") if key in {one, other, snapshot} else real(key)
    )
    found = fsck(filled, read=read).findings
    assert {f.key for f in found} == {one, other, *([snapshot] if read else ())}
    assert all("Input/output error" in f.message for f in found if f.code is FsckCode.BLOB_DAMAGED)
