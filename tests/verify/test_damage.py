"""Every kind of damage is found under its own code, at the level that promises it, and nothing else is reported."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest
import zstandard

from symcache.dyld import EXTRACTOR, SharedCache, is_cache_name
from symcache.errors import StorageError
from symcache.library import Library, ingest
from symcache.model import CacheFile, HarvestRecord, Kind, ManifestEntry, Origin, Release, Trust, uuid_text
from symcache.store import put_blob, write_record
from symcache.verify import Expectations, FindingCode, Level, VerifyReport, verify
from tests.library.images import Image, harvest
from tests.support.disks import full_disk as full_disk  # noqa: PLC0414 - a fixture
from tests.verify.releases import (
    ALIAS,
    BUILD,
    CASE_TWINS,
    CATALYST_TWINS,
    DYLD,
    FOLDER,
    OTHER_BUILD,
    Workshop,
)

PLAIN, MORE = "/usr/lib/libplain.dylib", "/usr/lib/libmore.dylib"
LC_SEGMENT_64, LC_SYMTAB = 0x19, 0x2
Expected = Collection[tuple[str, str, str]]
"""(code, path, architecture) of each finding"""


def found(report: VerifyReport) -> list[tuple[str, str, str]]:
    return sorted((f.code.value, f.path, f.arch) for f in report.findings)


def check(workshop: Workshop, level: Level) -> VerifyReport:
    with workshop.open() as library:
        return verify(library, [BUILD], level=level)


def commands(image: bytearray) -> Iterator[tuple[int, int]]:
    """Yield (offset, command) of the load commands of a 64-bit image."""
    position = 32
    for _ in range(struct.unpack_from("<I", image, 16)[0]):
        cmd, size = struct.unpack_from("<2I", image, position)
        yield position, cmd
        position += size


def symtab(image: bytearray) -> int:
    return next(at for at, cmd in commands(image) if cmd == LC_SYMTAB)


def segment(image: bytearray, name: bytes) -> int:
    return next(
        at for at, cmd in commands(image) if cmd == LC_SEGMENT_64 and image[at + 8 : at + 24].rstrip(b"\0") == name
    )


def put_u32(image: bytearray, at: int, value: int) -> bytes:
    struct.pack_into("<I", image, at, value)
    return bytes(image)


def get_u32(image: bytearray, at: int) -> int:
    return int(struct.unpack_from("<I", image, at)[0])


# Entries: what the catalog can tell.


def lost_image(w: Workshop) -> Expected:
    w.drop_object(PLAIN, "arm64e")
    return {("missing", PLAIN, "arm64e")}


def lost_dyld(w: Workshop) -> Expected:
    # The one in the cache; the one on disk is still there, under the same path.
    w.drop_object(DYLD, "x86_64")
    return {("missing", DYLD, "x86_64")}


def lost_file(w: Workshop) -> Expected:
    w.drop_object(DYLD, "arm64", cached=False)
    return {("missing", DYLD, "arm64")}


def lost_case_twin(w: Workshop) -> Expected:
    # As on a file system that takes libCase.dylib and libcase.dylib for one name.
    w.drop_object(CASE_TWINS[1], "x86_64")
    return {("missing", CASE_TWINS[1], "x86_64")}


def image_of_another_build(w: Workshop) -> Expected:
    w.change_object(MORE, "x86_64", uuid=UUID(int=7), sha256="0" * 64)
    return {("wrong-uuid", MORE, "x86_64")}


def swapped_architectures(w: Workshop) -> Expected:
    # One path, two Intel caches, two UUIDs.
    one, other = w.object(PLAIN, "x86_64"), w.object(PLAIN, "x86_64h")
    w.change_object(PLAIN, "x86_64", uuid=other.uuid, sha256=other.sha256, size=other.size)
    w.change_object(PLAIN, "x86_64h", uuid=one.uuid, sha256=one.sha256, size=one.size)
    return {("wrong-uuid", PLAIN, "x86_64"), ("wrong-uuid", PLAIN, "x86_64h")}


def swapped_catalyst_twins(w: Workshop) -> Expected:
    one, other = (w.object(path, "arm64e") for path in CATALYST_TWINS)
    w.change_object(one.path, "arm64e", uuid=other.uuid, sha256=other.sha256, size=other.size)
    w.change_object(other.path, "arm64e", uuid=one.uuid, sha256=one.sha256, size=one.size)
    return {("wrong-uuid", path, "arm64e") for path in CATALYST_TWINS}


def other_architecture(w: Workshop) -> Expected:
    w.change_object(PLAIN, "arm64e", arch="arm64")
    return {("wrong-arch", PLAIN, "arm64e")}


def debug_info_for_the_binary(w: Workshop) -> Expected:
    w.change_object(PLAIN, "arm64e", kind=Kind.DEBUGINFO)
    return {("wrong-kind", PLAIN, "arm64e")}


def left_over_image(w: Workshop) -> Expected:
    extra = w.object(PLAIN, "arm64e").model_copy(update={"path": "/usr/lib/libold.dylib", "uuid": UUID(int=9)})
    w.rewrite(lambda r: r.model_copy(update={"objects": (*r.objects, extra)}))
    return {("unexpected", "/usr/lib/libold.dylib", "arm64e")}


def whole_cache_never_harvested(w: Workshop) -> Expected:
    cache = w.object(PLAIN, "x86_64h").cache_uuid
    w.rewrite(
        lambda r: r.model_copy(
            update={
                field: tuple(e for e in getattr(r, field) if e.cache_uuid != cache)
                for field in ("manifest", "objects", "cache_files")
            }
        )
    )
    return {("cache-missing", "", "x86_64h")}


def cache_without_images(w: Workshop) -> Expected:
    cache = w.object(PLAIN, "x86_64h").cache_uuid
    w.rewrite(
        lambda r: r.model_copy(
            update={f: tuple(e for e in getattr(r, f) if e.cache_uuid != cache) for f in ("manifest", "objects")}
        )
    )
    return {("empty-cache", "", "x86_64h")}


def source_read_in_part(w: Workshop) -> Expected:
    w.rewrite(lambda r: r.model_copy(update={"sealed": False, "problems": ("/usr/libexec: permission denied",)}))
    # Three caches, and the files of two architectures.
    units = [("not-sealed", "", arch) for arch in ("arm64e", "x86_64", "x86_64h", "arm64", "x86_64")]
    return [*units, ("source-problem", "", "")]


def release_that_no_table_knows(w: Workshop) -> Expected:
    w.rewrite(lambda r: r.model_copy(update={"release": Release(version="99.1", build=BUILD)}))
    return {("unknown-release", "", "")}


def broken_record(w: Workshop) -> Expected:
    folder = w.location / "records" / "other"
    folder.mkdir()
    (folder / "0000000001.json.zst").write_bytes(b"not zstd")
    return {("unreadable-record", "", "")}


# Blobs: presence, length, first bytes.


def lost_blob(w: Workshop) -> Expected:
    w.blob(w.object(PLAIN, "arm64e").sha256).unlink()
    return {("blob-missing", PLAIN, "arm64e")}


def blob_of_another_length(w: Workshop) -> Expected:
    blob = w.blob(w.object(PLAIN, "arm64e").sha256)
    data = zstandard.decompress(blob.read_bytes())
    blob.write_bytes(zstandard.compress(data[:-1]))
    return {("wrong-size", PLAIN, "arm64e")}


def blob_of_no_zstd(w: Workshop) -> Expected:
    blob = w.blob(w.object(PLAIN, "arm64e").sha256)
    data = bytearray(blob.read_bytes())
    data[9:60] = b"\xff" * 51  # behind the length in its header: blocks of a reserved type
    blob.write_bytes(data)
    return {("damaged", PLAIN, "arm64e")}


def one_twin_for_both(w: Workshop) -> Expected:
    one = w.object(CASE_TWINS[0], "arm64e")
    w.change_object(CASE_TWINS[1], "arm64e", sha256=one.sha256, size=one.size)
    return {("wrong-uuid", CASE_TWINS[1], "arm64e")}


def content_of_another_architecture(w: Workshop) -> Expected:
    # x86_64h in place of x86_64: only the cpusubtype tells.
    w.change_content(PLAIN, "x86_64", lambda image: put_u32(image, 8, 8))
    return {("wrong-arch", PLAIN, "x86_64")}


def content_is_debug_info(w: Workshop) -> Expected:
    w.change_content(PLAIN, "x86_64", lambda image: put_u32(image, 12, 10))
    return {("wrong-kind", PLAIN, "x86_64")}


def content_is_no_image(w: Workshop) -> Expected:
    w.change_content(PLAIN, "x86_64", lambda image: b"<html>Not found</html>")
    return {("malformed", PLAIN, "x86_64")}


def commands_beyond_their_size(w: Workshop) -> Expected:
    w.change_content(PLAIN, "x86_64", lambda image: put_u32(image, 16, 4000))
    return {("malformed", PLAIN, "x86_64")}


def image_cut_in_its_data(w: Workshop) -> Expected:
    def cut(image: bytearray) -> bytes:
        fileoff, filesize = struct.unpack_from("<2Q", image, segment(image, b"__DATA") + 40)
        return bytes(image[: fileoff + filesize - 1])

    w.change_content(PLAIN, "arm64e", cut)
    return {("truncated", PLAIN, "arm64e")}


def segment_of_no_bytes(w: Workshop) -> Expected:
    # What a copy of a compressed file that was never unpacked looks like.
    w.change_content(PLAIN, "arm64e", lambda image: put_u32(image, segment(image, b"__TEXT") + 48, 0))
    return {("truncated", PLAIN, "arm64e")}


def link_edit_cut(w: Workshop) -> Expected:
    def cut(image: bytearray) -> bytes:
        at = symtab(image)
        return bytes(image[: get_u32(image, at + 16) + get_u32(image, at + 20) // 2])

    w.change_content(PLAIN, "arm64e", cut)
    return {("truncated-linkedit", PLAIN, "arm64e")}


def string_pool_beyond_the_end(w: Workshop) -> Expected:
    w.change_content(PLAIN, "arm64e", lambda image: put_u32(image, symtab(image) + 20, len(image)))
    return {("truncated-linkedit", PLAIN, "arm64e")}


def dropped_companion(w: Workshop) -> Expected:
    name = "dyld_shared_cache_arm64e.02"
    w.rewrite(lambda r: r.model_copy(update={"cache_files": tuple(f for f in r.cache_files if f.name != name)}))
    return {("companion-missing", "", "arm64e")}


def dropped_main_file(w: Workshop) -> Expected:
    name = "dyld_shared_cache_x86_64"
    w.rewrite(lambda r: r.model_copy(update={"cache_files": tuple(f for f in r.cache_files if f.name != name)}))
    return {("companion-missing", "", "x86_64")}


def lost_blob_of_a_companion(w: Workshop) -> Expected:
    file = w.cache_file("dyld_shared_cache_x86_64.01")
    w.blob(file.sha256).unlink()
    return {("blob-missing", file.path, "x86_64")}


# Every byte.


def flipped_bit_in_a_blob(w: Workshop) -> Expected:
    blob = w.blob(w.object(PLAIN, "arm64e").sha256)
    data = bytearray(blob.read_bytes())
    data[-6] ^= 1
    blob.write_bytes(data)
    return {("damaged", PLAIN, "arm64e")}


def blob_cut_short(w: Workshop) -> Expected:
    blob = w.blob(w.object(PLAIN, "arm64e").sha256)
    blob.write_bytes(blob.read_bytes()[:-40])
    return {("damaged", PLAIN, "arm64e")}


def blob_without_its_last_bytes(w: Workshop) -> Expected:
    # All of the content can be decoded, but no client's decoder is content with the file as it lies.
    blob = w.blob(w.object(PLAIN, "arm64e").sha256)
    blob.write_bytes(blob.read_bytes()[:-2])
    return {("damaged", PLAIN, "arm64e")}


def something_behind_a_raw_cache(w: Workshop) -> Expected:
    file = w.cache_file("dyld_shared_cache_x86_64h")
    blob = w.blob(file.sha256)
    blob.write_bytes(blob.read_bytes() + bytes(16))
    return {("damaged", file.path, "x86_64h")}


def other_content_of_the_same_length(w: Workshop) -> Expected:
    blob = w.blob(w.object(PLAIN, "arm64e").sha256)
    data = bytearray(zstandard.decompress(blob.read_bytes()))
    data[-1] ^= 1
    blob.write_bytes(zstandard.compress(bytes(data)))
    return {("damaged", PLAIN, "arm64e")}


def flipped_bit_in_a_raw_cache(w: Workshop) -> Expected:
    file = w.cache_file("dyld_shared_cache_arm64e.01")
    blob = w.blob(file.sha256)
    data = bytearray(blob.read_bytes())
    data[-6] ^= 1
    blob.write_bytes(data)
    return {("damaged", file.path, "arm64e")}


def truncated_string_pool(w: Workshop) -> Expected:
    def shorten(image: bytearray) -> bytes:
        at = symtab(image) + 20
        return put_u32(image, at, get_u32(image, at) // 2)

    w.change_content(PLAIN, "arm64e", shorten)
    return {("truncated-linkedit", PLAIN, "arm64e")}


def unterminated_string_pool(w: Workshop) -> Expected:
    def fill(image: bytearray) -> bytes:
        at = symtab(image)
        image[get_u32(image, at + 16) + get_u32(image, at + 20) - 1] = 0x41
        return bytes(image)

    w.change_content(PLAIN, "arm64e", fill)
    return {("truncated-linkedit", PLAIN, "arm64e")}


def symbols_lost(w: Workshop) -> Expected:
    def drop(image: bytearray) -> bytes:
        at = symtab(image) + 12
        return put_u32(image, at, get_u32(image, at) - 5)

    w.change_content(PLAIN, "x86_64", drop)
    return {("symbol-count", PLAIN, "x86_64")}


def all_symbols_lost(w: Workshop) -> Expected:
    w.change_content(PLAIN, "x86_64h", lambda image: put_u32(image, symtab(image) + 12, 0))
    return {("symbol-count", PLAIN, "x86_64h")}


def code_changed(w: Workshop) -> Expected:
    def flip(image: bytearray) -> bytes:
        at = segment(image, b"__TEXT")
        offset, size = struct.unpack_from("<2Q", image, at + 40)
        image[offset + size - 9] ^= 0x10
        return bytes(image)

    w.change_content(PLAIN, "x86_64", flip)
    return {("text-differs", PLAIN, "x86_64")}


def code_missing_at_its_end(w: Workshop) -> Expected:
    def shrink(image: bytearray) -> bytes:
        at = segment(image, b"__TEXT") + 48
        struct.pack_into("<Q", image, at, struct.unpack_from("<Q", image, at)[0] - 8)
        return bytes(image)

    w.change_content(PLAIN, "x86_64", shrink)
    return {("text-differs", PLAIN, "x86_64")}


def moved_image(w: Workshop) -> Expected:
    def move(image: bytearray) -> bytes:
        at = segment(image, b"__TEXT") + 24
        struct.pack_into("<Q", image, at, struct.unpack_from("<Q", image, at)[0] + 0x4000)
        return bytes(image)

    w.change_content(PLAIN, "x86_64", move)
    return {("wrong-address", PLAIN, "x86_64")}


def list_again(w: Workshop, path: str) -> None:
    """Have the harvest list and hold libplain under another path, too."""
    image = w.object(PLAIN, "arm64e")
    entry = ManifestEntry(path=path, arch="arm64e", uuid=image.uuid, origin=Origin.CACHE, cache_uuid=image.cache_uuid)
    more = {"manifest": entry, "objects": image.model_copy(update={"path": path})}
    w.rewrite(lambda r: r.model_copy(update={field: (*getattr(r, field), one) for field, one in more.items()}))


def alias_counted_as_image(w: Workshop) -> Expected:
    assert ALIAS[1] == PLAIN
    list_again(w, ALIAS[0])
    return {("not-in-cache", ALIAS[0], "arm64e")}


def image_that_was_never_listed(w: Workshop) -> Expected:
    # A manifest from a tool that overlooked an image: only the cache's own table knows.
    w.drop_object(MORE, "x86_64h")
    w.change_manifest(lambda m: [e for e in m if (e.path, e.arch) != (MORE, "x86_64h")])
    return {("not-in-manifest", MORE, "x86_64h")}


def change_cache_file(w: Workshop, name: str, change: Callable[[bytearray], bytes]) -> CacheFile:
    """Keep another content of a raw file, whole and rightly hashed."""
    file = w.cache_file(name)
    changed = w.location.parent / "changed"
    with w.open() as library:
        changed.write_bytes(change(bytearray(b"".join(library.read_blob(file.sha256, file.size)))))
        sha256, size, _ = put_blob(library.store, changed)
    w.rewrite(replace_cache_file(file, file.model_copy(update={"sha256": sha256, "size": size})))
    return file


def raw_cache_cut(w: Workshop) -> Expected:
    file = change_cache_file(w, "dyld_shared_cache_x86_64h", lambda data: bytes(data[: len(data) // 2]))
    return {("cache-unreadable", file.path, "x86_64h")}


def raw_cache_whose_local_symbols_lie(w: Workshop) -> Expected:
    def lie(data: bytearray) -> bytes:
        struct.pack_into("<2Q", data, 0x28, 0, 0)  # no code signature tells that it was changed
        struct.pack_into("<2Q", data, 0x48, len(data) - 4, 4)  # localSymbolsOffset: the last bytes of the file
        return bytes(data)

    file = change_cache_file(w, "dyld_shared_cache_x86_64h", lie)
    return {("cache-unreadable", file.path, "x86_64h")}


def page_that_was_never_signed(w: Workshop) -> Expected:
    """As when a Mac's disk, or the way from it, changes a byte before it is stored: every hash of ours is right."""

    def change(data: bytearray) -> bytes:
        data[struct.unpack_from("<Q", data, 0x28)[0] - 1] ^= 1  # the last byte before codeSignatureOffset
        return bytes(data)

    file = change_cache_file(w, "dyld_shared_cache_arm64e.01", change)
    return {("cache-unreadable", file.path, "arm64e")}


