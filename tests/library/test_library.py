"""What was stored stays, and what is given back is what was asked for."""

from __future__ import annotations

import hashlib
import os
import random
import stat
import struct
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from symcache.errors import IntegrityError, NotFoundError, StorageError, UsageError
from symcache.images import ImageRequest
from symcache.library import Library, Staged, StagedCacheFile, StagedObject, ingest, prefer, stage_paths, stats
from symcache.library.add import files_below
from symcache.library.image_facts import HEAD, code_facts
from symcache.library.raw_caches import write_raw_cache
from symcache.macho import code_fingerprint, identify
from symcache.model import HarvestRecord, Kind, ManifestEntry, Origin, Release, ReleaseId, Trust, uuid_text
from symcache.store import RecordKey, blob_key, put_blob, read_record
from tests.library.images import ARM64E, Image, harvest, macho
from tests.support.toolchain import compile_image, dsym, lipo

UUID_COMMAND = struct.pack("<2I", 0x1B, 24)
SOURCE = "int answer(int x) { return x * 42; }\nint other(int x) { return answer(x) + 1; }\n"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    image = compile_image(folder / "x86_64", "libanswer.dylib", SOURCE)
    dsym(image)
    arm = compile_image(folder / "arm64", "libanswer.dylib", SOURCE, arch="arm64")
    lipo(folder / "universal.dylib", image, arm)
    return folder


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library.open(tmp_path / "library", create=True)


def _llvm_uuids(path: Path) -> set[str]:
    text = subprocess.run(["llvm-dwarfdump-19", "--uuid", str(path)], capture_output=True, text=True, check=True).stdout
    return {line.split()[1] for line in text.splitlines() if line.startswith("UUID:")}


def _harvest(image: Path, *, build: str = "22G120", path: str = "/usr/lib/libanswer.dylib") -> Staged:
    found = identify(image)[0]
    entry = ManifestEntry(path=path, arch=found.arch, uuid=found.uuid)
    staged = Staged(Release(version="13.6", build=build), "test", manifest=[entry])
    staged.objects.append(StagedObject(image, found.offset, found.size, path, found.arch, found.uuid))
    return staged


def test_a_universal_file_is_kept_as_thin_slices_and_its_dsym_beside(
    library: Library, built: Path, tmp_path: Path
) -> None:
    bundle = built / "x86_64" / "libanswer.dylib.dSYM"
    staged = stage_paths([built / "universal.dylib", bundle], tmp_path / "scratch")
    result = ingest(library, staged)
    assert result.sealed
    assert {uuid_text(m.uuid) for m in staged.manifest if m.uuid} == _llvm_uuids(built / "universal.dylib")
    for arch in ("x86_64", "arm64"):
        thin = built / arch / "libanswer.dylib"
        uuid = UUID(_llvm_uuids(thin).pop())
        found = library.resolve(ImageRequest(uuid, Kind.EXECUTABLE))
        assert found is not None
        library.materialize(found.sha256, found.size, tmp_path / arch)
        assert _llvm_uuids(tmp_path / arch) == {uuid_text(uuid)}
    uuid = UUID(_llvm_uuids(built / "x86_64" / "libanswer.dylib").pop())
    debug = library.resolve(ImageRequest(uuid, Kind.DEBUGINFO))
    assert debug is not None
    library.materialize(debug.sha256, debug.size, tmp_path / "dwarf")
    assert (tmp_path / "dwarf").read_bytes() == (bundle / "Contents/Resources/DWARF/libanswer.dylib").read_bytes()


def test_ingesting_again_stores_nothing_twice(library: Library, built: Path) -> None:
    staged = _harvest(built / "x86_64" / "libanswer.dylib")
    first, second = ingest(library, staged), ingest(library, staged)
    assert (first.stored, first.skipped, second.stored, second.skipped) == (1, 0, 0, 1)
    assert [r.harvests for r in library.releases()] == [2]


