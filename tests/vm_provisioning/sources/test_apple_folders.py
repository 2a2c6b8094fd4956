"""What Apple's tools leave on a developer's Mac, told by its layout and taken whole or not at all."""

from __future__ import annotations

import os
import plistlib
import shlex
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from symcache.errors import (
    FormatError,
    IncompleteError,
    IntegrityError,
    NotFoundError,
    StorageError,
    SymcacheError,
    UsageError,
)
from symcache.images import ImageRequest
from symcache.library import Library
from symcache.model import Kind
from symcache.verify import FindingCode, Level, verify
from symcache_provisioning import HarvestResult, harvest, recognize
from symcache_server.layouts import match
from tests.support.apple_folders import finish, put_libraries, put_raw, uuids_of
from tests.support.kernel_collection import ENTRIES, kernel_collection
from tests.support.permissions import bound_by_modes
from tests.support.systems import system_version

_CACHES = "System/Library/Caches/com.apple.dyld"
_CRYPTEX_CACHES = f"private/preboot/Cryptexes/OS/{_CACHES}"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("extracted")


def take(path: Path, library: Library, tmp_path: Path, build: str | None = None) -> list[HarvestResult]:
    found = recognize(path, build)
    assert found is not None
    assert found.refused == []
    return [harvest(s, library, staging=tmp_path / "staging") for s in found.sources]


def stored(library: Library, uuids: set[str]) -> set[str]:
    """Those of `uuids` that the library has, each asked for as every layout of the server spells it."""
    for text in uuids & {str(o.uuid).upper() for o in library.by_name("*", 1000)}:
        digits = text.replace("-", "").lower()
        tree = "/".join([*(digits[n : n + 4] for n in range(0, 20, 4)), digits[20:]])
        for path in (
            f"/buildid/{digits}/executable",
            f"/lib/mach-uuid-{digits}/lib",
            f"/{digits[:2]}/{digits[2:]}/executable",
            f"/{tree}.app",
        ):
            wanted = match(path)
            assert wanted is not None
            assert library.resolve(wanted.image) is not None, path
    return {str(o.uuid).upper() for o in library.by_name("*", 1000)} & uuids


# Folder, product, version, build, model; each as Xcode has written it.
_NAMES = [
    ("iOS DeviceSupport/26.2 (23B87)", "iOS", "26.2", "23B87", ""),
    ("iOS DeviceSupport/15.0 (19A346) arm64e", "iOS", "15.0", "19A346", ""),
    ("iOS DeviceSupport/iPhone12,1 26.4.2 (23E261)", "iOS", "26.4.2", "23E261", "iPhone12,1"),
    ("iOS DeviceSupport/16.4.1 (a) (20E772520a)", "iOS", "16.4.1", "20E772520a", ""),
    ("watchOS DeviceSupport/Watch4,2 10.0 (21R329)", "watchOS", "10.0", "21R329", "Watch4,2"),
    ("macOS DeviceSupport/13.0 (22A380) x86_64", "macOS", "13.0", "22A380", ""),
    ("from a colleague/AppleTV14,1 18.0 (22J357)", "tvOS", "18.0", "22J357", "AppleTV14,1"),
]


@pytest.mark.parametrize(("name", "product", "version", "build", "model"), _NAMES, ids=[n[0] for n in _NAMES])
def test_device_support_is_told_by_its_name(
    tmp_path: Path, name: str, product: str, version: str, build: str, model: str
) -> None:
    folder = tmp_path / name
    (folder / "Symbols/usr/lib").mkdir(parents=True)
    finish(folder)
    for path in (folder, folder.parent):
        found = recognize(path)
        assert found is not None
        (source,) = found.sources
        release = source.identity()
        assert release is not None
        assert (release.product, release.version, release.build, source.host()) == (product, version, build, model)


