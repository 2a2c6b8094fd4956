"""Interprets what somebody types or pastes into the search box."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from symcache.catalog import ReleaseRow

__all__ = ["MOST_UUIDS", "Query", "releases_meant", "understand"]

MOST_UUIDS = 10_000
_MOST_WORDS = 8
_HEX = "[0-9A-Fa-f]"
_UUID = re.compile(
    rf"(?<!{_HEX})(?:"
    # With or without hyphens or the like; Breakpad puts an age behind it.
    rf"({_HEX}{{8}}[-_:. ]?(?:{_HEX}{{4}}[-_:. ]?){{3}}{_HEX}{{12}})0?"
    # In parts of a path, as debuggers look for it.
    rf"|({_HEX}{{2}}/{_HEX}{{30}})|((?:{_HEX}{{4}}[/ ]){{5}}{_HEX}{{12}}))(?!{_HEX})"
)
_SHA256 = re.compile(rf"(?<!{_HEX}){_HEX}{{64}}(?!{_HEX})")
_VERSION = re.compile(r"v?([0-9]{1,3}(?:\.[0-9]{1,3}){0,3})")
_BUILD = re.compile(r"[0-9]{1,2}[A-Za-z][0-9]{0,5}[a-z]?", re.IGNORECASE)
_REPORT = re.compile(
    r'"(?:incident_id|bug_type|app_name)"|^(?:Incident Identifier|Process|Hardware Model|Path): ', re.M
)
_SYSTEM = {"macos", "mac", "os", "osx", "x", "release", "version", "build", "for", "on", "the"}
"""Words that add nothing to a version."""
_NAMED = {"bigsur": "11", "monterey": "12", "ventura": "13", "sonoma": "14", "sequoia": "15", "tahoe": "26"}
_ARCHS = {
    "intel": ("x86_64h", "x86_64"),
    "x86": ("x86_64h", "x86_64"),
    "amd64": ("x86_64h", "x86_64"),
    "x64": ("x86_64h", "x86_64"),
    "rosetta": ("x86_64",),
    "arm": ("arm64e", "arm64"),
    "arm64": ("arm64e", "arm64"),
    "silicon": ("arm64e", "arm64"),
    "apple": (),
    "m1": ("arm64e", "arm64"),
    **{arch: (arch,) for arch in ("arm64e", "x86_64", "x86_64h", "i386", "arm64e.x1")},
}


@dataclass(frozen=True)
class Query:
    """What was typed, taken apart."""

    text: str
    uuids: tuple[UUID, ...] = ()
    sha256: str = ""
    is_report: bool = False
    versions: tuple[str, ...] = ()
    builds: tuple[str, ...] = ()
    """Words that look like a build, or like the beginning of one."""
    archs: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    """Parts of names: what has no other meaning."""
    glob: str = ""
    """The text, where it has wildcards."""


def understand(text: str) -> Query:
    """Take apart what somebody typed or pasted."""
    text = text.strip()
    if sha256 := _SHA256.search(text):
        return Query(text, sha256=sha256[0].lower())
    found = dict.fromkeys(
        UUID(re.sub("[^0-9A-Fa-f]", "", next(filter(None, m.groups())))) for m in _UUID.finditer(text)
    )
    if _REPORT.search(text):
        return Query(text, tuple(found)[:MOST_UUIDS], is_report=True)
    if found:
        return Query(text, tuple(found)[:MOST_UUIDS])
    if any(c in text for c in "*?"):
        return Query(text, glob=text)
    if "/" in text:
        return Query(text, words=(text,))
    versions, builds, archs, words = [], [], list[str](), []
    parts = text.replace("Big Sur", "bigsur").replace("big sur", "bigsur").split()[:_MOST_WORDS]
    for part in parts:
        lower = part.strip("(),;").lower()
        if version := _VERSION.fullmatch(lower):
            versions.append(version[1])
        elif lower in _NAMED:
            versions.append(_NAMED[lower])
        elif lower in _ARCHS:
            archs += _ARCHS[lower]
        elif _BUILD.fullmatch(lower) and len(lower) > 2:
            builds.append(lower)
        elif lower not in _SYSTEM or len(parts) == 1:
            words += [word for word in re.split(r"[^\w.+$-]+", part) if word]
    return Query(text, versions=tuple(versions), builds=tuple(builds), archs=tuple(archs), words=tuple(words))


def releases_meant(query: Query, releases: Sequence[ReleaseRow]) -> list[ReleaseRow]:
    """Return the releases that a version or a build in the query names: `15` is every 15.x."""
    if not query.versions and not query.builds:
        return []
    return [
        r
        for r in releases
        if any(r.version == v or r.version.startswith(f"{v}.") for v in query.versions)
        or any(r.build.lower().startswith(b) for b in query.builds)
    ]