def test_a_library_is_made_on_request_and_closed_when_it_is_left(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        Library.open(tmp_path / "library")
    assert list(tmp_path.iterdir()) == []
    with Library.open(tmp_path / "library", create=True) as library:
        assert library.releases() == []
    with pytest.raises(StorageError):
        library.releases()


def test_an_image_without_uuid_is_stored_and_no_conflict(library: Library, tmp_path: Path) -> None:
    staged = harvest(tmp_path / "1", [Image("/a", 1)])
    nameless = tmp_path / "nameless"
    nameless.write_bytes(macho(UUID(int=0)).replace(UUID_COMMAND, struct.pack("<2I", 0x31, 24)))  # LC_NOTE
    staged.manifest.append(ManifestEntry(path="/b", arch="arm64e"))
    staged.objects.append(StagedObject(nameless, 0, nameless.stat().st_size, "/b", "arm64e", None))
    result = ingest(library, staged)
    assert (result.sealed, result.stored, result.problems, result.conflicts) == (True, 2, [], [])


def test_an_image_with_many_load_commands_is_read_to_their_end(library: Library, tmp_path: Path) -> None:
    """As a kernel collection has them, with one for each of its images."""
    image = Image("/a", 1)
    notes = struct.pack("<2I", 0x31, 40) + bytes(32)  # LC_NOTE
    magic, cpu, subtype, filetype, count, size, flags, zero = struct.unpack_from("<8I", image.data)
    head = struct.pack("<8I", magic, cpu, subtype, filetype, count + 5000, size + 5000 * 40, flags, zero)
    image.data = head + notes * 5000 + image.data[32:]
    result = ingest(library, harvest(tmp_path / "1", [image]))
    assert (result.sealed, result.problems) == (True, [])


def test_a_second_library_over_the_same_folder_sees_the_same(library: Library, built: Path, tmp_path: Path) -> None:
    ingest(library, _harvest(built / "x86_64" / "libanswer.dylib"))
    with Library.open(tmp_path / "library") as other:
        assert [r.build for r in other.releases()] == ["22G120"]
    library.close()
    for name in ("catalog.db", "catalog.db-wal", "catalog.db-shm"):
        (tmp_path / "library" / name).unlink(missing_ok=True)
    with Library.open(tmp_path / "library") as rebuilt:
        assert [(r.build, r.sealed) for r in rebuilt.releases()] == [("22G120", True)]


def test_bytes_that_are_another_image_are_not_stored_under_the_asked_uuid(
    library: Library, built: Path, tmp_path: Path
) -> None:
    staged = _harvest(built / "x86_64" / "libanswer.dylib")
    wrong = StagedObject(
        built / "arm64" / "libanswer.dylib",
        0,
        (built / "arm64" / "libanswer.dylib").stat().st_size,
        *(staged.objects[0].path, staged.objects[0].arch, staged.objects[0].uuid),
    )
    staged.objects = [wrong]
    result = ingest(library, staged)
    assert not result.sealed
    assert result.missing == staged.manifest
    assert "holds arm64" in result.problems[0]
    (tmp_path / "text").write_bytes(b"no image")
    for file, told in ((tmp_path / "text", "is 0 images"), (built / "universal.dylib", "is 2 images")):
        staged.objects = [replace(wrong, file=file, size=file.stat().st_size)]
        result = ingest(library, staged)
        assert (result.sealed, result.missing) == (False, staged.manifest)
        assert told in result.problems[0]


def test_what_is_found_says_what_it_is(library: Library, built: Path) -> None:
    image = built / "x86_64" / "libanswer.dylib"
    staged = _harvest(image)
    staged.objects[0] = replace(staged.objects[0], origin=Origin.CACHE, cache_uuid=UUID(int=9))
    ingest(library, staged)
    uuid = UUID(_llvm_uuids(image).pop())
    found = library.resolve(ImageRequest(uuid))
    assert found
    assert (found.uuid, found.kind, found.arch, found.build) == (uuid, Kind.EXECUTABLE, "x86_64", "22G120")
    assert (found.path, found.name) == ("/usr/lib/libanswer.dylib", "libanswer.dylib")
    assert (found.size, found.cache_uuid) == (image.stat().st_size, UUID(int=9))
    assert found.sha256 == hashlib.sha256(image.read_bytes()).hexdigest()
    assert found.stored_size == (Path(library.store.location) / blob_key(found.sha256)).stat().st_size


def test_what_a_library_holds_is_weighed_by_what_it_is_for(library: Library, built: Path, tmp_path: Path) -> None:
    image = built / "x86_64" / "libanswer.dylib"
    staged = _harvest(image)
    raw = tmp_path / "cache"
    raw.write_bytes(os.urandom(5000))
    staged.cache_files.append(StagedCacheFile(raw, raw.name, "/System/cache", "x86_64", UUID(int=9)))
    ingest(library, staged)
    (tmp_path / "loose").write_bytes(os.urandom(300))
    loose = put_blob(library.store, tmp_path / "loose")[0]

    def stored(sha256: str) -> int:
        return (Path(library.store.location) / blob_key(sha256)).stat().st_size

    weighed = stats(library)
    sums = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (image, raw)]
    assert [weighed.image_stored, weighed.cache_stored] == [stored(sha256) for sha256 in sums]
    assert (weighed.image_content, weighed.cache_content) == (image.stat().st_size, 5000)
    assert (weighed.unnamed_blobs, weighed.unnamed_stored) == (1, stored(loose))
    assert (weighed.releases, weighed.sealed, weighed.undecided) == (1, 1, 0)
    for seed in (1, 2):
        ingest(library, harvest(tmp_path / f"{seed}", [Image("/a", 1, seed=seed)], build=f"23A{seed}"))
    assert (stats(library).conflicts, stats(library).undecided) == (1, 1)
    prefer(library, UUID(int=1), library.variants(UUID(int=1))[0].sha256)
    assert (stats(library).conflicts, stats(library).undecided) == (1, 0)


