"""What pages show of whole releases follows the library and the site's table, and is found out once."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from symcache.errors import NotFoundError
from symcache.library import Library, Staged, StagedObject, ingest, remove_build
from symcache.model import ManifestEntry, Origin, Release
from symcache_server.lookup.overview import Overview
from tests.support.tiny_image import tiny_image


def _harvest(library: Library, folder: Path, build: str, *archs: str) -> None:
    staged = Staged(Release(version="13.6", build=build), "test", extractor="symcache")
    for arch in archs:
        uuid, cache = (UUID(bytes=f"{build} {arch} {what}".ljust(16)[:16].encode()) for what in "ic")
        file, common = tiny_image(folder, arch, uuid), {"path": "/usr/lib/libz.dylib", "arch": arch, "uuid": uuid}
        staged.manifest.append(ManifestEntry(**common, origin=Origin.CACHE, cache_uuid=cache))
        place = {"origin": Origin.CACHE, "cache_uuid": cache, "extractor": "symcache"}
        staged.objects.append(StagedObject(file, 0, file.stat().st_size, **common, **place))
    ingest(library, staged)


def _states(overview: Overview) -> dict[str, str | None]:
    return {row.build: view and view.coverage and view.coverage.state.value for row, view in overview.releases()}


def test_releases_are_looked_through_once_and_again_when_something_came_or_went(tmp_path: Path) -> None:
    table = tmp_path / "releases.toml"
    table.write_text("")
    with Library.open(tmp_path / "library", create=True) as library:
        overview = Overview(library, table)
        assert overview.releases() == []
        assert overview.totals() is None
        with pytest.raises(NotFoundError):
            overview.release("22G120")
        _harvest(library, tmp_path, "22G120", "arm64e", "x86_64", "x86_64h")
        _harvest(library, tmp_path, "22G90", "arm64e")
        assert _states(overview) == {"22G120": None, "22G90": None}
        assert overview.release("22G90").size.images == 1
        assert _states(overview) == {"22G120": None, "22G90": "partial"}
        overview.fill()
        assert _states(overview) == {"22G120": "complete", "22G90": "partial"}
        assert overview.release("22G120") is overview.release("22G120")
        totals = overview.totals()
        assert totals
        assert (totals.counts.images, totals.conflicts) == (4, [])
        assert overview.diff("22G90", "22G120") is overview.diff("22G90", "22G120")

        _harvest(library, tmp_path, "22G90", "x86_64", "x86_64h")
        assert _states(overview) == {"22G120": "complete", "22G90": None}
        overview.fill()
        assert _states(overview)["22G90"] == "complete"
        remove_build(library, "22G120")
        overview.fill()
        assert _states(overview) == {"22G90": "complete"}
        after = overview.totals()
        assert after
        assert after.counts.images == 3


def test_the_sites_table_counts_as_soon_as_it_is_written(tmp_path: Path) -> None:
    table = tmp_path / "releases.toml"
    table.write_text("")
    with Library.open(tmp_path / "library", create=True) as library:
        _harvest(library, tmp_path, "22G120", "arm64e")
        overview = Overview(library, table)
        overview.fill()
        assert _states(overview) == {"22G120": "partial"}
        table.write_text('archs = ["arm64e"]\n')
        overview.fill()
        assert _states(overview) == {"22G120": "complete"}
