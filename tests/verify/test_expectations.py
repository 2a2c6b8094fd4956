"""What a release should have: by version, narrowed or extended by a site."""

from __future__ import annotations

import shutil
from pathlib import Path
from uuid import UUID

import pytest

from symcache.errors import UsageError
from symcache.library import Library
from symcache.model import Release
from symcache.verify import (
    Expectations,
    FindingCode,
    Had,
    Level,
    VerifyReport,
    has_cryptexes,
    lost_cryptexes,
    musts_lacking,
    verify,
)
from symcache.verify.musts import Host, hosts_with
from tests.verify.releases import BUILD, OTHER_BUILD, Workshop, make_library


def required(version: str, expectations: Expectations | None = None, *, build: str = "1A1") -> set[tuple[str, str]]:
    found = (expectations or Expectations.load()).of("macOS", version, build)
    assert found is not None
    return {(e.family, e.arch) for e in found if e.required}


ALL_THREE = {("system", "arm64e"), ("system", "x86_64"), ("system", "x86_64h")}


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("10.13.6", {("files", "x86_64")}),
        ("10.14", {("files", "x86_64")}),
        ("10.15.7", {("files", "x86_64")}),
        ("11.0.1", ALL_THREE),
        ("12.7.6", ALL_THREE),
        ("13", ALL_THREE),
        ("13.6.9", ALL_THREE),
        ("14.4", ALL_THREE),
        ("15.6.1", ALL_THREE),
        ("26.1", ALL_THREE),
        (
            "27.0",
            {("system", "arm64e"), ("system", "arm64e.x1"), ("system", "x86_64"), ("x86support", "x86_64")},
        ),
    ],
)
def test_each_macos_ships_its_caches(version: str, expected: set[tuple[str, str]]) -> None:
    assert required(version) == expected


@pytest.mark.parametrize("version", ["10.12.6", "28.0", "", "nonsense"])
def test_of_other_versions_nothing_is_known(version: str) -> None:
    assert Expectations.load().of("macOS", version, "1A1") is None


def test_of_other_products_nothing_is_known() -> None:
    assert Expectations.load().of("iPhone OS", "13.6", "17G64") is None


def test_driverkit_is_known_but_not_demanded() -> None:
    found = Expectations.load().of("macOS", "13.6.9", BUILD)
    assert found
    assert {e.arch for e in found if e.family == "driverkit" and not e.required} == {"arm64e", "x86_64"}


def test_architectures_on_the_command_line_replace_those_of_the_table() -> None:
    assert required("13.6.9", Expectations.load(None, ["x86_64", "arm64e"])) == {
        ("system", "x86_64"),
        ("system", "arm64e"),
    }
    # Before macOS 11 it is the files that count.
    assert required("10.15.7", Expectations.load(None, ["x86_64"])) == {("files", "x86_64")}
    # And they serve where no table knows the version.
    assert required("99", Expectations.load(None, ["arm64e_x1"])) == {("system", "arm64e.x1")}


def table(tmp_path: Path, text: str) -> Expectations:
    file = tmp_path / "releases.toml"
    file.write_text(text)
    return Expectations.load(file)


def test_what_is_expected_is_not_optional_besides(tmp_path: Path) -> None:
    both = '[[release]]\nbuilds = ["22G830"]\nexpect = { system = ["arm64e"] }\n'
    site = table(tmp_path, both + 'optional = { system = ["arm64e", "x86_64"] }\n')
    found = site.of("macOS", "13.6.9", "22G830")
    assert found
    assert [(e.arch, e.required) for e in found if e.family == "system"] == [("arm64e", True), ("x86_64", False)]


def test_a_site_narrows_extends_and_adds(tmp_path: Path) -> None:
    site = table(
        tmp_path,
        """
        expect_builds = ["22G720"]
        [[release]]
        builds = ["22G830"]
        expect = { system = ["arm64e"] }
        [[release]]
        from = "14"
        before = "15"
        expect = { driverkit = ["arm64e"] }
        [[release]]
        from = "28"
        expect = { system = ["arm64e"] }
        """,
    )
    assert required("13.6.9", site, build="22G830") == {("system", "arm64e")}
    assert required("13.6.9", site, build="22G999") == ALL_THREE
    assert required("14.1", site) == {*ALL_THREE, ("driverkit", "arm64e")}
    assert required("28.3", site) == {("system", "arm64e")}
    assert site.expected_releases == (("macOS", "22G720"),)


