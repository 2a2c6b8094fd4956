"""What can be found wanting: levels, codes, and the report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

from symcache.kinds import uuid_text
from symcache.text import counted

__all__ = ["NEXT_STEP", "Finding", "FindingCode", "Level", "ReleaseSummary", "VerifyReport", "Waived"]


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
    """Stable names of what can be wrong, for scripts and waivers, each with where it is looked for: level or option."""

    where: tuple[str, ...]

    def __new__(cls, code: str, *where: str) -> Self:
        """Return the member of a code."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.where = where
        return member

    # The library and its releases.
    EMPTY_LIBRARY = "empty-library", Level.CATALOG
    """The library holds no release at all."""
    NO_HARVEST = "no-harvest", Level.CATALOG
    """An expected build of which it has nothing."""
    UNREADABLE_RECORD = "unreadable-record", Level.CATALOG
    """A harvest record is damaged, or newer than this program: nothing can be said of what it holds."""
    RECORD_MISSING = "record-missing", Level.CATALOG
    """A record was lost: its writer numbered later ones, or this machine's catalog had known it."""
    UNKNOWN_RELEASE = "unknown-release", Level.CATALOG
    """No table says which shared caches this version has."""
    CACHE_MISSING = "cache-missing", Level.CATALOG
    """An expected architecture of a cache family was never harvested."""
    NOT_SEALED = "not-sealed", Level.CATALOG
    """It was harvested, but by no harvest that came to its end with everything in place; or none can be, as of what is
    no whole system (docs/sources.md)."""
    SOURCE_PROBLEM = "source-problem", Level.CATALOG
    """What an unsealed harvest could not read, or found contradictory."""
    EMPTY_CACHE = "empty-cache", Level.CATALOG
    """Raw files were kept of a cache of which no image is listed."""

    # Images.
    MISSING = "missing", Level.CATALOG
    """The source lists it, nothing was stored for it."""
    WRONG_UUID = "wrong-uuid", Level.CATALOG, Level.BLOBS
    """Another image lies there: of another build, of the other Intel cache, a twin."""
    WRONG_ARCH = "wrong-arch", Level.CATALOG, Level.BLOBS
    """An image of another architecture lies there."""
    WRONG_KIND = "wrong-kind", Level.CATALOG, Level.BLOBS
    """A dSYM lies where a binary should, or the other way round."""
    UNEXPECTED = "unexpected", Level.CATALOG
    """Stored under this build, but listed by no source."""

    # Stored content.
    BLOB_MISSING = "blob-missing", Level.BLOBS
    """Its content is gone."""
    WRONG_SIZE = "wrong-size", Level.BLOBS
    """The content is longer or shorter than what was stored."""
    DAMAGED = "damaged", Level.BLOBS, Level.BYTES
    """It cannot be decoded, has another hash, or its file is cut or goes on behind its end."""
    MALFORMED = "malformed", Level.BLOBS
    """The bytes are those that were stored, but they are no Mach-O image, or one that contradicts itself."""
    TRUNCATED = "truncated", Level.BLOBS
    """A segment reaches beyond the file, or has not one of its bytes."""
    TRUNCATED_LINKEDIT = "truncated-linkedit", Level.BLOBS, Level.BYTES
    """The symbol table, string pool or another part of the link edit reaches beyond the file or is cut."""

    # Kept raw caches.
    COMPANION_MISSING = "companion-missing", Level.BLOBS
    """A file that a kept raw cache's header names was not kept, or its main file was not."""
    COMPANION_MISMATCH = "companion-mismatch", Level.BLOBS
    """A kept file belongs to another cache."""
    CACHE_UNREADABLE = "cache-unreadable", Level.BLOBS, Level.BYTES
    """A kept raw cache cannot be opened, or contradicts itself; at `bytes` also pages that are not what the code
    signature of their file says."""

    # Every byte.
    NOT_IN_CACHE = "not-in-cache", Level.BYTES
    """The list has an image that the cache does not have, such as an alias of another."""
    NOT_IN_MANIFEST = "not-in-manifest", Level.BYTES
    """The cache has an image that is not on the list."""
    SYMBOL_COUNT = "symbol-count", Level.BYTES
    """More or fewer symbols than the raw cache has; or none at all, from Apple's extractor."""
    WRONG_ADDRESS = "wrong-address", Level.BYTES
    """The image does not lie where the raw cache has it."""
    TEXT_DIFFERS = "text-differs", Level.BYTES
    """Its code is not that of the raw cache."""

    # Crash dumps, lists of UUIDs, and servers.
    MODULE_MISSING = "module-missing", "--dump", "--uuids"
    """Nobody has this module."""
    DUMP_UNREADABLE = "dump-unreadable", "--dump"
    """No modules could be read."""


_AGAIN = "harvest it again"
NEXT_STEP = {
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
    FindingCode.WRONG_SIZE: "symcache fsck --read-data --repair",
    FindingCode.DAMAGED: "symcache fsck --read-data --repair",
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
    product: str = ""
    """The system that `build` is of."""

    def with_step(self) -> Finding:
        """Return it with a message that ends with the next step."""
        if self.step is None:
            return self
        step = self.step or NEXT_STEP[self.code]
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
    product: str = ""

    def has(self, finding: Finding) -> bool:
        """Return whether a finding is about it."""
        return (finding.product, finding.build) == (self.product, self.build)


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
    _known: set[Finding] = field(default_factory=set)

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

    def add(self, findings: Iterable[Finding], product: str = "") -> None:
        """Add findings, of a release of `product` if any, each only once; their messages will end with what to do."""
        for finding in (replace(f.with_step(), product=f.product or product) for f in findings):
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
    """Return a finding as plain data; `product` and `elsewhere` only where they say something."""
    values = asdict(finding)
    return {n: value for n, value in values.items() if n != "step" and (value or n not in {"elsewhere", "product"})}
