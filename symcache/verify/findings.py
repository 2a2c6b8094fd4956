"""What can be found wanting: levels, codes, and the report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any
from uuid import UUID

from symcache.kinds import uuid_text
from symcache.text import counted

__all__ = ["Finding", "FindingCode", "Level", "ReleaseSummary", "VerifyReport", "Waived"]


class Level(StrEnum):
    """How thoroughly to look; each level includes those before it."""

    CATALOG = "catalog"
    """Every expected shared cache has a sealed harvest, and every expected image has an entry."""
    BLOBS = "blobs"
    """And its blob is there, as long as it should be, and starts as the right image."""
    BYTES = "bytes"
    """And every byte has the hash it was stored under, the symbol table is whole, and what came out of a shared cache
    is what the kept raw cache says."""


class FindingCode(StrEnum):
    """Stable names of what can be wrong: scripts and waivers rely on them. `docs/verify.md` explains each."""

    # The library and its releases: level catalog.
    EMPTY_LIBRARY = "empty-library"
    """The library holds no release at all."""
    NO_HARVEST = "no-harvest"
    """An expected build of which the library has nothing."""
    UNREADABLE_RECORD = "unreadable-record"
    """A record that this program cannot read: nothing can be said of what it holds."""
    RECORD_MISSING = "record-missing"
    """A record that must have been, since its writer wrote later ones, is not there."""
    UNKNOWN_RELEASE = "unknown-release"
    """No table says which shared caches this version has."""
    CACHE_MISSING = "cache-missing"
    """An expected architecture of a cache family was not harvested."""
    NOT_SEALED = "not-sealed"
    """It was harvested, but by no harvest that came to its end with everything in place."""
    SOURCE_PROBLEM = "source-problem"
    """A part of the source that an unsealed harvest could not read, or that contradicted itself."""
    EMPTY_CACHE = "empty-cache"
    """A raw cache was kept, but no image of it is listed."""

    # Images: level catalog, and again against the content at level blobs.
    MISSING = "missing"
    """In the manifest, but nothing was stored for it."""
    WRONG_UUID = "wrong-uuid"
    """At the right path lies an image of another UUID: another build's, or another file altogether."""
    WRONG_ARCH = "wrong-arch"
    """At the right path lies an image of another architecture."""
    WRONG_KIND = "wrong-kind"
    """A binary where debug info was expected, or the other way round."""
    UNEXPECTED = "unexpected"
    """Stored under this build, but the source never listed it."""

    # Stored content: level blobs.
    BLOB_MISSING = "blob-missing"
    """Stored once, but its blob is gone."""
    WRONG_SIZE = "wrong-size"
    """The blob holds more or fewer bytes than were stored."""
    DAMAGED = "damaged"
    """The blob cannot be decoded, or its content has another hash."""
    MALFORMED = "malformed"
    """The content is whole, but it is no Mach-O image, or one that contradicts itself."""
    TRUNCATED = "truncated"
    """A segment reaches beyond the end of the file, or its bytes were never there."""
    TRUNCATED_LINKEDIT = "truncated-linkedit"
    """Symbol table, string pool or other link-edit data reaches beyond its bounds or is cut; also at level bytes."""

    # Kept raw caches: level blobs.
    COMPANION_MISSING = "companion-missing"
    """A file that the main file of a kept shared cache names was not kept."""
    COMPANION_MISMATCH = "companion-mismatch"
    """A file of a kept shared cache is of another cache."""
    CACHE_UNREADABLE = "cache-unreadable"
    """A kept raw cache cannot be opened, though its files are what was stored; seen at level bytes, too."""

    # Every byte: level bytes.
    NOT_IN_CACHE = "not-in-cache"
    """The manifest lists an image that the cache's own table does not have, such as an alias of another image."""
    NOT_IN_MANIFEST = "not-in-manifest"
    """The cache's own table has an image that the manifest does not list."""
    SYMBOL_COUNT = "symbol-count"
    """The image has fewer or more symbols than the cache holds for it."""
    WRONG_ADDRESS = "wrong-address"
    """The image does not lie where the cache's own table has it, or its __TEXT has another size."""
    TEXT_DIFFERS = "text-differs"
    """The code behind the load commands is not that of the raw cache."""

    # Crash dumps, lists of UUIDs, and servers.
    MODULE_MISSING = "module-missing"
    """A module of a crash dump, or a UUID of a list, that nobody here has."""
    DUMP_UNREADABLE = "dump-unreadable"
    """A crash dump or report in which no modules could be read."""