def test_what_has_no_code_has_no_hash_of_code(library: Library, tmp_path: Path) -> None:
    """Or all dSYMs would seem to be of the same code."""
    images = [Image("/a", 1), Image("/b", 2, code=b"", kind=Kind.DEBUGINFO)]
    ingest(library, harvest(tmp_path / "1", images))
    (key,) = map(RecordKey.parse, library.store.list("records/"))
    assert key
    _, record = read_record(library.store, key)
    assert isinstance(record, HarvestRecord)
    code = hashlib.sha256(b"\xc0\x03\x5f\xd6").hexdigest()[:16]
    assert {o.path: o.code for o in record.objects} == {"/a": code, "/b": ""}


def test_the_hash_of_code_is_of_its_first_64_mib() -> None:
    """As in all records that were ever written: they are compared by it."""
    whole = macho(UUID(int=1), code=bytes((64 << 20) + 1), symbols=3)
    asked: list[tuple[int, int]] = []

    def read(offset: int, size: int) -> list[bytes | memoryview]:
        asked.append((offset, size))
        return [b"co", memoryview(b"de")]

    assert code_facts(whole[:HEAD], len(whole), read) == (3, hashlib.sha256(b"code").hexdigest()[:16])
    assert asked == [(232, 64 << 20)]  # behind header and load commands


def test_a_record_says_when_its_harvest_began(library: Library, tmp_path: Path) -> None:
    began = "2026-01-01T00:00:00.000000+00:00"
    for number, started in enumerate((began, "")):
        staged = harvest(tmp_path / str(number), [Image("/a", 1)], build=f"22G{number}")
        staged.started = started
        ingest(library, staged)
    keys = [key for text in sorted(library.store.list("records/")) if (key := RecordKey.parse(text))]
    first, second = (read_record(library.store, key)[1] for key in keys)
    assert isinstance(first, HarvestRecord) and isinstance(second, HarvestRecord)
    assert first.started == began
    assert first.finished < second.started < second.finished


def test_files_that_are_gone_are_named_in_order_and_cost_nothing_else(library: Library, tmp_path: Path) -> None:
    images = [Image(f"/{number}", number, size=100 * number) for number in range(1, 9)]  # large ones are stored first
    staged = harvest(tmp_path / "1", images, raw=[("cache", 9, b"raw")])
    gone = [o.file for o in staged.objects[1:]] + [staged.cache_files[0].file]
    for file in gone:
        file.unlink()
    seen: list[tuple[int, int]] = []
    result = ingest(library, staged, lambda done, total: seen.append((done, total)))
    assert (result.sealed, result.stored, len(result.problems)) == (False, 1, len(gone))
    assert all(f"'{file}'" in problem for file, problem in zip(gone, result.problems, strict=True))
    assert all(problem.endswith(": harvest or add it again") for problem in result.problems)
    assert seen[-1] == (len(images[0].data), sum(len(image.data) for image in images))


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("renamed", [True, False])
def test_a_file_that_is_built_anew_while_it_is_stored_is_none_of_the_uuid_that_it_had(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renamed: bool, large: bool
) -> None:
    """A compiler writes another file into its place, or into it."""
    file, later = tmp_path / "1" / "0", tmp_path / "later"
    staged = harvest(tmp_path / "1", [Image("/a", 1)])
    later.write_bytes(Image("/a", 2).data)

    def build_anew(head: bytes, size: int) -> object:
        if renamed:
            later.replace(file)
        else:
            file.write_bytes(later.read_bytes())
        return code_fingerprint(head, size)

    monkeypatch.setattr("symcache.library.image_facts.code_fingerprint", build_anew)
    if large:  # which is read twice
        monkeypatch.setattr("symcache.store.writing._IN_MEMORY", 100)
    result = ingest(library, staged)
    assert not result.sealed
    assert "changed while it was read" in result.problems[0]
    assert library.variants(UUID(int=1)) == []


