"""What releases consist of, as records say it: caches by family and architecture, files, and kept raw caches."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from symcache.library import Library
from symcache.model import CacheFile, HarvestRecord, ManifestEntry, Origin, Release, ReleaseId, Trust
from symcache.store import write_record
from symcache.verify import Expectations, FindingCode, Level, verify
from symcache.verify.holdings import RawFile, ReleaseHoldings, gather

CACHE = UUID(int=7)
DYLD, LIBZ, DRIVER = "/usr/lib/dyld", "/usr/lib/libz.dylib", "/System/DriverKit/usr/lib/libz.dylib"
SYSTEM_FOLDER, DRIVER_FOLDER = "/System/Library/dyld", "/System/DriverKit/System/Library/dyld"


def listed(path: str, arch: str = "arm64e", *, cache: UUID | None = CACHE) -> ManifestEntry:
    return ManifestEntry(path=path, arch=arch, origin=Origin.CACHE if cache else Origin.FILE, cache_uuid=cache)


def raw(
    folder: str, content: str = "0", *, name: str = "dyld_shared_cache_arm64e", arch: str = "arm64e",
    cache: UUID | None = CACHE, partial: bool = False,
) -> CacheFile:  # fmt: skip
    path = f"{folder}/{name}" if folder else name
    return CacheFile(name=name, cache_uuid=cache, arch=arch, path=path, sha256=content * 64, size=1, partial=partial)


def record(*parts: ManifestEntry | CacheFile, sealed: bool = True, problems: tuple[str, ...] = ()) -> HarvestRecord:
    return HarvestRecord(
        release=Release(version="13.6", build="22G120"),
        source="ssh://one",
        sealed=sealed,
        problems=problems,
        manifest=tuple(p for p in parts if isinstance(p, ManifestEntry)),
        cache_files=tuple(p for p in parts if isinstance(p, CacheFile)),
    )


def library_of(folder: Path, *records: HarvestRecord) -> Library:
    with Library.open(folder / "library", create=True) as library:
        for one in records:
            write_record(library.store, one, "test")
    return Library.open(folder / "library")


def holdings(folder: Path, *records: HarvestRecord) -> ReleaseHoldings:
    with library_of(folder, *records) as library:
        found = gather(library, ReleaseId("macOS", "22G120"))
    assert found
    return found


@pytest.mark.parametrize(
    ("parts", "family", "arch"),
    [
        # By where its files lay in a system.
        ([listed(LIBZ), raw(SYSTEM_FOLDER)], "system", "arm64e"),
        ([listed(LIBZ), raw(DRIVER_FOLDER)], "driverkit", "arm64e"),
        ([listed(DRIVER), raw("/private/var/db/dyld")], "system", "arm64e"),
        ([raw(DRIVER_FOLDER)], "driverkit", "arm64e"),
        ([listed(LIBZ), raw(SYSTEM_FOLDER, arch="arm64e_x1")], "system", "arm64e.x1"),
        ([listed(LIBZ), raw(SYSTEM_FOLDER, name="dyld_sim_shared_cache_arm64e")], "simulator", "arm64e"),
        # Else by where its images are installed.
        ([listed(DRIVER), raw("")], "driverkit", "arm64e"),
        ([listed(DRIVER)], "driverkit", "arm64e"),
        ([listed(DRIVER), listed(LIBZ)], "system", "arm64e"),
        (
            [listed(LIBZ, "x86_64"), listed(DYLD, "x86_64"), listed(DYLD, "x86_64h")],
            "system",
            "x86_64h",
        ),
        # Files are of no family.
        ([listed(DRIVER, cache=None)], "files", "arm64e"),
        ([listed(LIBZ, "x86_64", cache=None), raw(SYSTEM_FOLDER, cache=None)], "files", "x86_64"),
    ],
)
def test_a_cache_is_of_the_family_where_it_lay(
    tmp_path: Path, parts: list[ManifestEntry | CacheFile], family: str, arch: str
) -> None:
    (unit,) = holdings(tmp_path, record(*parts)).units
    assert (unit.family, unit.arch) == (family, arch)
    assert len(unit.kept) == sum(isinstance(p, CacheFile) and p.cache_uuid is not None for p in parts)


def test_what_several_harvests_kept_of_a_cache_counts_once_and_what_differs_each(tmp_path: Path) -> None:
    whole, head = raw(SYSTEM_FOLDER), raw(SYSTEM_FOLDER, "2", name="dyld_shared_cache_arm64e.01", partial=True)
    other = raw(SYSTEM_FOLDER, "1")
    # Heads come before whole files: nothing that follows one is lost.
    (unit,) = holdings(tmp_path, record(head, whole), record(head, whole, other), record(other)).units
    contents = [RawFile(f.name, f.path, f.sha256, f.size) for f in (whole, other, head)]
    assert unit.raw == {whole.name: contents[:2]}
    assert unit.heads == contents[2:]
    assert unit.kept == contents


def test_what_a_sealed_harvest_lists_is_the_measure(tmp_path: Path) -> None:
    half, whole = record(listed("/a"), sealed=False), record(listed("/b"), listed("/c"))
    for number, (records, paths) in enumerate(
        [((half,), {"/a"}), ((half, whole), {"/b", "/c"}), ((whole, half), {"/b", "/c"})]
    ):
        (unit,) = holdings(tmp_path / f"{number}", *records).units
        assert ({k.path for k in unit.expected}, unit.sealed) == (paths, whole in records)
    both = record(listed("/a"), sealed=False), record(listed("/b"), sealed=False)
    (unit,) = holdings(tmp_path / "both", *both).units
    assert {k.path for k in unit.expected} == {"/a", "/b"}


def test_what_was_pushed_is_no_part_of_a_release(tmp_path: Path) -> None:
    pushed = record(listed("/a")).model_copy(update={"trust": Trust.PUSHED})
    (unit,) = holdings(tmp_path / "both", pushed, record(listed("/b"))).units
    assert {k.path for k in unit.expected} == {"/b"}
    with library_of(tmp_path / "pushed", pushed) as library:
        assert gather(library, ReleaseId("macOS", "22G120")) is None


def test_a_whole_harvest_settles_what_an_earlier_one_of_the_same_files_could_not_read(tmp_path: Path) -> None:
    files = [listed("/usr/bin/a", arch, cache=None) for arch in ("arm64e", "x86_64")]
    stopped = record(*files, listed(LIBZ), sealed=False, problems=("it ended",))
    others = [listed("/usr/bin/b", "x86_64", cache=None), listed(LIBZ)]
    for number, (whole, settled) in enumerate(
        [(record(*files, *others), True), (record(files[0], *others), False), (record(files[0], listed(LIBZ)), False)]
    ):
        with library_of(tmp_path / f"{number}", stopped, whole) as library:
            report = verify(library, level=Level.CATALOG, expectations=Expectations.nothing())
        problems = [f.message for f in report.findings if f.code is FindingCode.SOURCE_PROBLEM]
        assert problems == ([] if settled else ["ssh://one: it ended: then harvest it again"])
