"""What was removed comes back as it was, for every version that follows the library, or what is lost is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest

from symcache.catalog import Catalog
from symcache.errors import IncompleteError, NotFoundError, UsageError
from symcache.images import ImageRequest
from symcache.library import (
    Library,
    fsck,
    gc,
    ingest,
    plan_removal,
    removals,
    remove_build,
    undo_removal,
)
from symcache.store import blob_key
from tests.library.hooked import Hooked
from tests.library.images import Image, harvest

DAY = 86400.0
A, B = Image("/usr/lib/a", 1), Image("/usr/lib/b", 2)
RIVAL = Image("/usr/lib/a", 1, seed=5)
RAW = [("dyld_shared_cache_arm64e", 9, b"raw" * 1000)]


def _served(library: Library) -> dict[tuple[int, str], str]:
    """Return the content that is served for each UUID, unpinned and in each release."""
    requests = {(n, b): ImageRequest(UUID(int=n), build=b or None) for n in (1, 2) for b in ("", "22G120", "23A1")}
    found = {key: library.resolve(request) for key, request in requests.items()}
    return {key: image.sha256 for key, image in found.items() if image}


def _age(root: Path, days: float) -> None:
    then = time.time() - days * DAY
    for path in root.rglob("*.zst"):
        os.utime(path, (then, then))


def test_a_release_comes_back_as_it_was(local: Library, tmp_path: Path) -> None:
    ingest(local, harvest(tmp_path / "1", [A, B], raw=RAW))
    ingest(local, harvest(tmp_path / "2", [RIVAL], build="23A1", version="14.0"))
    before = _served(local), local.releases(), local.conflicts()
    for _ in range(2):  # what came back can be removed, and come back, again
        assert len(remove_build(local, "22G120")) == 1
        assert [r.build for r in removals(local)] == ["22G120"]
        assert _served(local) != before[0]
        (restored,) = undo_removal(local, "22G120")
        assert (restored.build, restored.sealed, restored.stored, restored.lost) == ("22G120", True, 2, [])
        assert _served(local) == before[0]
        assert local.releases() == before[1]
        # Of contents that contradict each other, the same one is served: a record that comes back is no newer.
        assert [c.contents[0].sha256 for c in local.conflicts()] == [c.contents[0].sha256 for c in before[2]]
        assert removals(local) == []
    _age(Path(local.store.location), 100)
    assert gc(local).deleted == 0
    assert {f.code.value for f in fsck(local).findings} == {"conflict"}
    with pytest.raises(NotFoundError, match="22G120: nothing of this name is removed"):
        undo_removal(local, "22G120")


def test_of_several_removals_the_one_that_is_named_is_undone(local: Library, tmp_path: Path) -> None:
    first = ingest(local, harvest(tmp_path / "1", [A])).record_id
    remove_build(local, "22G120")
    second = ingest(local, harvest(tmp_path / "2", [RIVAL, B])).record_id
    assert len(remove_build(local, "22G120")) == 1
    with pytest.raises(UsageError, match="removed more than once") as caught:
        undo_removal(local, "22G120")
    assert first[:12] in caught.value.hint
    assert second[:12] in caught.value.hint
    assert [r.removed for r in undo_removal(local, second[:10].upper())] == [second]
    assert local.releases()[0].images == 2
    # What is back is no choice any more; and two that went together come together.
    assert [r.removed for r in undo_removal(local, "22G120")] == [first]
    assert len(remove_build(local, "22G120")) == 2
    assert len(undo_removal(local, "22G120")) == 2
    assert local.releases()[0].harvests == 2


def test_what_was_collected_meanwhile_is_said(local: Library, tmp_path: Path) -> None:
    ingest(local, harvest(tmp_path / "1", [A, B], raw=RAW))
    (raw,) = local.catalog.cache_files_of(UUID(int=9))
    sha256 = {n: local.variants(UUID(int=n))[0].sha256 for n in (1, 2)}
    remove_build(local, "22G120")
    store = Path(local.store.location)
    for lost in (sha256[1], raw.sha256):
        (store / blob_key(lost)).unlink()
    (restored,) = undo_removal(local, "22G120")
    assert (restored.sealed, restored.stored) == (False, 1)
    assert restored.lost == [
        f"{path}: its blob {lost} is gone: harvest or add it again"
        for path, lost in (("/usr/lib/a", sha256[1]), (raw.path, raw.sha256))
    ]
    assert local.catalog.cache_files_of(UUID(int=9)) == []
    assert local.resolve(ImageRequest(UUID(int=1))) is None
    assert local.resolve(ImageRequest(UUID(int=2)))
    # Another harvest of the same source completes it.
    assert ingest(local, harvest(tmp_path / "2", [A, B])).sealed
    remove_build(local, "22G120")
    _age(store, 100)
    assert gc(local).deleted == 2
    with pytest.raises(NotFoundError, match="22G120: `symcache gc` has deleted"):
        undo_removal(local, "22G120")


@pytest.mark.parametrize("old", [True, False])
def test_in_an_object_store_deletions_are_waited_for_where_something_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    Library.open(tmp_path / "library", create=True).close()
    store = Hooked(tmp_path / "library")
    store.settle = 3600
    waits: list[float] = []
    machine = SimpleNamespace(monotonic=time.monotonic, sleep=waits.append)
    monkeypatch.setattr("symcache.library.undo.time", machine)
    monkeypatch.setattr(sys.modules["symcache.library.ingest"], "time", machine)  # the function has its name
    with Library(store, Catalog(tmp_path / "catalog.db")) as library:
        ingest(library, harvest(tmp_path / "1", [A]))
        remove_build(library, "22G120")
        if old:
            _age(tmp_path / "library", 100)
        assert undo_removal(library, "22G120")[0].stored == 1
    assert waits == ([3600] if old else [])


def test_what_is_removed_again_as_it_comes_back_is_said(local: Library, tmp_path: Path) -> None:
    ingest(local, harvest(tmp_path / "1", [A]))
    remove_build(local, "22G120")
    store = Hooked(Path(local.store.location))
    store.on("after", "create records", lambda: remove_build(local, "22G120"))
    with Library(store, Catalog(tmp_path / "other.db")) as library:
        with pytest.raises(IncompleteError, match="removed again meanwhile"):
            undo_removal(library, "22G120")
        assert library.releases() == []


def test_of_many_removals_the_last_ten_are_offered(local: Library, tmp_path: Path) -> None:
    ids = []
    for number in range(11):
        ids.append(ingest(local, harvest(tmp_path / f"{number}", [A])).record_id)
        remove_build(local, "22G120")
    with pytest.raises(UsageError, match="removed more than once") as caught:
        undo_removal(local, "22G120")
    assert [i for i in ids if i[:12] in caught.value.hint] == ids[1:]
    with pytest.raises(NotFoundError, match="nothing of this name"):
        undo_removal(local, ids[0][:7])  # too short to be meant
    assert undo_removal(local, ids[0][:8])[0].removed == ids[0]


def test_of_several_harvests_those_that_are_left_come_back(local: Library, tmp_path: Path) -> None:
    ingest(local, harvest(tmp_path / "1", [A], source="one"))
    ingest(local, harvest(tmp_path / "2", [B], source="two"))
    ingest(local, harvest(tmp_path / "3", [B], build="23A1", version="14.0"))
    remove_build(local, "22G120")
    _age(Path(local.store.location), 100)
    assert gc(local).deleted == 1
    (restored,) = undo_removal(local, "22G120")
    assert restored.stored == 1
    assert restored.lost == ["the harvest of one: 22G120: `symcache gc` has deleted what was removed"]
    assert (2, "22G120") in _served(local)


@pytest.mark.parametrize("moment", ["delete_older blobs", "refresh blobs", "after it was refreshed"])
def test_beside_a_collection_nothing_is_promised_that_goes(tmp_path: Path, moment: str) -> None:
    """A collector that has decided to delete, one that deletes between the look and the refreshing, and one later.

    The last is of an object store, where deleting may be under way for some seconds.
    """
    root = tmp_path / "library"
    with Library.open(root, create=True) as library:
        ingest(library, harvest(tmp_path / "1", [A]))
        remove_build(library, "22G120")
    _age(root, 100)
    stores = Hooked(root), Hooked(root)
    collector, restorer = (Library(s, Catalog(tmp_path / f"{n}.db")) for n, s in enumerate(stores))
    if moment.startswith("delete"):
        stores[0].on("before", moment, lambda: undo_removal(restorer, "22G120"))
        assert gc(collector).deleted == 0
        assert restorer.resolve(ImageRequest(UUID(int=1)))
    else:
        (blob,) = (root / "blobs").rglob("*.zst")
        if moment == "refresh blobs":
            stores[1].on("before", moment, lambda: gc(collector))
        else:
            stores[1].on("after", "refresh blobs", blob.unlink)
        with pytest.raises(NotFoundError, match="has deleted"):
            undo_removal(restorer, "22G120")
        assert restorer.releases() == []
    collector.close()
    restorer.close()


def test_a_plan_says_what_a_collection_then_frees(local: Library, tmp_path: Path) -> None:
    shared, own = Image("/usr/lib/shared", 3, seed=7), Image("/usr/lib/own", 4)
    ingest(local, harvest(tmp_path / "1", [A, B, shared], raw=RAW))
    ingest(local, harvest(tmp_path / "2", [A, own], build="23A1", version="14.0"))
    ingest(local, harvest(tmp_path / "3", [shared, own], build="23B2", version="14.1"))
    plans = plan_removal(local, ["22G120", "23B2"])
    assert [(p.build, len(p.records), p.images, p.blobs) for p in plans] == [("22G120", 1, 3, 2), ("23B2", 1, 2, 1)]
    assert len(local.releases()) == 3
    (lost,) = (row.sha256 for row in local.variants(B.uuid))
    blob = Path(local.store.location) / blob_key(lost)
    blob.rename(tmp_path / "lost")
    assert [p.bytes for p in plan_removal(local, ["22G120"])] == [plans[0].bytes - (tmp_path / "lost").stat().st_size]
    (tmp_path / "lost").rename(blob)
    for plan in plans:
        assert remove_build(local, plan.build) == plan.records
    young = gc(local)
    assert (young.deleted, young.young, young.young_bytes) == (0, 3, sum(p.bytes for p in plans))
    _age(Path(local.store.location), 100)
    report = gc(local)
    assert (report.deleted, report.deleted_bytes) == (3, sum(p.bytes for p in plans))
    assert (report.young, report.young_bytes, report.first_expires) == (0, 0, None)


def test_what_another_machine_did_is_seen_before_anything_is_planned_taken_back_or_brought_back(
    local: Library, tmp_path: Path
) -> None:
    with Library(local.store, Catalog(tmp_path / "other.db")) as other:
        ingest(other, harvest(tmp_path / "1", [A, B]))
        assert [p.images for p in plan_removal(local, ["22G120"])] == [2]
        ingest(other, harvest(tmp_path / "2", [B], build="23A1", version="14.0"))
        assert len(remove_build(local, "23A1")) == 1
        remove_build(other, "22G120")
        assert [r.build for r in removals(local)] == ["23A1", "22G120"]


def test_an_older_version_sees_the_same(local: Library, tmp_path: Path) -> None:
    older = os.environ.get("SYMCACHE_TEST_OLDER")
    if not older:
        pytest.skip("SYMCACHE_TEST_OLDER is not set: the Python that has an older version")
    ingest(local, harvest(tmp_path / "1", [A, B]))

    def ask(*arguments: str) -> object:
        command = [older, "-m", "symcache", *arguments, "--json", "--library", local.store.location]
        return json.loads(subprocess.run(command, capture_output=True, check=True, cwd=tmp_path).stdout)

    before = ask("releases"), ask("lookup", "/usr/lib/*")
    remove_build(local, "22G120")
    assert ask("releases") == []
    undo_removal(local, "22G120")
    assert (ask("releases"), ask("lookup", "/usr/lib/*")) == before
    assert ask("gc", "--dry-run")["deleted"] == 0
    # And what it removes, this one brings back.
    ask("remove", "22G120")
    assert undo_removal(local, "22G120")[0].stored == 2
    assert (ask("releases"), ask("lookup", "/usr/lib/*")) == before