def test_device_support_of_all_products_is_stored_and_never_sealed(
    library: Library, tmp_path: Path, work: Path
) -> None:
    xcode = tmp_path / "Xcode"
    phone = xcode / "iOS DeviceSupport/26.2 (23B87)"
    put_libraries(phone / "arm64e/Symbols", "ios18-arm64e-universal-objc", work)
    finish(phone / "arm64e", "arm64e")
    mac = xcode / "macOS DeviceSupport/13.0 (22A380) x86_64"
    put_libraries(mac / "Symbols", "x86_64-mac", work)
    finish(mac)
    results = take(xcode, library, tmp_path)
    assert [(str(r.release), r.whole, r.sealed) for r in results] == [
        ("iOS 26.2 (23B87)", True, False),
        ("macOS 13.0 (22A380)", True, False),
    ]
    for name in ("ios18-arm64e-universal-objc", "x86_64-mac"):
        assert stored(library, uuids_of(name)) == uuids_of(name)
    # Loose libraries are no shared cache, whatever the folder is complete of.
    findings = {f.code: f for f in verify(library, ["22A380"]).findings}
    assert FindingCode.CACHE_MISSING in findings
    # Harvesting the folder again would change nothing.
    assert "nor can be: only the libraries" in findings[FindingCode.NOT_SEALED].message
    assert findings[FindingCode.NOT_SEALED].message.endswith("harvest a system of this build itself")
    assert not list((tmp_path / "staging").iterdir())


@pytest.mark.parametrize("place", [_CACHES, _CRYPTEX_CACHES])
def test_raw_caches_that_an_old_xcode_left_are_found(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "iOS DeviceSupport/16.0 (20A362)"
    main = put_raw(folder / "Symbols" / place, "arm64e-mac")
    finish(folder / "Symbols" / place, "arm64e")
    found = recognize(folder)
    assert found is not None
    assert [c.path for c in found.sources[0].caches()] == [f"/{place}/{main.name}"]


def test_raw_caches_that_an_old_xcode_left_are_taken_apart(library: Library, tmp_path: Path, work: Path) -> None:
    folder = tmp_path / "iOS DeviceSupport/12.0 (16A366)"
    put_raw(folder / "Symbols" / _CACHES, "arm64e-mac")
    put_libraries(folder / "Symbols", "arm64e-mac", work)
    finish(folder)
    (result,) = take(folder, library, tmp_path)
    assert (result.whole, result.images) == (True, len(uuids_of("arm64e-mac")))
    uuid = min(library.by_name("*", 100), key=lambda o: o.path).uuid
    assert uuid is not None
    # Ours, of the cache itself, and not beside it what Apple's extractor made.
    assert [o.extractor for o in library.variants(uuid)] == ["symcache"]


def _without_marker(folder: Path) -> None:
    (folder / "Symbols/usr/lib").mkdir(parents=True)


def _copied_only(folder: Path) -> None:
    put_raw(folder / "Symbols" / _CACHES, "arm64e-mac")
    (folder / "Symbols" / _CACHES / ".copied_dyld_shared_cache_arm64e").touch()


def _one_of_two_processed(folder: Path) -> None:
    caches = folder / "Symbols" / _CACHES
    caches.mkdir(parents=True)
    for name in (
        "copied_dyld_shared_cache_arm64",
        "copied_dyld_shared_cache_arm64e",
        "processed_dyld_shared_cache_arm64",
    ):
        (caches / f".{name}").touch()


@pytest.mark.parametrize("lay_out", [_without_marker, _copied_only, _one_of_two_processed])
def test_of_what_xcode_was_not_through_with_nothing_is_taken(lay_out: Callable[[Path], None], tmp_path: Path) -> None:
    folder = tmp_path / "iOS DeviceSupport/26.2 (23B87)"
    lay_out(folder)
    done = folder.with_name("26.1 (23B85)")
    (done / "Symbols").mkdir(parents=True)
    finish(done)
    found = recognize(folder.parent)
    assert found is not None
    assert [s.name for s in found.sources] == [str(done)]
    (refusal,) = found.refused
    assert isinstance(refusal, IncompleteError)
    assert str(folder) in str(refusal)
    assert shlex.split(refusal.hint.rpartition(": ")[2]) == ["symcache", "add", str(folder / "Symbols")]


def test_of_architectures_in_folders_of_their_own_each_has_its_mark(tmp_path: Path) -> None:
    folder = tmp_path / "watchOS DeviceSupport/26.2 (23S303)"
    for arch in ("arm64e", "arm64_32"):
        (folder / arch / "Symbols").mkdir(parents=True)
    finish(folder, "arm64e")
    for path in (folder, folder.parent, folder.parent.parent):
        found = recognize(path)
        assert found is not None
        assert [(s.name, str(s.identity())) for s in found.sources] == [
            (str(folder / "arm64e"), "watchOS 26.2 (23S303)")
        ]
        assert [str(folder / "arm64_32") in str(e) for e in found.refused] == [True]


@pytest.mark.parametrize(
    "closed",
    [
        "iOS DeviceSupport/26.2 (23B87)",
        "iOS DeviceSupport/26.2 (23B87)/Symbols",
        "iOS DeviceSupport/26.2 (23B87)/arm64e",
        "watchOS DeviceSupport",
    ],
)
@pytest.mark.parametrize("mode", [0o000, 0o600, 0o100])
def test_of_device_support_what_cannot_be_read_is_named_and_the_rest_taken(
    tmp_path: Path, closed: str, mode: int
) -> None:
    done = tmp_path / "iOS DeviceSupport/26.1 (23B85)"
    (done / "Symbols").mkdir(parents=True)
    finish(done)
    folder = tmp_path / closed
    (folder / "Symbols").mkdir(parents=True)
    folder.chmod(mode)
    with bound_by_modes():
        found = recognize(tmp_path)
    folder.chmod(0o700)
    assert found is not None
    assert str(done) in [s.name for s in found.sources]
    (refusal,) = found.refused
    assert isinstance(refusal, StorageError)
    assert closed.removesuffix("/Symbols") in str(refusal)
    assert "chmod -R u+rX '" in refusal.hint


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "Xcode").mkdir(mode=0o000)
    with bound_by_modes(), pytest.raises(StorageError, match="Xcode: cannot be read: Permission denied"):
        recognize(tmp_path / "Xcode")


