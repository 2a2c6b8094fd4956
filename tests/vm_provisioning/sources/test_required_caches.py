"""A harvest without the caches that its macOS must have: kept, never sealed, and told what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from symcache.demo.standin import StandInHost
from symcache.library import Library
from symcache_provisioning import DirectorySource, HostKeyTrust, Login, SshSession, SshSource, SshTarget, harvest
from tests.support.systems import CACHE_FOLDER, make_system, system_version

_PREBOOT = "System/Volumes/Preboot/Cryptexes"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_system(tmp_path_factory.mktemp("systems") / "whole", caches=("arm64e",))


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    """A system as its volume is when it is not booted: links to cryptexes that are not there."""
    shutil.copytree(whole, tmp_path / "root", symlinks=True)
    shutil.rmtree(tmp_path / "root" / _PREBOOT)
    return tmp_path / "root"


def say(root: Path, version: str, build: str) -> None:
    plist = root / "System/Library/CoreServices/SystemVersion.plist"
    plist.write_bytes(system_version(ProductVersion=version, ProductBuildVersion=build))


@pytest.mark.parametrize(
    ("version", "build", "sealed"),
    [
        ("10.13.6", "17G66", True),
        ("10.15.7", "19H2026", True),
        ("10.16", "20A5384c", False),
        ("11.7.10", "20G1427", False),
        ("12.7.6", "21H1320", False),
        ("13.6.9", "22G830", False),
        ("26.5", "25F71", False),
        ("27.0", "26A428", False),
        ("28.1", "27B5000a", False),
    ],
)
def test_from_macos_11_on_there_is_no_seal_without_the_system_cache(
    version: str, build: str, sealed: bool, root: Path, library: Library, tmp_path: Path
) -> None:
    say(root, version, build)
    result = harvest(DirectorySource(root), library, staging=tmp_path / "staging")
    assert (result.sealed, len(result.problems)) == (sealed, 0 if sealed else 1)
    assert result.images == 4  # what else it has is kept
    for problem in result.problems:
        assert f"no system shared cache was found, and no harvest of macOS {version} ({build}) is whole" in problem
        grafted = "start it and harvest it over SSH, or attach cryptex1/current/os.dmg" in problem
        assert grafted == (int(version.split(".", maxsplit=1)[0]) >= 13)  # since there are cryptexes


def test_caches_of_other_families_do_not_count(root: Path, whole: Path, library: Library, tmp_path: Path) -> None:
    say(root, "27.0", "26A428")
    for family in ("System/DriverKit", f"{_PREBOOT}/Rosetta/System/x86Support"):
        shutil.copytree(whole / CACHE_FOLDER, root / family / "System/Library/dyld")
    result = harvest(DirectorySource(root), library, staging=tmp_path / "staging")
    assert not result.sealed
    assert [p for p in result.problems if "no system shared cache was found" in p]


def test_the_attached_image_of_the_cryptex_is_a_source_of_its_own(
    whole: Path, library: Library, tmp_path: Path
) -> None:
    services = Path("System/Library/CoreServices/SystemVersion.plist")
    shutil.copytree(whole / CACHE_FOLDER, tmp_path / "os/System/Library/dyld")
    (tmp_path / "os" / services).parent.mkdir()
    shutil.copy(whole / services, tmp_path / "os" / services)
    result = harvest(DirectorySource(tmp_path / "os"), library, staging=tmp_path / "staging")
    assert (result.sealed, [c.arch for c in result.caches]) == (True, ["arm64e"])


def test_what_was_left_out_on_purpose_is_lacking_all_the_same(whole: Path, library: Library, tmp_path: Path) -> None:
    result = harvest(DirectorySource(whole), library, staging=tmp_path / "staging", archs=("x86_64",))
    assert not result.sealed
    (problem,) = result.problems
    assert problem.endswith(f"--arch leaves out /{CACHE_FOLDER}/dyld_shared_cache_arm64e")


def test_a_mac_that_runs_is_looked_at(root: Path, library: Library, tmp_path: Path) -> None:
    with StandInHost(root) as host:
        target = SshTarget(host.address, host.username, host.port)
        with SshSession(target, trust=HostKeyTrust(host.fingerprint), login=Login(host.identity_file)) as session:
            result = harvest(SshSource(session), library, staging=tmp_path / "staging")
    assert not result.sealed
    assert [p for p in result.problems if "see there what `ls -l /System/Cryptexes/*/System/Library/dyld` says" in p]


def test_the_next_harvest_of_the_booted_system_is_sealed(
    root: Path, whole: Path, library: Library, tmp_path: Path
) -> None:
    assert not harvest(DirectorySource(root), library, staging=tmp_path / "staging").sealed
    shutil.copytree(whole / CACHE_FOLDER, root / CACHE_FOLDER)
    assert harvest(DirectorySource(root), library, staging=tmp_path / "staging").sealed
