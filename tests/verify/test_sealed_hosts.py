"""What each sealed harvest must have is asked of each: that another has it makes a release whole, not a harvest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from uuid import UUID, uuid5

import pytest

from symcache.library import Library
from symcache.model import CacheFile, HarvestRecord, ManifestEntry, Origin, Release
from symcache.store import write_record
from symcache.verify import Expectations, Finding, FindingCode, Level, verify

_SPACE = UUID(int=0)
_OS = "/System/Volumes/Preboot/Cryptexes/OS"
_ROSETTA = "/System/Volumes/Preboot/Cryptexes/Rosetta"
_PLACES = {
    "support": (f"{_ROSETTA}/System/x86Support/System/Library/dyld", "x86_64"),
    "x86_64 of Rosetta": (f"{_ROSETTA}/System/Library/dyld", "x86_64"),
}


def harvested(
    source: str, caches: Sequence[str], version: str = "14.6.1", *, host: str = "", archs: Sequence[str] = ()
) -> HarvestRecord:
    """Return the record of a sealed harvest that has these caches, as another program may have written it."""
    manifest, files = [], []
    for cache in caches:
        folder, arch = _PLACES.get(cache, (f"{_OS}/System/Library/dyld", cache))
        uuid = uuid5(_SPACE, cache)
        manifest.append(ManifestEntry(path="/usr/lib/libz.dylib", arch=arch, origin=Origin.CACHE, cache_uuid=uuid))
        name = f"dyld_shared_cache_{arch}"
        files.append(CacheFile(name=name, cache_uuid=uuid, arch=arch, path=f"{folder}/{name}", sha256="0" * 64, size=1))
    return HarvestRecord(
        release=Release(version=version, build="1A1"),
        source=source,
        host=host,
        archs=tuple(archs),
        sealed=True,
        manifest=tuple(manifest),
        cache_files=tuple(files),
    )


def lacking(folder: Path, *records: HarvestRecord, expectations: Expectations | None = None) -> list[Finding]:
    """Return what of caches is found wanting in a library of these records."""
    with Library.open(folder / "library", create=True) as library:
        for record in records:
            write_record(library.store, record, "test")
    with Library.open(folder / "library") as library:
        report = verify(library, level=Level.CATALOG, expectations=expectations)
    return [f for f in report.findings if f.code is FindingCode.CACHE_MISSING]


def test_a_sealed_harvest_is_not_whole_because_another_is(tmp_path: Path) -> None:
    intel, silicon = harvested("ssh://intel", ["x86_64h"]), harvested("ssh://one", ["arm64e", "x86_64"])
    assert lacking(tmp_path / "whole", intel, silicon) == []
    (found,) = lacking(tmp_path / "half", intel, silicon, harvested("ssh://two", ["arm64e"]))
    assert (found.arch, found.elsewhere) == ("x86_64", False)
    assert "ssh://two: is sealed without a system shared cache of x86_64" in found.message
    assert "harvest it again" in found.message


def test_what_cannot_be_sealed_is_told_from_what_was_not(tmp_path: Path) -> None:
    part = harvested("Xcode", ["arm64e"]).model_copy(update={"sealed": False, "lacks": "it has the libraries only"})
    other = part.model_copy(update={"source": "other Xcode", "lacks": "it is cut"})
    mac = part.model_copy(update={"source": "ssh://one", "lacks": "", "problems": ("permission denied",)})
    told: list[str] = []
    with Library.open(tmp_path / "library", create=True) as library:
        for record in (part, other, mac):
            write_record(library.store, record, "test")
            library.refresh()
            found = verify(library, level=Level.CATALOG).findings
            told += [f.message for f in found if f.code is FindingCode.NOT_SEALED]
    unit, step = "macOS 14.6.1 (1A1): system cache arm64e", "harvest a system of this build itself"
    assert told == [
        f"{unit}: no harvest of it is sealed, nor can be: it has the libraries only: {step}",
        f"{unit}: no harvest of it is sealed, nor can be: it has the libraries only; it is cut: {step}",
        f"{unit}: no harvest of it is sealed: harvest it again",
    ]


def test_of_a_sealed_harvest_that_lists_nothing_only_what_it_lacks_is_told(tmp_path: Path) -> None:
    with Library.open(tmp_path / "library", create=True) as library:
        write_record(library.store, harvested("ssh://one", []), "test")
    with Library.open(tmp_path / "library") as library:
        report = verify(library, level=Level.CATALOG)
    assert {f.code for f in report.findings} == {FindingCode.CACHE_MISSING}


def test_the_next_harvest_of_the_same_source_settles_it(tmp_path: Path) -> None:
    silicon = harvested("ssh://one", ["arm64e", "x86_64"])
    others = harvested("ssh://intel", ["x86_64h"]), harvested("ssh://one", ["arm64e"])
    assert lacking(tmp_path, *others, silicon) == []


def test_who_asked_for_some_architectures_lacks_no_other(tmp_path: Path) -> None:
    parts = [harvested(f"ssh://{arch}", [arch], archs=[arch]) for arch in ("arm64e", "x86_64", "x86_64h")]
    assert lacking(tmp_path, *parts) == []


@pytest.mark.parametrize(
    ("host", "caches", "lacks"),
    [
        ("", ["arm64e"], ["x86_64", "x86_64"]),
        ("Mac14,8", ["arm64e"], ["x86_64", "x86_64"]),
        ("VirtualMac2,1", ["arm64e"], []),
        ("VirtualMac2,1", ["arm64e", "x86_64 of Rosetta"], ["x86_64"]),
        ("Mac18,5", ["arm64e", "x86_64 of Rosetta", "support"], ["arm64e.x1"]),
        ("Mac13,1 Mac18,5 VirtualMac2,1", ["arm64e", "x86_64 of Rosetta", "support"], ["arm64e.x1"]),
        ("Mac18,5", ["arm64e.x1", "x86_64 of Rosetta", "support"], []),
    ],
)
def test_the_host_of_a_record_decides(host: str, caches: list[str], lacks: list[str], tmp_path: Path) -> None:
    whole = harvested("a", ["arm64e", "arm64e.x1", "x86_64 of Rosetta", "support"], "27.0")
    found = lacking(tmp_path, whole, harvested("b", caches, "27.0", host=host))
    assert [f.arch for f in found] == lacks


def test_what_only_the_other_kind_of_host_has_stays_apart(tmp_path: Path) -> None:
    found = lacking(tmp_path, harvested("ssh://one", ["arm64e"]))
    assert [(f.arch, f.elsewhere) for f in found] == [("x86_64", False), ("x86_64h", True)]


def test_a_site_that_does_not_want_it_does_not_miss_it(tmp_path: Path) -> None:
    half = harvested("ssh://intel", ["x86_64h"]), harvested("a", ["arm64e", "x86_64"]), harvested("b", ["arm64e"])
    table = tmp_path / "releases.toml"
    for text, count in (
        ('archs = ["arm64e"]', 0),
        ('families = ["driverkit"]', 0),
        ('[[release]]\nbuilds = ["1A1"]\nexpect = { system = ["arm64e", "x86_64h"] }', 0),
        ('[[release]]\nbuilds = ["1A1"]\nexpect = { driverkit = [] }', 1),
        ('archs = ["x86_64"]', 1),
    ):
        table.write_text(text)
        assert len(lacking(tmp_path / text[:30], *half, expectations=Expectations.load(table))) == count, text