def test_links_to_what_was_moved_to_another_disk_are_followed(tmp_path: Path) -> None:
    disk, xcode = tmp_path / "disk", tmp_path / "Xcode"
    for folder in ("iOS/26.1 (23B85)", "watches/Watch4,2 26.1 (23S36)", "tv/arm64e"):
        (disk / folder / "Symbols").mkdir(parents=True)
        finish(disk / folder)
    (xcode / "iOS DeviceSupport").mkdir(parents=True)
    (xcode / "tvOS DeviceSupport/26.1 (23J582)").mkdir(parents=True)
    phone, tv = xcode / "iOS DeviceSupport/26.1 (23B85)", xcode / "tvOS DeviceSupport/26.1 (23J582)/arm64e"
    phone.symlink_to(disk / "iOS/26.1 (23B85)")
    phone.with_name("newest").symlink_to(phone)  # the same once more
    phone.with_name("26.0 (23A341)").symlink_to(disk / "not attached")
    tv.symlink_to(disk / "tv/arm64e")
    (xcode / "watchOS DeviceSupport").symlink_to(disk / "watches")
    (xcode / "xrOS DeviceSupport").symlink_to(disk / "not attached")
    (disk / "iOS/26.1 (23B85)/Symbols/arm64e").symlink_to(disk / "tv/arm64e")  # inside, links are no folders
    found = recognize(xcode)
    assert found is not None
    watch = xcode / "watchOS DeviceSupport/Watch4,2 26.1 (23S36)"
    assert {s.name: str(s.identity()) for s in found.sources} == {
        str(phone): "iOS 26.1 (23B85)",
        str(tv): "tvOS 26.1 (23J582)",
        str(watch): "watchOS 26.1 (23S36)",
    }
    assert {str(e).partition(":")[0] for e in found.refused} == {
        str(phone.with_name("26.0 (23A341)")),
        str(xcode / "xrOS DeviceSupport"),
    }
    assert {getattr(e, "hint", "") for e in found.refused} == {
        "attach the disk that the link leads to, or remove the link"
    }


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("new", ["", "arm64e", "."])
def test_what_two_xcodes_left_in_one_folder_are_two_parts(tmp_path: Path, old: bool, new: str) -> None:
    folder = tmp_path / "iOS DeviceSupport/26.2 (23B87)"
    (folder / "Symbols").mkdir(parents=True)
    (folder / "arm64e/Symbols").mkdir(parents=True)
    if old:
        finish(folder)
    if new:
        finish(folder / new if new != "." else folder, "arm64e")
    found = recognize(folder.parent)
    assert found is not None
    expected = [str(folder)] * old + [str(folder / "arm64e")] * bool(new)
    assert [s.name for s in found.sources] == expected
    assert len(found.refused) == 2 - len(expected)


def test_device_support_without_symbols_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "iOS DeviceSupport/14.5"
    folder.mkdir(parents=True)
    (folder / "DeveloperDiskImage.dmg").write_bytes(bytes(600))
    found = recognize(folder)
    assert found is not None
    assert isinstance(found.refused[0], NotFoundError)