def test_raw_files_that_are_not_kept_are_said_not_to_be(library: Library, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="raw files are not kept"):
        write_raw_cache(library, UUID(int=9), tmp_path / "raw")


def test_the_name_of_a_raw_file_does_not_lead_out_of_the_folder_that_it_is_written_to(
    library: Library, tmp_path: Path
) -> None:
    staged = harvest(tmp_path / "1", [], raw=[(f"{n}", 9, b"%d" % n) for n in range(4)])
    names = ["cache", "../../outside", "..", "."]
    staged.cache_files = [replace(file, name=name) for file, name in zip(staged.cache_files, names, strict=True)]
    ingest(library, staged)
    folder = tmp_path / "deep" / "raw"
    folder.mkdir(parents=True)
    before = sorted(tmp_path.iterdir())
    write_raw_cache(library, UUID(int=9), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"cache": b"0", "outside": b"1"}
    assert [*folder.parent.iterdir()] == [folder]
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("headers", [b"head", b"begin"])  # one has a lower SHA-256 than the whole, one a higher
def test_a_raw_file_is_the_whole_where_another_harvest_kept_its_headers_only(
    library: Library, tmp_path: Path, headers: bytes
) -> None:
    for number, (content, partial) in enumerate([(headers, True), (b"whole file", False)]):
        staged = harvest(tmp_path / str(number), [], raw=[("cache", 9, content)], source=str(number))
        staged.cache_files = [replace(file, partial=partial) for file in staged.cache_files]
        ingest(library, staged)
    found = library.cache_file(UUID(int=9), "cache")
    assert found
    assert found.sha256 == hashlib.sha256(b"whole file").hexdigest()
    assert write_raw_cache(library, UUID(int=9), tmp_path / "raw").read_bytes() == b"whole file"


def test_a_harvest_with_a_gap_is_partial(library: Library, built: Path) -> None:
    staged = _harvest(built / "x86_64" / "libanswer.dylib")
    staged.manifest.append(ManifestEntry(path="/usr/lib/libgone.dylib", arch="x86_64", uuid=UUID(int=5)))
    assert not ingest(library, staged).sealed
    assert [(r.build, r.sealed) for r in library.releases()] == [("22G120", False)]
    assert list(library.catalog.database.execute("SELECT build, path FROM missing")) == [
        ("22G120", "/usr/lib/libgone.dylib")
    ]


def test_a_lost_blob_is_found_and_never_resolved(library: Library, built: Path) -> None:
    ingest(library, _harvest(built / "x86_64" / "libanswer.dylib"))
    uuid = identify(built / "x86_64" / "libanswer.dylib")[0].uuid
    assert uuid
    found = library.resolve(ImageRequest(uuid))
    assert found
    (Path(library.store.location) / blob_key(found.sha256)).unlink()
    assert library.resolve(ImageRequest(uuid)) is None


def test_a_harvest_outranks_an_added_file_of_the_same_uuid(library: Library, built: Path, tmp_path: Path) -> None:
    image = built / "x86_64" / "libanswer.dylib"
    forged = tmp_path / "forged.dylib"
    forged.write_bytes(image.read_bytes() + b"\0" * 64)
    ingest(library, _harvest(image))
    ingest(library, stage_paths([forged], tmp_path / "scratch"))
    uuid = identify(image)[0].uuid
    assert uuid
    assert len(library.variants(uuid)) == 2
    found = library.resolve(ImageRequest(uuid))
    assert found
    assert found.build == "22G120"


