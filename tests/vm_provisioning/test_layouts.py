"""Where macOS of any version keeps its caches, and where none has kept them yet: all are found, named and sealed."""

from __future__ import annotations

import functools
import shutil
import struct
from pathlib import Path

import pytest

from symcache.demo.layouts import LAYOUTS, Cache, Layout
from symcache.library import Library
from symcache.verify import Expectations, Level, verify
from symcache_provisioning import DirectorySource, HarvestResult, harvest
from symcache_provisioning.sources.entries import Limits
from tests.cachewriter import CacheOptions, build_cache
from tests.cachewriter.samples import sample
from tests.support.mac_layout import image_count, lay_out
from tests.support.systems import system_version
from tests.support.toolchain import compile_image, lipo

_PREBOOT = "System/Volumes/Preboot/Cryptexes"
_DYLD = "System/Library/dyld"
_BUILT = "private/var/db/dyld"
_IMAGES = 3
_OPTIONS = {
    "arm64e": CacheOptions(arch="arm64e"),
    "x86_64": CacheOptions(arch="x86_64"),
    "x86_64h": CacheOptions(arch="x86_64h"),
    "arm64e_x1": CacheOptions(arch="arm64e", magic="arm64ex1", layout_seed=4),
    "arm64e driverkit": CacheOptions(arch="arm64e", layout_seed=2),
    "arm64e update": CacheOptions(arch="arm64e", layout_seed=6),
}

Caches = dict[str, tuple[str, ...]]


@functools.cache
def files_of(cache: str) -> dict[str, bytes]:
    """The files of one cache by name, made once."""
    options, name = _OPTIONS[cache], f"dyld_shared_cache_{cache.partition(' ')[0]}"
    built = build_cache(sample(options)[:_IMAGES], options)
    return {name + suffix: data for suffix, data in built.files.items()}


def put(root: Path, folder: str, *caches: str) -> None:
    place = root / folder
    place.mkdir(parents=True, exist_ok=True)
    for cache in caches:
        for name, data in files_of(cache).items():
            (place / name).write_bytes(data)


def system(root: Path, version: str, caches: Caches, build: str = "1A1") -> Path:
    services = root / "System/Library/CoreServices"
    services.mkdir(parents=True)
    product = "Mac OS X" if version.startswith("10.") else "macOS"
    plist = system_version(ProductName=product, ProductVersion=version, ProductBuildVersion=build)
    (services / "SystemVersion.plist").write_bytes(plist)
    for folder, names in caches.items():
        put(root, folder, *names)
        if folder.startswith(_PREBOOT):
            name = folder.split("/")[4]
            link = root / "System/Cryptexes" / name
            link.parent.mkdir(exist_ok=True)
            if name != "Incoming" and not link.is_symlink():
                link.symlink_to(f"../../{_PREBOOT}/{name}")
    return root


_OS, _ROSETTA = f"{_PREBOOT}/OS", f"{_PREBOOT}/Rosetta"

# No macOS is like these.
INVENTED = {
    "NewOS": (
        Layout(
            "28.0",
            "1A1",
            "Mac30,1",
            (Cache(f"{_PREBOOT}/NewOS/System/NewKit/{_DYLD}", "arm64e", "newkit"), Cache(f"{_OS}/{_DYLD}", "arm64e")),
        ),
        0,
    ),
    "arm64e_x3": (Layout("28.0", "1A1", "Mac30,1", (Cache(f"{_PREBOOT}/NewOS/{_DYLD}", "arm64e_x3"),)), 0),
    "100 sub-caches": (
        Layout("28.0", "1A1", "Mac30,1", (Cache(f"{_OS}/System/Library/Caches/com.apple.dyld", "arm64e"),)),
        100,
    ),
}
"""Layouts, and how many sub-caches they have."""
MACS = {name: (layout, 0) for name, layout in LAYOUTS.items()} | INVENTED
_CANONICAL = {"arm64e_x1": "arm64e.x1", "arm64e_x3": "arm64e.x3"}


def compiled_i386() -> bytes:
    """A Mach-O header of i386 (mach_header, MH_EXECUTE) without commands."""
    return struct.pack("<7I", 0xFEEDFACE, 7, 3, 2, 0, 0, 0) + bytes(100)


