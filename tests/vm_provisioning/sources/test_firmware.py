"""Restore images, by a stand-in for the `ipsw` program with that one's own texts and exit codes.

From its source (3.1.7xx: cmd/ipsw/cmd/mount.go, internal/commands/mount/mount.go, pkg/info/info.go): errors end the
output, behind the usage; Go's panics end it with 2.
"""

from __future__ import annotations

import os
import plistlib
import shutil
import zipfile
from pathlib import Path

import pytest

from symcache.errors import EnvironmentFailure, NotFoundError, UsageError
from symcache.library import Library
from symcache_provisioning import DirectorySource, IpswSource, harvest
from symcache_provisioning.sources.firmware import OverlaidSource
from tests.cachewriter import CacheOptions, build_cache
from tests.cachewriter.samples import sample
from tests.support.permissions import bound_by_modes
from tests.support.systems import BUILD, CACHES, images_in, make_system, system_version

_PROGRAM = """#!/bin/sh
# usage: ipsw mount VOLUME IMAGE -m FOLDER
echo "$@" >> "{log}"
volume="{volumes}/$2"
fail() {{
    printf 'Usage:\\n  ipsw mount [app|sys|fs|exc|rdisk|rosetta] IPSW [flags]\\n\\nAliases:\\n  mount, mo\\n\\n' >&2
    printf '   ⨯ failed to mount %s DMG: %s\\n' "$1" "$2" >&2
    exit 1
}}
if [ -f "$volume.failure" ]; then fail "$2" "$(cat "$volume.failure")"; fi
if [ -f "$volume.panic" ]; then cat "$volume.panic" >&2; exit 2; fi
if [ ! -d "$volume" ]; then
    case "$2" in
    fs) fail fs "failed to get filesystem DMG: no filesystem DMG found: cryptex not found" ;;
    rosetta) fail rosetta "failed to get RosettaOS DMG: no RosettaOS DMG found: cryptex not found" ;;
    sys) volume="{volumes}/fs"
        echo "   • could not find SystemOS DMG; trying filesystem DMG (older IPSWs don't have cryptexes)" >&2 ;;
    esac
fi
[ "$2" != "{slow}" ] || sleep 60
place="$5"
if [ -f "$volume.elsewhere" ]; then
    place="$(cat "$volume.elsewhere")"
    echo "   • $2 DMG already mounted at $place" >&2
else
    cp -a "$volume/." "$place"
    echo "   • Mounted $2 DMG 098-12345-678.dmg" >&2
fi
trap 'rm -rf "$place"/* "$place"/.[!.]*; echo "unmounted $2" >> "{log}"; exit 0' INT
echo "      • Press Ctrl+C to unmount '$place' ..." >&2
while :; do sleep 0.1; done
"""
_FULL = "failed to extract 043-70701-646.dmg.aea from IPSW: write /tmp/043-70701-646.dmg.aea: no space left on device"
_NO_FUSE = (
    "failed to mount /tmp/043-70701-646.dmg: failed to mount /tmp/043-70701-646.dmg: failed to find apfs-fuse:"
    " apfs-fuse not found in PATH or common locations: Install apfs-fuse or set IPSW_APFS_FUSE_PATH environment"
    " variable. (snap users: try 'sudo snap connect ipsw:system-files' if available)"
)
_FUSE = (
    "failed to mount /tmp/043-70701-646.dmg: failed to mount /tmp/043-70701-646.dmg: failed to mount"
    " '/tmp/043-70701-646.dmg' via apfs-fuse: exit status 1: cmd output - 'Unable to init container\n'"
)
_SEVERAL = (
    "failed to get SystemOS DMG: multiple SystemOS images found; select a target with --device: 043-70701-646.dmg.aea"
    " [Mac13,1, Mac14,8]; 094-72631-342.dmg.aea [Mac18,5]"
)
_UNKNOWN = "invalid subcommand: rosetta; must be one of: 'app', 'sys', 'fs', 'exc', 'rdisk'"
_PANIC = """panic: flate: corrupt input before offset 628560804

goroutine 1 [running]:
github.com/blacktop/ipsw/internal/utils.Unzip.func2.1()
\tgithub.com/blacktop/ipsw/internal/utils/utils.go:296 +0x44
"""