def test_a_folder_of_ones_own_with_symbols_is_no_device_support(tmp_path: Path) -> None:
    (tmp_path / "build/Symbols").mkdir(parents=True)
    assert recognize(tmp_path / "build") is None


def test_bare_caches_have_the_build_that_is_said(library: Library, tmp_path: Path) -> None:
    main = put_raw(tmp_path / "26A1__Mac/caches", "x86_64-split")
    for path in (main, main.parent, main.parent.parent):
        found = recognize(path, "21A5")
        assert found is not None
        assert [str(s.identity()).endswith("(21A5)") for s in found.sources] == [True]
    (result,) = take(main.parent, library, tmp_path, "21A5")
    assert (result.whole, result.sealed) == (True, False)
    held = library.by_name("*", 1000, build="21A5")
    assert stored(library, {str(o.uuid).upper() for o in held}) == uuids_of("x86_64-split")
    assert not verify(library, ["21A5"]).complete


def test_caches_at_the_top_and_below_it_are_all_taken_once(tmp_path: Path) -> None:
    top = tmp_path / "caches"
    for folder in (top, top / "22G120", top / _CACHES.replace("Caches/com.apple.dyld", "dyld")):
        put_raw(folder, "driverkit-arm64e")
    found = recognize(top, "21A5")
    assert found is not None
    assert [s.name for s in found.sources] == [str(top), str(top / "22G120")]
    assert [len(s.caches()) for s in found.sources] == [2, 1]
    assert found.refused == []


@pytest.mark.parametrize("mode", [0o000, 0o600, 0o100])
def test_a_folder_beside_caches_that_cannot_be_read_is_named(tmp_path: Path, mode: int) -> None:
    put_raw(tmp_path / "caches/one", "driverkit-arm64e")
    closed = tmp_path / "caches/two"
    put_raw(closed / "inside", "driverkit-arm64e")
    closed.chmod(mode)
    with bound_by_modes():
        found = recognize(tmp_path / "caches", "21A5")
    closed.chmod(0o700)
    assert found is not None
    assert [s.name for s in found.sources] == [str(tmp_path / "caches/one")]
    assert [str(e).startswith(f"{closed}: cannot be read: Permission denied") for e in found.refused] == [True]
    assert str(closed) in found.refused[0].hint


def test_bare_caches_of_an_unknown_build_can_be_asked_for(library: Library, tmp_path: Path) -> None:
    main = put_raw(tmp_path / "caches", "driverkit-arm64e")
    (result,) = take(main, library, tmp_path)
    assert (result.release, result.whole) == (None, True)
    for uuid in {o.uuid for o in library.by_name("*", 100)}:
        assert uuid is not None
        assert library.resolve(ImageRequest(uuid, Kind.EXECUTABLE)) is not None
    assert library.releases() == []


def test_the_family_of_a_bare_cache_is_that_of_its_images(library: Library, tmp_path: Path) -> None:
    if not os.environ.get("SYMCACHE_TEST_CACHES"):
        pytest.skip("SYMCACHE_TEST_CACHES is not set")
    take(put_raw(tmp_path / "caches", "driverkit-arm64e"), library, tmp_path, "22A380")
    assert [c["family"] for c in verify(library, ["22A380"]).releases[0].caches] == ["driverkit"]


def test_of_a_main_file_only_its_own_companions_are_looked_at(tmp_path: Path) -> None:
    main = put_raw(tmp_path / "downloads", "x86_64-split")
    (main.parent / "dyld_shared_cache_arm64e_x9").write_bytes(b"dyld_v1  arm64e\0" + bytes(100))
    (main.parent / "dyld_shared_cache_arm64e_x9.07").write_bytes(b"dyld_v1  arm64e\0" + bytes(100))
    found = recognize(main)
    assert found is not None
    (source,) = found.sources
    assert source.identity() is None
    assert ([c.name for c in source.caches()], list(source.problems)) == ([main.name], [])


def _lost_companion(folder: Path) -> None:
    sorted(f for f in put_raw(folder, "arm64e-split").parent.iterdir() if f.suffix[1:].isdigit())[0].unlink()


def _companion_of_another_build(folder: Path) -> None:
    main = put_raw(folder, "arm64e-split")
    companion = sorted(f for f in main.parent.iterdir() if f.suffix[1:].isdigit())[0]
    data = bytearray(companion.read_bytes())
    data[0x58:0x68] = bytes(range(16))  # dyld_cache_header.uuid
    companion.write_bytes(data)


