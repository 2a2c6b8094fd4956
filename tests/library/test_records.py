"""Removing, preferring, continuing: all of it is records, and what is served follows from them."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

import pytest

from symcache.catalog import SCHEMA_VERSION, Catalog
from symcache.errors import IncompleteError, NotFoundError, StorageError, UsageError
from symcache.images import ImageRequest
from symcache.library import Library, gc, ingest, prefer, remove_build, write_snapshot
from symcache.library.snapshots import start_from
from symcache.model import HarvestRecord, Kind, Trust
from symcache.store import LocalStore, RecordKey, blob_key, load_record, put_object, read_record
from tests.library.hooked import Hooked
from tests.library.images import Image, harvest

A = UUID(int=1)


def _served(library: Library, uuid: UUID = A, **pins: object) -> str | None:
    found = library.resolve(ImageRequest(uuid, Kind.EXECUTABLE, **pins))  # type: ignore[arg-type]
    return found.sha256 if found else None


def _put(library: Library, folder: Path, *images: Image, **more: object) -> list[str]:
    """Ingest images; return their SHA-256."""
    result = ingest(library, harvest(folder, images, **more))  # type: ignore[arg-type]
    rows = library.catalog.database.execute("SELECT path, sha256 FROM occurrences WHERE record = ?", [result.record_id])
    contents = dict(rows)
    return [contents[i.path] for i in images]


def test_a_removed_build_is_not_served_and_can_be_harvested_again(anywhere: Library, tmp_path: Path) -> None:
    (sha256,) = _put(anywhere, tmp_path / "1", Image("/usr/lib/a", 1))
    assert _served(anywhere) == sha256
    assert len(remove_build(anywhere, "22G120", reason="test")) == 1
    assert _served(anywhere) is None
    assert anywhere.releases() == []
    assert anywhere.store.stat(blob_key(sha256))
    with pytest.raises(NotFoundError, match="nothing of this build"):
        remove_build(anywhere, "22G120")
    _put(anywhere, tmp_path / "1", Image("/usr/lib/a", 1))
    assert _served(anywhere) == sha256


def test_other_machines_see_a_removal(anywhere: Library, tmp_path: Path, location: str) -> None:
    _put(anywhere, tmp_path / "1", Image("/usr/lib/a", 1))
    with Library.open(location) as other:
        assert _served(other)
        remove_build(anywhere, "22G120")
        assert other.refresh()
        assert _served(other) is None
        assert not other.refresh()


def test_contradicting_contents_are_kept_flagged_and_decided_by_a_person(anywhere: Library, tmp_path: Path) -> None:
    elsewhere = Library(anywhere.store, Catalog(tmp_path / "elsewhere.db"))  # a machine that has seen nothing yet
    (first,) = _put(anywhere, tmp_path / "1", Image("/usr/lib/a", 1, cache=9, extractor="symcache", revision=1))
    rival = Image("/usr/lib/a", 1, cache=9, extractor="symcache", revision=1, seed=5)
    result = ingest(anywhere, harvest(tmp_path / "2", [rival], build="23A1", version="14.0"))
    assert [c.uuid for c in result.conflicts] == [A]
    assert _served(anywhere) == first  # not the newer release's
    second = next(o.sha256 for o in anywhere.variants(A) if o.rival)
    (conflict,) = anywhere.conflicts()
    assert [o.sha256 for o in conflict.contents] == [first, second]
    # To whom no new content was given, and who has another one of the UUID, it is nothing new.
    again = ingest(anywhere, harvest(tmp_path / "2", [rival], build="23A1", version="14.0"))
    beside = Image("/usr/lib/a", 1, cache=8, extractor="symcache", revision=1, seed=7)
    other = ingest(anywhere, harvest(tmp_path / "3", [beside], build="22A1", version="13.0"))
    assert (again.conflicts, other.conflicts, other.stored) == ([], [], 1)
    assert not conflict.decided
    assert prefer(elsewhere, A, second[:8].upper()).sha256 == second
    elsewhere.close()
    anywhere.refresh()
    assert _served(anywhere) == second
    assert anywhere.conflicts()[0].decided
    prefer(anywhere, A, first)  # a later decision replaces an earlier one
    assert _served(anywhere) == first


def test_a_release_pin_still_gives_the_content_of_that_release(local: Library, tmp_path: Path) -> None:
    (first,) = _put(local, tmp_path / "1", Image("/usr/lib/a", 1))
    (second,) = _put(local, tmp_path / "2", Image("/usr/lib/a", 1, seed=5), build="23A1", version="14.0")
    assert _served(local) == first
    assert _served(local, build="22G120") == first
    assert _served(local, build="23A1") == second


def test_each_shared_cache_has_its_own_content_and_no_conflict(local: Library, tmp_path: Path) -> None:
    (first,) = _put(local, tmp_path / "1", Image("/usr/lib/a", 1, cache=8, extractor="symcache", revision=1))
    newer = Image("/usr/lib/a", 1, cache=9, extractor="symcache", revision=1, seed=5)
    (second,) = _put(local, tmp_path / "2", newer, build="23A1", version="14.0")
    assert local.conflicts() == []
    assert _served(local) == second  # the newest sealed release's
    assert _served(local, cache=UUID(int=8)) == first
    partial = Image("/usr/lib/a", 1, cache=7, extractor="symcache", revision=1, seed=6)
    _put(local, tmp_path / "3", partial, build="24A1", version="15.0", lost=[Image("/gone", 2)])
    assert _served(local) == second  # the newer one is not sealed


ROUTES: dict[str, tuple[Image, Image]] = {
    "a later revision": (
        Image("/usr/lib/a", 1, cache=9, extractor="symcache", revision=1),
        Image("/usr/lib/a", 1, cache=9, extractor="symcache", revision=2, seed=5),
    ),
    "our own extractor": (
        Image("/usr/lib/a", 1, cache=9, extractor="dyld_shared_cache_util", revision=3),
        Image("/usr/lib/a", 1, cache=9, extractor="symcache", revision=1, seed=5),
    ),
    "an unstripped file": (Image("/usr/lib/a", 1, symbols=2), Image("/usr/lib/a", 1, symbols=9)),
}


@pytest.mark.parametrize("name", ROUTES)
@pytest.mark.parametrize("backwards", [False, True])
def test_what_outranks_another_is_no_conflict(local: Library, tmp_path: Path, name: str, backwards: bool) -> None:
    worse, better = ROUTES[name]
    pair = [(worse, "22G120"), (better, "22G130")]
    shas = {}
    for image, build in reversed(pair) if backwards else pair:
        (shas[build],) = _put(local, tmp_path / build, image, build=build)
    assert _served(local) == shas["22G130"]
    assert local.conflicts() == []


def test_more_symbols_over_other_code_are_a_conflict(local: Library, tmp_path: Path) -> None:
    (first,) = _put(local, tmp_path / "1", Image("/usr/lib/a", 1, symbols=2))
    _put(local, tmp_path / "2", Image("/usr/lib/a", 1, symbols=9, code=b"\x20\x00\x20\xd4" * 4), build="22G130")
    assert _served(local) == first
    assert len(local.conflicts()) == 1


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_lower_trust_never_shadows_higher(local: Library, tmp_path: Path, order: Sequence[int]) -> None:
    shas = {}
    for number in order:
        trust = list(Trust)[number]
        image = Image("/usr/lib/a", 1, seed=number, symbols=number)
        build = "22G120" if trust is Trust.HARVEST else None
        (shas[trust],) = _put(local, tmp_path / trust, image, trust=trust, build=build)
    assert _served(local) == shas[Trust.HARVEST]
    # Not even where the better one is lost:
    (Path(local.store.location) / blob_key(shas[Trust.HARVEST])).unlink()
    assert _served(local) is None
    remove_build(local, "22G120")
    assert _served(local) == shas[Trust.ADDED]


def test_where_a_content_is_lost_another_right_one_may_be_and_none_that_contradicts_it(
    local: Library, tmp_path: Path
) -> None:
    def image(revision: int, seed: int) -> Image:
        return Image("/usr/lib/a", 1, cache=9, extractor="symcache", revision=revision, seed=seed)

    (best,) = _put(local, tmp_path / "1", image(2, 1))
    _put(local, tmp_path / "2", image(2, 2), build="22G130")
    (earlier,) = _put(local, tmp_path / "3", image(1, 3), build="22G140")
    assert _served(local) == best
    assert [o.rival for o in local.variants(A)] == [False, True, False]
    (Path(local.store.location) / blob_key(best)).unlink()
    assert _served(local) == earlier


def test_a_partial_harvest_is_continued_by_a_chain_of_records(anywhere: Library, tmp_path: Path) -> None:
    a, b, c = (Image(f"/usr/lib/{n}", i) for i, n in enumerate("abc", 1))
    first = ingest(anywhere, harvest(tmp_path / "1", [a], lost=[b, c], problems=["b: cannot be read"]))
    second = ingest(anywhere, harvest(tmp_path / "2", [b], lost=[a, c]))
    assert (first.sealed, second.sealed) == (False, False)
    assert (second.carried, second.supersedes) == (1, (first.record_id,))
    third = ingest(anywhere, harvest(tmp_path / "3", [c], lost=[a, b]))
    assert third.sealed
    assert third.supersedes == (second.record_id,)
    assert [(r.sealed, r.harvests, r.images) for r in anywhere.releases()] == [(True, 1, 3)]
    assert all(_served(anywhere, UUID(int=n)) for n in (1, 2, 3))


@pytest.mark.parametrize("trust", [Trust.ADDED, Trust.PUSHED])
def test_what_is_trusted_less_takes_nothing_over_of_a_harvest(local: Library, tmp_path: Path, trust: Trust) -> None:
    a, b = Image("/usr/lib/a", 1), Image("/usr/lib/b", 2)
    ingest(local, harvest(tmp_path / "1", [a], lost=[b]))
    result = ingest(local, harvest(tmp_path / "2", [b], lost=[a], trust=trust))
    assert (result.carried, result.supersedes, result.sealed) == (0, (), False)
    assert [(o.trust, o.path) for n in (1, 2) for o in local.variants(UUID(int=n))] == [
        ("harvest", a.path),
        (trust, b.path),
    ]


def test_what_both_have_is_not_taken_over(local: Library, tmp_path: Path) -> None:
    a, b, c = (Image(f"/usr/lib/{n}", i) for i, n in enumerate("abc", 1))
    ingest(local, harvest(tmp_path / "1", [a, b], lost=[c], raw=[("one", 9, b"1"), ("two", 9, b"2")]))
    second = ingest(local, harvest(tmp_path / "2", [b, c], lost=[a], raw=[("two", 9, b"2"), ("three", 9, b"3")]))
    assert (second.carried, second.sealed) == (1, True)
    assert [f.name for f in local.catalog.cache_files_of(UUID(int=9))] == ["one", "three", "two"]
    assert [(r.harvests, r.images) for r in local.releases()] == [(1, 3)]
    assert [len(local.variants(i.uuid)) for i in (a, b, c)] == [1, 1, 1]


@pytest.mark.parametrize("moment", ["before create blobs", "before create records"])
def test_what_was_removed_is_not_taken_over_by_the_harvest_that_continues_it(tmp_path: Path, moment: str) -> None:
    """Another machine removes what there was of a build while the rest of it is being stored."""
    root = tmp_path / "library"
    a, b = Image("/usr/lib/a", 1), Image("/usr/lib/b", 2)
    with Library.open(root, create=True) as other:
        assert not ingest(other, harvest(tmp_path / "1", [a], lost=[b])).sealed
        store = Hooked(root)
        with Library(store, Catalog(tmp_path / "harvester.db")) as library:
            store.on(*moment.split(" ", 1), lambda: remove_build(other, "22G120"))
            result = ingest(library, harvest(tmp_path / "2", [b], lost=[a]))
            assert (result.carried, result.sealed, [m.path for m in result.missing]) == (0, False, [a.path])
            for one in (library, other):
                one.refresh()
                assert [(r.harvests, r.listed, r.images) for r in one.releases()] == [(1, 2, 1)]
                assert _served(one, a.uuid) is None
                assert _served(one, b.uuid)


def test_what_was_completed_and_then_removed_is_not_taken_over(tmp_path: Path) -> None:
    """Another machine completes the partial harvest and removes all of it, while this one continues it, too."""
    root = tmp_path / "library"
    a, b, c = (Image(f"/usr/lib/{n}", i) for i, n in enumerate("abc", 1))

    def complete_and_remove() -> None:
        assert ingest(other, harvest(tmp_path / "2", [b, c], lost=[a])).sealed
        assert len(remove_build(other, "22G120")) == 1

    with Library.open(root, create=True) as other:
        ingest(other, harvest(tmp_path / "1", [a], lost=[b, c]))
        store = Hooked(root)
        with Library(store, Catalog(tmp_path / "harvester.db")) as library:
            store.on("before", "create records", complete_and_remove)
            result = ingest(library, harvest(tmp_path / "3", [b], lost=[a, c]))
            assert result.carried == 0
        other.refresh()
        assert [_served(other, image.uuid) is not None for image in (a, b, c)] == [False, True, False]


def test_who_removes_a_build_finds_what_was_made_of_what_its_records_were_made_of(tmp_path: Path) -> None:
    """Two have continued one partial harvest, and the second was not to be seen when the first one was removed."""
    root = tmp_path / "library"
    a, b = Image("/usr/lib/a", 1), Image("/usr/lib/b", 2)
    read, going = threading.Event(), threading.Event()
    with Library.open(root, create=True) as other:
        ingest(other, harvest(tmp_path / "1", [a], lost=[b]))
        store = Hooked(root)
        store.on("before", "create records", lambda: (read.set(), going.wait(60)))
        with Library(store, Catalog(tmp_path / "harvester.db")) as library:
            thread = threading.Thread(target=ingest, args=(library, harvest(tmp_path / "2", [b], lost=[a])))
            thread.start()
            assert read.wait(60)
            assert ingest(other, harvest(tmp_path / "3", [b], lost=[a])).sealed
            removing = Hooked(root)
            removing.on("before", "create records", lambda: (going.set(), thread.join()))
            with Library(removing, Catalog(tmp_path / "remover.db")) as remover:
                assert len(remove_build(remover, "22G120")) == 2
                assert remover.releases() == []


def test_a_partial_harvest_that_somebody_else_has_continued_is_not_continued_again(tmp_path: Path) -> None:
    root = tmp_path / "library"
    a, b, c = (Image(f"/usr/lib/{n}", i) for i, n in enumerate("abc", 1))
    with Library.open(root, create=True) as other:
        ingest(other, harvest(tmp_path / "1", [a], lost=[b, c]))
        store = Hooked(root)
        with Library(store, Catalog(tmp_path / "harvester.db")) as library:
            # Behind the reading of the first, before the last look at all that is promised.
            store.on("after", "open records", lambda: store.on("before", "stat blobs", continue_it))

            def continue_it() -> None:
                assert not ingest(other, harvest(tmp_path / "2", [b], lost=[a, c])).sealed

            result = ingest(library, harvest(tmp_path / "3", [c], lost=[a, b]))
            assert (result.sealed, result.carried) == (True, 2)
            assert [(r.sealed, r.harvests, r.images) for r in library.releases()] == [(True, 1, 3)]


def test_a_partial_harvest_that_cannot_be_read_any_more_is_not_continued(local: Library, tmp_path: Path) -> None:
    a, b = Image("/usr/lib/a", 1), Image("/usr/lib/b", 2)
    ingest(local, harvest(tmp_path / "1", [a], lost=[b]))
    (path,) = (Path(local.store.location) / "records").rglob("*.zst")
    path.chmod(0o644)
    path.write_bytes(b"rotten")
    result = ingest(local, harvest(tmp_path / "2", [b], lost=[a]))
    assert (result.carried, result.supersedes) == (0, ())
    assert _served(local, b.uuid)
    assert _served(local, a.uuid)  # what was read once is known
    assert local.lost() == {}


def test_what_cannot_be_continued_keeps_nobody_from_continuing_the_rest(local: Library, tmp_path: Path) -> None:
    """In whatever order the partial harvests of a source come."""
    root, last = Path(local.store.location), Image("/usr/lib/last", 100)
    images, shared = [Image(f"/usr/lib/{n}", n) for n in range(1, 17)], Image("/usr/lib/shared", 200)
    raw = [("cache", 9, b"raw")]
    ids = [ingest(local, harvest(tmp_path / f"{i.uuid}", [i, shared], lost=[last], raw=raw)).record_id for i in images]
    records = sorted((root / "records").rglob("*.zst"))
    for path in records[:4]:
        path.write_bytes(b"rotten")
    for path in records[4:8]:
        path.write_bytes(records[15].read_bytes())
    (root / blob_key(hashlib.sha256(images[8].data).hexdigest())).unlink()
    # Those from 9 to 11 hold what the next one does not list.
    result = ingest(local, harvest(tmp_path / "last", [last], lost=[*images[:9], *images[12:], shared]))
    assert (result.carried, result.supersedes) == (4 + 1, tuple(sorted(ids[12:])))
    key = RecordKey.parse(max(local.store.list("records/")))
    assert key
    _, record = read_record(local.store, key)
    assert isinstance(record, HarvestRecord)
    assert [o.path for o in record.objects] == sorted(i.path for i in (*images[12:], last, shared))
    assert [f.name for f in record.cache_files] == ["cache"]


def test_a_partial_harvest_that_holds_more_stays_beside_the_next(local: Library, tmp_path: Path) -> None:
    a, b = Image("/usr/lib/a", 1), Image("/usr/lib/b", 2)
    ingest(local, harvest(tmp_path / "1", [a, b], problems=["something"]))
    assert ingest(local, harvest(tmp_path / "2", [a])).supersedes == ()
    assert _served(local, UUID(int=2))
    assert ingest(local, harvest(tmp_path / "3", [a, b], source="another", problems=["x"])).supersedes == ()


def test_of_a_preference_only_what_the_library_has_can_be_said(local: Library, tmp_path: Path) -> None:
    (sha256,) = _put(local, tmp_path / "1", Image("/usr/lib/a", 1))
    with pytest.raises(NotFoundError, match="no content"):
        prefer(local, A, "0" * 64)
    with pytest.raises(NotFoundError, match=f"no content 00000000 under it, only {sha256[:12]}$"):
        prefer(local, A, "0" * 8)
    with pytest.raises(NotFoundError, match=r"only nothing$"):
        prefer(local, UUID(int=77), sha256)
    for text in ("xyz", "0" * 7, "0" * 65):
        with pytest.raises(UsageError, match="not the start"):
            prefer(local, A, text)


def test_a_start_of_several_contents_decides_for_none(local: Library, tmp_path: Path) -> None:
    (first,) = _put(local, tmp_path / "1", Image("/usr/lib/a", 1, seed=43868, size=8))
    (second,) = _put(local, tmp_path / "2", Image("/usr/lib/a", 1, seed=60859, size=8), build="23A1", version="14.0")
    assert first[:8] == second[:8]  # searched for
    with pytest.raises(UsageError, match="several contents start like this"):
        prefer(local, A, second[:8])
    assert prefer(local, A, second).sha256 == second


def test_a_content_that_is_removed_meanwhile_is_not_preferred(tmp_path: Path) -> None:
    with Library.open(tmp_path / "library", create=True) as other:
        (first,) = _put(other, tmp_path / "1", Image("/usr/lib/a", 1))
        (second,) = _put(other, tmp_path / "2", Image("/usr/lib/a", 1, seed=5), build="23A1", version="14.0")
        store = Hooked(tmp_path / "library")
        store.on("before", "create records", lambda: remove_build(other, "23A1"))
        with Library(store, Catalog(tmp_path / "one.db")) as library:
            with pytest.raises(NotFoundError, match="was removed at this moment"):
                prefer(library, A, second)
            assert library.catalog.preferences_of(A, Kind.EXECUTABLE, None) == []
        # Who harvests it again has not decided for it.
        _put(other, tmp_path / "2", Image("/usr/lib/a", 1, seed=5), build="23A1", version="14.0")
        assert _served(other) == first


def test_a_content_whose_blob_is_gone_is_not_preferred(local: Library, tmp_path: Path) -> None:
    (first,) = _put(local, tmp_path / "1", Image("/usr/lib/a", 1))
    (second,) = _put(local, tmp_path / "2", Image("/usr/lib/a", 1, seed=5), build="23A1", version="14.0")
    (Path(local.store.location) / blob_key(second)).unlink()
    with pytest.raises(NotFoundError, match="is gone"):
        prefer(local, A, second)
    assert _served(local) == first


def test_of_two_who_decide_at_once_the_one_who_is_not_heeded_is_told(tmp_path: Path) -> None:
    with Library.open(tmp_path / "library", create=True) as other:
        image = Image("/usr/lib/a", 1, cache=9, extractor="symcache", revision=1)
        rival = Image("/usr/lib/a", 1, cache=9, extractor="dyld_shared_cache_util", seed=5)
        (first,) = _put(other, tmp_path / "1", image)
        (second,) = _put(other, tmp_path / "2", rival, build="23A1", version="14.0")
        store = Hooked(tmp_path / "library")
        store.on("before", "create records", lambda: prefer(other, A, first))
        with Library(store, Catalog(tmp_path / "one.db")) as library:
            with pytest.raises(IncompleteError, match=f"somebody has decided for {first}"):
                prefer(library, A, second)
            prefer(library, A, second)
            assert _served(library) == second


@pytest.mark.parametrize("whole", [True, False])
def test_an_unreadable_record_is_reported_and_stops_what_deletes(
    anywhere: Library, tmp_path: Path, whole: bool
) -> None:
    """Until it is put aside, which who goes on sees as well, as a server does."""
    (sha256,) = _put(anywhere, tmp_path / "1", Image("/usr/lib/a", 1))
    _put(anywhere, tmp_path / "2", Image("/usr/lib/b", 2), build="22G130")
    path = anywhere.store.scratch() / "part-bad"
    path.write_bytes(b"not zstd")
    anywhere.store.create("records/other/0000000001.json.zst", path)
    anywhere.refresh()
    assert list(anywhere.unreadable) == ["records/other/0000000001.json.zst"]
    assert _served(anywhere) == sha256
    with pytest.raises(IncompleteError, match="records/other"):
        gc(anywhere, grace=0)
    anywhere.store.quarantine("records/other/0000000001.json.zst")
    assert anywhere.gaps() == []
    anywhere.refresh(whole=whole)
    assert anywhere.unreadable == {}
    assert gc(anywhere, dry_run=True).live == 2


def test_a_lost_record_stops_what_deletes(local: Library, tmp_path: Path) -> None:
    for number in range(3):
        _put(local, tmp_path / str(number), Image("/usr/lib/a", 1), build=f"22G{number}")
    (writer,) = local.store.folders("records/")
    lost = str(RecordKey(writer, 2))
    shutil.move(Path(local.store.location) / "records", tmp_path / "records")
    assert local.gaps() == [str(RecordKey(writer, number)) for number in (1, 2, 3)]
    shutil.move(tmp_path / "records", Path(local.store.location) / "records")
    (Path(local.store.location) / lost).unlink()
    assert local.gaps() == [lost]
    with pytest.raises(IncompleteError, match="0000000002"):
        gc(local, grace=0)
    assert local.rebuild() == 2
    assert local.gaps() == [lost]


def test_a_record_that_has_become_unreadable_is_not_lost(local: Library, tmp_path: Path) -> None:
    for number in (1, 2):
        _put(local, tmp_path / str(number), Image("/usr/lib/a", number), build=f"22G{number}")
    first, _ = sorted(local.store.list("records/"))
    (Path(local.store.location) / first).write_bytes(b"rotten")
    assert local.rebuild() == 1
    assert (list(local.unreadable), local.lost()) == ([first], {})
    assert [r.build for r in local.releases()] == ["22G2"]


def test_the_records_of_several_new_writers_are_found_at_once(
    local: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / f"state{number}"))
        with Library(local.store, Catalog(None)) as other:
            _put(other, tmp_path / str(number), Image("/usr/lib/a", number + 1), build=f"22G{number}")
    assert local.refresh()
    assert len(local.releases()) == 3


@pytest.mark.parametrize("absurd", [150_000, 9_999_999_999])
def test_an_absurd_number_is_no_reason_to_look_for_billions(local: Library, tmp_path: Path, absurd: int) -> None:
    (sha256,) = _put(local, tmp_path / "1", Image("/usr/lib/a", 1))
    (writer,) = local.store.folders("records/")
    root = Path(local.store.location)
    shutil.copy(root / str(RecordKey(writer, 1)), root / str(RecordKey(writer, absurd)))
    (root / "records" / "other").mkdir()
    shutil.copy(root / str(RecordKey(writer, 1)), root / str(RecordKey("other", absurd)))
    assert local.rebuild() == 1
    assert sorted(local.unreadable) == sorted([str(RecordKey(w, absurd)) for w in (writer, "other")])
    assert local.gaps() == []
    assert _served(local) == sha256
    remove_build(local, "22G120")  # the next number is a sound one
    assert RecordKey(writer, 2) in {RecordKey.parse(k) for k in local.catalog.known_keys()}


@pytest.mark.parametrize("late", [1, 2])
def test_a_record_that_comes_late_is_not_missed(local: Library, tmp_path: Path, late: int) -> None:
    for number in range(3):
        _put(local, tmp_path / str(number), Image("/usr/lib/a", number + 1), build=f"22G{number}")
    (writer,) = local.store.folders("records/")
    root = Path(local.store.location)
    held = root / str(RecordKey(writer, late))
    aside = tmp_path / "aside"
    shutil.move(held, aside)
    local.rebuild()
    assert {r.build for r in local.releases()} == {"22G0", "22G1", "22G2"} - {f"22G{late - 1}"}
    _put(local, tmp_path / "4", Image("/usr/lib/a", 4), build="22G4")
    shutil.move(aside, held)
    assert local.refresh()
    assert {r.build for r in local.releases()} == {"22G0", "22G1", "22G2", "22G4"}


def test_polling_asks_two_questions_a_writer(local: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        _put(local, tmp_path / str(number), Image("/usr/lib/a", number + 1), build=f"22G{number}")
    asked: list[str] = []
    stat, listing = local.store.stat, local.store.list
    monkeypatch.setattr(local.store, "stat", lambda key: asked.append(key) or stat(key))
    monkeypatch.setattr(local.store, "list", lambda key: asked.append(key) or listing(key))
    monkeypatch.setattr(local.store, "scan", lambda key: asked.append(key) or iter(()))
    assert not local.refresh()
    (writer,) = local.store.folders("records/")
    assert asked == [str(RecordKey(writer, number)) for number in (5, 6)]  # the last that is known, and a next
    with Library.open(local.store.location) as again:
        assert len(again.releases()) == 5


def test_what_is_folded_is_not_read_again(local: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from symcache.library import record_log as module

    read: list[object] = []
    real = module.load_record
    monkeypatch.setattr(module, "load_record", lambda store, key: read.append(key) or real(store, key))
    with Library.open(local.store.location) as other:
        for number in range(10):
            local.write(HarvestRecord(source=f"{number}", finished="2026-01-01T00:00:00+00:00"))
        assert local.refresh()
        assert len(read) == 10
        assert other.refresh()  # has not seen them; they are in the catalog of both
        Library.open(local.store.location).close()
        assert len(read) == 10
    with Library(local.store, Catalog(None)) as fresh:
        assert fresh.catalog.fingerprint() == local.catalog.fingerprint()


def test_many_writers_are_listed_and_not_asked_one_by_one(
    local: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from CI machines that forget their name between runs."""
    for number in range(20):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / f"state{number}"))
        _put(local, tmp_path / str(number), Image("/usr/lib/a", number + 1), build=f"22G{number}")
    assert len(local.store.folders("records/")) == 20
    asked: list[str] = []
    stat = local.store.stat
    monkeypatch.setattr(local.store, "stat", lambda key: asked.append(key) or stat(key))
    assert not local.refresh()
    assert asked == []
    with Library.open(local.store.location) as other:
        remove_build(other, "22G3")
    assert local.refresh()
    assert len(local.releases()) == 19
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state20"))
    with Library(local.store, Catalog(None)) as other:
        _put(other, tmp_path / "20", Image("/usr/lib/a", 21), build="22G20")
    assert local.refresh()
    assert len(local.releases()) == 20


