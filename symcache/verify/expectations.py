"""What a whole release has, and what each harvest of it: cache families and architectures, by macOS version.

The shipped table is `releases.toml` beside this module; a site's table of the same form is asked first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from symcache.dyld import canonical_arch
from symcache.errors import UsageError
from symcache.model import MACOS, Release, ReleaseId, canonical_product
from symcache.verify.policy import BuildName, ReleaseName, RetentionPolicy, SyncPolicy, Version, version_number
from symcache.verify.tables import load_table, parse_table

__all__ = [
    "FILES",
    "SYSTEM",
    "Expectations",
    "Expected",
    "HarvestRow",
    "ShippedTable",
    "family_of_path",
    "shipped_table",
    "unit_title",
]

SYSTEM, FILES = "system", "files"
"""The family of the system's own shared caches, and what stands for all that is outside of caches."""
# Each family has a folder in /System that is laid out as a system itself; iOSSupport has none of its own caches.
_FAMILY = re.compile(r"/System/(?!iOSSupport/)([^/]{1,32})/(?:System|usr)/")


def family_of_path(path: str) -> str:
    """Return the family of a shared cache by its path, or of an image by its install name."""
    if "/dyld_sim_shared_cache_" in path:
        return "simulator"
    folder = _FAMILY.search(path)
    return folder[1].lower() if folder else SYSTEM


@dataclass(frozen=True, slots=True)
class Expected:
    """One shared cache that a release should have, or with family `files` its images outside of caches."""

    family: str
    arch: str
    required: bool


def unit_title(family: str, arch: str) -> str:
    """Return what messages call a shared cache, or files outside of caches: `system cache x86_64h`, `arm64e files`."""
    return f"{arch} files" if family == FILES else f"{family} cache {arch}"


_Family = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")]
_Arch = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,32}$")]
_Pattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.*-]{1,32}$")]


class _Bounds(BaseModel):
    """Which releases an entry is about."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    from_: Version | None = Field(default=None, alias="from")
    before: Version | None = None
    builds: tuple[BuildName, ...] = ()
    products: tuple[str, ...] = ("macOS", "Mac OS X")

    def fits(self, product: str, version: str, build: str) -> bool:
        if canonical_product(product) not in map(canonical_product, self.products):
            return False
        if self.builds:
            return build in self.builds
        number = version_number(version)
        return not (self.from_ and number < version_number(self.from_)) and not (
            self.before and number >= version_number(self.before)
        )


class _Entry(_Bounds):
    expect: dict[_Family, tuple[_Arch, ...]] = {}
    optional: dict[_Family, tuple[_Arch, ...]] = {}


class HarvestRow(_Bounds):
    """What every harvest of some releases must have."""

    hosts: tuple[str, ...] = ()
    """Kinds of hosts, or models; without any, the row is about all of them."""
    cryptex: str = ""
    """It is about hosts that have this cryptex."""
    families: tuple[_Family, ...] = ()
    """Of each, one cache at least, of whatever architecture."""
    must: dict[_Family, tuple[_Pattern, ...]] = {}
    """By family, architectures each of which must be there, as globs."""
    idle_cryptexes: tuple[str, ...] | None = None
    """Cryptexes that are listed on Macs that do not have them; since there are cryptexes at all."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    release: tuple[_Entry, ...] = ()
    expect_builds: tuple[ReleaseName, ...] = ()
    archs: tuple[_Arch, ...] = ()
    families: tuple[_Family, ...] = ()
    sync: SyncPolicy = SyncPolicy()
    retention: RetentionPolicy | None = None

    def entry(self, product: str, version: str, build: str) -> _Entry | None:
        """Return what it says of a release: the first entry that is about it."""
        return next((e for e in self.release if e.fits(product, version, build)), None)


class ShippedTable(_Table):
    """The table that is part of the program."""

    harvest: tuple[HarvestRow, ...]