class Ipsw:
    """An image, and a program on PATH that opens it."""

    def __init__(self, folder: Path) -> None:
        self.image = folder / "UniversalMac_13.5.1_22G120_Restore.ipsw"
        self.volumes, self.log, self.bin = folder / "volumes", folder / "log", folder / "bin"
        with zipfile.ZipFile(self.image, "w") as archive:
            archive.writestr("BuildManifest.plist", "")
        system = make_system(folder / "system", caches=("arm64e",))
        self.volumes.mkdir()
        (system / "System/Volumes/Preboot/Cryptexes/OS").rename(self.volumes / "sys")
        # The system volume on its own has an empty folder where others are mounted.
        for left in ("System/Volumes/Preboot/Cryptexes", "System/Volumes/Preboot"):
            (system / left).rmdir()
        system.rename(self.volumes / "fs")
        self.bin.mkdir()
        self.install()

    def install(self, slow: str = "") -> None:
        program = self.bin / "ipsw"
        program.write_text(_PROGRAM.format(log=self.log, volumes=self.volumes, slow=slow))
        program.chmod(0o755)

    def said(self) -> list[str]:
        return [line.split(" /")[0] for line in self.log.read_text().splitlines()]


@pytest.fixture
def ipsw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ipsw:
    made = Ipsw(tmp_path)
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return made


def say_version(ipsw: Ipsw, version: str, build: str) -> None:
    plist = ipsw.volumes / "fs/System/Library/CoreServices/SystemVersion.plist"
    plist.write_bytes(system_version(ProductVersion=version, ProductBuildVersion=build))


def mount_points(folder: Path) -> list[Path]:
    return list(folder.glob("symcache-ipsw-*"))


def test_volumes_of_an_image_are_one_system_again(ipsw: Ipsw, library: Library, tmp_path: Path) -> None:
    with IpswSource(ipsw.image) as source:
        result = harvest(source, library, staging=tmp_path / "staging")
        assert mount_points(tmp_path)
    assert (result.sealed, result.problems) == (True, [])
    assert result.release.build == BUILD
    assert result.source == str(ipsw.image)
    assert result.images == images_in("arm64e") + 4
    assert ipsw.said() == ["mount fs", "mount sys", "mount rosetta", "unmounted sys", "unmounted fs"]
    assert not mount_points(tmp_path)


def test_as_apfs_fuse_shows_it(ipsw: Ipsw) -> None:
    inner = ipsw.volumes / "inner"
    (ipsw.volumes / "fs").rename(inner)
    (ipsw.volumes / "fs/private-dir").mkdir(parents=True)
    inner.rename(ipsw.volumes / "fs/root")
    with IpswSource(ipsw.image) as source:
        assert source.identity().build == BUILD
        assert [c.arch for c in source.caches()] == ["arm64e"]


def test_the_rosetta_cryptex_lies_where_a_mac_has_it(ipsw: Ipsw) -> None:
    folder = "System/x86Support/System/Library/dyld"
    (ipsw.volumes / "rosetta" / folder).mkdir(parents=True)
    build_cache(sample(CACHES["x86_64"]), CACHES["x86_64"]).write(ipsw.volumes / "rosetta" / folder)
    (ipsw.volumes / "rosetta/usr/lib").mkdir(parents=True)
    shutil.copy(ipsw.volumes / "fs/usr/bin/tool", ipsw.volumes / "rosetta/usr/lib/libMTLHud.dylib")
    with IpswSource(ipsw.image) as source:
        cryptex = "/System/Volumes/Preboot/Cryptexes/Rosetta"
        assert f"{cryptex}/{folder}/dyld_shared_cache_x86_64" in [c.path for c in source.caches()]
        assert f"{cryptex}/usr/lib/libMTLHud.dylib" in [e.path for e in source.mach_o_files()]