def test_rebuilding_changes_no_answer(anywhere: Library, tmp_path: Path) -> None:
    a = Image("/usr/lib/a", 1)
    ingest(anywhere, harvest(tmp_path / "1", [a], lost=[Image("/usr/lib/b", 2)]))
    ingest(anywhere, harvest(tmp_path / "2", [a, Image("/usr/lib/b", 2)], raw=[("cache", 9, b"raw")]))
    _put(anywhere, tmp_path / "3", Image("/usr/lib/a", 1, seed=5), build="23A1")
    prefer(anywhere, A, anywhere.variants(A)[0].sha256)
    remove_build(anywhere, "23A1")
    for other in ("records/readme", "records/of-nobody/notes.txt"):
        put_object(anywhere.store, other, [b"no record"])
    path = anywhere.catalog.path
    assert path

    def indexes() -> list[object]:
        return list(anywhere.catalog.database.execute("SELECT name FROM sqlite_master WHERE type = 'index' ORDER BY 1"))

    before, made = (anywhere.catalog.fingerprint(), _served(anywhere), anywhere.releases()), indexes()
    assert anywhere.rebuild() == 5
    assert indexes() == made != []
    assert not list(path.parent.glob(f".{path.name}-*"))
    assert (anywhere.catalog.fingerprint(), _served(anywhere), anywhere.releases()) == before