def signature_of_a_companion_is_none(w: Workshop) -> Expected:
    def overwrite(data: bytearray) -> bytes:
        data[struct.unpack_from("<Q", data, 0x28)[0]] ^= 1
        return bytes(data)

    file = change_cache_file(w, "dyld_shared_cache_arm64e.01", overwrite)
    return {("cache-unreadable", file.path, "arm64e")}


CATALOG = (
    lost_image,
    lost_dyld,
    lost_file,
    lost_case_twin,
    image_of_another_build,
    swapped_architectures,
    swapped_catalyst_twins,
    other_architecture,
    debug_info_for_the_binary,
    left_over_image,
    whole_cache_never_harvested,
    cache_without_images,
    source_read_in_part,
    release_that_no_table_knows,
    broken_record,
)
BLOBS = (
    lost_blob,
    blob_of_another_length,
    blob_of_no_zstd,
    blob_cut_short,
    blob_without_its_last_bytes,
    one_twin_for_both,
    content_of_another_architecture,
    content_is_debug_info,
    content_is_no_image,
    commands_beyond_their_size,
    image_cut_in_its_data,
    segment_of_no_bytes,
    link_edit_cut,
    string_pool_beyond_the_end,
    dropped_companion,
    dropped_main_file,
    lost_blob_of_a_companion,
)
BYTES = (
    flipped_bit_in_a_blob,
    something_behind_a_raw_cache,
    other_content_of_the_same_length,
    flipped_bit_in_a_raw_cache,
    truncated_string_pool,
    unterminated_string_pool,
    symbols_lost,
    all_symbols_lost,
    code_changed,
    code_missing_at_its_end,
    moved_image,
    alias_counted_as_image,
    image_that_was_never_listed,
    raw_cache_cut,
    raw_cache_whose_local_symbols_lie,
    page_that_was_never_signed,
    signature_of_a_companion_is_none,
)
CASES = [
    pytest.param(damage, level, id=damage.__name__)
    for level, damages in ((Level.CATALOG, CATALOG), (Level.BLOBS, BLOBS), (Level.BYTES, BYTES))
    for damage in damages
]