def test_a_zip_of_binaries_is_added(library: Library, built: Path, tmp_path: Path) -> None:
    archive = tmp_path / "app.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.mkdir("Some.app")
        zipped.write(built / "x86_64" / "libanswer.dylib", "Some.app/Contents/Frameworks/libanswer.dylib")
        link = zipfile.ZipInfo("Some.app/Contents/Frameworks/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        zipped.writestr(link, (built / "x86_64" / "libanswer.dylib").read_bytes())  # what no link holds
        zipped.writestr("Some.app/Contents/Info.plist", "text")
    staged = stage_paths([archive], tmp_path / "scratch")
    assert [m.path for m in staged.manifest] == ["Some.app/Contents/Frameworks/libanswer.dylib"]
    assert staged.trust is Trust.ADDED
    assert ingest(library, staged).sealed


@pytest.mark.parametrize("limit", ["_MAX_MEMBERS", "_MAX_UNPACKED"])
def test_a_zip_that_unpacks_to_more_than_is_reasonable_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(f"symcache.library.add.{limit}", 3)
    for size in (1, 2):
        with zipfile.ZipFile(tmp_path / f"{size}.zip", "w") as zipped:
            for number in range(2 * size):
                zipped.writestr(str(number), "x")
    with pytest.raises(NotFoundError, match="no Mach-O"):
        stage_paths([tmp_path / "1.zip"], tmp_path / "scratch1")
    with pytest.raises(IntegrityError, match="more than is reasonable"):
        stage_paths([tmp_path / "2.zip"], tmp_path / "scratch2")
    assert not list((tmp_path / "scratch2").rglob("*"))


@pytest.mark.parametrize("name", ["../outside", "/absolute", "a/../../outside", "."])
def test_a_zip_cannot_write_outside(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr(name, "data")
    with pytest.raises(IntegrityError, match="would leave"):
        stage_paths([archive], tmp_path / "scratch" / "deep")
    assert not (tmp_path / "scratch" / "outside").exists()
    assert not (tmp_path / "outside").exists()


def test_a_member_of_a_zip_that_claims_more_than_can_be_packed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "zeros.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as zipped:
        zipped.writestr("zeros", bytes(10 << 20))  # which is packed as well as anything
    with pytest.raises(NotFoundError, match="no Mach-O"):
        stage_paths([archive], tmp_path / "scratch1")
    monkeypatch.setattr("symcache.library.add._MAX_RATIO", 1000)
    with pytest.raises(IntegrityError, match="'zeros' claims an impossible size"):
        stage_paths([archive], tmp_path / "scratch2")
    assert not list((tmp_path / "scratch2").rglob("*"))


def test_a_member_of_a_zip_that_claims_less_than_it_has_is_not_unpacked_further(tmp_path: Path) -> None:
    archive = tmp_path / "lies.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("member", bytes(3000))
    data = archive.read_bytes()
    assert data.count(struct.pack("<I", 3000)) == 2  # in its own header, and in the table at the end
    archive.write_bytes(data.replace(struct.pack("<I", 3000), struct.pack("<I", 100)))
    with pytest.raises(IntegrityError, match=r"lies\.zip: not a readable zip: Bad CRC-32"):
        stage_paths([archive], tmp_path / "scratch")
    assert (tmp_path / "scratch" / "0" / "member").stat().st_size <= 100


def _universal(*slices: bytes) -> bytes:
    """Return a universal file (<mach-o/fat.h>) of thin arm64e ones."""
    head, body = struct.pack(">2I", 0xCAFEBABE, len(slices)), b""
    for thin in slices:
        head += struct.pack(">5I", *ARM64E, 0x1000 + len(body), len(thin), 0)
        body += thin
    return head.ljust(0x1000, b"\0") + body


def test_what_has_no_uuid_is_said_and_left_out_alone(tmp_path: Path) -> None:
    uuid_command = struct.pack("<2I", 0x1B, 24)  # LC_UUID (<mach-o/loader.h>)
    (tmp_path / "1").write_bytes(Image("/a", 1).data.replace(uuid_command, struct.pack("<2I", 0x70, 24)))
    with pytest.raises(NotFoundError, match=r"1 \(arm64e\): has no LC_UUID") as raised:
        stage_paths([tmp_path / "1"], tmp_path / "scratch")
    assert "-random_uuid" in raised.value.hint
    (tmp_path / "2").write_bytes(_universal((tmp_path / "1").read_bytes(), Image("/b", 2).data))
    staged = stage_paths([tmp_path / "2"], tmp_path / "scratch")
    assert [(entry.path, entry.uuid) for entry in staged.manifest] == [("2", UUID(int=2))]
    assert [entry.uuid for entry in staged.objects] == [UUID(int=2)]
    assert staged.notes == ["2 (arm64e): has no LC_UUID, by which it could be asked for: not added"]


def test_what_is_broken_is_a_problem_and_what_nobody_asks_for_none(tmp_path: Path) -> None:
    for name, data in (
        ("1-broken", Image("/a", 1).data[:60]),
        ("2-object", macho(UUID(int=2), filetype=1)),  # MH_OBJECT (<mach-o/loader.h>)
        ("3-good", Image("/c", 3).data),
        ("4-universal", _universal(macho(UUID(int=4), filetype=1), Image("/d", 5).data)),
    ):
        (tmp_path / name).write_bytes(data)
    staged = stage_paths([tmp_path], tmp_path / "scratch")
    assert [entry.uuid for entry in staged.manifest] == [UUID(int=3), UUID(int=5)]
    assert len(staged.problems) == 1
    assert "1-broken" in staged.problems[0]
    assert staged.notes == []


def test_a_member_of_a_zip_that_the_disk_refuses_is_no_damage_of_the_zip(tmp_path: Path) -> None:
    archive = tmp_path / "long.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("x" * 300, "data")
    with pytest.raises(OSError, match="File name too long"):
        stage_paths([archive], tmp_path / "scratch")


def test_only_plain_files_of_a_folder_are_looked_at_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b/2", "a/3", "c/1", "b/1", "a/1", "a/2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "link").symlink_to("1")
    os.mkfifo(tmp_path / "a" / "pipe")  # whoever opened it would wait
    (tmp_path / "d").symlink_to("c")
    found = [str(path.relative_to(tmp_path)) for path in files_below(tmp_path)]
    assert found == ["a/1", "a/2", "a/3", "b/1", "b/2", "c/1"]


@pytest.mark.parametrize(
    ("packed", "place"), [(zipfile.ZIP_DEFLATED, 0), (zipfile.ZIP_BZIP2, 9), (zipfile.ZIP_LZMA, 9)]
)
def test_a_damaged_zip_is_said_to_be_one(tmp_path: Path, packed: int, place: int) -> None:
    archive = tmp_path / "damaged.zip"
    with zipfile.ZipFile(archive, "w", packed) as zipped:
        zipped.writestr("libanswer.dylib", random.Random(0).randbytes(3000))
        start = zipped.infolist()[0].header_offset + 30 + len("libanswer.dylib") + place
    data = bytearray(archive.read_bytes())
    data[start : start + 200] = b"\xff" * 200
    archive.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"damaged\.zip: not a readable zip"):
        stage_paths([archive], tmp_path / "scratch")


