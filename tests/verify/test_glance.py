"""What a release lacks by the catalog's counts alone: no more than `verify` finds."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from symcache.model import HarvestRecord, Release
from symcache.verify import Expectations, archs_at_a_glance, lacking_at_a_glance
from tests.verify.test_holdings import DRIVER_FOLDER, LIBZ, SYSTEM_FOLDER, library_of, listed, raw, record


def seen(folder: Path, one: HarvestRecord, version: str) -> tuple[list[str], list[str] | None]:
    """Return architectures, and what is lacking, of a release that is one harvest."""
    with library_of(folder, one.model_copy(update={"release": Release(version=version, build="1A1")})) as library:
        (row,), (glanced,) = library.releases(), library.catalog.glance().values()
        return archs_at_a_glance(glanced), lacking_at_a_glance(row, glanced, Expectations())


OTHER = UUID(int=8)
THREE = ["system cache arm64e", "system cache x86_64", "system cache x86_64h"]


@pytest.mark.parametrize(
    ("version", "one", "archs", "lacking"),
    [
        ("13.6", record(listed(LIBZ), raw(SYSTEM_FOLDER)), ["arm64e"], THREE[1:]),
        ("13.6", record(listed(LIBZ)), ["arm64e"], THREE[1:]),
        ("13.6", record(listed(LIBZ, "x86_64"), listed("/a", "x86_64h")), ["x86_64h"], THREE[:2]),
        ("13.6", record(listed(LIBZ), raw(SYSTEM_FOLDER), sealed=False), ["arm64e"], THREE),
        ("13.6", record(listed(LIBZ), raw(DRIVER_FOLDER)), ["arm64e"], THREE),
        ("13.6", record(raw(SYSTEM_FOLDER), raw(DRIVER_FOLDER, arch="x86_64", cache=OTHER)), ["arm64e"], THREE[1:]),
        ("27.0", record(raw(SYSTEM_FOLDER, arch="arm64e_x1")), ["arm64e.x1"], [
            "system cache arm64e", "system cache x86_64", "x86support cache x86_64",
        ]),
        ("10.15.7", record(listed("/usr/bin/a", cache=None)), ["arm64e"], ["x86_64 files"]),
        ("10.15.7", record(listed("/usr/bin/a", "x86_64", cache=None)), ["x86_64"], []),
        ("99.0", record(listed(LIBZ)), ["arm64e"], None),
    ],
)  # fmt: skip
def test_caches_and_files_of_sealed_harvests_are_there(
    tmp_path: Path, version: str, one: HarvestRecord, archs: list[str], lacking: list[str] | None
) -> None:
    assert seen(tmp_path, one, version) == (archs, lacking)
