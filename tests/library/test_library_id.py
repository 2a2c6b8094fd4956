"""Which library it is: said by an id of its own, which nobody who only reads has to make."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from symcache.errors import StorageError
from symcache.images import ImageRequest
from symcache.library import FsckCode, Library, fsck, ingest, remove_build
from symcache.store import LIBRARY_ID, Store, make_library_id, open_store, read_library_id
from tests.library.images import Image, harvest

IMAGES = [Image(f"/usr/lib/{n}", n) for n in range(1, 4)]


def _fill(location: str, folder: Path, *images: Image) -> None:
    with Library.open(location, create=True) as library:
        for image in images or IMAGES:
            ingest(library, harvest(folder / str(image.uuid), [image], build=f"22G{image.uuid.int}"))


@pytest.fixture
def older(location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return where a library lies that a program filled which knows of no ids; it is not this machine's disk."""
    monkeypatch.setattr("symcache.library.user_dirs._on_network", lambda _: True)
    with monkeypatch.context() as patch:
        patch.setattr("symcache.library.library.make_library_id", lambda _: "")
        _fill(location, tmp_path / "old")
    return location


def test_whoever_makes_one_first_says_what_it_is(location: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: make_library_id(open_store(location, create=True)), range(8)))
    assert len(set(ids)) == 1
    store = open_store(location)
    assert read_library_id(store) == ids[0] != ""
    with store.open("symcache-library.json") as marker:
        assert json.loads(marker.read()) == {"format": 1}


def test_one_that_has_none_gets_one_by_whoever_writes_first(older: str, tmp_path: Path) -> None:
    store = open_store(older)
    with Library.open(older) as library:
        assert library.resolve(ImageRequest(IMAGES[0].uuid))
        assert fsck(library).clean
        assert read_library_id(store) == ""
        remove_build(library, "22G1")
        made = read_library_id(store)
        assert made
        assert not library.refresh()
        assert library.catalog.library_id() == made
        assert len(library.releases()) == 2
    _fill(older, tmp_path / "new", Image("/usr/lib/9", 9))
    assert read_library_id(store) == made


def test_what_a_catalog_knew_before_is_known_after(older: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has another name, but nothing is read again, nor is forgotten what is lost."""
    with Library.open(older) as library:
        first = library.catalog.path
        assert first
        lost = max(library.store.list("records/"))
        library.store.quarantine(lost)
        library.refresh()
    make_library_id(open_store(older))
    read: list[object] = []
    from symcache.library import record_log as module

    real = module.load_record
    monkeypatch.setattr(module, "load_record", lambda store, key: read.append(key) or real(store, key))
    for _ in range(2):
        with Library.open(older) as library:
            assert library.catalog.path != first
            assert [(f.code, f.key) for f in fsck(library).findings] == [(FsckCode.RECORD_LOST, lost)]
    assert read == []


def test_a_catalog_that_is_folded_anew_knows_of_which_library_it_is(older: str) -> None:
    with Library.open(older) as library:
        made = make_library_id(library.store)
        library.rebuild()
        assert library.catalog.library_id() == made
        library.store.quarantine(LIBRARY_ID)
        library.rebuild()
        assert library.catalog.library_id() == made


def test_where_nothing_may_be_written_it_has_none(older: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(store: Store, key: str, _: object) -> bool:
        raise StorageError(f"{store.location}: cannot write {key}")

    monkeypatch.setattr("symcache.store.library_id.put_object", refuse)
    with Library.open(older, create=True) as library:
        assert read_library_id(library.store) == ""
        assert len(library.releases()) == 3


@pytest.mark.parametrize("content", [b"", b"[]", b'{"id": 7}', b'{"id": "../../x"}', b"\xff"])
def test_what_is_no_id_is_refused(tmp_path: Path, content: bytes) -> None:
    location = tmp_path / "library"
    Library.open(location, create=True).close()
    (location / LIBRARY_ID).unlink()
    (location / LIBRARY_ID).write_bytes(content)
    with pytest.raises(StorageError, match="holds no id") as caught:
        Library.open(location)
    assert LIBRARY_ID in str(caught.value)


def test_a_copy_that_lags_behind_is_looked_at_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a backup that is repaired from: it has the same id."""
    import shutil

    monkeypatch.setattr("symcache.library.user_dirs._on_network", lambda _: True)
    root, copy = tmp_path / "library", tmp_path / "copy"
    _fill(str(root), tmp_path / "old")
    shutil.copytree(root, copy)
    _fill(str(root), tmp_path / "new", Image("/usr/lib/9", 9))
    with Library.open(copy) as behind, Library.open(root) as library:
        assert read_library_id(behind.store) == read_library_id(library.store)
        for _ in range(2):
            assert (len(behind.releases()), behind.refresh(), behind.lost()) == (3, False, {})
            assert (len(library.releases()), library.refresh(), library.lost()) == (4, False, {})