@pytest.mark.parametrize(("damage", "level"), CASES)
def test_each_kind_of_damage_is_found_under_its_code_and_nothing_else(
    workshop: Workshop, damage: Callable[[Workshop], Expected], level: Level
) -> None:
    expected = damage(workshop)
    for at in list(Level)[list(Level).index(level) :]:
        assert found(check(workshop, at)) == sorted(expected), at


def test_an_image_that_lies_elsewhere_is_named_with_both_places(workshop: Workshop) -> None:
    moved_image(workshop)
    image = workshop.object(PLAIN, "x86_64")
    with workshop.open() as library:
        data = bytearray(b"".join(library.read_blob(image.sha256, image.size)))
        (finding,) = verify(library, [BUILD], level=Level.BYTES).findings
    there, size = struct.unpack_from("<2Q", data, segment(data, b"__TEXT") + 24)
    here = there - 0x4000
    assert f"lies at {there:#x}, {size:#x} bytes where the cache has {here:#x}, {size:#x} bytes" in finding.message
    assert image.uuid and image.cache_uuid
    assert (finding.uuid, finding.cache_uuid) == (str(image.uuid).upper(), str(image.cache_uuid).upper())


def test_another_path_of_an_image_is_told_from_what_no_cache_has(workshop: Workshop) -> None:
    for path in (ALIAS[0], "/usr/lib/libstray.dylib"):
        list_again(workshop, path)
    alias, stray = check(workshop, Level.BYTES).findings
    assert f"is no image, but another path of {PLAIN}" in alias.message
    assert "is in the manifest, but not in the cache" in stray.message


