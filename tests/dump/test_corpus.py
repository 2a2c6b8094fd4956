"""Crashes that really happened, under an emulator: every frame has to be the one that the emulator recorded.

The dumps, the application and the system's shared caches are the demo's; what the emulator knew of each frame lies
beside them. The system's images come out of the caches by way of a library, as a user's would.
"""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from symcache.cli.settings import binary_sources
from symcache.client import LocalCache
from symcache.dump import Analysis, analyze, open_dump
from symcache.dyld import SharedCache
from symcache.library import Library, ingest
from symcache.resolve import ChainResolver, FolderResolver, LibraryResolver
from tests.dump.systems import ASSETS, BUILD, stage
from tests.support.corpus import crowded, variant, write_dump
from tests.support.servers import serve
from tests.support.toolchain import need_toolchain

TRUTH = Path(__file__).parents[1] / "corpus" / "truth"
ARCHES = pytest.mark.parametrize("arch", ["x86_64", "arm64"])
CACHES = {"x86_64": "x86_64", "arm64": "arm64e"}


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
def test_a_build_alone_leads_to_shared_cache_and_slide(arch: str, system: LibraryResolver) -> None:
    inferred, asked = analyze(dump(arch), system), analyze(dump(arch), system, build=BUILD)
    assert (inferred.loaded.cache_origin, asked.loaded.cache_origin) == ("inferred", "option")
    assert inferred.cache_slide() is not None
    assert asked.to_json()["system"] == inferred.to_json()["system"] | {"source": "option"}


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


@ARCHES
@pytest.mark.parametrize("alone", ["Ledger", "LedgerKit", ""])
@pytest.mark.parametrize("how", ["", "inlined", "signed", "tables"])
def test_a_dsym_alone_names_its_frames(
    arch: str, alone: str, how: str, system: LibraryResolver, tmp_path: Path
) -> None:
    """Of one or both of the application's images there is no binary: functions, lines and the chain are there."""
    made = variant(arch, **{how: True} if how else {})
    made.write_app(tmp_path / "app")
    path = write_dump(made.dump, tmp_path / "crash.zip")
    for file in list((tmp_path / "app").rglob("*")):
        if file.is_file() and ".dSYM" not in str(file) and alone in {file.name, ""}:
            file.unlink()
    analysis = analyze(path, ChainResolver([FolderResolver([tmp_path / "app"]), system]))
    for thread, real in zip(analysis.threads, made.truth.threads, strict=True):
        assert [(f.function, f.file or None, f.line, f.inlined) for f in thread.frames] == [
            (f.function, f.file, f.line, f.inlined) for f in real.frames
        ]
        if how != "inlined":
            assert [f.address for f in thread.frames] == [f.pc for f in real.frames]
    status = {m.loaded.module.name: m.status for m in analysis.modules if "Ledger" in m.loaded.module.path}
    assert status == {n: "symbols" if not alone or n == alone else "have" for n in ("Ledger", "LedgerKit")}
    assert analysis.missing == []


def test_the_stack_of_arm64_holds_signed_addresses(tmp_path: Path) -> None:
    """So that the comparisons above prove that signatures are stripped."""
    opened = open_dump(dump("arm64"), tmp_path)
    raw = opened.core_path.read_bytes()
    returns = {f["pc"] for t in truth("arm64")["threads"] for f in t["frames"]}
    kept = [raw[s.offset : s.offset + s.filesize] for s in opened.core.segments if s.filesize]
    words = [w for part in kept for (w,) in struct.iter_unpack("<Q", part[: len(part) & ~7])]
    assert sum(w >> 47 != 0 and w & (1 << 47) - 1 in returns for w in words) >= 4


