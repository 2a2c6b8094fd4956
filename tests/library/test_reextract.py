"""A release's images anew from its kept raw caches, laid out by Apple's own builder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from symcache.catalog import Catalog
from symcache.dyld import EXTRACTOR, REVISION, SharedCache, extract_image
from symcache.errors import IncompleteError, IntegrityError, NotFoundError
from symcache.images import ImageRequest
from symcache.library import (
    FsckCode,
    Library,
    Staged,
    StagedCacheFile,
    fsck,
    ingest,
    reextract,
    remove_build,
    repair,
    undo_removal,
)
from symcache.model import Release
from symcache.scratch import ScratchFolder
from symcache.store import blob_key
from tests.dyld.tiny import Cache, Image
from tests.library.hooked import Hooked
from tests.support.extracted import stage_extracted

reextract_module = sys.modules["symcache.library.reextract"]  # the function has its name


def _of_apple(name: str) -> Path:
    folder = os.environ.get("SYMCACHE_TEST_CACHES")
    if not folder:
        pytest.skip("SYMCACHE_TEST_CACHES is not set")
    return Path(folder) / name


@pytest.fixture(scope="module", params=["of a few pages", "by Apple's builder"])
def cache_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "by Apple's builder":
        return _of_apple("arm64e-mac/dyld_shared_cache_arm64e")
    images = [Image("/usr/lib/a", UUID(int=1)), Image("/usr/lib/b", UUID(int=2))]
    return Cache(images).write(tmp_path_factory.mktemp("cache"))


def _harvest(cache_path: Path, folder: Path, *, revision: int, lacking: int = 0) -> Staged:
    """Stage a cache and its images, as an extractor of `revision` that could not do `lacking` of them."""
    staged = stage_extracted(cache_path, folder / "images", "22G120")
    del staged.objects[:lacking]
    if revision != REVISION:
        for number, o in enumerate(staged.objects):
            o.file.chmod(0o644)
            with o.file.open("ab") as out:
                out.write(b"\0" * 8)  # what an earlier extractor made was not quite the same
            staged.objects[number] = replace(o, size=o.size + 8, revision=revision)
    return staged


def _bytes(library: Library, path: str) -> bytes:
    (uuid,) = {o.uuid for o in library.by_name(path)}
    assert uuid
    found = library.resolve(ImageRequest(uuid))
    assert found
    return b"".join(library.read_blob(found.sha256, found.size))


def test_a_later_extractor_supersedes_an_earlier_one(local: Library, cache_path: Path, tmp_path: Path) -> None:
    staged = _harvest(cache_path, tmp_path / "s", revision=REVISION - 1)
    assert ingest(local, staged).sealed
    result = reextract(local, "22G120")
    assert (result.problems, result.skipped) == ([], 0)
    assert result.images == result.changed == len(staged.objects) > 0
    with SharedCache.open(cache_path) as cache:
        for image in cache.images:
            expected = extract_image(cache, image, tmp_path / "one").file.read_bytes()
            assert _bytes(local, image.path) == expected
    assert [(r.sealed, r.harvests) for r in local.releases()] == [(True, 1)]
    assert local.conflicts() == []
    assert fsck(local).clean
    assert reextract(local, "22G120").skipped == 1


def test_a_development_cache_whose_companions_have_shorter_names(local: Library, tmp_path: Path) -> None:
    main = _of_apple("arm64e-ios-universal/dyld_shared_cache_arm64e.development")
    staged = _harvest(main, tmp_path / "s", revision=REVISION - 1)
    assert ingest(local, staged).sealed
    result = reextract(local, "22G120")
    assert (result.problems, result.images) == ([], len(staged.objects))


def test_caches_that_have_no_uuid_are_said_to_have_none(local: Library, tmp_path: Path) -> None:
    main = Cache([Image("/usr/lib/a", UUID(int=1))], header_size=0x48).write(tmp_path)
    ingest(local, _harvest(main, tmp_path / "s", revision=REVISION - 1))
    with pytest.raises(NotFoundError, match="have no UUID"):
        reextract(local, "22G120")


def _raw(main: Path, cache: int = 0xC0FFEE) -> Staged:
    """Stage a cache, and none of its images."""
    staged = Staged(Release(version="13.6", build="22G120"), "test")
    staged.cache_files.append(StagedCacheFile(main, main.name, f"/System/{main.name}", "x86_64", UUID(int=cache)))
    return staged


def test_files_of_another_cache_are_not_extracted(local: Library, tmp_path: Path) -> None:
    main = Cache([Image("/usr/lib/a", UUID(int=1))]).write(tmp_path)
    staged = _raw(main, 2)
    staged.cache_files += _raw(main).cache_files
    ingest(local, staged)
    result = reextract(local, "22G120")
    assert (result.images, len(result.records), len(result.problems)) == (1, 1, 1)
    assert "is cache 00000000-0000-0000-0000-000000c0ffee where" in result.problems[0]


@pytest.mark.parametrize("uuid", [UUID(int=0xC0FFEE), None])
def test_headers_alone_are_no_cache(local: Library, tmp_path: Path, uuid: UUID | None) -> None:
    staged = _raw(Cache([Image("/usr/lib/a", UUID(int=1))]).write(tmp_path))
    staged.cache_files[:] = [replace(file, partial=True, cache_uuid=uuid) for file in staged.cache_files]
    ingest(local, staged)
    with pytest.raises(NotFoundError, match="no raw shared cache"):
        reextract(local, "22G120")


def test_an_image_that_cannot_be_extracted_is_named_and_the_others_are(local: Library, tmp_path: Path) -> None:
    broken = Image("/usr/lib/b", UUID(int=2), commands=[b"\x2a\0\0\0\4\0\0\0"])
    images = [Image("/usr/lib/a", UUID(int=1)), broken, Image("/usr/lib/c", UUID(int=3))]
    ingest(local, _raw(Cache(images).write(tmp_path)))
    seen: list[tuple[int, int]] = []
    result = reextract(local, "22G120", progress=lambda done, total: seen.append((done, total)))
    assert (result.images, result.changed, len(result.records), len(result.problems)) == (2, 2, 1, 1)
    assert result.problems[0].startswith("/usr/lib/b: ")
    assert seen[-1] == (3, 3)
    assert [(r.sealed, r.images) for r in local.releases()] == [(False, 2)]


def test_a_record_that_was_exchanged_is_neither_extracted_nor_brought_back(local: Library, tmp_path: Path) -> None:
    ingest(local, _raw(Cache([Image("/usr/lib/a", UUID(int=1))]).write(tmp_path)))
    staged = _raw(Cache([Image("/usr/lib/b", UUID(int=2))], uuid=UUID(int=3)).write(tmp_path / "2"), 3)
    staged.release = Release(version="14.0", build="23A1")
    ingest(local, staged)
    first, second = sorted((Path(local.store.location) / "records").rglob("*.zst"))
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    with pytest.raises(IntegrityError, match="not the record of a harvest"):
        reextract(local, "22G120")
    first.write_bytes(kept)
    remove_build(local, "22G120")
    first.write_bytes(second.read_bytes())
    with pytest.raises(IntegrityError, match="not the record of a harvest"):
        undo_removal(local, "22G120")


def test_only_a_cache_whose_images_are_of_an_earlier_revision_is_extracted_anew(local: Library, tmp_path: Path) -> None:
    with Library(local.store, Catalog(tmp_path / "other.db")) as behind:
        archs = ("x86_64", "x86_64h")
        caches = [Cache([Image("/a", UUID(int=n))], arch, uuid=UUID(int=10 + n)) for n, arch in enumerate(archs, 1)]
        mains = [cache.write(tmp_path) for cache in caches]
        old, new = (_harvest(m, tmp_path / f"s{n}", revision=REVISION - 1 + n) for n, m in enumerate(mains))
        old.manifest += new.manifest
        old.objects += new.objects
        old.cache_files += new.cache_files
        assert ingest(local, old).sealed
        result = reextract(behind, "22G120")
        assert (result.images, result.changed, result.skipped, result.problems) == (1, 1, 1, [])
        assert [behind.catalog.is_live_record(i) for i in result.records] == [True]
        assert reextract(behind, "22G120").skipped == 2
        again = reextract(behind, "22G120", force=True)
        assert (again.images, again.changed, again.records) == (2, 0, [])


def test_what_another_extractor_made_stays_beside_what_is_extracted_anew(local: Library, tmp_path: Path) -> None:
    staged = _harvest(Cache([Image("/a", UUID(int=1))]).write(tmp_path), tmp_path / "s", revision=REVISION - 1)
    staged.objects[0] = replace(staged.objects[0], extractor="dyld_shared_cache_util", revision=0)
    assert ingest(local, staged).sealed
    result = reextract(local, "22G120")
    assert (result.images, result.changed) == (1, 1)
    assert [o.extractor for o in local.variants(UUID(int=1))] == [EXTRACTOR, "dyld_shared_cache_util"]


REMOVALS: dict[str, tuple[str, str]] = {
    "while images are extracted": ("reextract", ""),
    "when the new record is about to be written": ("reextract", "before create records"),
    "by somebody who has not seen the new record": ("remove", "before create records"),
}


@pytest.mark.parametrize("name", REMOVALS)
def test_what_is_removed_meanwhile_stays_removed(tmp_path: Path, name: str) -> None:
    """Two machines, each with a catalog of its own."""
    first, hook = REMOVALS[name]
    root = tmp_path / "library"
    main = Cache([Image("/usr/lib/a", UUID(int=1))]).write(tmp_path)
    with Library.open(root, create=True) as library:
        assert ingest(library, _harvest(main, tmp_path / "s", revision=REVISION - 1)).sealed
    stores = {verb: Hooked(root) for verb in ("reextract", "remove")}
    one, two = (Library(store, Catalog(tmp_path / f"{verb}.db")) for verb, store in stores.items())
    second = (lambda: remove_build(two, "22G120")) if first == "reextract" else (lambda: reextract(one, "22G120"))
    if hook:
        stores[first].on(*hook.split(" ", 1), second)
    if first == "remove":
        assert len(remove_build(two, "22G120")) == 2
    else:
        with pytest.raises(NotFoundError, match="22G120: was removed while it was extracted"):
            reextract(one, "22G120", progress=None if hook else lambda done, total: _once(second))
    for library in (one, two):
        library.refresh()
        assert library.releases() == []
        assert library.resolve(ImageRequest(UUID(int=1))) is None
    # And harvesting it again brings it back.
    assert ingest(one, _harvest(main, tmp_path / "s2", revision=REVISION)).sealed
    assert one.resolve(ImageRequest(UUID(int=1)))
    one.close()
    two.close()


def _once(action: Callable[[], object]) -> None:
    with contextlib.suppress(NotFoundError):  # it was removed when it was asked for before
        action()


def test_what_somebody_else_did_meanwhile_is_not_done_twice(tmp_path: Path) -> None:
    root = tmp_path / "library"
    main = Cache([Image("/usr/lib/a", UUID(int=1))]).write(tmp_path)
    with Library.open(root, create=True) as library:
        assert ingest(library, _harvest(main, tmp_path / "s", revision=REVISION - 1)).sealed
        with Library(Hooked(root), Catalog(tmp_path / "other.db")) as other:
            done: list[object] = []

            def once(_: int, __: int) -> None:
                if not done:
                    done.append(None)
                    reextract(other, "22G120")

            with pytest.raises(IncompleteError, match="another harvest has taken the place"):
                reextract(library, "22G120", progress=once)
        assert [r.harvests for r in library.releases()] == [1]
        assert library.resolve(ImageRequest(UUID(int=1)))


@pytest.mark.parametrize("removed", [True, False])
@pytest.mark.parametrize("moment", ["before seal", "before create records"])
def test_what_somebody_else_has_continued_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, removed: bool
) -> None:
    """Another machine continues the harvest that is extracted anew, and may remove the build after that."""
    root = tmp_path / "library"
    main = Cache([Image("/usr/lib/a", UUID(int=1)), Image("/usr/lib/b", UUID(int=2))]).write(tmp_path)
    with Library.open(root, create=True) as other:
        partial = _harvest(main, tmp_path / "s", revision=REVISION - 1, lacking=1)
        assert not ingest(other, partial).sealed
        whole = _harvest(main, tmp_path / "s2", revision=REVISION - 1)
        store = Hooked(root)

        def go_on() -> None:
            assert ingest(other, whole).sealed
            if removed:
                remove_build(other, "22G120")

        with Library(store, Catalog(tmp_path / "one.db")) as library:
            if moment == "before seal":
                real = reextract_module.seal
                monkeypatch.setattr(reextract_module, "seal", lambda *given: (go_on(), real(*given))[1])
            else:
                store.on(*moment.split(" ", 1), go_on)
            expected = NotFoundError if removed else IncompleteError if moment == "before seal" else None
            with pytest.raises(expected) if expected else contextlib.nullcontext():
                reextract(library, "22G120")
        other.refresh()
        for uuid in (UUID(int=1), UUID(int=2)):
            assert bool(other.resolve(ImageRequest(uuid))) is not removed
        harvests = [r.harvests for r in other.releases()]
        assert harvests == ([] if removed else [1 if moment == "before seal" else 2])  # in two, nothing is lost


def test_images_that_an_earlier_extractor_could_not_do_complete_the_release(
    local: Library, cache_path: Path, tmp_path: Path
) -> None:
    assert not ingest(local, _harvest(cache_path, tmp_path / "s", revision=REVISION - 1, lacking=1)).sealed
    reextract(local, "22G120")
    assert [r.sealed for r in local.releases()] == [True]


def test_without_kept_caches_nothing_can_be_extracted(local: Library, cache_path: Path, tmp_path: Path) -> None:
    staged = _harvest(cache_path, tmp_path / "s", revision=REVISION)
    staged.cache_files.clear()
    ingest(local, staged)
    with pytest.raises(NotFoundError, match="no raw shared cache"):
        reextract(local, "22G120")
    with pytest.raises(NotFoundError, match="nothing of this build"):
        reextract(local, "99Z9")


def test_a_lost_image_is_repaired_from_its_kept_cache(local: Library, cache_path: Path, tmp_path: Path) -> None:
    staged = _harvest(cache_path, tmp_path / "s", revision=REVISION)
    ingest(local, staged)
    shutil.rmtree(tmp_path / "s")
    lost = local.by_name(staged.objects[0].path)[0]
    (Path(local.store.location) / blob_key(lost.sha256)).unlink()
    report = fsck(local)
    assert [f.code for f in report.findings] == [FsckCode.BLOB_MISSING]
    repair(local, report)
    assert [f.repaired for f in report.findings] == ["extracted again from its shared cache"]
    assert fsck(local).clean
    for path in (Path(local.store.location) / "blobs").rglob("*.zst"):
        path.unlink()
    report = fsck(local)
    repair(local, report)
    assert {f.repaired for f in report.findings} == {""}
    assert not any("not repaired" in f.message for f in report.findings)


# As `symcache reextract` runs: the signal comes while an image is extracted.
REEXTRACT = """
import time
import symcache.library.cache_images
from symcache.cli import main
def store_images(storing, cache, indexes, **options):
    print(cache.path, flush=True)
    for _ in range(1000):  # a signal just before a long sleep would not end it
        time.sleep(0.1)
symcache.library.cache_images.store_images = store_images
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_reextraction_that_is_ended_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with Library.open(tmp_path / "library", create=True) as library:
        main = Cache([Image("/usr/lib/a", UUID(int=1))], uuid=UUID(int=2)).write(tmp_path)
        ingest(library, _raw(main, 2))
    command = [sys.executable, "-c", REEXTRACT, "reextract", "22G120", "--library", str(tmp_path / "library")]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout
        line = process.stdout.readline()
        assert line.startswith(str(temporary)), process.communicate()
        assert list(temporary.glob("*/*/raw/*"))
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    if number is signal.SIGKILL:
        assert list(temporary.iterdir())
        ScratchFolder("next", temporary).cleanup()
    else:
        assert process.returncode == 130
        assert "interrupted" in said
        assert "Traceback" not in said
    assert list(temporary.iterdir()) == []