def test_a_cache_folder_that_cannot_be_read(ipsw: Ipsw, library: Library, tmp_path: Path) -> None:
    shutil.copytree(ipsw.volumes / "sys/System/Library/dyld", ipsw.volumes / "fs/System/Library/dyld")
    with IpswSource(ipsw.image) as source:
        folder = mount_points(tmp_path)[0] / "sys/System/Library/dyld"
        folder.chmod(0)
        with bound_by_modes():
            result = harvest(source, library, staging=tmp_path / "staging")
        folder.chmod(0o755)
    assert not result.sealed
    (problem,) = result.problems
    assert "Cryptexes/OS/System/Library/dyld: not readable for this user" in problem


def test_an_image_without_a_system_volume(ipsw: Ipsw, tmp_path: Path) -> None:
    (ipsw.volumes / "fs").rename(tmp_path / "away")
    with pytest.raises(EnvironmentFailure, match=r"`ipsw mount fs` ended with 1: .+no filesystem DMG found"):
        IpswSource(ipsw.image).__enter__()
    assert not mount_points(tmp_path)


@pytest.mark.parametrize(
    ("volume", "why", "said"),
    [
        ("sys", _FULL, "no space left on device"),
        ("sys", _NO_FUSE, "apfs-fuse not found in PATH"),
        ("sys", _FUSE, "exit status 1: cmd output - 'Unable to init container '"),
        ("sys", _SEVERAL, "select a target with --device: 043-70701-646.dmg.aea"),
        ("rosetta", _FULL, "no space left on device"),
        ("rosetta", "failed to get RosettaOS DMG: multiple RosettaOS DMGs found", "multiple RosettaOS DMGs found"),
        ("rosetta", _UNKNOWN, "invalid subcommand: rosetta"),
    ],
)
def test_an_image_that_fails_to_mount_ends_the_harvest(
    volume: str, why: str, said: str, ipsw: Ipsw, tmp_path: Path
) -> None:
    (ipsw.volumes / f"{volume}.failure").write_text(why)
    with pytest.raises(EnvironmentFailure) as raised:
        IpswSource(ipsw.image).__enter__()
    assert f"`ipsw mount {volume}` ended with 1: failed to mount {volume} DMG: " in str(raised.value)
    assert said in str(raised.value)
    assert "unmounted fs" in ipsw.said()
    assert not mount_points(tmp_path)


def test_a_program_that_breaks_down_ends_the_harvest(ipsw: Ipsw, tmp_path: Path) -> None:
    (ipsw.volumes / "sys.panic").write_text(_PANIC)
    with pytest.raises(EnvironmentFailure, match="ended with 2: panic: flate: corrupt input before offset 628560804"):
        IpswSource(ipsw.image).__enter__()
    assert not mount_points(tmp_path)


def test_an_image_that_is_mounted_elsewhere_is_not_taken_for_an_empty_one(ipsw: Ipsw, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "in use").touch()
    (ipsw.volumes / "sys.elsewhere").write_text(str(elsewhere))
    with pytest.raises(EnvironmentFailure, match=f"`ipsw mount sys` says that it is mounted at {elsewhere} already"):
        IpswSource(ipsw.image).__enter__()
    assert (elsewhere / "in use").exists()
    assert not mount_points(tmp_path)