def run(root: Path, library: Library, tmp_path: Path) -> HarvestResult:
    return harvest(DirectorySource(root), library, staging=tmp_path / "staging")


# That the Mac is a virtual machine, and need not have Rosetta's caches, only the Mac itself says.
@pytest.mark.parametrize("name", sorted(MACS.keys() - {"27 VM"}))
def test_every_layout_is_sealed_with_all_its_images(name: str, loose: Path, library: Library, tmp_path: Path) -> None:
    layout, sub_caches = MACS[name]
    root = lay_out(tmp_path / "root", layout, loose=loose, sub_caches=sub_caches)
    result = run(root, library, tmp_path)
    assert (result.problems, result.missing, result.sealed) == ([], [], True)
    assert {c.path: c.images for c in result.caches} == {
        f"/{c.folder}/dyld_shared_cache_{c.arch}": image_count(layout, c, sub_caches=sub_caches) for c in layout.caches
    }
    report = verify(library, level=Level.BYTES, expectations=Expectations.nothing())
    assert report.complete, report.findings
    assert {(c["family"], c["arch"]) for c in report.releases[0].caches if c["uuid"]} == {
        (c.family, _CANONICAL.get(c.arch, c.arch)) for c in layout.caches
    }
    cryptexes = {c.folder.split("/")[4] for c in layout.caches if c.folder.startswith(_PREBOOT)}
    assert {o.path for o in library.by_name("libloose.dylib")} == {
        f"/{place}usr/lib/libloose.dylib" for place in ("", *(f"{_PREBOOT}/{c}/" for c in cryptexes))
    }


def test_synthesizers_are_code_and_voices_are_not(loose: Path, library: Library, tmp_path: Path) -> None:
    places = ["System/Library/Speech/Synthesizers/A.bundle", "usr/lib"]
    data = "System/Library/Speech/Voices/B.bundle"
    root = system(tmp_path / "root", "10.15.7", {})
    for place in (*places, data):
        (root / place).mkdir(parents=True)
        shutil.copy(loose, root / place)
    assert run(root, library, tmp_path).sealed
    assert {o.path for o in library.by_name("libloose.dylib")} == {f"/{p}/libloose.dylib" for p in places}


def program(folder: Path, *, platform: int) -> Path:
    """Make a program with a code signature, as codesign leaves one that is, or is not, of a system."""
    image = compile_image(folder, "program", "int main(void) { return 0; }", arch="arm64", dylib=False)
    data = bytearray(image.read_bytes())
    blob = data.rindex(struct.pack(">I", 0xFADE0CC0))  # CS_SuperBlob: magic, length, count, (type, offset)...
    (offset,) = struct.unpack_from(">I", data, blob + 16)
    assert data[blob + offset : blob + offset + 4] == struct.pack(">I", 0xFADE0C02)  # CS_CodeDirectory
    data[blob + offset + 38] = platform  # behind nine uint32_t, hashSize and hashType
    image.write_bytes(data)
    return image


def test_until_12_only_those_applications_are_taken_that_came_with_macos(
    loose: Path, library: Library, tmp_path: Path
) -> None:
    """codesign -dvv says of Siri.app "Platform identifier=2"; of Xcode.app, which Apple signs, too, nothing like it."""
    root = system(tmp_path / "root", "10.15.7", {})
    (root / "usr/lib").mkdir(parents=True)
    shutil.copy(loose, root / "usr/lib")
    own, other = program(tmp_path / "own", platform=2), program(tmp_path / "other", platform=0)
    fat = lipo(tmp_path / "fat", own, compile_image(tmp_path / "x", "x", "int main(void) { return 1; }", dylib=False))
    malformed = tmp_path / "malformed"
    malformed.write_bytes(other.read_bytes()[:100])
    for app, made in {
        "Safari": own,
        "Utilities/Terminal": fat,
        "Xcode": other,
        "Unsigned": compile_image(tmp_path / "u", "u", "int main(void) { return 2; }", dylib=False),
        "Malformed": malformed,
    }.items():
        for inner, file in (("MacOS", made), ("Frameworks", loose)):
            (root / f"Applications/{app}.app/Contents/{inner}").mkdir(parents=True)
            shutil.copy(file, root / f"Applications/{app}.app/Contents/{inner}")
    (root / "Applications/Empty.app").mkdir()
    shutil.copy(own, root / "Applications")
    result = run(root, library, tmp_path)
    assert result.sealed, result.problems
    taken = {o.path for o in library.by_name("*") if o.path.startswith("/Applications")}
    assert {p.partition(".app")[0] for p in taken} == {"/Applications/Safari", "/Applications/Utilities/Terminal"}
    assert {p for p in taken if p.endswith("dylib")}
    assert [n for n in result.notes if "4 of 6 programs did not come with macOS" in n]