def test_a_new_machine_starts_from_a_snapshot(
    anywhere: Library, tmp_path: Path, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sha256,) = _put(anywhere, tmp_path / "1", Image("/usr/lib/a", 1))
    write_snapshot(anywhere.store, anywhere.catalog)
    _put(anywhere, tmp_path / "2", Image("/usr/lib/b", 2), build="23A1")
    fingerprint = anywhere.catalog.fingerprint()
    anywhere.close()
    path = anywhere.catalog.path
    assert path
    for name in ("", "-wal", "-shm"):
        path.with_name(path.name + name).unlink(missing_ok=True)
    read: list[object] = []
    from symcache.library import record_log as module

    real = module.load_record
    monkeypatch.setattr(module, "load_record", lambda store, key: read.append(key) or real(store, key))
    with Library.open(location) as fresh:
        assert len(read) == 1  # the one that the snapshot does not contain
        there = path.stat().st_ino
        with monkeypatch.context() as patch:
            patch.setattr(fresh.store, "open", lambda key: pytest.fail(f"{key} is downloaded for nothing"))
            start_from(fresh.store, path, fresh.catalog.library_id(), earlier=tmp_path / "none")
        assert path.stat().st_ino == there, "a catalog that is there is gone on with"
        assert not list(path.parent.glob(f".{path.name}-*"))
        assert fresh.catalog.fingerprint() == fingerprint
        assert _served(fresh) == sha256
        with Library.open(location) as other, fresh.catalog.one_moment():
            known = fresh.catalog.known_keys()
            remove_build(other, "23A1")  # one who reads keeps nobody from writing
            assert fresh.catalog.known_keys() == known
        assert fresh.catalog.known_keys() > known