def test_companion_of_another_build(workshop: Workshop, systems: dict[str, Path]) -> None:
    name = "dyld_shared_cache_arm64e.01"
    file = workshop.cache_file(name)
    with workshop.open() as library:
        sha256, size, _ = put_blob(library.store, systems[OTHER_BUILD] / FOLDER / name)
    changed = file.model_copy(update={"sha256": sha256, "size": size})
    workshop.rewrite(replace_cache_file(file, changed))
    for level in (Level.BLOBS, Level.BYTES):
        assert found(check(workshop, level)) == [("companion-mismatch", file.path, "arm64e")]
    there, here = ((systems[b] / FOLDER / name).read_bytes()[0x58:0x68] for b in (OTHER_BUILD, BUILD))
    (finding,) = check(workshop, Level.BLOBS).findings
    main = workshop.cache_file("dyld_shared_cache_arm64e").path
    assert f"UUID {uuid_text(UUID(bytes=there))} where {main} names {uuid_text(UUID(bytes=here))}" in finding.message


def test_main_file_without_a_uuid_is_of_no_cache(workshop: Workshop) -> None:
    file = change_cache_file(
        workshop, "dyld_shared_cache_x86_64h", lambda data: bytes(data[:0x58] + bytes(16) + data[0x68:])
    )
    (finding,) = check(workshop, Level.BLOBS).findings
    assert (finding.code, finding.path) == (FindingCode.COMPANION_MISMATCH, file.path)
    assert finding.message.startswith(f"{file.path} (raw cache): is of cache none")