def _two_versions(folder: Path) -> None:
    main = put_raw(folder, "arm64e-mac")
    data = bytearray(main.read_bytes())
    data[0x16C:0x170] = struct.pack("<I", 12 << 16 | 1 << 8)  # dyld_cache_header.osVersion
    data[0x58:0x68] = bytes(range(16))
    main.with_name("dyld_shared_cache_arm64").write_bytes(data)


@pytest.mark.parametrize("lay_out", [_lost_companion, _companion_of_another_build, _two_versions])
def test_of_caches_that_do_not_belong_together_nothing_is_taken(
    lay_out: Callable[[Path], None], library: Library, tmp_path: Path
) -> None:
    lay_out(tmp_path / "caches")
    with pytest.raises(IntegrityError, match="nothing was taken"):
        take(tmp_path / "caches", library, tmp_path, "21A5")
    assert library.by_name("*", 10) == []
    assert library.releases() == []


def test_parts_of_caches_are_named(tmp_path: Path) -> None:
    part = tmp_path / "dyld_shared_cache_arm64e.01"
    part.write_bytes(b"dyld_v1  arm64e\0" + bytes(100))
    with pytest.raises(FormatError, match="part of a shared cache"):
        recognize(part)


def test_a_link_to_a_main_file_leads_to_its_companions(tmp_path: Path) -> None:
    link = tmp_path / "dyld_shared_cache_x86_64"
    main = put_raw(tmp_path / "caches", "x86_64-split")
    link.symlink_to(main)
    found = recognize(link)
    assert found is not None
    (source,) = found.sources
    source.identity()
    assert [c.missing for c in source.caches()] == [()]
    assert source.name == str(main)


def test_of_a_file_that_only_claims_to_be_a_cache_no_record_is_kept(library: Library, tmp_path: Path) -> None:
    (tmp_path / "dyld_shared_cache_arm64e").write_bytes(b"dyld_v1  arm64e\0" + bytes(20))
    with pytest.raises(SymcacheError, match="dyld_shared_cache_arm64e"):
        take(tmp_path, library, tmp_path)
    assert library.catalog.counts().records == 0


def test_what_has_its_build_in_its_name_is_not_told_another(tmp_path: Path) -> None:
    folder = tmp_path / "iOS DeviceSupport/26.2 (23B87)"
    (folder / "Symbols").mkdir(parents=True)
    finish(folder)
    with pytest.raises(UsageError):
        recognize(folder, "23B88")


def test_simulator_runtimes_are_systems_of_their_own(library: Library, tmp_path: Path, loose: Path) -> None:
    volume = tmp_path / "Volumes/iOS_24A300"
    runtime = volume / "Library/Developer/CoreSimulator/Profiles/Runtimes/iOS 27.0.simruntime"
    root = runtime / "Contents/Resources/RuntimeRoot"
    put_raw(root / _CACHES, "sim18-arm64")
    (root / "usr/lib").mkdir(parents=True)
    shutil.copy(loose, root / "usr/lib")
    for path in (volume.parent, volume, runtime.parent):
        found = recognize(path)
        assert found is not None
        assert [s.name for s in found.sources] == [str(runtime)]
    (result,) = take(runtime, library, tmp_path)
    assert (str(result.release), result.sealed) == ("iOS simulator 27.0 (24A300)", True)
    assert stored(library, uuids_of("sim18-arm64")) == uuids_of("sim18-arm64")
    assert FindingCode.UNKNOWN_RELEASE in {f.code for f in verify(library, ["24A300"]).findings}


@pytest.mark.parametrize("closed", ["iOS_22A3351", "iOS_22A3351/Library/Developer/CoreSimulator/Profiles/Runtimes"])
def test_a_simulator_that_cannot_be_read_is_told_of_beside_those_that_can(tmp_path: Path, closed: str) -> None:
    """Others have their disk images attached with their owner alone let in."""
    for volume, runtime in (("iOS_22A3351", "iOS 18.0"), ("iOS_24A300", "iOS 27.0"), ("private", "none")):
        folder = tmp_path / volume / "Library/Developer/CoreSimulator/Profiles/Runtimes" / f"{runtime}.simruntime"
        (folder / "Contents/Resources/RuntimeRoot").mkdir(parents=True)
    for name in (closed, "private"):
        (tmp_path / name).chmod(0)
    with bound_by_modes():
        found = recognize(tmp_path)
    for name in (closed, "private"):
        (tmp_path / name).chmod(0o700)
    assert found is not None
    assert [s.name.rpartition("/")[2] for s in found.sources] == ["iOS 27.0.simruntime"]
    (refusal,) = found.refused
    assert "iOS_22A3351" in str(refusal)
    assert "cannot be read: Permission denied" in str(refusal)


