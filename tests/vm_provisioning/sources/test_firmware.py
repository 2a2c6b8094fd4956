"""Restore images, by a stand-in for the `ipsw` program with that one's own texts and exit codes."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from symcache.cli.app import application
from symcache.errors import EnvironmentFailure, IntegrityError, NotFoundError, StorageError
from symcache.library import Library
from symcache.model import HarvestRecord
from symcache.store import RecordKey, read_record
from symcache_provisioning import DirectorySource, IpswSource, harvest
from symcache_provisioning.sources.firmware import OverlaidSource
from tests.support.apple import made_firmware
from tests.support.permissions import bound_by_modes
from tests.support.restore_images import (
    APP,
    EXCLAVES,
    FILE_SYSTEM,
    ROSETTA,
    SYSTEM,
    RestoreImage,
    identity,
    manifest,
)
from tests.support.systems import BUILD, images_in, make_system, system_version
from tests.vm_provisioning.test_layouts import put

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


_FILES = {FILE_SYSTEM: "098-1.dmg", SYSTEM: "098-2.dmg.aea"}


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The system volume and the OS cryptex of one system. Nobody writes into them."""
    folder = tmp_path_factory.mktemp("volumes")
    system = make_system(folder / "fs", caches=("arm64e",))
    (system / "System/Volumes/Preboot/Cryptexes/OS").rename(folder / "sys")
    # The system volume on its own has an empty folder where others are mounted.
    for left in ("System/Volumes/Preboot/Cryptexes", "System/Volumes/Preboot"):
        (system / left).rmdir()
    return folder