def test_a_blob_that_two_releases_share_is_found_in_both(harvested_twice: Path, tmp_path: Path) -> None:
    shutil.copytree(harvested_twice, tmp_path / "library")
    workshop = Workshop(tmp_path / "library")
    shared = workshop.object("/usr/bin/tool", "x86_64", cached=False).sha256
    assert shared == workshop.object("/usr/bin/tool", "x86_64", OTHER_BUILD, cached=False).sha256
    workshop.blob(shared).unlink()
    with workshop.open() as library:
        report = verify(library)
    assert [(f.code, f.build) for f in report.findings] == [
        (FindingCode.BLOB_MISSING, build) for build in report.builds
    ]
    assert set(report.builds) == {BUILD, OTHER_BUILD}


def test_headers_and_tables_alone_are_no_raw_cache(workshop: Workshop, systems: dict[str, Path]) -> None:
    # As after a harvest that was not to keep raw caches: the header still names the companions.
    head = workshop.location.parent / "head"
    with SharedCache.open(systems[BUILD] / FOLDER / "dyld_shared_cache_x86_64") as cache:
        places = [cache.space.locate(image.address) for image in cache.images]
        first_image = min(place.offset for place in places if place and place.part is cache.main)

    def cut(name: str) -> dict[str, object]:
        file = workshop.cache_file(name)
        length = first_image if is_cache_name(name) else 0x4000
        with workshop.open() as library:
            head.write_bytes(b"".join(library.read_blob(file.sha256, file.size))[:length])
            sha256, size, _ = put_blob(library.store, head)
        return {"sha256": sha256, "size": size, "partial": True}

    heads = {f.name: cut(f.name) for f in workshop.records()[BUILD].cache_files if f.arch == "x86_64"}
    workshop.rewrite(
        lambda r: r.model_copy(
            update={"cache_files": tuple(f.model_copy(update=heads.get(f.name, {})) for f in r.cache_files)}
        )
    )
    assert check(workshop, Level.BYTES).findings == []
    # They prove what the cache holds.
    overlooked = Workshop(workshop.location.parent / "overlooked")
    shutil.copytree(workshop.location, overlooked.location)
    overlooked.drop_object(MORE, "x86_64")
    overlooked.change_manifest(lambda m: [e for e in m if (e.path, e.arch) != (MORE, "x86_64")])
    assert found(check(overlooked, Level.BYTES)) == [("not-in-manifest", MORE, "x86_64")]
    for content in (b"", bytes(0x400), (systems[BUILD] / FOLDER / "dyld_shared_cache_x86_64").read_bytes()[:0x300]):
        nothing = Workshop(workshop.location.parent / f"nothing-{len(content)}")
        shutil.copytree(workshop.location, nothing.location)
        head.write_bytes(content)
        with nothing.open() as library:
            sha256, size, _ = put_blob(library.store, head)
        main = nothing.cache_file("dyld_shared_cache_x86_64")
        cut_off = main.model_copy(update={"sha256": sha256, "size": size})
        nothing.rewrite(replace_cache_file(main, cut_off))
        assert found(check(nothing, Level.BYTES)) == [("cache-unreadable", main.path, "x86_64")]
    expected = dropped("dyld_shared_cache_x86_64.01", workshop)
    assert found(check(workshop, Level.BYTES)) == expected
    blob = workshop.blob(workshop.cache_file("dyld_shared_cache_x86_64.02").sha256)
    blob.write_bytes(blob.read_bytes()[:-1])
    assert [code for code, _, _ in found(check(workshop, Level.BYTES))] == ["companion-missing", "damaged"]


