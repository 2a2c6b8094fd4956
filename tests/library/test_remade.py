"""A catalog that lies outside of its library, and another library in the place of the one that it was folded from."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from symcache.errors import IncompleteError, StorageError
from symcache.images import ImageRequest
from symcache.library import FsckCode, Library, fsck, gc, ingest, repair, write_snapshot
from symcache.model import Kind
from symcache.store import RecordKey, blob_key, read_record
from tests.library.images import Image, harvest
from tests.support.http import request
from tests.support.servers import serve
from tests.support.waiting import until

OLD = [Image(f"/usr/lib/{n}", n) for n in range(1, 4)]
NEW = [Image(f"/usr/lib/{n}", n) for n in range(11, 14)]


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the library lies on a network file system: SQLite does not work there."""
    monkeypatch.setattr("symcache.library.user_dirs._on_network", lambda _: True)


SAME = ("symcache-library.json", "symcache-library-id.json")
"""What stays where a library is put back to an earlier state of itself, or emptied by hand."""


@pytest.fixture
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what the library that comes to a place has: no id, as those of 0.1.0, the same one, or another one."""
    if request.param == "no id":
        monkeypatch.setattr("symcache.library.library.make_library_id", lambda _: "")
    return str(request.param)


def _make_way(location: str, kind: str, *, but: tuple[str, ...] = ()) -> None:
    _empty(location, but=(*but, *(SAME if kind == "the same id" else ())))


def _fill(location: str, images: list[Image], folder: Path) -> None:
    """Harvest images, each as a release of its own."""
    with Library.open(location, create=True) as library:
        for image in images:
            name = f"{image.uuid.int}"
            assert ingest(library, harvest(folder / name, [image], build=f"22G{name}")).sealed


def _empty(location: str, *, but: tuple[str, ...] = ()) -> None:
    """Delete all that is there, but what is named."""
    if not location.startswith("s3://"):
        for path in Path(location).iterdir():
            if path.name not in but:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return
    bucket, _, prefix = location.removeprefix("s3://").partition("/")
    store = S3Store(bucket, prefix=prefix, client_options={"allow_http": True})
    keys = [meta["path"] for chunk in obstore.list(store) for meta in chunk]
    obstore.delete(store, [key for key in keys if key.partition("/")[0] not in but])


def _wait(location: str) -> None:
    if location.startswith("s3://"):
        time.sleep(1.1)  # its clock may count whole seconds


def _sha256(image: Image) -> str:
    return hashlib.sha256(image.data).hexdigest()


def _check_new(library: Library) -> None:
    """What is there answers, and nothing else."""
    for image in NEW:
        found = library.resolve(ImageRequest(image.uuid, Kind.EXECUTABLE))
        assert found
        assert found.sha256 == _sha256(image)
        assert b"".join(library.read_blob(found.sha256, found.size)) == image.data
    assert all(library.variants(image.uuid) == [] for image in OLD)
    assert {r.build for r in library.releases()} == {f"22G{image.uuid.int}" for image in NEW}


def _elsewhere(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Callable[[], None]:
    """Be a machine that has no catalog, but the same name as a writer; return what goes back to the first."""
    here = os.environ["XDG_CACHE_HOME"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return lambda: monkeypatch.setenv("XDG_CACHE_HOME", here)


@pytest.mark.parametrize(
    ("count", "looking", "kind"),
    [
        *[(3, True, "no id"), (3, False, "no id"), (1, False, "no id"), (1, False, "the same id")],
        *[(3, True, "another id"), (1, False, "another id")],
    ],
    indirect=["kind"],
)
def test_a_library_that_was_emptied_and_made_anew_is_what_answers(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, looking: bool, kind: str
) -> None:
    """The machine has seen that nothing was there; or, when it looks again, every place holds another record."""
    _fill(location, OLD[:count], tmp_path / "old")
    _make_way(location, kind)
    back = (lambda: None) if looking else _elsewhere(monkeypatch, tmp_path / "cache")
    _fill(location, NEW, tmp_path / "new")
    back()
    for _ in range(2):
        with Library.open(location) as library:
            _check_new(library)


def _exchange(root: Path, folder: Path) -> None:
    """Put another library in the place of one; its last record is the first one's, unchanged."""
    other = folder / "other"
    _fill(str(other), NEW[:2], folder / "new")
    last = max(path.relative_to(root) for path in (root / "records").rglob("*.zst"))
    for name in (last, Path(blob_key(_sha256(OLD[2])))):
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, other / name)
    _empty(str(root))
    shutil.copytree(other, root, dirs_exist_ok=True)