_AGAIN = "harvest it again"
_NEXT_STEP = {
    FindingCode.EMPTY_LIBRARY: "harvest one (symcache harvest), or name another library",
    FindingCode.NO_HARVEST: "harvest it (symcache harvest)",
    FindingCode.UNREADABLE_RECORD: "update symcache; if it is the newest, symcache fsck --repair",
    FindingCode.RECORD_MISSING: "bring it back from a backup, or harvest what it held again",
    FindingCode.SOURCE_PROBLEM: "then harvest it again",
    FindingCode.EMPTY_CACHE: _AGAIN,
    FindingCode.MISSING: _AGAIN,
    FindingCode.WRONG_UUID: _AGAIN,
    FindingCode.WRONG_ARCH: _AGAIN,
    FindingCode.WRONG_KIND: _AGAIN,
    FindingCode.UNEXPECTED: "harvest it again, or take the record back (symcache remove)",
    FindingCode.BLOB_MISSING: "symcache fsck --repair",
    FindingCode.WRONG_SIZE: "symcache fsck --repair",
    FindingCode.DAMAGED: "symcache fsck --repair",
    FindingCode.MALFORMED: _AGAIN,
    FindingCode.TRUNCATED: "symcache reextract",
    FindingCode.TRUNCATED_LINKEDIT: "symcache reextract",
    FindingCode.COMPANION_MISSING: _AGAIN,
    FindingCode.COMPANION_MISMATCH: _AGAIN,
    FindingCode.CACHE_UNREADABLE: _AGAIN,
    FindingCode.NOT_IN_CACHE: _AGAIN,
    FindingCode.NOT_IN_MANIFEST: _AGAIN,
    FindingCode.SYMBOL_COUNT: "symcache reextract",
    FindingCode.WRONG_ADDRESS: "symcache reextract",
    FindingCode.TEXT_DIFFERS: "symcache reextract",
    FindingCode.UNKNOWN_RELEASE: "add it to a table of your own (--releases), or name the architectures (--arch)",
    FindingCode.CACHE_MISSING: "harvest a host that has it",
    FindingCode.NOT_SEALED: _AGAIN,
    FindingCode.MODULE_MISSING: "harvest the release that it is of, or `symcache add` it",
    FindingCode.DUMP_UNREADABLE: "make it anew, or name another file",
}
"""What to do, where a finding does not say it more precisely."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found wanting. Empty fields do not apply."""

    code: FindingCode
    message: str
    build: str = ""
    path: str = ""
    arch: str = ""
    uuid: str = ""
    """As Apple's tools print it."""
    cache_uuid: str = ""
    elsewhere: bool = False
    """Nothing is wrong with what was harvested: other hosts have this, and none of those was."""
    step: str | None = ""
    """What to do; empty for what the code says, None if the message ends with it."""

    def with_step(self) -> Finding:
        """Return it with a message that ends with the next step."""
        if self.step is None:
            return self
        step = self.step or _NEXT_STEP[self.code]
        message = self.message if step in self.message else f"{self.message}: {step}"
        return replace(self, message=message, step=None)

    @classmethod
    def of_image(
        cls, code: FindingCode, text: str, build: str, path: str, arch: str, uuid: UUID | None, cache: UUID | None
    ) -> Finding:
        """Return a finding about one image, whose message names it."""
        return cls(
            code,
            f"{path} ({arch}): {text}",
            build,
            path,
            arch,
            uuid_text(uuid) if uuid else "",
            uuid_text(cache) if cache else "",
        )


@dataclass(frozen=True, slots=True)
class Waived:
    """A finding that a waiver excuses, why, and until when (ISO 8601 date)."""

    finding: Finding
    reason: str
    until: str


@dataclass
class ReleaseSummary:
    """One release as it was looked at."""

    build: str
    version: str = ""
    images: int = 0
    caches: list[dict[str, Any]] = field(default_factory=list)
    """`family`, `arch`, `uuid`, `images`, `sealed`, `raw` (whether the raw files were kept)."""


@dataclass
class VerifyReport:
    """What was looked at and what was found."""

    level: Level
    releases: list[ReleaseSummary] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    waived: list[Waived] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What does not keep a release from being complete, but should be known."""
    modules: list[dict[str, Any]] = field(default_factory=list)
    """Where crash dumps or UUIDs were asked about: each module, and who has it."""
    _known: set[Finding] = field(default_factory=set, repr=False)

    @property
    def builds(self) -> list[str]:
        """The builds that were looked at."""
        return [r.build for r in self.releases]

    @property
    def images(self) -> int:
        """How many images were expected, over all releases."""
        return sum(r.images for r in self.releases)

    @property
    def complete(self) -> bool:
        """True when nothing is wanting that no waiver excuses."""
        return not self.findings

    @property
    def verdict(self) -> str:
        """One phrase: `complete`, or how many findings there are, those that only other hosts can mend apart."""
        here = sum(not f.elsewhere for f in self.findings)
        parts = [counted(here, "finding") if here else ""]
        if elsewhere := len(self.findings) - here:
            parts.append(f"{elsewhere} missing that other hosts have, which were not harvested")
        return " and ".join(p for p in parts if p) or "complete"

    def add(self, findings: Iterable[Finding]) -> None:
        """Add findings, each only once; their messages will end with what to do."""
        for finding in (f.with_step() for f in findings):
            if finding not in self._known:
                self._known.add(finding)
                self.findings.append(finding)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {
            "complete": self.complete,
            "level": self.level.value,
            "builds": self.builds,
            "images": self.images,
            "findings": [_plain(f) for f in self.findings],
            "waived": [{**_plain(w.finding), "reason": w.reason, "until": w.until} for w in self.waived],
            "notes": self.notes,
            "releases": [asdict(r) for r in self.releases],
            "modules": self.modules,
        }


def _plain(finding: Finding) -> dict[str, Any]:
    """Return a finding as plain data; `elsewhere` only where it is so."""
    values = asdict(finding)
    return {name: value for name, value in values.items() if name != "step" and (name != "elsewhere" or value)}
