"""Harvests from end to end: a real OpenSSH server, the stand-in host and a folder give the same release."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import pytest

from symcache.catalog import CacheFileRow
from symcache.demo.standin import StandInHost
from symcache.dyld import Row, SharedCache, run_in_processes
from symcache.errors import NotFoundError, RemoteError, StorageError, UsageError
from symcache.images import ImageRequest
from symcache.library import Library, cache_images
from symcache.model import Kind
from symcache.verify import Expectations, Level, verify
from symcache_provisioning import (
    DirectorySource,
    HarvestResult,
    HostKeyTrust,
    Login,
    SshSession,
    SshSource,
    SshTarget,
    harvest,
)
from symcache_provisioning.sources.entries import Entry
from tests.support.systems import BUILD, CACHE_FOLDER, CACHES, images_in, make_system
from tests.support.waiting import until
from tests.vm_provisioning.conftest import QUICK

pytestmark = pytest.mark.usefixtures("openssh")
_OUTSIDE = {
    ("/usr/lib/libtrampolines.dylib", "x86_64"),
    ("/usr/lib/libtrampolines.dylib", "arm64"),
    ("/usr/bin/tool", "x86_64"),
    ("/System/Library/Frameworks/Ledger.framework/Versions/A/Ledger", "x86_64"),
}

Held = set[tuple[str, UUID | None]]


def held(library: Library) -> Held:
    return {(o.path, o.uuid) for o in library.by_name("*")}


def clean(result: HarvestResult) -> bool:
    assert (result.problems, result.missing) == ([], [])
    return result.sealed


@pytest.mark.parametrize("extractor", ["raw", "util", "auto"])
def test_a_real_server_gives_every_image_sealed_and_verified(
    extractor: str, source: SshSource, library: Library, util: Path, tmp_path: Path
) -> None:
    result = harvest(
        source,
        library,
        staging=tmp_path / "staging",
        extractor=extractor,  # type: ignore[arg-type]
        util_path=str(util),
    )
    assert clean(result)
    if tool_used := util.with_name(f"{util.name}.folders").exists():
        folders = util.with_name(f"{util.name}.folders").read_text().split()
        assert not any(Path(folder).exists() for folder in folders)  # nothing is left in the guest
    assert tool_used or extractor == "raw"
    assert result.release.build == BUILD
    assert result.images == images_in(*CACHES) + len(_OUTSIDE)
    assert result.extractor == {"raw": "raw", "util": "util", "auto": "raw+util"}[extractor]
    assert {c.arch: c.images for c in result.caches} == {arch: images_in(arch) for arch in CACHES}
    for level in Level:
        report = verify(library, [BUILD], level=level, expectations=Expectations.load(archs=("arm64e", "x86_64")))
        assert report.complete, report.findings
    assert not list((tmp_path / "staging").iterdir())
    outside = {(o.path, o.arch) for o in library.by_name("*") if o.cache_uuid is None}
    assert outside == _OUTSIDE


def test_every_way_gives_the_same_set(
    source: SshSource, system: Path, util: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found: dict[str, Held] = {}
    for extractor in ("raw", "util"):
        with Library.open(tmp_path / extractor, create=True) as library:
            assert clean(
                harvest(
                    source,
                    library,
                    staging=tmp_path / "staging",
                    extractor=extractor,  # type: ignore[arg-type]
                    util_path=str(util),
                )
            )
            found[extractor] = held(library)
    with Library.open(tmp_path / "folder", create=True) as library:
        assert clean(harvest(DirectorySource(system), library, staging=tmp_path / "staging"))
        found["folder"] = held(library)
    writable = tmp_path_factory.mktemp("standin") / "root"
    shutil.copytree(system, writable, symlinks=True)
    with StandInHost(writable) as host, Library.open(tmp_path / "standin", create=True) as library:
        target = SshTarget(host.address, host.username, host.port)
        with SshSession(target, trust=HostKeyTrust(host.fingerprint), login=Login(host.identity_file)) as session:
            assert clean(harvest(SshSource(session), library, staging=tmp_path / "staging"))
        found["stand-in"] = held(library)
        assert not list((writable / "tmp").iterdir())
    assert len({frozenset(f) for f in found.values()}) == 1, {k: len(v) for k, v in found.items()}
    assert len(found["raw"]) > images_in("arm64e")


@pytest.mark.parametrize(
    "images",
    [
        {"arm64e-auth": 30, "x86_64-60": 60},
        {"macos10.14-i386": 11, "macos11-x86_64": 16, "macos12-arm64e": 16},
        {"macos26-arm64e-objc-swift-tpro": 20, "macos26-x86_64h-mixed": 16},
    ],
    ids="+".join,
)
def test_caches_that_apple_built(library: Library, tmp_path: Path, images: dict[str, int]) -> None:
    root = make_system(tmp_path / "root", caches=(), apple=tuple(images), files=False)
    result = harvest(DirectorySource(root), library, staging=tmp_path / "staging")
    assert clean(result)
    assert sorted(c.images for c in result.caches) == sorted(images.values())


def test_a_second_run_stores_nothing_again(source: SshSource, library: Library, tmp_path: Path) -> None:
    first = harvest(source, library, staging=tmp_path / "staging", extractor="raw")
    second = harvest(source, library, staging=tmp_path / "staging", extractor="raw")
    assert first.stored
    assert (second.stored, second.skipped) == (0, first.stored + first.skipped)
    assert clean(second)


def test_a_harvest_that_was_cut_off_makes_only_the_images_that_are_left(
    system: Path, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging, made = tmp_path / "staging", 0

    def counting(*arguments: Any, **options: Any) -> Iterator[list[Row]]:
        nonlocal made
        for rows in run_in_processes(*arguments, **options):
            made += len(rows)
            yield rows

    class Full(DirectorySource):
        def mach_o_files(self, roots: Iterable[str] | None = None) -> Iterator[Entry]:
            until(lambda: any(len(f.read_text().splitlines()) > 1 for f in staging.glob("*/images/*/*")), "images")
            raise StorageError("no space")

    monkeypatch.setattr(cache_images, "run_in_processes", counting)
    with pytest.raises(StorageError, match="no space"):
        harvest(Full(system), library, staging=staging)
    before = made
    assert before and library.releases() == []
    result = harvest(DirectorySource(system), library, staging=staging)
    assert clean(result)
    assert made == sum(cache.images for cache in result.caches)
    assert result.skipped >= before


def test_content_is_what_the_source_has(source: SshSource, system: Path, library: Library, tmp_path: Path) -> None:
    harvest(source, library, staging=tmp_path / "staging", extractor="raw")
    path = "/usr/bin/tool"
    (tool,) = library.by_name(path)
    assert tool.uuid is not None
    found = library.resolve(ImageRequest(tool.uuid, Kind.EXECUTABLE))
    assert found is not None
    assert b"".join(library.read_blob(found.sha256, found.size)) == (system / path[1:]).read_bytes()
    for cache in (system / CACHE_FOLDER).glob("dyld_shared_cache_arm64e*"):
        if cache.suffix == ".map":
            continue
        uuid = next(c["cache_uuid"] for c in _cache_rows(library) if c["name"] == cache.name)
        kept = library.cache_file(uuid, cache.name)
        assert kept is not None
        assert b"".join(library.read_blob(kept.sha256, kept.size)) == cache.read_bytes()


def _cache_rows(library: Library) -> list[dict[str, object]]:
    uuids = {o.cache_uuid for o in library.by_name("*") if o.cache_uuid}
    return [{"name": r.name, "cache_uuid": u} for u in uuids for r in library.catalog.cache_files_of(u)]


def test_raw_caches_may_be_left_out_but_for_their_tables(
    source: SshSource, system: Path, library: Library, tmp_path: Path
) -> None:
    result = harvest(source, library, staging=tmp_path / "staging", extractor="raw", keep_caches=False)
    assert clean(result)
    rows = [r for c in result.caches if c.uuid for r in library.catalog.cache_files_of(c.uuid)]
    assert len(rows) == 7  # with the .symbols file of one
    for row in rows:
        assert row.partial
        whole = (system / CACHE_FOLDER / row.name).read_bytes()
        kept = b"".join(library.read_blob(row.sha256, row.size))
        assert whole.startswith(kept)
        if "." not in row.name:
            assert len(kept) < len(whole) / 2
            for path in {o.path for o in library.by_name("*") if o.cache_uuid == row_uuid(row, result)}:
                assert path.encode() + b"\0" in kept


def row_uuid(row: CacheFileRow, result: HarvestResult) -> UUID | None:
    return next(c.uuid for c in result.caches if row.name.endswith(c.arch))


def test_architectures_can_be_chosen(source: SshSource, library: Library, tmp_path: Path) -> None:
    result = harvest(source, library, staging=tmp_path / "staging", extractor="raw", archs=("arm64e", "arm64"))
    assert clean(result)
    assert [c.arch for c in result.caches] == ["arm64e"]
    assert {o.arch for o in library.by_name("*")} == {"arm64e", "arm64"}


def test_without_the_tool_auto_copies_raw_caches(source: SshSource, library: Library, tmp_path: Path) -> None:
    result = harvest(source, library, staging=tmp_path / "staging")
    assert clean(result)
    assert result.extractor == "raw"


def test_the_tool_asked_for_must_be_there(source: SshSource, library: Library, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="has no dyld_shared_cache_util") as raised:
        harvest(source, library, staging=tmp_path / "staging", extractor="util")
    assert "--extractor raw" in raised.value.hint
    with pytest.raises(NotFoundError, match="/bin/ls is not dyld_shared_cache_util"):
        harvest(source, library, staging=tmp_path / "staging", extractor="util", util_path="/bin/ls")


@pytest.mark.parametrize("extractor", ["util", "bundle"])
def test_a_folder_cannot_run_a_tool(
    extractor: Literal["util", "bundle"], system: Path, library: Library, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="cannot run in a folder"):
        harvest(DirectorySource(system), library, staging=tmp_path / "staging", extractor=extractor)


@pytest.mark.parametrize("left", [None, 0x300, 0x8000])
def test_images_in_a_companion_that_is_gone_or_cut_are_missing(
    left: int | None, library: Library, tmp_path: Path
) -> None:
    root = make_system(tmp_path / "root", caches=("arm64e",), files=False)
    lost = root / CACHE_FOLDER / "dyld_shared_cache_arm64e.02"
    kept = lost.read_bytes()
    if left is None:
        lost.unlink()
    else:
        lost.write_bytes(kept[:left])
    result = harvest(DirectorySource(root), library, staging=tmp_path / "staging")
    assert not result.sealed
    assert any("dyld_shared_cache_arm64e.02" in p for p in result.problems)
    assert len(result.problems) < 4
    assert result.images == images_in("arm64e")
    assert 0 < len(result.missing) < result.images
    assert {m.path for m in result.missing}.isdisjoint(o.path for o in library.by_name("*"))
    lost.write_bytes(kept)
    assert clean(harvest(DirectorySource(root), library, staging=tmp_path / "staging"))


def test_images_of_a_damaged_cache_are_made_anew_once_it_is_mended(library: Library, tmp_path: Path) -> None:
    root = make_system(tmp_path / "root", caches=(), apple=("arm64e-auth",), files=False)
    file = root / CACHE_FOLDER / "dyld_shared_cache_arm64e"
    with Library.open(tmp_path / "other", create=True) as other:
        assert clean(harvest(DirectorySource(root), other, staging=tmp_path / "staging"))
        contents = {(o.path, o.sha256) for o in other.by_name("*")}
    with SharedCache.open(file) as cache:
        place = cache.space.locate(cache.images[0].address)
    assert place
    good, status = file.read_bytes(), file.stat()
    behind = place.offset + 32 + int.from_bytes(good[place.offset + 20 : place.offset + 24], "little") + 8
    for data in (good[:behind] + bytes([good[behind] ^ 1]) + good[behind + 1 :], good):
        file.write_bytes(data)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        result = harvest(DirectorySource(root), library, staging=tmp_path / "staging")
        assert bool(result.problems) == (data != good)
    assert clean(result)
    assert {(o.path, o.sha256) for o in library.by_name("*")} == contents


_APPLE = "macos26-arm64e-objc-swift-tpro"


@pytest.mark.parametrize(
    ("apple", "name", "left"),
    [
        *(((), "", left) for left in (0.9, 0.5, 0.2)),
        *(((), ".02", left) for left in (0.5, 0)),
        ((_APPLE,), ".02.dylddata", 0),  # since 12, images have their data in another file than their code
    ],
)
def test_what_is_stored_of_a_cut_cache_is_what_the_whole_one_has(
    apple: tuple[str, ...], name: str, left: float, library: Library, tmp_path: Path
) -> None:
    root = make_system(tmp_path / "root", caches=() if apple else ("arm64e",), apple=apple, files=False)
    shutil.copytree(root, tmp_path / "whole", symlinks=True)
    cut = root / CACHE_FOLDER / f"dyld_shared_cache_arm64e{name}"
    os.truncate(cut, int(cut.stat().st_size * left))
    result = harvest(DirectorySource(root), library, staging=tmp_path / "staging")
    assert not result.sealed
    assert result.images == (20 if apple else images_in("arm64e"))
    assert len(result.missing) + len(library.by_name("*")) == result.images
    assert all("reinstall that system or copy it anew" in p for p in result.problems)
    with Library.open(tmp_path / "other", create=True) as other:
        assert clean(harvest(DirectorySource(tmp_path / "whole"), other, staging=tmp_path / "staging"))
        contents = {(o.path, o.sha256) for o in other.by_name("*")}
    assert {(o.path, o.sha256) for o in library.by_name("*")} <= contents


def test_a_main_file_that_is_cut_within_its_tables_is_a_problem(library: Library, tmp_path: Path) -> None:
    root = make_system(tmp_path / "root", caches=("arm64e",))
    for length in (0, 8, 0x200, 0x400, 0x1000):
        os.truncate(root / CACHE_FOLDER / "dyld_shared_cache_arm64e", length)
        result = harvest(DirectorySource(root), library, staging=tmp_path / "staging")
        assert not result.sealed
        assert [p for p in result.problems if "dyld_shared_cache_arm64e: " in p], length


def test_what_the_tool_leaves_out_or_cuts_is_noticed(
    source: SshSource, util: Path, library: Library, tmp_path: Path
) -> None:
    """It exits 0 whatever it wrote."""
    liar = tmp_path / "dyld_shared_cache_util"
    liar.write_text(
        f'#!/bin/sh\n{util} "$@" || exit\n'
        'if [ "$1" = -extract ]; then cd "$2"\n'
        'f=$(find . -name \'libplain*\' | sort | head -n 1); [ -z "$f" ] || rm "$f"\n'
        'f=$(find . -name \'libSystem*\' | sort | head -n 1); [ -z "$f" ] || truncate -s 4096 "$f"\n'
        "fi\nexit 0\n"
    )
    liar.chmod(0o755)
    result = harvest(
        source, library, staging=tmp_path / "staging", extractor="util", util_path=str(liar), archs=("arm64e",)
    )
    assert not result.sealed
    assert len(result.missing) == 2
    assert sum("did not extract it" in p for p in result.problems) == 1
    assert sum("ends at 0x1000" in p for p in result.problems) == 1
    both = harvest(
        source, library, staging=tmp_path / "staging", extractor="auto", util_path=str(liar), archs=("arm64e",)
    )
    # Nothing is missing of what was extracted here, and for ever the tool shall not keep it from being sealed.
    assert clean(both)
    assert both.extractor == "raw"
    assert [n for n in both.notes if "was not used" in n and "is it older than the system?" in n]


@pytest.mark.parametrize("verb", ["-info", "-text_info", "-extract"])
def test_a_tool_that_is_older_than_the_system_takes_no_part(
    verb: str, source: SshSource, util: Path, library: Library, tmp_path: Path
) -> None:
    old = tmp_path / "dyld_shared_cache_util"
    old.write_text(f'#!/bin/sh\n[ "$1" != {verb} ] || {{ echo "unknown cache" >&2; exit 1; }}\nexec {util} "$@"\n')
    old.chmod(0o755)
    result = harvest(source, library, staging=tmp_path / "staging", util_path=str(old), archs=("arm64e",))
    assert clean(result)
    assert result.extractor == "raw"
    assert [n for n in result.notes if "is it older than the system?" in n and "--extractor raw" in n]


@pytest.mark.parametrize("status", [0, 255])
def test_a_tool_that_extracts_nothing_is_noticed(
    status: int, source: SshSource, util: Path, library: Library, tmp_path: Path
) -> None:
    broken = tmp_path / "dyld_shared_cache_util"
    broken.write_text(
        f'#!/bin/sh\n[ "$1" != -extract ] || {{ echo "Error: no" >&2; exit {status}; }}\nexec {util} "$@"\n'
    )
    broken.chmod(0o755)
    result = harvest(
        source, library, staging=tmp_path / "staging", extractor="util", util_path=str(broken), archs=("arm64e",)
    )
    assert not result.sealed
    assert any("did not extract" in p or "ended with 255: Error: no" in p for p in result.problems)
    both = harvest(source, library, staging=tmp_path / "staging", util_path=str(broken), archs=("arm64e",))
    assert clean(both)
    assert both.extractor == "raw"


def test_a_folder_that_is_no_system_is_refused(library: Library, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="not the root of a macOS system"):
        harvest(DirectorySource(tmp_path), library, staging=tmp_path / "staging")


def test_a_host_that_is_no_mac_is_refused(openssh: object, library: Library, tmp_path: Path) -> None:
    from tests.support.openssh import OpenSshServer
    from tests.vm_provisioning.conftest import session_of

    assert isinstance(openssh, OpenSshServer)
    with session_of(openssh) as session, pytest.raises(RemoteError, match="sw_vers ended with 127"):
        harvest(SshSource(session), library, staging=tmp_path / "staging")
    assert QUICK.attempts