@pytest.mark.parametrize("kind", ["no id", "another id"], indirect=True)
def test_that_the_last_record_is_the_same_makes_it_no_other_library(tmp_path: Path, kind: str) -> None:
    del kind
    root = tmp_path / "library"
    _fill(str(root), OLD, tmp_path / "old")
    with Library.open(root) as before:
        _exchange(root, tmp_path)
        assert [before.refresh(), before.refresh()] == [True, False]
        with Library.open(root) as after:
            for library in (before, after):
                answers = [bool(library.resolve(ImageRequest(image.uuid))) for image in (*OLD, *NEW)]
                assert answers == [False, False, True, True, True, False]


def test_what_another_library_knew_is_not_lost_of_this_one(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(location, OLD, tmp_path / "old")
    _empty(location)
    back = _elsewhere(monkeypatch, tmp_path / "cache")
    _fill(location, NEW, tmp_path / "new")
    back()
    with Library.open(location) as library:
        assert fsck(library).clean
        _wait(location)
        assert gc(library, grace=0).deleted == 0
        _check_new(library)


@pytest.mark.parametrize(
    ("asked", "kind"), [(True, "no id"), (False, "no id"), (True, "the same id")], indirect=["kind"]
)
def test_gc_deletes_nothing_until_a_person_says_what_is_true(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool, kind: str
) -> None:
    """What this machine knew may be in blobs that nobody names now; be the catalog folded anew before, or by gc."""
    _fill(location, OLD, tmp_path / "old")
    _make_way(location, kind)
    back = _elsewhere(monkeypatch, tmp_path / "cache")
    _fill(location, NEW, tmp_path / "new")
    back()
    if asked:
        Library.open(location).close()
    with Library.open(location) as library:
        _wait(location)
        with pytest.raises(IncompleteError, match="3 that there were are gone") as error:
            gc(library, grace=0)
        assert "symcache rebuild" in error.value.hint
        assert {f.code for f in fsck(library).findings} == {FsckCode.RECORD_LOST}
        assert library.rebuild(accept_losses=True) == 3
        assert gc(library, grace=0).deleted == 0
        assert all(library.store.stat(blob_key(_sha256(image))) for image in NEW)
        assert fsck(library).clean
        _check_new(library)


@pytest.mark.parametrize("kind", ["no id", "the same id"], indirect=True)
def test_a_library_that_was_put_back_to_an_earlier_state_and_went_on(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The same numbers were given again."""
    _fill(location, OLD, tmp_path / "old")
    _make_way(location, kind)
    back = _elsewhere(monkeypatch, tmp_path / "cache")
    _fill(location, [OLD[0], *NEW[:2]], tmp_path / "new")  # as a backup brings it back, but that times differ
    back()
    with Library.open(location) as library:
        answers = [bool(library.resolve(ImageRequest(image.uuid))) for image in (*OLD, *NEW)]
        assert answers == [True, False, False, True, True, False]


@pytest.mark.parametrize("kind", ["no id", "another id"], indirect=True)
def test_a_snapshot_of_the_library_that_was_here_before_is_not_believed(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    _fill(location, OLD, tmp_path / "old")
    with Library.open(location) as library:
        write_snapshot(library.store, library.catalog)
    _empty(location, but=("snapshots", "symcache-library.json"))
    _elsewhere(monkeypatch, tmp_path / "one")
    _fill(location, NEW, tmp_path / "new")
    _elsewhere(monkeypatch, tmp_path / "two")
    with Library.open(location) as library:
        _check_new(library)
        assert bool(library.lost()) is (kind == "no id")  # whose it is, nobody can tell


def test_a_server_follows_where_the_last_record_is_the_same(tmp_path: Path) -> None:
    root = tmp_path / "library"
    _fill(str(root), OLD, tmp_path / "old")
    old, new = (f"/buildid/{image.uuid.hex}/executable" for image in (OLD[0], NEW[0]))
    with serve(root, tmp_path / "server") as server:
        assert request(server.url, old).status == 200
        _exchange(root, tmp_path)
        until(lambda: request(server.url, new).status == 200)
        until(lambda: request(server.url, old).status == 404)


def test_a_server_follows(location: str, tmp_path: Path) -> None:
    _fill(location, OLD, tmp_path / "old")
    old, new = (f"/buildid/{image.uuid.hex}/executable" for image in (OLD[0], NEW[0]))
    with serve(location, tmp_path / "server") as server:
        assert request(server.url, old).body == OLD[0].data
        _empty(location)
        _fill(location, NEW, tmp_path / "new")
        until(lambda: request(server.url, new).status == 200)
        assert request(server.url, new).body == NEW[0].data
        until(lambda: request(server.url, old).status == 404)
        assert request(server.url, "/readyz").status == 200


def _forget_notes(path: Path) -> None:
    with sqlite3.connect(path, timeout=60) as other:
        other.execute("DROP TABLE IF EXISTS record_marks")
        other.execute("DROP TABLE IF EXISTS lost_records")
    other.close()


def test_what_an_earlier_program_mixed_is_sorted_out(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It noted nothing, and folded the records of the new library that have later numbers behind those of the old."""
    _fill(location, OLD[:1], tmp_path / "old")
    with Library.open(location) as library:
        catalog = library.catalog.path
    assert catalog
    kept = catalog.read_bytes()
    _empty(location)
    back = _elsewhere(monkeypatch, tmp_path / "cache")
    _fill(location, NEW, tmp_path / "new")
    with Library.open(location) as library:
        keys = sorted(library.store.list("records/"))
        records = [(key, *read_record(library.store, place)) for key in keys if (place := RecordKey.parse(key))]
    back()
    catalog.write_bytes(kept)
    from symcache.catalog import Catalog

    catalog.write_bytes(kept)
    _forget_notes(catalog)
    mixed = Catalog(catalog)
    assert mixed.fold_many(records) == 2
    mixed.close()
    with Library.open(location) as library:
        _check_new(library)


def test_a_record_that_is_gone_is_remembered_until_it_is_back(location: str, tmp_path: Path) -> None:
    _fill(location, OLD, tmp_path / "old")
    copy = tmp_path / "copy"
    with Library.open(location) as library, Library.open(copy, create=True) as other:
        for key in [*library.store.list("records/"), *library.store.list("blobs/")]:
            part = other.store.scratch() / "part"
            with library.store.open(key) as stored:
                part.write_bytes(stored.read())
            other.store.create(key, part)
        _, *gone = sorted(library.store.list("records/"))
        for key in gone:
            library.store.quarantine(key)
    with Library.open(location) as library:
        assert library.variants(OLD[2].uuid) == []
        assert [(f.code, f.key) for f in fsck(library).findings] == [(FsckCode.RECORD_LOST, key) for key in gone]
    with Library.open(location) as library, Library.open(copy) as other:
        _wait(location)
        with pytest.raises(IncompleteError, match="2 that there were are gone"):
            gc(library, grace=0)
        report = fsck(library)
        repair(library, report, others=[other])
        assert report.clean
        assert library.lost() == {}
        assert all(library.resolve(ImageRequest(image.uuid)) for image in OLD)
        assert gc(library, grace=0).deleted == 0


def test_what_could_not_be_read_of_the_library_before_keeps_nobody_from_anything(tmp_path: Path) -> None:
    """Another process has folded the catalog anew that this one goes on with."""
    root = tmp_path / "library"
    _fill(str(root), OLD, tmp_path / "old")
    bad = root / str(RecordKey("other", 1))
    bad.parent.mkdir()
    bad.write_bytes(b"no record")
    with Library.open(root) as library:
        assert list(library.unreadable) == [str(RecordKey("other", 1))]
        _make_way(str(root), "the same id")
        _fill(str(root), NEW[:1], tmp_path / "new")
        bad.parent.mkdir()
        shutil.copy(next((root / "records").rglob("*.zst")), bad)
        Library.open(root).close()
        library.refresh()
        assert library.unreadable == {}
        assert library.resolve(ImageRequest(NEW[0].uuid))


@pytest.mark.parametrize("kind", ["the same id"], indirect=True)
def test_a_record_of_another_library_is_not_put_in_the_place_of_one_that_is_there(
    location: str, tmp_path: Path, kind: str
) -> None:
    _fill(location, OLD[:1], tmp_path / "old")
    copy = tmp_path / "copy"
    with Library.open(location) as library, Library.open(copy, create=True) as other:
        (key,) = library.store.list("records/")
        part = other.store.scratch() / "part"
        with library.store.open(key) as stored:
            part.write_bytes(stored.read())
        other.store.create(key, part)
    _make_way(location, kind)
    _fill(location, NEW, tmp_path / "new")
    with Library.open(location) as library, Library.open(copy) as other:
        report = fsck(library)
        repair(library, report, others=[other])
        assert [(f.code, f.key, f.repaired) for f in report.findings] == [(FsckCode.RECORD_LOST, key, "")]
        _check_new(library)


def test_gc_looks_at_every_record(location: str, tmp_path: Path) -> None:
    """One in the middle was exchanged, and the last of its writer is what it was."""
    _fill(location, OLD, tmp_path / "old")
    with Library.open(location) as library:
        first, second, _ = sorted(library.store.list("records/"))
        with library.store.open(first) as stored:
            data = stored.read()
        library.store.quarantine(second)
        part = library.store.scratch() / "part"
        part.write_bytes(data)
        assert library.store.create(second, part)
        _wait(location)
        with pytest.raises(IncompleteError, match="1 that there were are gone"):
            gc(library, grace=0)
        assert library.store.stat(blob_key(_sha256(OLD[1])))


def test_what_was_only_touched_or_copied_is_the_same_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(str(tmp_path / "library"), OLD, tmp_path / "old")
    later = time.time() + 100
    for path in (tmp_path / "library").rglob("*.zst"):
        os.utime(path, (later, later))
    read: list[object] = []
    from symcache.library import record_log as module

    real = module.load_record
    monkeypatch.setattr(module, "load_record", lambda store, key: read.append(key) or real(store, key))
    for _ in range(2):
        with Library.open(tmp_path / "library") as library:
            assert len(library.releases()) == 3
    assert len(read) == 1  # the last one of its writer, once
    with Library.open(tmp_path / "library") as library:
        assert [gc(library, grace=0, dry_run=True).deleted for _ in range(2)] == [0, 0]
    assert len(read) == 3


def test_a_library_that_cannot_be_reached_is_no_other_one(tmp_path: Path) -> None:
    """As when a network file system is not mounted for a while: its folder is empty."""
    root = tmp_path / "library"
    _fill(str(root), OLD, tmp_path / "old")
    with Library.open(root) as library:
        root.rename(tmp_path / "aside")
        root.mkdir()
        with pytest.raises(StorageError, match="the library is gone"):
            library.refresh()
        assert len(library.catalog.known_keys()) == 3
        root.rmdir()
        (tmp_path / "aside").rename(root)
        assert not library.refresh()
        assert library.lost() == {}
        assert library.resolve(ImageRequest(OLD[0].uuid))


def test_another_program_may_put_a_catalog_without_notes_in_place(tmp_path: Path) -> None:
    root = tmp_path / "library"
    _fill(str(root), OLD, tmp_path / "old")
    with Library.open(root) as library:
        assert library.catalog.path
        _forget_notes(library.catalog.path)
        assert not library.refresh()
        _fill(str(root), NEW[:1], tmp_path / "new")
        _forget_notes(library.catalog.path)
        assert library.refresh()
        assert library.lost() == {}
        assert len(library.releases()) == 4