LACKING: dict[str, tuple[str, Caches, str]] = {
    "no Rosetta": ("27.0", {f"{_OS}/{_DYLD}": ("arm64e",)}, "system shared cache of x86_64"),
    "no x86 support": (
        "27.0",
        {f"{_OS}/{_DYLD}": ("arm64e",), f"{_ROSETTA}/{_DYLD}": ("x86_64",)},
        "x86support shared cache of x86_64",
    ),
    "no x86_64 in 13": ("13.6.9", {f"{_OS}/{_DYLD}": ("arm64e",)}, "system shared cache of x86_64"),
    "no arm64e in 13": ("13.6.9", {f"{_OS}/{_DYLD}": ("x86_64",)}, "system shared cache of arm64e"),
    "no x86_64h in 12": ("12.7.6", {_DYLD: ("arm64e", "x86_64")}, "system shared cache of x86_64h"),
    "an update only": ("14.6.1", {f"{_PREBOOT}/Incoming/OS/{_DYLD}": ("arm64e update",)}, "system shared cache"),
    "no files in 10.15": ("10.15.7", {"private/var/db/dyld": ("x86_64h",)}, "Mach-O file of x86_64"),
}


@pytest.mark.parametrize("lack", LACKING)
def test_what_a_release_must_have_is_missed_by_name(lack: str, library: Library, tmp_path: Path) -> None:
    version, caches, what = LACKING[lack]
    root = system(tmp_path / "root", version, caches)
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/lib/libold.dylib").write_bytes(compiled_i386())
    result = run(root, library, tmp_path)
    assert not result.sealed
    assert [p for p in result.problems if f"no {what} was found" in p]
    # To boot it is of use to who has nothing of its cryptexes, since there are any.
    told = "start it and harvest it over SSH" if lack == "an update only" else ": reinstall that system or copy it anew"
    assert all(told in p for p in result.problems)


def test_caches_that_an_older_macos_built_are_not_of_the_release(library: Library, tmp_path: Path) -> None:
    """Who upgraded from 10.15 may have them still: they are no substitute for what is lacking."""
    root = system(tmp_path / "root", "12.7.6", {_DYLD: ("arm64e", "x86_64h"), _BUILT: ("x86_64",)}, build="21H1320")
    result = run(root, library, tmp_path)
    assert (result.sealed, len(result.caches)) == (False, 2)
    assert [p for p in result.problems if "no system shared cache of x86_64 was found" in p]
    put(root, _DYLD, "x86_64")
    put(root, _BUILT, "arm64e update")
    result = run(root, library, tmp_path)
    assert (result.sealed, result.problems, len(result.caches)) == (True, [], 3)
    assert result.notes == [f"/{_BUILT}: has shared caches of a macOS before 11, not of 21H1320: not harvested"]


@pytest.mark.parametrize("place", ["Library/Apple/usr/libexec/oah", f"{_OS}/System/Library/NewCaches"])
def test_a_cache_where_none_is_looked_for_is_not_passed_over(place: str, library: Library, tmp_path: Path) -> None:
    root = system(tmp_path / "root", "28.0", {f"{_OS}/{_DYLD}": ("arm64e",), place: ("x86_64",)})
    result = run(root, library, tmp_path)
    (problem,) = result.problems
    assert problem.startswith(f"/{place}/dyld_shared_cache_x86_64: is a shared cache in a place where none is looked")


def test_a_family_of_any_name_is_not_the_system(library: Library, tmp_path: Path) -> None:
    root = system(tmp_path / "root", "13.6.9", {f"{_OS}/{_DYLD}": ("arm64e",), f"System/New_Kit/{_DYLD}": ("x86_64",)})
    (problem,) = run(root, library, tmp_path).problems
    assert "no system shared cache of x86_64 was found" in problem


