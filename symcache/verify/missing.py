"""What clients requested and no server had, and which release probably holds it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from symcache.catalog import MissingImage, release_order
from symcache.library import Library
from symcache.model import Kind, uuid_text

__all__ = ["MissedRequest", "Wanted", "missing_images"]

_KINDS = {"executable": {Kind.EXECUTABLE}, "breakpad": {Kind.EXECUTABLE}, "debuginfo": {Kind.DEBUGINFO}}
"""What a request of each kind can be served from; those that are not here, from any content."""
_MOST_NAMES = 1000
"""How many names are looked up for hints."""


@dataclass(frozen=True, slots=True)
class MissedRequest:
    """One line of a log of misses. Times are UTC, ISO 8601; empty where the log does not say."""

    uuid: UUID
    kind: str
    times: int
    name: str = ""
    build: str = ""
    cache_uuid: UUID | None = None
    first_asked: str = ""
    last_asked: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Something to be harvested. `build` is the release that holds it for certain, if that is known."""

    request: MissedRequest
    build: str
    hint: str

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        a = self.request
        return {
            "uuid": uuid_text(a.uuid),
            "kind": a.kind,
            "name": a.name,
            "times": a.times,
            "first_asked": a.first_asked,
            "last_asked": a.last_asked,
            "asked_build": a.build,
            "asked_cache_uuid": uuid_text(a.cache_uuid) if a.cache_uuid else "",
            "build": self.build,
            "hint": self.hint,
        }


def missing_images(library: Library | None, log: Iterable[MissedRequest]) -> list[Wanted]:
    """Return what is still wanted, most often requested first, with what the library knows of its neighbours.

    Without a library, everything is, and has no hint.
    """
    rows = list(log)
    if not library:
        return _by_times(Wanted(r, r.build, "") for r in _merged(rows))
    held = library.holdings(list(dict.fromkeys(a.uuid for a in rows)))
    # What came since, and what was requested under another kind only, is no longer wanted.
    open_rows = [a for a in rows if not any(o.kind in _KINDS.get(a.kind, Kind) for o in held.get(a.uuid, ()))]
    listed = library.catalog.missing_images({a.uuid for a in open_rows})
    caches = library.catalog.builds_of_caches({a.cache_uuid for a in open_rows if a.cache_uuid})
    releases = {r.build: r for r in library.releases()}
    builds = sorted(releases, key=lambda b: release_order(releases[b].version, b))
    names = _Names(library)
    lines = [replace(r, build=r.build or (caches.get(r.cache_uuid, "") if r.cache_uuid else "")) for r in open_rows]
    return _by_times(
        Wanted(r, *_hint(r, listed.get(r.uuid), builds, bool(held.get(r.uuid)), names)) for r in _merged(lines)
    )


def _by_times(wanted: Iterable[Wanted]) -> list[Wanted]:
    return sorted(wanted, key=lambda w: (-w.request.times, w.request.name, str(w.request.uuid)))


def _merged(rows: Iterable[MissedRequest]) -> list[MissedRequest]:
    """Return one line for each UUID and kind."""
    merged: dict[tuple[UUID, str], MissedRequest] = {}
    for row in rows:
        key = (row.uuid, row.kind)
        merged[key] = _merge(merged[key], row) if key in merged else row
    return list(merged.values())


def _merge(one: MissedRequest, other: MissedRequest) -> MissedRequest:
    """Return one line for what was requested under several pins."""
    firsts = [t for t in (one.first_asked, other.first_asked) if t]
    return MissedRequest(
        one.uuid,
        one.kind,
        one.times + other.times,
        one.name or other.name,
        one.build or other.build,
        one.cache_uuid or other.cache_uuid,
        min(firsts, default=""),
        max(one.last_asked, other.last_asked),
    )


class _Names:
    """Which builds hold an image of a name, and how many UUIDs it has had: looked up once a name."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._known: dict[str, set[str | None]] = {}

    def builds_of(self, name: str) -> set[str | None]:
        if name not in self._known:
            if len(self._known) >= _MOST_NAMES or not name or any(c in name for c in "*?["):
                return set()
            self._known[name] = {o.build for o in self._library.by_name(name)}
        return self._known[name]


def _hint(
    request: MissedRequest, listed: MissingImage | None, builds: Sequence[str], other_kind: bool, names: _Names
) -> tuple[str, str]:
    """Return (the build that has it for certain, or empty; one sentence)."""
    if listed:
        build, path = listed
        return build, f"{build or 'a harvest'} lists it as {path}, but it was not stored: harvest that again"
    if other_kind and request.kind == "debuginfo":
        return "", "the binary is here; its dSYM is not: Apple publishes none, your own are added by `symcache add`"
    if request.build:
        known = "which is here, but lacks it" if request.build in builds else "which is not here: harvest it"
        return request.build, f"it was asked for in release {request.build}, {known}"
    if request.cache_uuid:
        return "", f"it was asked for as shared cache {uuid_text(request.cache_uuid)} has it, which no harvest has seen"
    having = [b for b in builds if b in names.builds_of(request.name)]
    if having:
        if len(having) == 1:
            return "", f"{having[0]} has another {request.name}: probably a release near it, not harvested yet"
        return (
            "",
            f"{having[0]} to {having[-1]} have other ones of this name: probably a release between or beside them",
        )
    return "", "nothing of this name was ever harvested: a program of your own, or a framework of another source"
