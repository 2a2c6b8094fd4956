"""A release out of the library again: as Xcode lays systems out, and as its raw caches."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO
from uuid import UUID

import pytest

from symcache.errors import IntegrityError, NotFoundError, StorageError, UsageError
from symcache.library import Library, Staged, StagedObject, export_device_support, export_raw_caches, ingest
from symcache.macho import identify
from symcache.model import HarvestRecord, ManifestEntry, ObjectEntry, Release, ReleaseId, uuid_text
from symcache.store import blob_key, write_record
from symcache_provisioning import harvest, recognize
from tests.library.images import Image, macho
from tests.library.images import harvest as staged_harvest
from tests.support.apple_folders import cache_name, put_raw, uuids_of

BUILD = "21A559"
_CACHE = "x86_64-split"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system's raw cache, where a system has it."""
    root = tmp_path_factory.mktemp("raw")
    put_raw(root / "System/Library/dyld", _CACHE)
    return root


@pytest.fixture(scope="module")
def filled(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    folder = tmp_path_factory.mktemp("filled")
    with Library.open(folder / "library", create=True) as library:
        take(raw, library, folder, BUILD)
        yield library


def take(path: Path, library: Library, folder: Path, build: str | None = None) -> Any:
    found = recognize(path, build)
    assert found is not None
    assert found.refused == []
    return [harvest(s, library, staging=folder / "staging") for s in found.sources]


def test_a_release_is_laid_out_as_xcode_does(filled: Library, tmp_path: Path) -> None:
    result = export_device_support(filled, BUILD, tmp_path)
    (folder,) = result.folders
    arch = identify(next(p for p in (folder / "Symbols").rglob("*") if p.is_file()))[0].arch
    assert re.fullmatch(rf"1[23]\.[05] \({BUILD}\) {arch}", folder.name)
    assert folder.parent == tmp_path / "macOS DeviceSupport"
    assert result.problems == []
    images = [identify(p)[0] for p in (folder / "Symbols").rglob("*") if p.is_file()]
    assert {uuid_text(i.uuid) for i in images if i.uuid} == uuids_of(_CACHE)
    assert {p.name for p in folder.iterdir()} == {
        "Symbols", "Info.plist", ".finalized", f".processed_dyld_shared_cache_{arch}"
    }  # fmt: skip
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


_LLDB = """
import sys, lldb
folder, path, uuid, triple = sys.argv[1:]
lldb.SBDebugger.Initialize()
debugger = lldb.SBDebugger.Create()
# What it does on a Mac by itself, for the folders in `macOS DeviceSupport` of the user: elsewhere one has to be named.
select = f'platform select remote-macosx --sysroot "{folder}"'
debugger.GetCommandInterpreter().HandleCommand(select, lldb.SBCommandReturnObject())
target = debugger.CreateTarget("", triple, "remote-macosx", False, lldb.SBError())
module = target.AddModule(path, None, uuid)
print(module.GetFileSpec() if module.IsValid() else None)
"""


def test_lldb_finds_images_by_path_and_uuid(filled: Library, tmp_path: Path) -> None:
    if importlib.util.find_spec("lldb") is None:
        pytest.skip("LLDB is not installed for this Python (pip install lldb-for-pwndbg)")
    (folder,) = export_device_support(filled, BUILD, tmp_path).folders
    image = filled.by_name("*", 100)[0]
    assert image.uuid is not None
    triple = f"{image.arch}-apple-macosx"

    def found(uuid: UUID) -> str:
        command = [sys.executable, "-c", _LLDB, str(folder), image.path, str(uuid).upper(), triple]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert found(image.uuid) == f"{folder}/Symbols{image.path}"
    assert found(UUID(int=7)) == "None"


def test_what_was_exported_can_be_taken_in_again(filled: Library, tmp_path: Path) -> None:
    export_device_support(filled, BUILD, tmp_path / "Xcode")
    with Library.open(tmp_path / "other", create=True) as other:
        (result,) = take(tmp_path / "Xcode", other, tmp_path)
        assert (result.release.build, result.whole) == (BUILD, True)
        assert {uuid_text(o.uuid) for o in other.by_name("*", 100) if o.uuid} == uuids_of(_CACHE)


def test_nothing_is_written_over(filled: Library, tmp_path: Path) -> None:
    (folder,) = export_device_support(filled, BUILD, tmp_path).folders
    (folder / "Symbols/mine").touch()
    with pytest.raises(UsageError, match="is there already"):
        export_device_support(filled, BUILD, tmp_path / "macOS DeviceSupport")
    assert (folder / "Symbols/mine").exists()
    place = tmp_path / f"raw/System/Library/dyld/{cache_name(_CACHE)}"
    place.parent.mkdir(parents=True)
    place.touch()
    with pytest.raises(UsageError, match="is there already"):
        export_raw_caches(filled, BUILD, tmp_path / "raw")
    assert [p.name for p in place.parent.iterdir()] == [place.name]
    assert place.stat().st_size == 0


def test_raw_caches_come_back_in_their_paths(raw: Path, filled: Library, tmp_path: Path) -> None:
    result = export_raw_caches(filled, BUILD, tmp_path)

    def told(root: Path) -> dict[str, str]:
        return {
            str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()
        }

    assert told(tmp_path) == told(raw)
    assert result.files == len(told(raw))
    assert result.size == sum(p.stat().st_size for p in raw.rglob("*") if p.is_file())


def test_what_is_lost_is_named_and_nothing_is_called_finished(filled: Library, tmp_path: Path) -> None:
    shutil.copytree(filled.store.location, tmp_path / "library")
    with Library.open(tmp_path / "library") as library:
        lost = library.by_name("*", 100)[0]
        library.store.delete_older(blob_key(lost.sha256), time.time() + 60)
        result = export_device_support(library, BUILD, tmp_path / "out")
        (folder,) = result.folders
        assert len(result.problems) == 1
        assert lost.path in result.problems[0]
        assert [p.name for p in folder.iterdir()] == ["Symbols"]
        found = recognize(folder)
        assert found is not None
        assert found.sources == []


def test_raw_caches_of_which_a_part_is_lost_are_not_written(filled: Library, tmp_path: Path) -> None:
    shutil.copytree(filled.store.location, tmp_path / "library")
    with Library.open(tmp_path / "library") as library:
        (record,) = library.catalog.records_of(ReleaseId("macOS", BUILD))
        lost = library.catalog.cache_files_of_record(record.id)[0]
        library.store.delete_older(blob_key(lost.sha256), time.time() + 60)
        with pytest.raises(IntegrityError, match=f"{lost.path[1:]}: .*: nothing was written"):
            export_raw_caches(library, BUILD, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_caches_of_which_only_headers_were_kept_are_said_to_be(tmp_path: Path) -> None:
    staged = staged_harvest(tmp_path / "1", [Image("/usr/lib/a", 1)], build=BUILD, raw=[("cache", 9, b"head")])
    staged.cache_files = [replace(file, partial=True) for file in staged.cache_files]
    with Library.open(tmp_path / "library", create=True) as library:
        ingest(library, staged)
        with pytest.raises(NotFoundError, match="only headers were kept") as raised:
            export_raw_caches(library, BUILD, tmp_path / "out")
    assert "--no-keep-caches" in raised.value.hint


def test_a_folder_that_cannot_be_made_is_said(filled: Library, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file/out: cannot be written: Not a directory"):
        export_raw_caches(filled, BUILD, tmp_path / "file" / "out")


def test_an_export_says_how_many_images_were_never_stored(tmp_path: Path) -> None:
    images = [Image(f"/usr/lib/{n}", n) for n in range(1, 4)]
    staged = staged_harvest(tmp_path / "1", images[:1], lost=images[1:], build=BUILD)
    staged.manifest.append(ManifestEntry(path="/usr/lib/none", arch="arm64e"))  # nobody could ask for it
    with Library.open(tmp_path / "library", create=True) as library:
        ingest(library, staged)
        result = export_device_support(library, BUILD, tmp_path / "out")
    assert result.problems == [f"13.6 ({BUILD}) arm64e: 2 images that it lists are not stored"]
    assert [p.name for p in result.folders[0].iterdir()] == ["Symbols"]


def test_of_several_raw_caches_at_one_place_one_has_to_be_named(tmp_path: Path) -> None:
    with Library.open(tmp_path / "library", create=True) as library:
        for cache, content in ((8, b"one"), (9, b"other")):
            folder = tmp_path / str(cache)
            ingest(library, staged_harvest(folder, [], build=BUILD, raw=[("cache", cache, content)], source=str(cache)))
        with pytest.raises(UsageError, match="several shared caches lie at /System/cache") as raised:
            export_raw_caches(library, BUILD, tmp_path / "out")
        assert all(uuid_text(UUID(int=cache)) in str(raised.value) for cache in (8, 9))
        for cache, content in ((8, b"one"), (9, b"other")):
            export_raw_caches(library, BUILD, tmp_path / f"out{cache}", archs=["arm64e"], cache=UUID(int=cache))
            assert (tmp_path / f"out{cache}/System/cache").read_bytes() == content


def test_what_comes_to_its_place_meanwhile_is_not_written_over(filled: Library, tmp_path: Path) -> None:
    place = tmp_path / f"out/System/Library/dyld/{cache_name(_CACHE)}"

    def come(*_: int) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("mine")

    with pytest.raises(UsageError, match="is there already"):
        export_raw_caches(filled, BUILD, tmp_path / "out", progress=come)
    assert place.read_text() == "mine"


@pytest.mark.parametrize("export", [export_device_support, export_raw_caches])
def test_a_store_that_fails_ends_an_export(
    filled: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, export: Any
) -> None:
    def away(_: str) -> BinaryIO:
        raise StorageError("away")

    monkeypatch.setattr(filled.store, "open", away)
    with pytest.raises(StorageError, match="away"):
        export(filled, BUILD, tmp_path / "out")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_an_export_leaves_some_room_on_the_disk(
    raw: Path, filled: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = (64 << 20) + sum(p.stat().st_size for p in raw.rglob("*") if p.is_file())

    def free(there: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=there))

    free(need - 1)
    with pytest.raises(StorageError, match=f"{(need - 1) >> 20} MiB are free where {(need >> 20) + 1} MiB are needed"):
        export_raw_caches(filled, BUILD, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    free(need)
    assert export_raw_caches(filled, BUILD, tmp_path / "out").problems == []


def test_what_several_caches_have_at_one_path_is_one_file_if_it_is_the_same(tmp_path: Path) -> None:
    """If it is not, also where only case tells them apart, each has a folder."""
    images = [
        *(Image("/usr/lib/a", 1, cache=8), Image("/usr/lib/a", 1, cache=9)),
        *(Image("/usr/lib/A", 2, cache=8), Image("/usr/lib/A", 2, cache=9)),
    ]
    with Library.open(tmp_path / "library", create=True) as library:
        ingest(library, staged_harvest(tmp_path / "1", images, build=BUILD))
        result = export_device_support(library, BUILD, tmp_path / "out")
        of_one = export_device_support(library, BUILD, tmp_path / "one", archs=["arm64e"], cache=UUID(int=9))
    assert result.files == of_one.files == 2
    assert [folder.name for folder in result.folders] == [f"13.6 ({BUILD}) arm64e", f"13.6 ({BUILD}) arm64e 2"]
    written = [[p.read_bytes() for p in folder.rglob("Symbols/**/*") if p.is_file()] for folder in result.folders]
    assert sorted(written) == sorted([[images[0].data], [images[2].data]])


def test_what_there_is_none_of_is_said(filled: Library, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        export_device_support(filled, "99Z9", tmp_path)
    with pytest.raises(NotFoundError):
        export_device_support(filled, BUILD, tmp_path, archs=["arm64_32"])
    with pytest.raises(NotFoundError):
        export_raw_caches(filled, BUILD, tmp_path, archs=["arm64_32"])
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_no_mac_has_is_named_and_not_written(tmp_path: Path) -> None:
    """Names that would colour or clear the terminal of whoever lists the folder; NAME_MAX is 255, PATH_MAX 1024."""
    longest = "é" * 127 + "a"
    deepest = ("/" + "b" * 31) * 32
    good = ["/usr/lib/liba.dylib", f"/usr/{longest}", deepest]
    bad = ["/usr/lib/\x1b[2Jb.dylib", "/usr/lib/c\x9b1m", f"/usr/{longest}a", f"{deepest}b"]
    images = [Image(path, number) for number, path in enumerate([good[0], *bad, *good[1:]], 1)]
    with Library.open(tmp_path / "library", create=True) as library:
        ingest(library, staged_harvest(tmp_path / "1", images, build=BUILD))
        result = export_device_support(library, BUILD, tmp_path / "out")
    (folder,) = result.folders
    assert {str(p.relative_to(folder / "Symbols")) for p in folder.rglob("Symbols/**/*") if p.is_file()} == {
        path[1:] for path in good
    }
    assert len([p for p in result.problems if "is no path of a system: not written" in p]) == len(bad)


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("version", "/13.0"),
        ("version", "../../13.0"),
        ("version", ""),
        ("version", "13\n0"),
        ("product", "../macOS"),
        ("arch", "arm64e/../../../x"),
        ("folder name", "\U0001f34e" * 62),
    ],
    ids=range(7),
)
def test_a_record_that_names_no_folder_writes_none(tmp_path: Path, field: str, name: str) -> None:
    version = name if field in {"version", "folder name"} else "13.0"
    release = Release(product=name if field == "product" else "macOS", version=version, build=BUILD)
    uuid, arch = UUID(int=1), name if field == "arch" else "arm64e"
    (file := tmp_path / "image").write_bytes(macho(uuid))
    staged = Staged(None, "test", manifest=[ManifestEntry(path="/usr/lib/a", arch="arm64e", uuid=uuid)])
    staged.objects = [StagedObject(file, 0, file.stat().st_size, "/usr/lib/a", "arm64e", uuid)]
    stored = ObjectEntry(
        path="/usr/lib/a", arch=arch, uuid=uuid, size=file.stat().st_size,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
    )  # fmt: skip
    manifest = (ManifestEntry(path="/usr/lib/a", arch=arch, uuid=uuid),)
    (out := tmp_path / "deep/er/out").mkdir(parents=True)
    with Library.open(tmp_path / "library", create=True) as library:
        ingest(library, staged)
        write_record(library.store, HarvestRecord(release=release, manifest=manifest, objects=(stored,)), "0" * 32)
        library.refresh()
        with pytest.raises(IntegrityError, match=f"its record has the {field} ") as raised:
            export_device_support(library, BUILD, out)
    assert f"symcache remove {BUILD}" in raised.value.hint
    assert {p.name for p in tmp_path.iterdir()} == {"image", "library", "deep"}
    assert not any(p.is_file() for p in (tmp_path / "deep").rglob("*"))
    assert list(out.iterdir()) == []