def test_nobody_misses_what_the_site_does_not_want(library: Library, tmp_path: Path) -> None:
    root = system(tmp_path / "root", "13.6.9", {f"{_OS}/{_DYLD}": ("arm64e",)})
    assert harvest(DirectorySource(root), library, staging=tmp_path / "1", wanted=(("arm64e",), ())).sealed
    assert harvest(DirectorySource(root), library, staging=tmp_path / "2", wanted=((), ("driverkit",))).sealed
    assert not harvest(DirectorySource(root), library, staging=tmp_path / "3", wanted=(("x86_64",), ())).sealed


def test_a_harvest_of_some_architectures_says_so(library: Library, tmp_path: Path) -> None:
    root = system(tmp_path / "root", "13.6.9", {f"{_OS}/{_DYLD}": ("arm64e", "x86_64")})
    assert harvest(DirectorySource(root), library, staging=tmp_path / "staging", archs=("arm64e",)).sealed
    found = verify(library, level=Level.CATALOG).findings
    assert [(f.arch, f.elsewhere) for f in found] == [("x86_64", True), ("x86_64h", True)]


def test_an_update_is_left_out_and_what_is_staged_of_this_build_is_not(library: Library, tmp_path: Path) -> None:
    pending = f"{_PREBOOT}/Incoming/OS"
    root = system(tmp_path / "root", "28.0", {f"{_OS}/{_DYLD}": ("arm64e",), f"{pending}/{_DYLD}": ("arm64e update",)})
    services = root / pending / "System/Library/CoreServices"
    services.mkdir()
    plist = services / "SystemVersion.plist"
    plist.write_bytes(system_version(ProductVersion="28.1", ProductBuildVersion="2A2"))
    result = run(root, library, tmp_path)
    assert (result.sealed, len(result.caches)) == (True, 1)
    assert any("is of an update that is prepared, not of 1A1" in n for n in result.notes)
    plist.write_bytes(system_version(ProductVersion="28.0", ProductBuildVersion="1A1"))
    assert len(run(root, library, tmp_path).caches) == 2


def test_a_file_that_lies_in_a_prepared_cryptex_as_well_is_listed_once(
    loose: Path, library: Library, tmp_path: Path
) -> None:
    pending = f"{_PREBOOT}/Incoming/OS"
    root = system(tmp_path / "root", "28.0", {f"{_OS}/{_DYLD}": ("arm64e",), f"{pending}/{_DYLD}": ("arm64e",)})
    services = root / pending / "System/Library/CoreServices"
    services.mkdir()
    (services / "SystemVersion.plist").write_bytes(system_version(ProductVersion="28.0", ProductBuildVersion="1A1"))
    other = compile_image(tmp_path / "other", "libother.dylib", "int other(void) { return 2; }")
    for file, folder in ((loose, _OS), (loose, pending), (other, pending)):
        (root / folder / "usr/lib").mkdir(parents=True, exist_ok=True)
        shutil.copy(file, root / folder / "usr/lib")
    assert run(root, library, tmp_path).sealed
    assert {o.path for o in library.by_name("libloose.dylib")} == {f"/{_OS}/usr/lib/libloose.dylib"}
    assert {o.path for o in library.by_name("libother.dylib")} == {f"/{pending}/usr/lib/libother.dylib"}