def test_the_name_of_a_snapshot_says_how_many_records_it_holds(
    local: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not how many there are: more come while it is written."""
    _put(local, tmp_path / "1", Image("/usr/lib/a", 1))
    real = Catalog.snapshot

    def slow(catalog: Catalog, target: Path) -> int:
        count = real(catalog, target)
        _put(local, tmp_path / "2", Image("/usr/lib/b", 2), build="23A1")
        return count

    monkeypatch.setattr(Catalog, "snapshot", slow)
    assert "-0000000001-" in write_snapshot(local.store, local.catalog)


def test_libraries_in_object_stores_get_a_snapshot_now_and_then(
    anywhere: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("symcache.library.snapshots._DUE", 2)
    for number in range(6):
        _put(anywhere, tmp_path / str(number), Image("/usr/lib/a", number + 1), build=f"22G{number}")
    known = sorted(anywhere.store.list("snapshots/"))
    if not anywhere.store.location.startswith("s3://"):
        assert known == []  # its catalog lies beside it
        return
    assert [int(k.partition("-")[2][:10]) for k in known] == [2, 4, 6]
    time.sleep(1.1)
    assert gc(anywhere, grace=0).leftovers == 1
    assert sorted(anywhere.store.list("snapshots/")) == known[1:]


@pytest.mark.parametrize("known", [True, False], ids=["of a known writer", "of a new one"])
def test_a_record_that_came_while_the_store_was_away_is_folded_once_it_is_back(
    local: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """By a process that goes on, as a server does."""
    if known:
        _put(local, tmp_path / "0", Image("/usr/lib/b", 2))
    store = LocalStore(Path(local.store.location))
    with Library(store, Catalog(tmp_path / "server.db")) as server:
        (sha256,) = _put(local, tmp_path / "1", Image("/usr/lib/a", 1))
        real = store.open

        def away(key: str) -> BinaryIO:
            if key.startswith("records/"):
                raise StorageError("away")
            return real(key)

        with monkeypatch.context() as patch, pytest.raises(StorageError, match="away"):
            patch.setattr(store, "open", away)
            server.refresh()
        assert _served(server) is None
        assert server.refresh()
        assert _served(server) == sha256
        assert not server.refresh()


def test_a_snapshot_of_an_older_schema_makes_none_of_this_one_needless(
    local: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("symcache.library.snapshots._DUE", 1)
    monkeypatch.setattr(local.store, "location", "s3://as/if")
    put_object(local.store, f"snapshots/v{SCHEMA_VERSION - 1}-{9:010d}-{'0' * 64}.db.zst", [b""])
    _put(local, tmp_path / "1", Image("/usr/lib/a", 1))
    assert any(key.startswith(f"snapshots/v{SCHEMA_VERSION}-") for key in local.store.list("snapshots/"))


def test_a_catalog_is_folded_where_no_snapshot_can_take_its_place(
    local: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT and some network file systems have no hard links."""
    (sha256,) = _put(local, tmp_path / "1", Image("/usr/lib/a", 1))
    write_snapshot(local.store, local.catalog)
    local.close()
    Path(local.store.location, "catalog.db").unlink()
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(errno.EPERM, "no links")))
    with Library.open(local.store.location) as again:
        assert _served(again) == sha256