@pytest.fixture
def ipsw(volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RestoreImage:
    made = RestoreImage(tmp_path)
    made.write((["Mac13,1", "Mac14,8"], _FILES))
    for volume in ("fs", "sys"):
        shutil.copytree(volumes / volume, made.volumes / volume, symlinks=True)
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("symcache_provisioning.sources.ipsw_mount._DETACH_SECONDS", 0.2)
    return made


def say_version(ipsw: RestoreImage, version: str, build: str) -> None:
    plist = ipsw.volumes / "fs/System/Library/CoreServices/SystemVersion.plist"
    plist.write_bytes(system_version(ProductVersion=version, ProductBuildVersion=build))


def host_in(library: Library) -> str:
    (key,) = map(RecordKey.parse, library.store.list("records/"))
    assert key
    _, record = read_record(library.store, key)
    assert isinstance(record, HarvestRecord)
    return record.host


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def leftovers(folder: Path) -> list[Path]:
    return list(folder.glob("symcache-ipsw-*"))


def test_volumes_of_an_image_are_one_system_again(ipsw: RestoreImage, library: Library, tmp_path: Path) -> None:
    with IpswSource(ipsw.file) as source:
        result = harvest(source, library, staging=tmp_path / "staging")
        (folder,) = leftovers(tmp_path)
        assert names_in(folder / "images") == ["098-1.dmg", "098-2.dmg"]
    assert (result.sealed, result.problems) == (True, [])
    assert result.release.build == BUILD
    assert result.source == str(ipsw.file)
    assert result.images == images_in("arm64e") + 4
    assert host_in(library) == "Mac13,1 Mac14,8"
    assert ipsw.said() == ["mount fs", "mount sys", "unmounted sys", "unmounted fs"]
    assert not leftovers(tmp_path)


def test_as_apfs_fuse_shows_it(ipsw: RestoreImage) -> None:
    inner = ipsw.volumes / "inner"
    (ipsw.volumes / "fs").rename(inner)
    (ipsw.volumes / "fs/private-dir").mkdir(parents=True)
    inner.rename(ipsw.volumes / "fs/root")
    with IpswSource(ipsw.file) as source:
        assert source.identity().build == BUILD
        assert [c.arch for c in source.caches()] == ["arm64e"]


def test_every_cryptex_lies_where_a_mac_has_it(ipsw: RestoreImage) -> None:
    more = {APP: "098-3.dmg", ROSETTA: "098-4.dmg", EXCLAVES: "098-5.dmg"}
    ipsw.write((["Mac13,1"], _FILES | more))
    put(ipsw.volumes, "rosetta/System/x86Support/System/Library/dyld", "x86_64")
    for part in (
        "app/usr/libexec/safari",
        "rosetta/usr/lib/libMTLHud.dylib",
        "exc/System/ExclaveKit/usr/lib/libc.dylib",
    ):
        (ipsw.volumes / part).parent.mkdir(parents=True)
        shutil.copy(ipsw.volumes / "fs/usr/bin/tool", ipsw.volumes / part)
    with IpswSource(ipsw.file) as source:
        caches, files = [c.path for c in source.caches()], [e.path for e in source.mach_o_files()]
    cryptexes = "/System/Volumes/Preboot/Cryptexes"
    assert caches == [
        f"{cryptexes}/OS/System/Library/dyld/dyld_shared_cache_arm64e",
        f"{cryptexes}/Rosetta/System/x86Support/System/Library/dyld/dyld_shared_cache_x86_64",
    ]
    assert [f.removeprefix(cryptexes) for f in files if "OS/usr" not in f and f.startswith(cryptexes)] == [
        "/App/usr/libexec/safari",
        "/ExclaveOS/System/ExclaveKit/usr/lib/libc.dylib",
        "/Rosetta/usr/lib/libMTLHud.dylib",
    ]
    assert not source.problems
    assert ipsw.said()[:5] == [f"mount {volume}" for volume in ("fs", "sys", "app", "rosetta", "exc")]


def two_systems(ipsw: RestoreImage) -> None:
    """As in 27.0, though the one of a single product comes first in the manifest."""
    ipsw.write(
        (["Mac18,5"], _FILES | {SYSTEM: "094-9.dmg.aea"}),
        (["Mac13,1", "Mac14,8"], _FILES),
    )
    put(ipsw.volumes, "sys@Mac18,5/System/Library/dyld", "arm64e_x1")
    (ipsw.volumes / "sys@Mac13,1").symlink_to("sys")


def test_each_of_several_images_is_mounted_once(ipsw: RestoreImage, library: Library, tmp_path: Path) -> None:
    two_systems(ipsw)
    with IpswSource(ipsw.file) as source:
        result = harvest(source, library, staging=tmp_path / "staging")
    assert (result.sealed, result.problems) == (True, [])
    cryptexes = "/System/Volumes/Preboot/Cryptexes"
    assert [(c.path, c.arch) for c in result.caches] == [
        (f"{cryptexes}/OS/System/Library/dyld/dyld_shared_cache_arm64e", "arm64e"),
        (f"{cryptexes}/OS-Mac18,5/System/Library/dyld/dyld_shared_cache_arm64e_x1", "arm64e.x1"),
    ]
    assert ipsw.said()[:3] == ["mount fs", "mount sys --device Mac13,1", "mount sys --device Mac18,5"]


def test_one_of_several_images_without_a_cache(ipsw: RestoreImage, library: Library, tmp_path: Path) -> None:
    two_systems(ipsw)
    shutil.rmtree(ipsw.volumes / "sys@Mac18,5/System/Library/dyld")
    with IpswSource(ipsw.file) as source:
        result = harvest(source, library, staging=tmp_path / "staging")
    assert not result.sealed
    (problem,) = result.problems
    assert problem.startswith("094-9.dmg.aea (Cryptex1,SystemOS of Mac18,5): holds no shared cache: see whether `ipsw")


def test_a_program_that_cannot_choose_among_several(ipsw: RestoreImage, tmp_path: Path) -> None:
    two_systems(ipsw)
    ipsw.make_old()
    with pytest.raises(
        EnvironmentFailure, match="`ipsw mount sys --device Mac13,1` ended with 1: unknown flag: --device"
    ) as raised:
        IpswSource(ipsw.file).__enter__()
    assert "`--device` one from after August 2026" in raised.value.hint
    assert not leftovers(tmp_path)


def test_a_program_that_mounts_another_image(ipsw: RestoreImage, tmp_path: Path) -> None:
    ipsw.state("sys", "name", "094-9.dmg.aea")
    with pytest.raises(EnvironmentFailure, match=r"`ipsw mount sys` mounted 094-9\.dmg where 098-2\.dmg\.aea .* was"):
        IpswSource(ipsw.file).__enter__()
    assert "unmounted sys" in ipsw.said()
    assert not leftovers(tmp_path)


def test_what_the_program_does_not_find_is_lacking(ipsw: RestoreImage, library: Library, tmp_path: Path) -> None:
    ipsw.write((["Mac13,1"], _FILES | {ROSETTA: "098-4.dmg"}))
    ipsw.state("rosetta", "failure", "failed to get RosettaOS DMG: no RosettaOS DMG found: cryptex not found")
    with IpswSource(ipsw.file) as source:
        result = harvest(source, library, staging=tmp_path / "staging")
    assert not result.sealed
    (problem,) = result.problems
    assert problem.startswith("098-4.dmg (Cryptex1,RosettaOS): `ipsw mount rosetta` does not find it")


def test_a_cryptex_that_nobody_knows_yet_is_lacking(ipsw: RestoreImage, library: Library, tmp_path: Path) -> None:
    files = identity("Mac13,1", "j375cap", _FILES | {"Cryptex1,NewOS": "new.dmg", "Cryptex1,NewVolume": "root_hash"})
    with zipfile.ZipFile(ipsw.file, "w") as archive:
        archive.writestr("BuildManifest.plist", manifest([files]))
        for name in _FILES.values():
            archive.writestr(name, "")
    with IpswSource(ipsw.file) as source:
        result = harvest(source, library, staging=tmp_path / "staging")
    assert not result.sealed
    (problem,) = result.problems
    assert problem.startswith("Cryptex1,NewOS: is a cryptex of this firmware that cannot be mounted: harvest a Mac")


def test_a_disk_that_is_too_small_is_told_of_before(ipsw: RestoreImage, tmp_path: Path, monkeypatch: Any) -> None:
    ipsw.write((["Mac13,1"], {FILE_SYSTEM: "a" * 200, SYSTEM: "b" * 96 + ".aea"}))  # as large as their names are long
    need = (64 << 20) + 200 + 2 * 100

    def free(there: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=there))

    free(need - 1)
    with pytest.raises(StorageError, match=r"64 MiB are free where 65 MiB are needed, .+ of 64 MiB") as raised:
        IpswSource(ipsw.file).__enter__()
    assert "TMPDIR" in raised.value.hint
    assert not ipsw.said()
    assert not leftovers(tmp_path)
    free(need)
    with IpswSource(ipsw.file):
        pass