def fault(root: Path, name: str) -> str:
    """Do one harm to a good system; return what must be named."""
    folder = root / _OS / _DYLD
    main, driver = folder / "dyld_shared_cache_arm64e", root / _OS / "System/DriverKit" / _DYLD
    match name:
        case "a link to no cryptex":
            (root / "System/Cryptexes/App").symlink_to("../../System/Volumes/Preboot/Cryptexes/App")
            return "/System/Cryptexes/App: is listed, and leads to no cryptex"
        case "a cache without its main file":
            (driver / "dyld_shared_cache_arm64e").rename(driver / "dyld_shared_cache_arm64e.01")
            return "dyld_shared_cache_arm64e.01: is a part of a shared cache"
        case "a cache that is a link":
            (driver / "dyld_shared_cache_arm64e").rename(root / "moved")
            (driver / "dyld_shared_cache_arm64e").symlink_to("/moved")
            return "dyld_shared_cache_arm64e: is called a shared cache, and is a link"
        case "a cache that is none":
            (driver / "dyld_shared_cache_arm64e").write_bytes(bytes(4096))
            return "is called a shared cache, and begins with"
        case "one UUID twice":
            data = bytearray(files_of("x86_64")["dyld_shared_cache_x86_64"])
            data[0x58:0x68] = main.read_bytes()[0x58:0x68]
            (folder / "dyld_shared_cache_x86_64").write_bytes(data)
            return "dyld_shared_cache_x86_64: has the UUID of "
        case "one UUID twice, and as large":
            other = root / "System/Library/Caches/com.apple.dyld"
            other.mkdir(parents=True)
            for file, data in files_of("arm64e").items():
                (other / file).write_bytes(data.replace(b"/libplain.dylib", b"/libother.dylib"))
            return "com.apple.dyld/dyld_shared_cache_arm64e: has the UUID of "
        case "two builds":
            services = root / _OS / "System/Library/CoreServices"
            services.mkdir()
            (services / "SystemVersion.plist").write_bytes(
                system_version(ProductVersion="28.0", ProductBuildVersion="1A0")
            )
            return "SystemVersion.plist: is of macOS 28.0 (1A1), and other parts of macOS 28.0 (1A0)"
        case "one bit":
            data = bytearray(main.read_bytes())
            data[0x4000 * 3 + 5] ^= 1
            main.write_bytes(data)
            return "dyld_shared_cache_arm64e: page 3 of "
        case _:
            raise ValueError(name)


@pytest.mark.parametrize(
    "name",
    [
        "a link to no cryptex",
        "a cache without its main file",
        "a cache that is a link",
        "a cache that is none",
        "one UUID twice",
        "one UUID twice, and as large",
        "two builds",
        "one bit",
    ],
)
def test_what_is_wrong_is_named_and_never_sealed(name: str, library: Library, tmp_path: Path) -> None:
    caches: Caches = {
        f"{_OS}/{_DYLD}": ("arm64e", "x86_64"),
        f"{_OS}/System/DriverKit/{_DYLD}": ("arm64e driverkit",),
    }
    root = system(tmp_path / "root", "28.0", caches)
    said = fault(root, name)
    result = run(root, library, tmp_path)
    assert not result.sealed
    assert [p for p in result.problems if said in p], result.problems


def test_more_than_any_macos_could_have_ends_somewhere(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("symcache_provisioning.sources.discovery._MAX_PLACES", 5)
    monkeypatch.setattr("symcache_provisioning.sources.discovery._MAX_CACHES", 2)
    caches: Caches = {f"{_OS}/{_DYLD}": ("arm64e", "x86_64"), f"{_OS}/System/DriverKit/{_DYLD}": ("arm64e driverkit",)}
    root = system(tmp_path / "root", "28.0", caches)
    for number in range(9):
        (root / _PREBOOT / f"C{number}").mkdir()
        (root / _OS / f"System/F{number}").mkdir()
    source = DirectorySource(root, limits=Limits(images=_IMAGES))
    result = harvest(source, library, staging=tmp_path / "staging")
    assert not result.sealed
    for said in ("cryptexes: only 5", "folders: only 5", "more than 2 shared caches", f"more than {_IMAGES} images"):
        assert [p for p in result.problems if said in p], (said, result.problems)
    assert result.images == _IMAGES


def test_a_rapid_security_response_is_no_mixture(library: Library, tmp_path: Path) -> None:
    root = system(tmp_path / "root", "13.3.1", {f"{_OS}/{_DYLD}": ("arm64e", "x86_64")}, build="22E261")
    services = root / _OS / "System/Library/CoreServices"
    services.mkdir()
    response = {"ProductVersion": "13.3.1", "ProductVersionExtra": "(a)", "ProductBuildVersion": "22E772610a"}
    (services / "SystemVersion.plist").write_bytes(system_version(**response))
    result = run(root, library, tmp_path)
    assert (result.sealed, result.release.build) == (True, "22E772610a")


def test_a_link_to_exclaves_that_this_mac_does_not_run_is_no_problem(library: Library, tmp_path: Path) -> None:
    root = system(tmp_path / "root", "14.6.1", {f"{_OS}/{_DYLD}": ("arm64e", "x86_64")})
    (root / "System/Cryptexes/ExclaveOS").symlink_to("../../System/Volumes/Preboot/Cryptexes/ExclaveOS")
    assert run(root, library, tmp_path).sealed