class Expectations:
    """The shipped table, narrowed or extended by a site's, or replaced by a list of architectures."""

    def __init__(self, site: _Table | None = None, archs: Sequence[str] = ()) -> None:
        self._site = site or _Table()
        self.archs = tuple(dict.fromkeys(canonical_arch(a) for a in archs))
        """Asked for on the command line; empty for what the tables say."""
        self._nothing = False
        self.wanted_archs = self.archs or tuple(canonical_arch(a) for a in self._site.archs)
        """What the site wants of each release; empty for every architecture."""
        self.wanted_families = self._site.families
        """Likewise the families of caches. Files outside of caches are wanted in any case."""
        self.expected_releases = tuple(dict.fromkeys(map(_release_id, self._site.expect_builds)))
        """Releases that the site's table says must be in the library."""
        self.sync = self._site.sync
        """Which published builds the site wants."""
        self.retention = self._site.retention
        """What the site keeps; None where its table does not say."""

    @classmethod
    def load(cls, site: Path | None = None, archs: Sequence[str] = ()) -> Expectations:
        """Read a site's table. `archs` replaces what is expected of the system family. Raises UsageError."""
        if site is None:
            return cls(archs=archs)
        form = "docs/verify.md shows the form of the table, docs/sources.md that of [sync] and [retention]"
        table = load_table(_Table, site, "--releases", form)
        _check_wanted(table, str(site))
        return cls(table, archs)

    @classmethod
    def nothing(cls) -> Expectations:
        """Expect no particular cache of any release, only what was harvested."""
        expectations = cls()
        expectations._nothing = True
        return expectations

    def _wanted(self, caches: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        """Return what the site wants of caches or files."""
        archs, families = self.wanted_archs, self.wanted_families
        return {
            family: tuple(a for a in found if not archs or canonical_arch(a) in archs)
            for family, found in caches.items()
            if not families or family in {*families, FILES}
        }

    def leaves_out(self, release: Release, family: str, arch: str) -> bool:
        """Return whether site or command line say that nobody wants such a cache: `arch` is a pattern, or empty."""

        def none_of(archs: Sequence[str]) -> bool:
            return not any(fnmatchcase(canonical_arch(a), arch or "*") for a in archs)

        entry = self._site.entry(release.product, release.version, release.build)
        return (
            self._nothing
            or bool(self.wanted_archs and none_of(self.wanted_archs))
            or bool(self.wanted_families and family not in {*self.wanted_families, FILES})
            or bool(entry and family in {*entry.expect, *entry.optional} and none_of(entry.expect.get(family, ())))
        )

    def of(self, product: str, version: str, build: str) -> list[Expected] | None:
        """Return what a release should have, or None if no table says anything about it."""
        if self._nothing:
            return []
        entries = [e for table in (shipped_table(), self._site) if (e := table.entry(product, version, build))]
        if not entries and not self.archs:
            return None
        required: dict[str, tuple[str, ...]] = {}
        optional: dict[str, tuple[str, ...]] = {}
        for entry in entries:  # family by family, the site's entry takes the place of the shipped one
            for family in {*entry.expect, *entry.optional}:
                required[family] = entry.expect.get(family, ())
                optional[family] = entry.optional.get(family, ())
        if self.archs:
            # The system's caches, or before macOS 11 its files, of just these architectures.
            main = FILES if required.get(FILES) and not required.get(SYSTEM) else SYSTEM
            required[main], optional[main] = self.archs, ()
        required, optional = self._wanted(required), self._wanted(optional)
        return [
            Expected(family, canonical_arch(arch), must)
            for families, must in ((required, True), (optional, False))
            for family in sorted(families)
            for arch in families[family]
            if must or arch not in required.get(family, ())
        ]


def _release_id(name: str) -> ReleaseId:
    """Return the release that a table names: a build alone is one of macOS."""
    product, _, build = name.rpartition(":")
    return ReleaseId(canonical_product(product or MACOS), build)


def _check_wanted(site: _Table, name: str) -> None:
    """Raise UsageError for what a site wants and no table knows: a misspelt name would leave out all that there is."""
    known: dict[str, set[str]] = {}
    for entry in (*shipped_table().release, *site.release):
        for family, archs in (*entry.expect.items(), *entry.optional.items()):
            known.setdefault(family, set()).update(map(canonical_arch, archs))
    for row in shipped_table().harvest:
        for family, patterns in row.must.items():
            known.setdefault(family, set()).update(patterns)
    all_archs = set[str]().union(*known.values())
    unknown_archs = [a for a in site.archs if not any(fnmatchcase(canonical_arch(a), k) for k in all_archs)]
    unknown_families = [f for f in site.families if f not in known]
    for key, unknown, there in (("archs", unknown_archs, all_archs), ("families", unknown_families, {*known})):
        if unknown:
            raise UsageError(
                f"{name}: {key}: no release that this table or the shipped one knows has {unknown[0]!r}",
                hint=f"name some of {', '.join(sorted(a for a in there if '*' not in a))}, or have a [[release]] of the"
                " table name it",
            )


@cache
def shipped_table() -> ShippedTable:
    """Return the table that is part of this program."""
    text = (resources.files("symcache.verify") / "releases.toml").read_text(encoding="utf-8")
    return parse_table(ShippedTable, text, "releases.toml")
