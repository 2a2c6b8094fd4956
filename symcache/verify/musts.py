"""What one harvest must have brought, by version and kind of host: the rows `[[harvest]]` of `releases.toml`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from symcache.model import Release
from symcache.verify.expectations import FILES, HarvestRow, shipped_table

__all__ = ["Had", "Host", "Lack", "has_cryptexes", "hosts_with", "lost_cryptexes", "musts_lacking"]


class Host(StrEnum):
    """Kinds of Macs, which have different caches."""

    APPLE_SILICON = "apple-silicon"
    INTEL = "intel"
    VM = "vm"
    """A virtual machine on Apple silicon."""


_MODEL = re.compile(r"(Mac|MacBook|MacBookAir|MacBookPro|Macmini|MacPro|iMac|iMacPro)([0-9]{1,3}),[0-9]{1,2}")
_FIRST_WITH_M1 = {"Mac": 13, "MacBookAir": 10, "MacBookPro": 17, "Macmini": 9, "iMac": 21}
"""Numbers of models from which on they have Apple silicon."""
_HOST_WORDS = {
    "": "any Mac",
    Host.APPLE_SILICON: "a Mac with Apple silicon",
    Host.INTEL: "a Mac with an Intel processor",
}


@dataclass(frozen=True, slots=True)
class Had:
    """What a harvest has: `caches` by (family, architecture), architectures of `files` outside of them, and of whom."""

    caches: Sequence[tuple[str, str]]
    files: frozenset[str] = frozenset()
    model: str = ""
    """The Mac's model identifier, or those of all that a firmware is for, apart by spaces; empty if unknown."""
    cryptexes: Sequence[str] = ()
    """Their paths, or those of what lies in them."""

    @property
    def models(self) -> set[str]:
        """Model identifiers."""
        return set(self.model.split())

    @property
    def host(self) -> Host | None:
        """The kind of host: by its model, else by its caches, of which Intel and Apple silicon share none since 13."""
        archs, kinds = {arch for _, arch in self.caches}, {_kind_of_model(model) for model in self.models} - {None}
        if kinds:  # of a restore image, which is for virtual machines, too, by its Macs
            return next(kind for kind in (Host.APPLE_SILICON, Host.INTEL, Host.VM) if kind in kinds)
        if any(arch.startswith("arm64") for arch in archs):
            return Host.APPLE_SILICON
        if "x86_64h" in archs:
            return Host.INTEL
        return Host.APPLE_SILICON if archs else None


@dataclass(frozen=True, slots=True)
class Lack:
    """A cache that a harvest must have and has not; `arch` is empty where any one of the family would do."""

    family: str
    arch: str = ""

    def covers(self, family: str, arch: str) -> bool:
        """Return whether a cache of this family and architecture is one of those that are lacking."""
        return family == self.family and (not self.arch or fnmatchcase(arch, self.arch))

    def __str__(self) -> str:
        """Return e.g. `system shared cache of x86_64`."""
        if self.family == FILES:
            return f"Mach-O file of {self.arch}"
        return f"{self.family} shared cache" + (f" of {self.arch.replace('*', ' or a newer one')}" if self.arch else "")


def _kind_of_model(model: str) -> Host | None:
    """Return the kind of Mac that a model identifier (`hw.model`) names; None for one that is no Mac's.

    All since 2022 are `Mac13,1` and so on; before, names tell the product, of which the last ones had an M1.
    """
    if model.startswith("VirtualMac"):
        return Host.VM
    match = _MODEL.fullmatch(model)
    if match is None:
        return None
    first_with_m1 = _FIRST_WITH_M1.get(match[1])
    return Host.APPLE_SILICON if first_with_m1 is not None and int(match[2]) >= first_with_m1 else Host.INTEL


def musts_lacking(release: Release, had: Had, archs: Sequence[str] = (), families: Sequence[str] = ()) -> list[Lack]:
    """Return what a harvest of `release` must have, and has not; with `archs` or `families`, only of these."""
    there = {*had.caches, *((FILES, arch) for arch in had.files)}
    families_there = {family for family, _ in there}
    hosts = {had.host, *had.models}
    lacks: list[Lack] = []
    for row in _rows(release):
        if row.hosts and not hosts & {*row.hosts}:
            continue
        if row.cryptex and not any(f"/{row.cryptex}/" in f"{path}/" for path in had.cryptexes):
            continue
        lacks += [
            Lack(family)
            for family in row.families
            if family not in families_there and (not families or family in families)
        ]
        lacks += [
            Lack(family, arch)
            for family, wanted in row.must.items()
            for arch in wanted
            if not any(f == family and fnmatchcase(a, arch) for f, a in there)
            and (not archs or any(fnmatchcase(a, arch) for a in archs))
            and (not families or family in {*families, FILES})
        ]
    nothing = {lack.family for lack in lacks if not lack.arch}
    return list(dict.fromkeys(lack for lack in lacks if not lack.arch or lack.family not in nothing))


def hosts_with(release: Release, family: str, arch: str) -> str:
    """Return which hosts of a release must have a cache, in words; an empty string where no row says it."""
    words = [
        _HOST_WORDS.get(host, host)
        for row in _rows(release)
        if any(fnmatchcase(arch, wanted) for wanted in row.must.get(family, ()))
        for host in row.hosts or ("",)
        if host != Host.VM
    ]
    return " or ".join(dict.fromkeys(words))


def has_cryptexes(release: Release) -> bool:
    """Return whether there are cryptexes in a release, in which its shared caches lie."""
    return any(row.idle_cryptexes is not None for row in _rows(release))


def lost_cryptexes(release: Release, cryptexes: Iterable[str]) -> list[str]:
    """Return those of `cryptexes` (paths) that lead nowhere and must not, on a system of `release` that is whole."""
    idle = [row.idle_cryptexes for row in _rows(release) if row.idle_cryptexes is not None]
    if not idle:
        return []  # before there were cryptexes
    return [path for path in cryptexes if not any(path.rpartition("/")[2] in names for names in idle)]


def _rows(release: Release) -> list[HarvestRow]:
    return [row for row in shipped_table().harvest if row.fits(release.product, release.version, release.build)]