def test_another_build_than_the_manifest_names(ipsw: RestoreImage) -> None:
    say_version(ipsw, "13.5.2", "22G91")
    with IpswSource(ipsw.file) as source, pytest.raises(IntegrityError, match="is of 22G120, and its system of 22G91"):
        source.identity()


def test_what_stays_mounted_is_told(ipsw: RestoreImage, tmp_path: Path) -> None:
    ipsw.state("sys", "stuck")
    told: list[str] = []
    with IpswSource(ipsw.file, announce=told.append):
        (folder,) = leftovers(tmp_path)
    (sentence,) = told
    assert sentence == (
        f"{folder}/sys-01: is still mounted, as `ipsw mount sys` ended with 130 (interrupted: forcing exit):"
        f" unmount it by `umount {folder}/sys-01`, then remove {folder}"
    )
    # Its disk image, too: a mounted one must not lose it.
    assert names_in(folder) == ["images", "sys-01"]
    assert names_in(folder / "images") == ["098-2.dmg"]
    assert (folder / "sys-01/System").is_dir()


def test_what_killed_harvests_left_is_removed_unless_it_is_mounted(ipsw: RestoreImage, tmp_path: Path) -> None:
    root = os.geteuid() == 0
    names = ["idle", "mounted", "young", "used", *(["foreign"] if root else [])]
    folders = {name: tmp_path / f"symcache-ipsw-{name}" for name in names}
    for name, folder in folders.items():
        for part in ("images", "fs-00", "sys-01"):
            (folder / part).mkdir(parents=True)
        (folder / "images/098-1.dmg").touch()
        if name == "mounted":
            (folder / "fs-00/System").mkdir()
        if name == "foreign":
            os.chown(folder, 12345, -1)
        if name != "young":
            os.utime(folder, (0, 0))
    used = os.open(folders["used"], os.O_RDONLY)
    fcntl.flock(used, fcntl.LOCK_EX)
    told: list[str] = []
    with IpswSource(ipsw.file, announce=told.append):
        (own,) = {*leftovers(tmp_path)} - {*folders.values()}
        os.utime(own, (0, 0))
        with IpswSource(ipsw.file):
            assert own.exists()
    os.close(used)
    assert [name for name, folder in folders.items() if not folder.exists()] == ["idle"]
    mounted = folders["mounted"]
    assert names_in(mounted) == ["fs-00", "images"]
    assert names_in(mounted / "images") == ["098-1.dmg"]
    (sentence,) = told
    assert sentence == (
        f"{mounted}/fs-00: is mounted since a harvest that was killed: unmount it by `umount {mounted}/fs-00`, then"
        f" remove {mounted}"
    )


