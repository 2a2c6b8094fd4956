"""The table of shared caches by release: cell by cell what `verify` says, and what would close a gap."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from uuid import UUID

from symcache.library import Library, Staged, StagedObject, ingest
from symcache.model import HarvestRecord, ManifestEntry, Origin, Release, ReleaseId, uuid_text
from symcache.store import write_record
from symcache.verify import CoverageState, Expectations, FindingCode, Level, ReleaseCoverage, release_coverage, verify
from tests.library.images import Image, harvest
from tests.support.tiny_image import tiny_image


def _harvest(library: Library, folder: Path, version: str, build: str, **archs: int) -> None:
    """Harvest a release of one image an architecture; where the number is 0, it is listed and not stored."""
    staged = Staged(Release(version=version, build=build), "test", extractor="symcache")
    for arch, stored in archs.items():
        cache, uuid = UUID(bytes=arch.ljust(16).encode()), UUID(bytes=f"{arch}-i".ljust(16).encode())
        common = {"path": "/usr/lib/libz.dylib", "arch": arch, "uuid": uuid, "cache_uuid": cache}
        staged.manifest.append(ManifestEntry(**common, origin=Origin.CACHE))
        if stored:
            file = tiny_image(folder, arch, uuid)
            made = {"origin": Origin.CACHE, "extractor": "symcache"}
            staged.objects.append(StagedObject(file, 0, file.stat().st_size, **common, **made))
    ingest(library, staged)


def _cells(found: ReleaseCoverage | None) -> dict[str, CoverageState]:
    assert found
    return {cell.arch: cell.state for cell in found.cells if cell.family == "system"}


def test_each_cell_says_what_there_is_and_what_would_close_the_gap(tmp_path: Path) -> None:
    with Library.open(tmp_path / "library", create=True) as library:
        _harvest(library, tmp_path, "13.6", "22G120", arm64e=1, x86_64=1)
        _harvest(library, tmp_path, "14.5", "23F79", arm64e=1, x86_64=1, x86_64h=1)
        _harvest(library, tmp_path, "15.4", "24E248", arm64e=0, x86_64=1, x86_64h=1)
        expectations = Expectations.load()
        complete, partial, missing = CoverageState.COMPLETE, CoverageState.PARTIAL, CoverageState.MISSING
        old, whole, lacking = (
            release_coverage(library, ReleaseId("macOS", b), expectations) for b in ("22G120", "23F79", "24E248")
        )
        assert _cells(old) == {"arm64e": complete, "x86_64": complete, "x86_64h": missing}
        assert _cells(whole) == {"arm64e": complete, "x86_64": complete, "x86_64h": complete}
        assert _cells(lacking) == {"arm64e": partial, "x86_64": partial, "x86_64h": partial}
        assert old and whole and lacking
        assert (old.state, whole.state, lacking.state) == (partial, complete, partial)
        (cell,) = (c for c in old.cells if (c.family, c.arch) == ("system", "x86_64h"))
        assert (cell.step, cell.images) == ("harvest a Mac with an Intel processor", 0)
        assert release_coverage(library, ReleaseId("macOS", "1A1"), expectations) is None
        for found in (old, whole, lacking):
            report = verify(library, [found.build], level=Level.CATALOG, expectations=expectations)
            assert (list(found.findings), found.verdict) == (report.findings, report.verdict)


def test_a_cell_counts_what_is_listed_and_found_wanting_and_names_caches_and_a_step(tmp_path: Path) -> None:
    cached, here, lost = Image("/usr/lib/a", 1, cache=9), Image("/usr/lib/b", 2), Image("/usr/lib/c", 3)
    again = "harvest it again"
    raw = [("dyld_shared_cache_arm64e", 9, b"kept")]
    with Library.open(tmp_path / "library", create=True) as library:
        staged = harvest(tmp_path / "1", [cached, here], lost=[lost], version="13.6", build="22G120", raw=raw)
        ingest(library, staged)
        found = release_coverage(library, ReleaseId("macOS", "22G120"), Expectations.load(None, ["arm64e", "x86_64"]))
        assert found
        assert [astuple(cell) for cell in found.cells] == [
            ("system", "arm64e", CoverageState.PARTIAL, 1, (uuid_text(UUID(int=9)),), True, 1, again),
            ("system", "x86_64", CoverageState.MISSING, 0, (), False, 0, "harvest a Mac with Apple silicon"),
            ("system", "x86_64h", CoverageState.UNWANTED, 0, (), False, 0, ""),
            ("files", "arm64e", CoverageState.PARTIAL, 2, (), False, 1, again),
        ]


def test_a_release_is_as_whole_as_its_cells_unless_something_else_is_wrong(tmp_path: Path) -> None:
    nothing = HarvestRecord(release=Release(version="13.6", build="22G120"), source="empty")
    (tmp_path / "releases.toml").write_text('families = ["driverkit"]\n')
    release, every, none = (
        ReleaseId("macOS", "22G120"),
        Expectations.load(),
        Expectations.load(tmp_path / "releases.toml"),
    )
    with Library.open(tmp_path / "library", create=True) as library:
        write_record(library.store, nothing, "test")
        library.refresh()
        lacking, unwanted = (release_coverage(library, release, wanted) for wanted in (every, none))
        assert lacking and unwanted
        assert (lacking.state, unwanted.state) == (CoverageState.MISSING, CoverageState.PARTIAL)
        assert {*_cells(lacking).values(), *_cells(unwanted).values()} == {
            CoverageState.MISSING,
            CoverageState.UNWANTED,
        }
        _harvest(library, tmp_path, "13.6", "22G120", arm64e=1, x86_64=1, x86_64h=1)
        found = release_coverage(library, release, every)
    assert found and set(_cells(found).values()) == {CoverageState.COMPLETE}
    assert ([f.code for f in found.findings], found.state) == ([FindingCode.SOURCE_PROBLEM], CoverageState.PARTIAL)


def test_what_the_sites_table_does_not_want_is_no_gap(tmp_path: Path) -> None:
    table = tmp_path / "releases.toml"
    table.write_text('archs = ["arm64e", "x86_64"]\n')
    with Library.open(tmp_path / "library", create=True) as library:
        _harvest(library, tmp_path, "13.6", "22G120", arm64e=1, x86_64=1)
        found = release_coverage(library, ReleaseId("macOS", "22G120"), Expectations.load(table))
    assert found and found.state is CoverageState.COMPLETE
    assert _cells(found)["x86_64h"] is CoverageState.UNWANTED
    assert found.findings_total == 0


def test_of_many_findings_the_first_are_kept(tmp_path: Path) -> None:
    with Library.open(tmp_path / "library", create=True) as library:
        _harvest(library, tmp_path, "15.4", "24E248", arm64e=0, x86_64=0, x86_64h=1)
        found = release_coverage(library, ReleaseId("macOS", "24E248"), Expectations.load(), most_findings=1)
    assert found and len(found.findings) == 1
    assert found.findings_total > 1