def test_a_kernel_debug_kit_that_cannot_be_read_is_told_of(tmp_path: Path) -> None:
    for build in ("23C64", "23D56"):
        (tmp_path / f"KDK_14.2_{build}.kdk/System").mkdir(parents=True)
    closed = tmp_path / "KDK_14.2_23C64.kdk"
    closed.chmod(0)
    with bound_by_modes():
        found = recognize(tmp_path)
    closed.chmod(0o700)
    assert found is not None
    assert len(found.sources) == 1
    assert [str(e).startswith(f"{closed}: cannot be read: Permission denied") for e in found.refused] == [True]


def test_what_a_runtime_says_of_itself_counts_before_its_name(tmp_path: Path) -> None:
    runtime = tmp_path / "iOS 27.0.simruntime"
    services = runtime / "Contents/Resources/RuntimeRoot/System/Library/CoreServices"
    services.mkdir(parents=True)
    plist = system_version(ProductName="iPhone OS", ProductVersion="27.0.1", ProductBuildVersion="24A312")
    (services / "SystemVersion.plist").write_bytes(plist)
    found = recognize(runtime)
    assert found is not None
    assert str(found.sources[0].identity()) == "iOS simulator 27.0.1 (24A312)"


def test_caches_that_the_simulator_built_are_named_after_their_runtime(tmp_path: Path) -> None:
    folder = tmp_path / "dyld/25A354/com.apple.CoreSimulator.SimRuntime.iOS-18-0.22A3351"
    put_raw(folder, "sim18-arm64")
    for path in (folder, folder.parent, folder.parent.parent):
        found = recognize(path)
        assert found is not None
        release = found.sources[0].identity()
        assert release is not None
        assert (release.product, release.build) == ("iOS simulator", "22A3351")


def test_a_kernel_debug_kit_is_stored_with_its_debug_info(library: Library, tmp_path: Path, loose: Path) -> None:
    kit = tmp_path / "KDKs/KDK_14.2_23C64.kdk"
    kernels = kit / "System/Library/Kernels"
    debug_info = kernels / "kernel.release.t8103.dSYM/Contents/Resources/DWARF"
    debug_info.mkdir(parents=True)
    image = bytearray(loose.read_bytes())
    (kernels / "kernel.release.t8103").write_bytes(image)
    image[12:16] = struct.pack("<I", 10)  # MH_DSYM
    (debug_info / "kernel.release.t8103").write_bytes(image)
    (kernels / "all.kc").write_bytes(kernel_collection())
    (result,) = take(kit.parent, library, tmp_path)
    assert (str(result.release), result.whole, result.sealed) == ("macOS 14.2 (23C64)", True, False)
    # Nothing is found wrong with the collection itself.
    assert not [f for f in verify(library, ["23C64"], level=Level.BYTES).findings if f.path.endswith("all.kc")]
    assert [c.path for c in library.collected(ENTRIES["com.apple.kernel"])] == ["/System/Library/Kernels/all.kc"]
    assert {o.kind for o in library.by_name("kernel.release.t8103", 10)} == {Kind.EXECUTABLE, Kind.DEBUGINFO}


def test_a_mac_with_runtimes_on_it_is_a_mac(tmp_path: Path) -> None:
    services = tmp_path / "System/Library/CoreServices"
    services.mkdir(parents=True)
    (services / "SystemVersion.plist").write_bytes(system_version())
    (tmp_path / "Library/Developer/CoreSimulator/Profiles/Runtimes/iOS 27.0.simruntime").mkdir(parents=True)
    assert recognize(tmp_path) is None


def test_an_empty_folder_is_told_with_what_it_is(library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "iOS DeviceSupport/26.2 (23B87)"
    (folder / "Symbols").mkdir(parents=True)
    finish(folder)
    with pytest.raises(SymcacheError, match="device support of Xcode's holds no shared cache and no Mach-O"):
        take(folder, library, tmp_path)


def test_the_marker_is_a_property_list_or_empty(tmp_path: Path) -> None:
    finish(tmp_path)
    assert plistlib.loads((tmp_path / ".finalized").read_bytes()) == {}