def replace_cache_file(old: CacheFile, new: CacheFile) -> Callable[[HarvestRecord], HarvestRecord]:
    return lambda r: r.model_copy(update={"cache_files": tuple(new if f == old else f for f in r.cache_files)})


def dropped(name: str, w: Workshop) -> list[tuple[str, str, str]]:
    w.rewrite(lambda r: r.model_copy(update={"cache_files": tuple(f for f in r.cache_files if f.name != name)}))
    return [("companion-missing", "", "x86_64")]


def test_a_lost_record_is_missed_though_nobody_can_say_what_it_held(harvested_twice: Path, tmp_path: Path) -> None:
    shutil.copytree(harvested_twice, tmp_path / "library")
    for file in (tmp_path / "library").glob("catalog*"):
        file.unlink()
    first = min((tmp_path / "library" / "records").rglob("*.zst"))
    first.unlink()
    with Library.open(tmp_path / "library") as library:
        report = verify(library)
    assert [f.code for f in report.findings] == [FindingCode.RECORD_MISSING]
    assert first.name in report.findings[0].message
    assert len(report.builds) == 1


def test_every_byte_is_checked_whatever_the_catalog_says(workshop: Workshop) -> None:
    # The catalog is disposable, and may have forgotten what a record holds.
    lost = workshop.object(PLAIN, "arm64e")
    assert lost.uuid
    with workshop.open() as library:
        assert verify(library, [BUILD]).complete
        for table in ("objects", "manifest_entries"):
            with library.catalog.database.conn as connection:
                connection.execute(f"DELETE FROM {table} WHERE uuid = ?", [lost.uuid.bytes])
    workshop.blob(lost.sha256).unlink()
    assert found(check(workshop, Level.BYTES)) == [("blob-missing", PLAIN, "arm64e")]