def test_a_zip_whose_names_are_no_text_is_said_to_be_damaged(tmp_path: Path) -> None:
    archive = tmp_path / "names.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("ü", "data")
    archive.write_bytes(archive.read_bytes().replace("ü".encode(), b"\xff\xff"))
    with pytest.raises(IntegrityError, match=r"names\.zip: not a readable zip"):
        stage_paths([archive], tmp_path / "scratch")


@pytest.mark.parametrize("inner", ["a/b", "a/b/c"])
def test_a_zip_whose_members_lie_in_a_file_is_refused(tmp_path: Path, inner: str) -> None:
    archive = tmp_path / "twice.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("a", "data")
        zipped.writestr(inner, "data")
    with pytest.raises(IntegrityError, match="two members have one name"):
        stage_paths([archive], tmp_path / "scratch")


def test_a_folder_without_binaries_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no binary")
    with pytest.raises(NotFoundError, match="no Mach-O"):
        stage_paths([tmp_path / "text"], tmp_path / "scratch")
    with pytest.raises(UsageError, match="no such file"):
        stage_paths([tmp_path / "nowhere"], tmp_path / "scratch")


def test_a_path_that_is_no_utf8_does_not_cost_the_harvest(library: Library, built: Path) -> None:
    staged = _harvest(built / "x86_64" / "libanswer.dylib", path="/usr/lib/li\udc80b.dylib")
    staged.problems.append("/usr/lib/\udcff: cannot be read")
    result = ingest(library, staged)
    assert result.missing == []
    assert [o.path for o in library.by_name("li*.dylib")] == ["/usr/lib/li\\udc80b.dylib"]
    assert library.catalog.records_of(ReleaseId("macOS", "22G120"))[0].problems == ("/usr/lib/\\udcff: cannot be read",)