def test_what_a_person_sees(ipsw: RestoreImage, tmp_path: Path) -> None:
    ipsw.state("fs", "stuck")
    ipsw.write((["Mac13,1"], _FILES | {ROSETTA: "098-4.dmg"}))
    ipsw.state("rosetta", "failure", "failed to get RosettaOS DMG: no RosettaOS DMG found: cryptex not found")
    command = ["harvest", str(ipsw.file), "--library", str(tmp_path / "l"), "--staging", str(tmp_path / "s")]
    ran = CliRunner().invoke(application("harvest"), command)
    said = " ".join(ran.output.split())
    assert ran.exit_code == 1, said
    assert "fs-00: is still mounted, as `ipsw mount fs` ended with 130" in said
    assert "problem: 098-4.dmg (Cryptex1,RosettaOS): `ipsw mount rosetta` does not find it" in said


def test_a_sealed_volume_is_read_as_it_is_mounted(ipsw: RestoreImage, library: Library, tmp_path: Path) -> None:
    """One with two files of one name in two families, which are no whole caches."""
    program = shutil.which("7zz")
    if program is None:
        pytest.skip("not installed: 7zz (apt-get install 7zip)")
    ipsw.write((["Mac13,1"], _FILES | {ROSETTA: "ros.dmg"}))
    image = made_firmware() / "sealed.dmg"
    subprocess.run([program, "x", "-y", f"-o{ipsw.volumes}/rosetta", image], check=True, capture_output=True)
    with IpswSource(ipsw.file) as source:
        result = harvest(source, library, staging=tmp_path / "staging")
    assert not result.sealed
    rosetta = "/System/Volumes/Preboot/Cryptexes/Rosetta/System"
    broken = [f"{rosetta}{family}/Library/dyld/dyld_shared_cache_x86_64: " for family in ("", "/x86Support/System")]
    assert [any(p.startswith(where) for p in result.problems) for where in broken] == [True, True], result.problems


def test_a_cache_folder_that_cannot_be_read(ipsw: RestoreImage, library: Library, tmp_path: Path) -> None:
    shutil.copytree(ipsw.volumes / "sys/System/Library/dyld", ipsw.volumes / "fs/System/Library/dyld")
    with IpswSource(ipsw.file) as source:
        folder = leftovers(tmp_path)[0] / "sys-01/System/Library/dyld"
        folder.chmod(0)
        with bound_by_modes():
            result = harvest(source, library, staging=tmp_path / "staging")
        folder.chmod(0o755)
    assert not result.sealed
    (problem,) = result.problems
    assert "Cryptexes/OS/System/Library/dyld: not readable for this user" in problem