def test_a_snapshot_that_is_damaged_or_knows_too_much_is_passed_over(local: Library, tmp_path: Path) -> None:
    _put(local, tmp_path / "1", Image("/usr/lib/a", 1))
    root = Path(local.store.location)
    key = write_snapshot(local.store, local.catalog)
    local.close()
    good = (root / key).read_bytes()
    for damage in ("cut", "strange records"):
        (root / key).chmod(0o644)
        (root / key).write_bytes(good[: len(good) // 2] if damage == "cut" else good)
        if damage != "cut":
            (writer,) = local.store.folders("records/")
            (root / "records" / writer).rename(root / "records" / "renamed")
        for name in ("catalog.db", "catalog.db-wal", "catalog.db-shm"):
            (root / name).unlink(missing_ok=True)
        with Library.open(root) as again:
            assert _served(again)
            assert len(again.catalog.known_keys()) == 1


@pytest.mark.parametrize("damage", ["none", "cut", "another's name"])
def test_the_newest_snapshot_that_is_what_its_name_says_is_started_from(
    local: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    root, keys = Path(local.store.location), []
    for number in (1, 2):
        _put(local, tmp_path / str(number), Image("/usr/lib/a", number), build=f"22G{number}")
        keys.append(write_snapshot(local.store, local.catalog))
    local.close()
    for path in root.glob("catalog.db*"):
        path.unlink()
    newest = root / keys[1]
    if damage == "none":
        pass
    elif damage == "cut":
        newest.chmod(0o644)
        newest.write_bytes(newest.read_bytes()[:-100])
    else:
        newest.rename(newest.with_name(f"v{SCHEMA_VERSION}-{2:010d}-{'0' * 64}.db.zst"))
    from symcache.library import record_log as module

    read: list[object] = []
    real = module.load_record
    monkeypatch.setattr(module, "load_record", lambda store, key: read.append(key) or real(store, key))
    with Library.open(root) as again:
        assert len(read) == (damage != "none")  # one that the older snapshot does not contain
        assert {r.build for r in again.releases()} == {"22G1", "22G2"}


def test_a_catalog_that_sqlite_cannot_read_is_folded_anew_on_request(local: Library, tmp_path: Path) -> None:
    (sha256,) = _put(local, tmp_path / "1", Image("/usr/lib/a", 1))
    local.close()
    path = local.catalog.path
    assert path
    path.write_bytes(b"garbage" * 1000)
    for name in ("-wal", "-shm"):
        path.with_name(path.name + name).unlink(missing_ok=True)
    with pytest.raises(StorageError):
        Library.open(local.store.location)
    with Library.open(local.store.location, repair=True) as again:
        assert _served(again) == sha256


def test_notes_about_sources_follow_trust_and_time(anywhere: Library, tmp_path: Path) -> None:
    def put(number: int, trust: Trust, *notes: tuple[str, str]) -> str:
        image = Image("a.dSYM", 1, kind=Kind.DEBUGINFO, sources=notes)
        return ingest(anywhere, harvest(tmp_path / str(number), [image], build=None, trust=trust)).record_id

    def told() -> list[tuple[str, str]]:
        assert anywhere.sources([UUID(int=77)]) == {}
        return anywhere.sources([UUID(int=77), A]).get(A, [])

    put(1, Trust.PUSHED)
    assert told() == []
    put(2, Trust.PUSHED, ("/Users/ci", "/pushed"))
    assert told() == [("/Users/ci", "/pushed")]
    put(3, Trust.ADDED, ("/Users/ci", "/added"), ("/Users/a", "git:/b@c"))
    assert told() == [("/Users/ci", "/added"), ("/Users/a", "git:/b@c")]
    put(4, Trust.PUSHED, ("/Users/ci", "/later"))
    assert told()[0] == ("/Users/ci", "/added"), "less trust never shadows more"
    put(5, Trust.ADDED, ("/Users/ci", "/moved"))
    assert told() == [("/Users/ci", "/moved")]
    before = anywhere.catalog.fingerprint()
    anywhere.rebuild()
    assert told() == [("/Users/ci", "/moved")]
    assert anywhere.catalog.fingerprint() == before


def test_records_without_notes_are_what_they_were(local: Library, tmp_path: Path) -> None:
    """A record is a file format: one that nobody has a note for has no field for it, and may lack it."""
    _put(local, tmp_path / "1", Image("/usr/lib/a", 1))
    (key,) = map(RecordKey.parse, local.store.list("records/"))
    assert key
    _, record = read_record(local.store, key)
    assert isinstance(record, HarvestRecord)
    assert record.objects[0].sources == ()
    assert b"sources" not in load_record(local.store, key)[1]