@pytest.mark.parametrize("level", [Level.BLOBS, Level.BYTES])
def test_an_image_that_an_extractor_left_without_symbols_is_told_where_no_raw_cache_can(
    tmp_path: Path, level: Level
) -> None:
    apples = partial(Image, cache=9, extractor="dsc_extractor")
    without, cut, no_table = (apples(f"/usr/lib/{n}", n) for n in (1, 2, 3))
    cut.data = cut.data[:236]  # its string pool, of one byte, begins there: one finding is enough
    no_table.data = no_table.data.replace(struct.pack("<2I", LC_SYMTAB, 24), struct.pack("<2I", 0x7F, 24))
    right = apples("/usr/lib/4", 4, symbols=1), Image("/usr/lib/5", 5, cache=9, extractor=EXTRACTOR)
    found_there = Image("/usr/lib/6", 6)
    with Library.open(tmp_path / "library", create=True) as library:
        ingest(library, harvest(tmp_path / "staged", [without, cut, no_table, *right, found_there]))
        report = verify(library, level=level, expectations=Expectations.nothing())
    assert found(report) == [
        ("symbol-count", "/usr/lib/1", "arm64e"),
        ("symbol-count", "/usr/lib/3", "arm64e"),
        ("truncated-linkedit", "/usr/lib/2", "arm64e"),
    ]