@ARCHES
def test_builds_with_the_same_images_are_told_apart_by_addresses(arch: str, tmp_path: Path) -> None:
    """The same UUIDs in two caches, laid out differently: only one of them was the crashed machine's."""
    other = variant(arch, layout_seed=7)
    (tmp_path / "other").mkdir()
    other.cache.write(tmp_path / "other")
    ours = [f for f in sorted((ASSETS / "host").rglob("dyld_shared_cache_*")) if f.name.endswith(CACHES[arch])]
    theirs = [f for f in sorted((tmp_path / "other").iterdir()) if not f.suffix]
    moved = write_dump(other.dump, tmp_path / "moved.zip")
    with Library.open(tmp_path / "library", create=True) as library:
        ingest(library, stage(ours, "22G830", tmp_path / "out"))
        ingest(library, stage(theirs, "22G900", tmp_path / "out"))
        resolver = ChainResolver(
            [FolderResolver([ASSETS / "app" / arch]), LibraryResolver(library, LocalCache(tmp_path / "kept"))]
        )
        for path, build in ((dump(arch), "22G830"), (moved, "22G900")):
            analysis = analyze(path, resolver)
            assert analysis.loaded.build == build
            assert analysis.cache_slide() is not None
            system_modules = [m.loaded.executable for m in analysis.modules if "Ledger" not in m.loaded.module.path]
            assert {f.build for f in system_modules if f} == {build}
        assert [[f[:4] for f in t] for t in found(analysis)] == [
            [(f.pc, f.module, UUID(f.uuid), f.function) for f in t.frames] for t in other.truth.threads
        ]
        # Asked for the other one, it gets that, and says so: the names are right even then.
        forced = analyze(moved, resolver, build="22G830")
        assert forced.loaded.cache_origin == "option"
        assert [f.function for f in forced.crashed.frames] == [f.function for f in analysis.crashed.frames]


@ARCHES
def test_code_without_frame_pointers(arch: str, system: LibraryResolver, tmp_path: Path) -> None:
    """Compiled as system libraries partly are: only unwind tables lead from frame to frame."""
    made = variant(arch, frameless=True)
    made.write_app(tmp_path / "app")
    path = write_dump(made.dump, tmp_path / "frameless.zip")
    analysis = analyze(path, ChainResolver([FolderResolver([tmp_path / "app"]), system]))
    for thread, real in zip(analysis.threads, made.truth.threads, strict=True):
        assert [(f.address, f.function, f.file or None, f.line) for f in thread.frames] == [
            (f.pc, f.function, f.file, f.line) for f in real.frames
        ]


@ARCHES
def test_inlined_functions_are_frames_of_their_own(arch: str, system: LibraryResolver, tmp_path: Path) -> None:
    made = variant(arch, inlined=True)
    made.write_app(tmp_path / "app")
    path = write_dump(made.dump, tmp_path / "inlined.zip")
    analysis = analyze(path, ChainResolver([FolderResolver([tmp_path / "app"]), system]))
    assert any(f.inlined for t in made.truth.threads for f in t.frames)
    for thread, real in zip(analysis.threads, made.truth.threads, strict=True):
        assert [(f.function, f.file or None, f.line, f.inlined) for f in thread.frames] == [
            (f.function, f.file, f.line, f.inlined) for f in real.frames
        ]


@ARCHES
def test_three_hundred_modules_that_nobody_has(arch: str, system: LibraryResolver, tmp_path: Path) -> None:
    path = write_dump(crowded(variant(arch).dump, 300), tmp_path / "crowded.zip")
    analysis = analyze(path, ChainResolver([FolderResolver([ASSETS / "app" / arch]), system]))
    assert len(analysis.missing) >= 300 - 11
    assert [f.function for f in analysis.crashed.frames] == [
        f["function"] for f in truth(arch)["threads"][truth(arch)["crashed_thread"]]["frames"]
    ]


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


def test_a_dump_opens_again_without_the_server(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's answer told the layout, so files were fetched for that; without it they have to be found again."""
    monkeypatch.setenv("SYMCACHE_CACHE_DIR", str(tmp_path / "kept"))
    folders = [ASSETS / "app" / "arm64"]
    with (
        serve(library.store.location, tmp_path / "server") as server,
        binary_sources(folders, None, [server.url]) as sources,
    ):
        first = analyze(dump("arm64"), sources.resolver)
        assert sources.problems == []
    with binary_sources(folders, None, [server.url]) as sources:
        again = analyze(dump("arm64"), sources.resolver)
        assert len(sources.problems) == 1
    assert found(first) == found(again) == expected("arm64")
    assert again.loaded.cache_uuid == first.loaded.cache_uuid
    assert again.missing == []