def test_a_site_says_which_architectures_and_families_it_wants(tmp_path: Path) -> None:
    site = table(tmp_path, 'archs = ["arm64e", "arm64e_x1"]\nfamilies = ["system"]')
    assert required("13.6.9", site) == {("system", "arm64e")}
    assert required("27.0", site) == {("system", "arm64e"), ("system", "arm64e.x1")}
    assert (site.wanted_archs, site.wanted_families) == (("arm64e", "arm64e.x1"), ("system",))
    found = site.of("macOS", "14.6", "1A1")
    assert found
    assert {e.family for e in found} <= {"system", "files"}
    assert required("13.6.9", table(tmp_path, 'families = ["driverkit"]')) == set()
    assert required("10.15.7", table(tmp_path, 'families = ["driverkit"]')) == {("files", "x86_64")}


def test_a_site_may_want_what_only_its_own_rows_know_and_newer_architectures(tmp_path: Path) -> None:
    row = '[[release]]\nfrom = "28"\nexpect = { newkit = ["riscv"] }'
    assert required("28", table(tmp_path, f'archs = ["riscv"]\nfamilies = ["newkit"]\n{row}')) == {("newkit", "riscv")}
    assert table(tmp_path, '\ufeffarchs = ["arm64e_x7", "i386"]').wanted_archs == ("arm64e.x7", "i386")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        # Each would leave everything out, and so call complete whatever there is.
        ('archs = ["arm64e", "arm64"]', "archs: no release .* has 'arm64'"),
        ('archs = ["x86-64"]', "archs: no release .* has 'x86-64'"),
        ('families = ["sytem"]', "families: no release .* has 'sytem'"),
        ('archs = ["a b"]', "archs"),
        ("families = 3", "families"),
        ("[[release]", "TOML"),
        (f"x = {'[' * 20_000}", "TOML"),
        ("[[release]]\nexpects = {}", "expects"),
        ('[[release]]\nfrom = "thirteen"', "from"),
        ('[[release]]\nexpect = { system = ["a b"] }', "expect"),
        ('expect_builds = ["../../etc"]', "expect_builds"),
        ("[[harvest]]\nfamilies = []", "harvest"),
    ],
)
def test_a_table_that_is_wrong_is_refused_by_what_is_wrong(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        table(tmp_path, text)
    with pytest.raises(UsageError, match="not readable"):
        Expectations.load(tmp_path / "absent.toml")


def test_a_file_that_is_larger_than_any_table_is_refused_unread(tmp_path: Path) -> None:
    limit = 4 << 20
    assert required("13.6.9", table(tmp_path, "#".ljust(limit))) == ALL_THREE
    with pytest.raises(UsageError, match=f"larger than {limit} bytes"):
        table(tmp_path, "#".ljust(limit + 1))


def without_haswell(w: Workshop) -> None:
    without(w, {w.object("/usr/lib/libplain.dylib", "x86_64h").cache_uuid})


def without(w: Workshop, caches: set[UUID | None]) -> None:
    """Rewrite the record as if its harvest had never found these caches."""
    fields = ("manifest", "objects", "cache_files")
    w.rewrite(
        lambda r: r.model_copy(
            update={f: tuple(e for e in getattr(r, f) if e.cache_uuid not in caches) for f in fields},
        )
    )


def codes(report: VerifyReport) -> list[tuple[FindingCode, str]]:
    return [(f.code, f.arch) for f in report.findings]


def test_a_guest_on_apple_silicon_lacks_the_cache_of_intel_macs(workshop: Workshop) -> None:
    without_haswell(workshop)
    with workshop.open() as library:
        for level in Level:
            report = verify(library, [BUILD], level=level)
            assert codes(report) == [(FindingCode.CACHE_MISSING, "x86_64h")]
        narrowed = Expectations.load(None, ["x86_64", "arm64e"])
        assert verify(library, [BUILD], expectations=narrowed).complete
        wider = Expectations.load(None, ["x86_64", "arm64e", "arm64e.x1"])
        assert codes(verify(library, [BUILD], expectations=wider)) == [(FindingCode.CACHE_MISSING, "arm64e.x1")]


def test_what_other_hosts_have_is_told_apart_from_what_is_wrong_here(workshop: Workshop) -> None:
    without_haswell(workshop)
    with workshop.open() as library:
        report = verify(library, [BUILD], level=Level.CATALOG)
        assert [f.elsewhere for f in report.findings] == [True]
        nothing = f"macOS 13.6.9 ({BUILD}): nothing harvested of its system cache x86_64h"
        assert report.findings[0].message == f"{nothing}: harvest a Mac with an Intel processor"
        assert report.verdict == "1 missing that other hosts have, which were not harvested"
    without(workshop, {workshop.object("/usr/lib/libplain.dylib", "x86_64").cache_uuid})
    with workshop.open() as library:
        report = verify(library, [BUILD], level=Level.CATALOG)
        assert [(f.arch, f.elsewhere) for f in report.findings] == [("x86_64", False), ("x86_64h", True)]
        assert report.verdict == "1 finding and 1 missing that other hosts have, which were not harvested"
        assert report.findings[0].message.endswith("harvest a Mac with Apple silicon")


def test_a_harvest_that_was_sealed_without_any_cache_is_not_complete(workshop: Workshop) -> None:
    """Which earlier versions did."""
    record = workshop.records()[BUILD]
    without(workshop, {o.cache_uuid for o in record.objects if o.cache_uuid})
    assert workshop.records()[BUILD].sealed
    with workshop.open() as library:
        report = verify(library, [BUILD], level=Level.CATALOG)
    assert codes(report) == [(FindingCode.CACHE_MISSING, arch) for arch in ("arm64e", "x86_64", "x86_64h")]


@pytest.mark.parametrize(
    ("product", "version", "lacking"),
    [
        ("Mac OS X", "10.13.6", ["Mach-O file of x86_64"]),
        ("Mac OS X", "10.15.7", ["Mach-O file of x86_64"]),
        ("macOS", "10.16", ["system shared cache"]),
        ("macOS", "11", ["system shared cache"]),
        ("macOS", "27.1", ["system shared cache", "x86support shared cache of x86_64"]),
        ("macOS", "99.0", ["system shared cache"]),
        ("iPhone OS", "18.0", []),
    ],
)
def test_every_harvest_since_macos_11_must_have_a_system_cache(product: str, version: str, lacking: list[str]) -> None:
    release = Release(product=product, version=version, build="1A1")
    assert [str(lack) for lack in musts_lacking(release, Had([("driverkit", "arm64e")]))] == lacking


@pytest.mark.parametrize(
    ("version", "model", "archs", "lacking"),
    [
        ("12.7", "", "arm64e x86_64", ["x86_64h"]),
        ("13.6.9", "", "arm64e", ["x86_64"]),
        ("13.6.9", "", "x86_64", ["arm64e"]),
        ("13.6.9", "", "x86_64h", []),
        ("13.6.9", "", "arm64e x86_64h", ["x86_64"]),
        ("13.6.9", "iPhone15,2", "arm64e", ["x86_64"]),
        ("26.5", "MacBookPro16,1", "x86_64h", []),
        ("26.5", "MacBookPro16,1", "arm64e x86_64", ["x86_64h"]),
        ("26.5", "MacBookPro17,1", "x86_64h", ["arm64e", "x86_64"]),
        ("26.5", "Mac14,8", "x86_64h", ["arm64e", "x86_64"]),
        ("15.0", "Macmini8,1", "x86_64h", []),
        ("26.5", "VirtualMac2,1", "arm64e", ["x86_64"]),
        ("26.5", "VirtualMac2,1 Mac14,8 MacBookAir10,1", "arm64e", ["x86_64"]),
        ("27", "", "arm64e.x1 x86_64", []),
        ("27", "", "x86_64", ["arm64e*"]),
        ("27", "Mac18,5", "arm64e x86_64", ["arm64e.x1"]),
        ("27", "Mac14,8", "arm64e", ["x86_64"]),
        ("27", "VirtualMac2,1", "arm64e", []),
        ("28", "Mac20,1", "arm64e.x3", []),
    ],
)
def test_what_a_harvest_must_have_depends_on_the_host(version: str, model: str, archs: str, lacking: list[str]) -> None:
    release = Release(product="macOS", version=version, build="1A1")
    had = Had([*(("system", arch) for arch in archs.split()), ("x86support", "x86_64")], model=model)
    assert [lack.arch for lack in musts_lacking(release, had)] == lacking


def test_who_has_the_rosetta_cryptex_has_both_of_its_caches() -> None:
    release = Release(version="27.0", build="1A1")
    cryptexes = ["/System/Volumes/Preboot/Cryptexes/Rosetta"]
    lacks = musts_lacking(release, Had([("system", "arm64e")], model="VirtualMac2,1", cryptexes=cryptexes))
    assert [(lack.family, lack.arch) for lack in lacks] == [("system", "x86_64"), ("x86support", "x86_64")]


@pytest.mark.parametrize(
    ("archs", "families", "lacking"),
    [
        ([], [], ["system shared cache", "x86support shared cache of x86_64"]),
        ([], ["system"], ["system shared cache"]),
        ([], ["x86support"], ["x86support shared cache of x86_64"]),
        ([], ["driverkit"], []),
        (["arm64e"], [], ["system shared cache"]),
        (["x86_64"], ["x86support"], ["x86support shared cache of x86_64"]),
    ],
)
def test_who_asks_for_some_caches_lacks_no_others(archs: list[str], families: list[str], lacking: list[str]) -> None:
    had = Had([("driverkit", "arm64e")], model="Mac14,8")
    assert [str(lack) for lack in musts_lacking(Release(version="27", build="1A1"), had, archs, families)] == lacking


@pytest.mark.parametrize(
    ("archs", "model", "host"),
    [
        ("x86_64h", "", Host.INTEL),
        ("x86_64h arm64e", "", Host.APPLE_SILICON),
        ("x86_64", "", Host.APPLE_SILICON),  # of Rosetta
        ("", "", None),
        ("arm64e", "MacBookPro16,1", Host.INTEL),
        ("x86_64h", "VirtualMac2,1", Host.VM),
        ("x86_64h", "iPhone15,2", Host.INTEL),
    ],
)
def test_a_host_is_told_by_its_model_or_by_its_caches(archs: str, model: str, host: Host | None) -> None:
    assert Had([("system", arch) for arch in archs.split()], model=model).host is host


@pytest.mark.parametrize(
    ("version", "family", "arch", "hosts"),
    [
        ("12.7", "system", "x86_64h", "any Mac"),
        ("13.6", "system", "x86_64h", "a Mac with an Intel processor"),
        ("13.6", "system", "x86_64", "a Mac with Apple silicon"),
        ("27.0", "system", "arm64e.x1", "a Mac with Apple silicon or Mac18,5"),
        ("13.6", "driverkit", "arm64e", ""),
    ],
)
def test_who_has_a_cache_is_told_in_words(version: str, family: str, arch: str, hosts: str) -> None:
    assert hosts_with(Release(version=version, build="1A1"), family, arch) == hosts


def test_of_systems_before_macos_11_files_are_wanted_whatever_families_of_caches_are() -> None:
    lacks = musts_lacking(Release(version="10.15", build="1A1"), Had([]), families=["system"])
    assert [str(lack) for lack in lacks] == ["Mach-O file of x86_64"]
    (newer,) = musts_lacking(Release(version="27", build="1A1"), Had([("system", "x86_64")], model="VirtualMac2,1"))
    assert str(newer) == "system shared cache of arm64e or a newer one"


def test_a_cryptex_that_leads_nowhere_is_lost_unless_macs_do_without_it() -> None:
    cryptexes = [f"/System/Volumes/Preboot/Cryptexes/{name}" for name in ("OS", "App", "ExclaveOS")]
    for product, version, there in (("macOS", "12.7", False), ("macOS", "13.0", True), ("iPhone OS", "18.0", False)):
        release = Release(product=product, version=version, build="1A1")
        assert has_cryptexes(release) is there
        assert lost_cryptexes(release, cryptexes) == (cryptexes[:2] if there else [])


def test_a_build_that_the_site_expects_is_missed_without_being_named(harvested: Path, tmp_path: Path) -> None:
    site = table(tmp_path, 'expect_builds = ["22G830", "22G831"]')
    with Library.open(harvested) as library:
        report = verify(library, level=Level.CATALOG, expectations=site)
    assert [(f.code, f.build) for f in report.findings] == [(FindingCode.NO_HARVEST, "22G831")]
    text = "22G831: expected, but nothing of it was harvested: harvest it (symcache harvest)"
    assert report.findings[0].message == text, "a table has no slips of the finger"
    assert report.builds == [BUILD]


def test_a_cache_that_was_replaced_under_the_same_build_is_noted(
    systems: dict[str, Path], harvested: Path, tmp_path: Path
) -> None:
    # A background update brings another cryptex; the build stays.
    shutil.copytree(harvested, tmp_path / "library")
    shutil.copytree(systems[OTHER_BUILD], tmp_path / "updated")
    plist = tmp_path / "updated/System/Library/CoreServices/SystemVersion.plist"
    shutil.copy(systems[BUILD] / plist.relative_to(tmp_path / "updated"), plist)
    make_library(tmp_path / "library", tmp_path, tmp_path / "updated")
    with Library.open(tmp_path / "library") as library:
        report = verify(library, [BUILD], level=Level.BYTES)
    assert report.findings == []
    assert sum("more than one system cache" in note for note in report.notes) == 3
    assert len([c for c in report.releases[0].caches if c["uuid"]]) == 6


def test_what_a_version_may_have_is_noted(harvested: Path) -> None:
    with Library.open(harvested) as library:
        report = verify(library, [BUILD], level=Level.CATALOG)
    assert report.complete
    lacking = ("driverkit cache arm64e", "arm64e images outside of caches")
    assert {f"macOS 13.6.9 ({BUILD}): no {what}; this version may have it" for what in lacking} <= {*report.notes}
