"""A folder as a source: what a mounted image may hold to lead a harvest astray."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import pytest

from symcache.errors import IntegrityError, NotFoundError
from symcache.library import Library
from symcache_provisioning import Amount, DirectorySource, harvest
from symcache_provisioning.sources.entries import Limits
from tests.support.systems import BUILD, CACHE_FOLDER, images_in, make_system


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_system(tmp_path / "root", caches=("arm64e",))


def test_odd_things_are_named_and_the_rest_is_harvested(root: Path, library: Library, tmp_path: Path) -> None:
    folder = root / "usr/lib"
    image = (root / "usr/bin/tool").read_bytes()
    for name in (b"\xff\xfe.dylib", b"new\nline.dylib", b"\x1b[31m.dylib"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(image)
    os.mkfifo(folder / "fifo.dylib")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.dylib").write_bytes(image)
    (folder / "link.dylib").symlink_to(outside / "secret.dylib")
    (folder / "linked").symlink_to(outside)
    (folder / "loop").symlink_to("loop")
    result = harvest(DirectorySource(root), library, staging=tmp_path / "staging")
    assert not result.sealed
    assert len(result.problems) == 3
    assert sum("is not UTF-8" in p for p in result.problems) == 1
    assert sum("has control characters" in p for p in result.problems) == 2
    assert [n for n in result.notes if "fifo.dylib: is a FIFO" in n]
    assert result.images == images_in("arm64e") + 4
    assert not library.by_name("*secret*")


@pytest.mark.parametrize("target", ["/outside", "../../../../../../../../../../outside", "{outside}"])
def test_links_out_of_the_root_lead_nowhere(target: str, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.move(root / CACHE_FOLDER, outside)
    (root / CACHE_FOLDER).symlink_to(target.format(outside=outside))
    source = DirectorySource(root)
    assert source.caches() == []
    assert list(source.problems) == []


def test_a_loop_of_links_is_a_problem_and_no_more(root: Path, library: Library, tmp_path: Path) -> None:
    (root / "System/DriverKit").symlink_to("/System/Loop")
    (root / "System/Loop").symlink_to("/System/DriverKit")
    result = harvest(DirectorySource(root), library, staging=tmp_path / "staging")
    assert any("links lead on and on" in p for p in result.problems)
    assert result.images == images_in("arm64e") + 4


def test_the_cryptex_may_be_a_folder_and_not_a_link(root: Path) -> None:
    (root / "System/Cryptexes/OS").unlink()
    (root / "System/Volumes/Preboot/Cryptexes/OS").rename(root / "System/Cryptexes/OS")
    (cache,) = DirectorySource(root).caches()
    assert cache.path == "/System/Cryptexes/OS/System/Library/dyld/dyld_shared_cache_arm64e"
    assert (cache.arch, cache.missing, len(cache.files)) == ("arm64e", (), 4)


@pytest.mark.parametrize(
    "place", ["System/Library/dyld", "private/var/db/dyld", "System/DriverKit/System/Library/dyld"]
)
def test_caches_are_found_where_older_and_other_systems_have_them(place: str, root: Path) -> None:
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / CACHE_FOLDER).rename(root / place)
    (cache,) = DirectorySource(root).caches()
    assert cache.path == f"/{place}/dyld_shared_cache_arm64e"


def test_what_is_staged_for_an_update_is_not_the_system(root: Path) -> None:
    incoming = root / "System/Volumes/Preboot/Cryptexes/Incoming/OS/System/Library/dyld"
    shutil.copytree(root / CACHE_FOLDER, incoming)
    assert len(DirectorySource(root).caches()) == 1


def test_translations_and_maps_are_no_caches(root: Path) -> None:
    for name in (
        "aot_shared_cache",
        "aot_shared_cache.0",
        "dyld_shared_cache_arm64e.map",
        "dyld_shared_cache_arm64e.99",
    ):
        (root / CACHE_FOLDER / name).write_bytes(b"dyld_v1  arm64e\0" + bytes(100))
    (cache,) = DirectorySource(root).caches()
    assert [f.name.partition("arm64e")[2] for f in cache.files] == ["", ".01", ".02", ".symbols"]


def test_a_rapid_security_response_is_told_by_the_cryptex(root: Path) -> None:
    services = root / "System/Volumes/Preboot/Cryptexes/OS/System/Library/CoreServices"
    services.mkdir(parents=True)
    plist = (root / "System/Library/CoreServices/SystemVersion.plist").read_bytes()
    extra = b"<key>ProductVersionExtra</key><string>(a)</string><key>ProductVersion</key>"
    plist = plist.replace(BUILD.encode(), b"22G90a").replace(b"<key>ProductVersion</key>", extra)
    (services / "SystemVersion.plist").write_bytes(plist)
    assert str(DirectorySource(root).identity()) == "macOS 28.0 (a) (22G90a)"


def test_a_file_that_changes_after_it_was_listed(root: Path, tmp_path: Path) -> None:
    source = DirectorySource(root)
    entry = source.resolve("/usr/bin/tool")
    assert entry is not None
    (root / "usr/bin/tool").write_bytes(b"other")
    with pytest.raises(IntegrityError, match="is not what was listed"):
        source.fetch(entry, tmp_path / "copy")


def test_limits_hold_for_folders_too(root: Path) -> None:
    for number in range(30):
        (root / f"usr/lib/{number}").touch()
    source = DirectorySource(root, limits=Limits(folder_entries=10))
    list(source.walk(["/usr/lib"]))
    (problem,) = source.problems
    assert problem.startswith("/usr/lib: holds more than 10 names: the rest was not read: ")


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such folder"):
        DirectorySource(tmp_path / "nowhere")


def test_the_next_cache_is_copied_while_the_last_is_extracted(library: Library, tmp_path: Path) -> None:
    class Steps:
        def __init__(self) -> None:
            self.titles: list[str] = []

        def step(self, title: str) -> None:
            self.titles.append(title)

        def update(self, amount: Amount) -> None:
            pass

    steps = Steps()
    root = make_system(tmp_path / "root")
    assert harvest(DirectorySource(root), library, staging=tmp_path / "staging", progress=steps).sealed
    copying = [t for t in steps.titles if "extracting" not in t]
    assert copying[2:5] == [
        "copying dyld_shared_cache_arm64e",
        "copying dyld_shared_cache_x86_64",
        "copying Mach-O files outside the caches",
    ]
    assert not any("extracting" in t for t in steps.titles[:5])


def test_a_file_that_goes_while_its_folder_is_read_hides_no_other(root: Path) -> None:
    names = {f"lib{number}.dylib".encode() for number in range(4)}
    for name in names:
        Path(os.fsdecode(os.fsencode(root) + b"/usr/lib/" + name)).touch()
    listing = DirectorySource(root).scan("/usr/lib")
    first, _ = next(listing)
    (root / "usr/lib" / os.fsdecode(gone := min(names - {first}))).unlink()
    assert {first, *(name for name, _ in listing)} >= names - {gone}


def test_an_architecture_may_be_spelled_as_caches_are_called(root: Path, library: Library, tmp_path: Path) -> None:
    image = bytearray((root / "usr/bin/tool").read_bytes())
    struct.pack_into("<2I", image, 4, 0x0100000C, 12)  # CPU_TYPE_ARM64 and the subtype of arm64e.x1
    (root / "usr/bin/tool_x1").write_bytes(image)
    harvest(DirectorySource(root), library, staging=tmp_path / "staging", archs=["arm64e_x1"])
    assert {o.path for o in library.by_name("*tool*")} == {"/usr/bin/tool_x1"}