def test_before_macos_13_the_caches_lie_in_the_system_volume(ipsw: Ipsw, library: Library, tmp_path: Path) -> None:
    say_version(ipsw, "12.7.6", "21H1320")
    (ipsw.volumes / "sys/System/Library/dyld").rename(ipsw.volumes / "fs/System/Library/dyld")
    shutil.rmtree(ipsw.volumes / "sys")
    for arch in ("x86_64", "x86_64h"):
        options = CacheOptions(arch=arch)
        build_cache(sample(options)[:2], options).write(ipsw.volumes / "fs/System/Library/dyld")
    with IpswSource(ipsw.image) as source:
        result = harvest(source, library, staging=tmp_path / "staging")
    assert (result.sealed, result.problems) == (True, [])
    caches = [f"/System/Library/dyld/dyld_shared_cache_{arch}" for arch in ("arm64e", "x86_64", "x86_64h")]
    assert [c.path for c in result.caches] == caches
    assert ipsw.said()[-2:] == ["unmounted sys", "unmounted fs"]


def test_an_image_without_the_cryptex_that_it_must_have(ipsw: Ipsw, library: Library, tmp_path: Path) -> None:
    shutil.rmtree(ipsw.volumes / "sys")
    with IpswSource(ipsw.image) as source:
        result = harvest(source, library, staging=tmp_path / "staging")
    assert not result.sealed
    (problem,) = result.problems
    assert "no system shared cache was found" in problem
    assert "see whether `ipsw mount sys` of this image shows a folder System/Library/dyld" in problem


def test_a_mount_that_hangs(ipsw: Ipsw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ipsw.install(slow="sys")
    monkeypatch.setattr("symcache_provisioning.sources.firmware._MOUNT_SECONDS", 2)
    monkeypatch.setattr("symcache_provisioning.sources.firmware._UNMOUNT_SECONDS", 2)
    with pytest.raises(EnvironmentFailure, match="did not finish in 2 seconds"):
        IpswSource(ipsw.image).__enter__()
    assert "unmounted fs" in ipsw.said()
    assert not mount_points(tmp_path)


def test_without_the_program(ipsw: Ipsw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(EnvironmentFailure, match="is not installed") as raised:
        IpswSource(ipsw.image)
    assert "blacktop/ipsw" in raised.value.hint


def test_what_is_no_restore_image(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        IpswSource(tmp_path / "nothing.ipsw")
    (tmp_path / "text.ipsw").write_text("<html>")
    with pytest.raises(UsageError, match="is no restore image"):
        IpswSource(tmp_path / "text.ipsw")


def test_parts_lie_where_they_belong(tmp_path: Path) -> None:
    for part in ("fs/System/Library", "sys/System/Library"):
        (tmp_path / part).mkdir(parents=True)
    (tmp_path / "sys/System/Library/inside").write_text("x")
    parts = {"/": tmp_path / "fs", "/System/Volumes/Preboot/Cryptexes/OS": tmp_path / "sys"}
    source = OverlaidSource("both", parts)
    found = source.resolve("/System/Volumes/Preboot/Cryptexes/OS/System/Library/inside")
    assert found is not None
    assert source.fetch(found, tmp_path / "unused") == tmp_path / "sys/System/Library/inside"
    assert source.resolve("/System/Volumes/Preboot/Cryptexes/Other") is None
    with pytest.raises(NotFoundError, match="holds no macOS system"):
        source.identity()
    assert DirectorySource(tmp_path).name == str(tmp_path)


@pytest.mark.parametrize(
    ("manifest", "host"),
    [
        ({"SupportedProductTypes": ["VirtualMac2,1", "Mac14,8", "Mac14,8"]}, "Mac14,8 VirtualMac2,1"),
        ({"SupportedProductTypes": ["../../etc", 3, "x" * 5000, "Mac18,5"]}, "Mac18,5"),
        ({"SupportedProductTypes": "Mac14,8"}, ""),
        ({}, ""),
        (b"no property list", ""),
    ],
)
def test_the_record_names_the_models_that_the_image_is_for(
    manifest: dict[str, object] | bytes, host: str, ipsw: Ipsw
) -> None:
    with zipfile.ZipFile(ipsw.image, "w") as archive:
        data = manifest if isinstance(manifest, bytes) else plistlib.dumps(manifest)
        archive.writestr("BuildManifest.plist", data)
    assert IpswSource(ipsw.image).host() == host