def test_a_raw_cache_that_does_not_fit_is_said_so(
    harvested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A disk with room for the catalog and not for the cache is too near to a full one to be made for real.
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=1 << 20, used=1 << 20, free=4096))
    with Library.open(harvested) as library, pytest.raises(StorageError, match="raw cache needs") as caught:
        verify(library, [BUILD], level=Level.BYTES, scratch=tmp_path)
    assert "--scratch" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_for_a_catalog_is_named_with_what_helps(harvested: Path, full_disk: Path) -> None:
    with Library.open(harvested) as library, pytest.raises(StorageError, match=f"{full_disk}.* no room") as caught:
        verify(library, [BUILD], level=Level.BYTES, scratch=full_disk)
    assert "--scratch" in caught.value.hint


def test_what_was_pushed_is_no_harvest(workshop: Workshop) -> None:
    # Whoever may upload must not be able to make a release complete.
    workshop.rewrite(lambda r: r.model_copy(update={"trust": Trust.PUSHED}))
    with workshop.open() as library:
        report = verify(library, [BUILD])
    assert [(f.code, f.build) for f in report.findings] == [(FindingCode.NO_HARVEST, BUILD)]


def test_what_could_not_be_read_is_told_until_a_sealed_harvest_has_it(tmp_path: Path) -> None:
    one, two = Image("/usr/lib/a", 1), Image("/usr/lib/b", 2)
    cached, more = Image("/usr/lib/c", 3, cache=9), Image("/usr/lib/d", 4, cache=9)
    nothing = HarvestRecord(release=Release(version="13.6", build="22G120"), source="empty")
    refused = nothing.model_copy(update={"source": "closed", "problems": ("nobody may read it",)})
    with Library.open(tmp_path / "library", create=True) as library:

        def told(*images: Image, source: str, problems: Sequence[str] = ()) -> set[str]:
            """Harvest these; return what is told of sources after that."""
            ingest(library, harvest(tmp_path / f"{source} {len(images)}", images, source=source, problems=problems))
            report = verify(library, level=Level.CATALOG, expectations=Expectations.nothing())
            messages = [f.message for f in report.findings if f.code is FindingCode.SOURCE_PROBLEM]
            assert len(messages) == len(set(messages))
            return set(messages)

        for record in (nothing, refused):
            write_record(library.store, record, record.source)
        library.refresh()
        step = ": then harvest it again"
        unfounded = {f"empty: nothing was found there{step}", f"closed: nobody may read it{step}"}
        denied = "/usr/libexec: permission denied"
        assert told(cached, more, one, two, source="cut", problems=[denied] * 2) == {*unfounded, f"cut: {denied}{step}"}
        # A cache is known by its UUID, so any harvest of it will do; a file has to be listed.
        assert told(cached, one, source="mac") == {*unfounded, f"cut: {denied}{step}"}
        assert told(one, two, source="other") == unfounded


def test_a_build_with_a_slip_in_it_is_told_from_one_that_was_never_harvested(workshop: Workshop) -> None:
    with workshop.open() as library:
        (slip,) = verify(library, [BUILD[:-1]], level=Level.CATALOG).findings
        (other,) = verify(library, ["9Z1"], level=Level.CATALOG).findings
    assert slip.message.endswith(f"did you mean {BUILD}?")
    assert "did you mean" not in other.message


def test_an_empty_library_and_an_absent_build_are_findings(tmp_path: Path) -> None:
    with Library.open(tmp_path / "library", create=True) as library:
        assert [f.code for f in verify(library).findings] == [FindingCode.EMPTY_LIBRARY]
        report = verify(library, ["22G120"])
        assert [(f.code, f.build) for f in report.findings] == [(FindingCode.NO_HARVEST, "22G120")]


def test_what_another_release_has_without_its_raw_cache_is_compared_all_the_same(workshop: Workshop) -> None:
    expected = code_changed(workshop)
    newer = Release(version="13.6.9", build="22G999")
    with workshop.open() as library:
        record = workshop.records()[BUILD].model_copy(update={"release": newer, "cache_files": ()})
        write_record(library.store, record, "newer")
        library.refresh()
        report = verify(library, level=Level.BYTES)
    assert report.builds == ["22G999", BUILD]
    differing = [f for f in report.findings if f.code is FindingCode.TEXT_DIFFERS]
    assert [(f.code.value, f.path, f.arch) for f in differing] == sorted(expected)
    assert [f.build for f in differing] == [BUILD]
