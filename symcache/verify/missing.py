"""The shopping list: what clients asked for and nobody had, and which release probably holds it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from symcache.catalog import MissingImage, release_order
from symcache.library import Library
from symcache.model import Kind, uuid_text

__all__ = ["Asked", "Wanted", "shopping_list"]

_KINDS = {"executable": {Kind.EXECUTABLE}, "breakpad": {Kind.EXECUTABLE}, "debuginfo": {Kind.DEBUGINFO}}
"""What answers a question of each kind; any content answers those that are not here."""
_MOST_NAMES = 1000
"""How many names are looked up for hints."""


@dataclass(frozen=True, slots=True)
class Asked:
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

    asked: Asked
    build: str
    hint: str

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        a = self.asked
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


def shopping_list(library: Library, log: Iterable[Asked]) -> list[Wanted]:
    """Return what is still wanted, most often asked for first, with what the library knows of its neighbours."""
    rows = list(log)
    held = library.holdings(list(dict.fromkeys(a.uuid for a in rows)))
    # What came since, and what was asked for under another kind only, is no longer wanted.
    open_rows = [a for a in rows if not any(o.kind in _KINDS.get(a.kind, Kind) for o in held.get(a.uuid, ()))]
    listed = library.catalog.missing_images({a.uuid for a in open_rows})
    caches = library.catalog.builds_of_caches({a.cache_uuid for a in open_rows if a.cache_uuid})
    releases = {r.build: r for r in library.releases()}
    builds = sorted(releases, key=lambda b: release_order(releases[b].version, b))
    names = _Names(library)
    merged: dict[tuple[UUID, str], Asked] = {}
    for asked in open_rows:
        key = (asked.uuid, asked.kind)
        build = asked.build or (caches.get(asked.cache_uuid, "") if asked.cache_uuid else "")
        line = replace(asked, build=build)
        merged[key] = _merge(merged[key], line) if key in merged else line
    result = [
        Wanted(asked, *_hint(asked, listed.get(asked.uuid), builds, bool(held.get(asked.uuid)), names))
        for asked in merged.values()
    ]
    return sorted(result, key=lambda w: (-w.asked.times, w.asked.name, str(w.asked.uuid)))


def _merge(one: Asked, other: Asked) -> Asked:
    """Return one line for what was asked for under several pins."""
    firsts = [t for t in (one.first_asked, other.first_asked) if t]
    return Asked(
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
    """Which builds hold an image of a name, and how many UUIDs it has had: asked of the library once a name."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._known: dict[str, list[str]] = {}

    def builds_of(self, name: str) -> list[str]:
        if name not in self._known:
            if len(self._known) >= _MOST_NAMES or not name or any(c in name for c in "*?["):
                return []
            rows = self._library.by_name(name)
            self._known[name] = list(dict.fromkeys(o.build for o in rows if o.build))
        return self._known[name]


def _hint(
    asked: Asked, listed: MissingImage | None, builds: Sequence[str], other_kind: bool, names: _Names
) -> tuple[str, str]:
    """Return (the build that has it for certain, or empty; one sentence)."""
    if listed:
        build, path = listed
        return build, f"{build or 'a harvest'} lists it as {path}, but it was not stored: harvest that again"
    if other_kind and asked.kind == "debuginfo":
        return "", "the binary is here; its dSYM is not: Apple publishes none, your own are added by `symcache add`"
    if asked.build:
        known = "which is here, but lacks it" if asked.build in builds else "which is not here: harvest it"
        return asked.build, f"it was asked for in release {asked.build}, {known}"
    if asked.cache_uuid:
        return "", f"it was asked for as shared cache {uuid_text(asked.cache_uuid)} has it, which no harvest has seen"
    having = [b for b in builds if b in names.builds_of(asked.name)]
    if having:
        if len(having) == 1:
            return "", f"{having[0]} has another {asked.name}: probably a release near it, not harvested yet"
        return (
            "",
            f"{having[0]} to {having[-1]} have other ones of this name: probably a release between or beside them",
        )
    return "", "nothing of this name was ever harvested: a program of your own, or a framework of another source"
