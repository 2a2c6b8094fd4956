"""Crashes that really happened, under an emulator: every frame has to be the one that the emulator recorded.

The dumps, the application and the system's shared caches are the demo's; what the emulator knew of each frame lies
beside them. The system's images come out of the caches by way of a library, as a user's would.
"""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

import symcache.demo
from symcache.cli.resolving import LibraryResolver
from symcache.dump import Analysis, ChainResolver, FolderResolver, analyze, open_dump
from symcache.dyld import SharedCache, extract_all
from symcache.library import Library, Staged, StagedObject
from symcache.macho import identify
from symcache.model import Kind, Origin, Release
from tests.support.toolchain import need_toolchain

ASSETS = Path(symcache.demo.__file__).with_name("assets")
TRUTH = Path(__file__).parents[1] / "corpus" / "truth"
ARCHES = pytest.mark.parametrize("arch", ["x86_64", "arm64"])
CACHES = {"x86_64": "x86_64", "arm64": "arm64e"}
BUILD = "22G830"


def truth(arch: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((TRUTH / f"crash-{arch}.json").read_text())
    return loaded


def dump(arch: str) -> Path:
    return ASSETS / "dumps" / f"crash-{arch}.zip"


def expected(arch: str, *, nameless: str = "\0", lines: bool = True) -> list[list[tuple[Any, ...]]]:
    """Return the true frames of all threads; those of modules whose path holds `nameless` without a name."""
    return [
        [
            (
                frame["pc"],
                frame["module"],
                UUID(frame["uuid"]),
                None if nameless in frame["module"] else frame["function"],
                frame["file"] if lines and nameless not in frame["module"] else None,
                frame["line"] if lines and nameless not in frame["module"] else None,
            )
            for frame in thread["frames"]
        ]
        for thread in truth(arch)["threads"]
    ]


def found(analysis: Analysis) -> list[list[tuple[Any, ...]]]:
    return [
        [
            (
                f.address,
                f.module.loaded.module.path if f.module else None,
                f.module.loaded.module.uuid if f.module else None,
                f.function or None,
                f.file or None,
                f.line,
            )
            for f in thread.frames
        ]
        for thread in analysis.threads
    ]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Return a library with the images of both caches."""
    root = tmp_path_factory.mktemp("library")
    staged = Staged(release=Release(version="13.6.9", build=BUILD), source="demo")
    for file in sorted((ASSETS / "host").rglob("dyld_shared_cache_*")):
        with SharedCache.open(file) as cache:
            report = extract_all(cache, root / "out" / cache.arch, jobs=1)
            assert not report.failed
            for one in report.extracted:
                part = identify(one.file)[0]
                staged.objects.append(
                    StagedObject(
                        path=one.path,
                        arch=part.arch,
                        uuid=part.uuid,
                        kind=Kind.EXECUTABLE,
                        origin=Origin.CACHE,
                        cache_uuid=cache.uuid,
                        extractor="symcache",
                        revision=1,
                        file=one.file,
                        offset=0,
                        size=one.file.stat().st_size,
                    )
                )
    opened = Library.open(root / "library", create=True)
    opened.ingest(staged)
    return opened


@pytest.fixture
def system(library: Library, tmp_path: Path) -> LibraryResolver:
    return LibraryResolver(library, tmp_path / "unpacked")


@ARCHES
def test_every_frame_of_every_thread_is_true(arch: str, system: LibraryResolver) -> None:
    analysis = analyze(dump(arch), ChainResolver([FolderResolver([ASSETS / "app" / arch]), system]))
    assert found(analysis) == expected(arch)
    assert analysis.loaded.header.thread == truth(arch)["crashed_thread"]
    assert analysis.exception.address == truth(arch)["fault_address"]
    assert analysis.exception.access == "write"
    assert analysis.exception.signal == "SIGSEGV"
    assert analysis.missing == []


@ARCHES
def test_shared_cache_and_build_are_inferred(arch: str, system: LibraryResolver) -> None:
    analysis = analyze(dump(arch), system)
    file = next((ASSETS / "host").rglob(f"dyld_shared_cache_{CACHES[arch]}"))
    with SharedCache.open(file) as cache:
        assert analysis.loaded.cache_uuid == cache.uuid
        assert analysis.cache_slide() is not None
    assert analysis.loaded.build == BUILD
    assert analysis.loaded.cache_origin == "inferred"
    system_modules = [m for m in analysis.modules if m.loaded.executable]
    assert {m.loaded.executable.build for m in system_modules if m.loaded.executable} == {BUILD}


@ARCHES
def test_without_debug_info_the_names_remain(arch: str, system: LibraryResolver) -> None:
    """The application is stripped: what remains are the names that it exports."""
    analysis = analyze(dump(arch), ChainResolver([FolderResolver([ASSETS / "app" / arch / "Ledger.app"]), system]))
    names = [f.function for f in analysis.crashed.frames if f.module and "LedgerKit" in f.module.loaded.module.path]
    assert names == ["LKBookSort"]
    for mine, real in zip(found(analysis), expected(arch, lines=False), strict=True):
        assert [f[:3] for f in mine] == [f[:3] for f in real]


@ARCHES
@pytest.mark.parametrize("missing", ["CoreFoundation", "libsystem_c", "LedgerKit", "/Ledger", "dyld"])
def test_a_missing_module_costs_only_its_own_names(
    arch: str, missing: str, system: LibraryResolver, tmp_path: Path
) -> None:
    need_toolchain()
    kept = tmp_path / "app"
    shutil.copytree(ASSETS / "app" / arch, kept)
    lost = {"LedgerKit": "LedgerKit", "/Ledger": "MacOS/Ledger"}.get(missing)
    if lost:
        for file in list(kept.rglob("*")):
            if file.is_file() and (str(file).endswith(lost) or str(file).endswith(f"DWARF/{lost.rpartition('/')[2]}")):
                file.unlink()

    class Without:
        def resolve(self, wanted, progress=None):  # type: ignore[no-untyped-def]
            files = system.resolve(wanted, progress)
            gone = {UUID(u) for path, u, _ in truth(arch)["modules"] if missing in path}
            return {w: f for w, f in files.items() if w.uuid not in gone}

        def guess_caches(self, loads):  # type: ignore[no-untyped-def]
            return system.guess_caches(loads)

    analysis = analyze(dump(arch), ChainResolver([FolderResolver([kept]), Without()]))
    suffix = {"/Ledger": "MacOS/Ledger"}.get(missing, missing)
    assert found(analysis) == expected(arch, nameless=suffix)
    assert analysis.missing


def test_signed_return_addresses_of_the_whole_stack(system: LibraryResolver, tmp_path: Path) -> None:
    """As an arm64e process: everything on the stack that is a return address gets a signature."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    opened = open_dump(dump("arm64"), scratch)
    raw = bytearray(opened.core_path.read_bytes())
    returns = {f["pc"] for t in truth("arm64")["threads"] for f in t["frames"]}
    signed = 0
    for segment in opened.core.segments:
        for place in range(segment.offset, segment.offset + segment.filesize - 7, 8):
            (value,) = struct.unpack_from("<Q", raw, place)
            if value in returns:
                # Bit 55 tells user from kernel addresses and is never part of a signature.
                struct.pack_into("<Q", raw, place, value | (0xA540 + signed % 0x40 << 48))
                signed += 1
    assert signed >= 8
    with zipfile.ZipFile(dump("arm64")) as archive:
        header, _, _ = archive.read("minidump.dmp").partition(b"</root>")
    path = tmp_path / "signed.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("minidump.dmp", header + b"</root>" + bytes(raw))
    analysis = analyze(path, ChainResolver([FolderResolver([ASSETS / "app" / "arm64"]), system]))
    assert found(analysis) == expected("arm64")


@ARCHES
def test_json_holds_all_that_is_known(arch: str, system: LibraryResolver) -> None:
    report = analyze(dump(arch), ChainResolver([FolderResolver([ASSETS / "app" / arch]), system])).to_json()
    json.dumps(report)
    crashed = report["threads"][0]
    assert crashed["crashed"]
    assert crashed["index"] == report["crashed_thread"]
    top = crashed["frames"][0]
    real = truth(arch)["threads"][truth(arch)["crashed_thread"]]["frames"][0]
    assert int(top["address"], 16) == real["pc"]
    assert UUID(top["uuid"]) == UUID(real["uuid"])
    assert (top["function"], top["file"], top["line"]) == (real["function"], real["file"], real["line"])
    pc = report["registers"]["rip" if arch == "x86_64" else "pc"]
    assert int(pc, 16) == real["pc"]
    assert [m["status"] for m in report["modules"]] == ["have"] * len(truth(arch)["modules"])
    assert {f["build"] for f in crashed["frames"] if f["module"] in {"CoreFoundation", "libsystem_c.dylib"}} == {BUILD}