def test_an_image_without_a_system_volume(ipsw: RestoreImage, tmp_path: Path) -> None:
    ipsw.state("fs", "failure", "failed to get filesystem DMG: no filesystem DMG found: cryptex not found")
    with pytest.raises(EnvironmentFailure, match="`ipsw mount fs` finds no system volume"):
        IpswSource(ipsw.file).__enter__()
    assert not leftovers(tmp_path)


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
    volume: str, why: str, said: str, ipsw: RestoreImage, tmp_path: Path
) -> None:
    ipsw.write((["Mac13,1"], _FILES | {ROSETTA: "098-4.dmg"}))
    ipsw.state(volume, "failure", why)
    with pytest.raises(EnvironmentFailure) as raised:
        IpswSource(ipsw.file).__enter__()
    assert f"`ipsw mount {volume}` ended with 1: failed to mount {volume} DMG: " in str(raised.value)
    assert said in str(raised.value)
    assert "unmounted fs" in ipsw.said()
    assert not leftovers(tmp_path)


def test_a_program_that_breaks_down_ends_the_harvest(ipsw: RestoreImage, tmp_path: Path) -> None:
    ipsw.state("sys", "panic", _PANIC)
    with pytest.raises(EnvironmentFailure, match="ended with 2: panic: flate: corrupt input before offset 628560804"):
        IpswSource(ipsw.file).__enter__()
    assert not leftovers(tmp_path)


def test_an_image_that_is_mounted_elsewhere_is_not_taken_for_an_empty_one(ipsw: RestoreImage, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "in use").touch()
    ipsw.state("sys", "elsewhere", str(elsewhere))
    with pytest.raises(EnvironmentFailure, match=f"`ipsw mount sys` says that it is mounted at {elsewhere} already"):
        IpswSource(ipsw.file).__enter__()
    assert (elsewhere / "in use").exists()
    assert not leftovers(tmp_path)


def test_before_macos_13_the_caches_lie_in_the_system_volume(
    ipsw: RestoreImage, library: Library, tmp_path: Path
) -> None:
    say_version(ipsw, "12.7.6", BUILD)
    ipsw.write((["Mac13,1"], {FILE_SYSTEM: "098-1.dmg"}))
    (ipsw.volumes / "sys/System/Library/dyld").rename(ipsw.volumes / "fs/System/Library/dyld")
    shutil.rmtree(ipsw.volumes / "sys")
    put(ipsw.volumes, "fs/System/Library/dyld", "x86_64", "x86_64h")
    with IpswSource(ipsw.file) as source:
        result = harvest(source, library, staging=tmp_path / "staging")
    assert (result.sealed, result.problems) == (True, [])
    caches = [f"/System/Library/dyld/dyld_shared_cache_{arch}" for arch in ("arm64e", "x86_64", "x86_64h")]
    assert [c.path for c in result.caches] == caches
    assert ipsw.said() == ["mount fs", "unmounted fs"]


def test_an_image_without_the_cryptex_that_it_must_have(ipsw: RestoreImage, library: Library, tmp_path: Path) -> None:
    shutil.rmtree(ipsw.volumes / "sys/System/Library/dyld")
    with IpswSource(ipsw.file) as source:
        result = harvest(source, library, staging=tmp_path / "staging")
    assert not result.sealed
    (problem,) = result.problems
    assert "no system shared cache was found" in problem
    assert "see whether `ipsw mount sys` of this image shows a folder System/Library/dyld" in problem


@pytest.mark.timeout(40)
def test_a_mount_that_hangs(ipsw: RestoreImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ipsw.state("sys", "slow")
    monkeypatch.setattr("symcache_provisioning.sources.ipsw_mount._MOUNT_SECONDS", 0.5)
    with pytest.raises(EnvironmentFailure, match=r"did not finish in 0\.5 seconds"):
        IpswSource(ipsw.file).__enter__()
    assert "unmounted fs" in ipsw.said()
    assert not leftovers(tmp_path)


def test_without_the_program(ipsw: RestoreImage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(EnvironmentFailure, match="is not installed") as raised:
        IpswSource(ipsw.file)
    assert "blacktop/ipsw" in raised.value.hint


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
