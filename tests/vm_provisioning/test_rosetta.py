"""macOS 27: the caches of x86_64 lie in a cryptex of their own, two of them under one file name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from symcache.library import Library
from symcache.model import uuid_text
from symcache.verify import Expectations, Level, verify
from symcache_provisioning import DirectorySource, harvest
from tests.cachewriter import CacheOptions, build_cache
from tests.cachewriter.samples import sample
from tests.support.systems import make_system, system_version
from tests.support.toolchain import compile_image

_CRYPTEX = "System/Volumes/Preboot/Cryptexes/Rosetta"
_FOLDER = "System/Library/dyld"
_SUPPORT = "System/x86Support/System/Library/dyld"
_NAME = "dyld_shared_cache_x86_64"
_FULL = CacheOptions(arch="x86_64", split="v2", build="26A428", os_version=(27, 0, 0))
_SMALL = CacheOptions(arch="x86_64", split="single", build="26A428", os_version=(27, 0, 0), layout_seed=1)


@pytest.fixture(scope="module")
def macos_27(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system of macOS 27 on Apple silicon, with the Rosetta cryptex where it is grafted and linked to."""
    root = make_system(tmp_path_factory.mktemp("systems") / "macos-27", caches=("arm64e",), files=False)
    plist = root / "System/Library/CoreServices/SystemVersion.plist"
    plist.write_bytes(system_version(ProductVersion="27.0", ProductBuildVersion="26A428"))
    for folder, options, images in ((_FOLDER, _FULL, sample(_FULL)), (_SUPPORT, _SMALL, sample(_SMALL)[:3])):
        (root / _CRYPTEX / folder).mkdir(parents=True)
        build_cache(images, options).write(root / _CRYPTEX / folder)
    loose = compile_image(root.parent / "loose", "libMTLHud.dylib", "int hud(void) { return 27; }", arch="x86_64")
    (root / _CRYPTEX / "usr/lib").mkdir(parents=True)
    shutil.copy(loose, root / _CRYPTEX / "usr/lib/libMTLHud.dylib")
    (root / "System/Cryptexes/Rosetta").symlink_to("../../System/Volumes/Preboot/Cryptexes/Rosetta")
    return root


@pytest.mark.parametrize("keep", [True, False])
def test_two_caches_of_one_name_are_harvested_and_verified(
    keep: bool, macos_27: Path, library: Library, tmp_path: Path
) -> None:
    result = harvest(DirectorySource(macos_27), library, staging=tmp_path / "staging", keep_caches=keep)
    assert (result.sealed, result.problems, result.missing) == (True, [], [])
    full, small = (f"/{_CRYPTEX}/{folder}/{_NAME}" for folder in (_FOLDER, _SUPPORT))
    images = {c.path: c.images for c in result.caches if c.arch == "x86_64"}
    assert images == {full: len(sample(_FULL)), small: 3}
    assert [o.path for o in library.by_name("libMTLHud.dylib")] == [f"/{_CRYPTEX}/usr/lib/libMTLHud.dylib"]

    report = verify(library, level=Level.BYTES, expectations=Expectations.load(archs=("arm64e", "x86_64")))
    assert report.complete, report.findings
    uuids = {c.path: uuid_text(c.uuid) for c in result.caches if c.uuid}
    families = {(c["family"], c["uuid"]) for c in report.releases[0].caches if c["arch"] == "x86_64" and c["uuid"]}
    assert families == {("system", uuids[full]), ("x86support", uuids[small])}
    for cache in result.caches:
        if keep and cache.uuid:
            kept = library.cache_file(cache.uuid, cache.path.rpartition("/")[2])
            assert kept is not None
            assert b"".join(library.read_blob(kept.sha256, kept.size)) == (macos_27 / cache.path[1:]).read_bytes()


@pytest.mark.parametrize("folder", [_FOLDER, _SUPPORT])
@pytest.mark.parametrize("cryptex", [_CRYPTEX, "System/Cryptexes/Rosetta", "System/Cryptexes/RosettaOS"])
def test_every_spelling_of_the_cryptex_is_looked_into(
    cryptex: str, folder: str, macos_27: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    shutil.copytree(macos_27 / _CRYPTEX / folder, root / cryptex / folder)
    source = DirectorySource(root)
    assert [c.path for c in source.caches() if c.arch == "x86_64"] == [f"/{cryptex}/{folder}/{_NAME}"]
    assert list(source.problems) == []
