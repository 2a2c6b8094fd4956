"""Two releases held against each other: images added, removed, changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from symcache.errors import NotFoundError
from symcache.library import Library
from symcache.model import uuid_text
from symcache.verify.holdings import gather

__all__ = ["Difference", "ReleaseDiff", "diff_releases"]


class _Place(NamedTuple):
    """Where an image lies: paths repeat between caches, and between caches and the disk."""

    family: str
    cache: str
    path: str
    arch: str
    kind: str


@dataclass(frozen=True, slots=True)
class Difference:
    """One image; `before` and `after` are its UUIDs, none where it is not, or has none."""

    family: str
    cache: str
    """Architecture of the shared cache, or of the files outside of caches."""
    path: str
    arch: str
    kind: str
    before: tuple[UUID, ...]
    after: tuple[UUID, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "family": self.family,
            "cache": self.cache,
            "path": self.path,
            "arch": self.arch,
            "kind": self.kind,
            "before": [uuid_text(u) for u in self.before],
            "after": [uuid_text(u) for u in self.after],
        }


@dataclass
class ReleaseDiff:
    """What differs; `same` counts the images that do not."""

    before: str
    after: str
    added: list[Difference] = field(default_factory=list)
    removed: list[Difference] = field(default_factory=list)
    changed: list[Difference] = field(default_factory=list)
    same: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "before": self.before,
            "after": self.after,
            "same": self.same,
            "added": [d.to_json() for d in self.added],
            "removed": [d.to_json() for d in self.removed],
            "changed": [d.to_json() for d in self.changed],
        }


def diff_releases(library: Library, before: str, after: str) -> ReleaseDiff:
    """Compare what two releases list. Raises as `Library.release_id`, NotFoundError for one that was imported only."""
    old, new = _images(library, before), _images(library, after)
    result = ReleaseDiff(before, after)
    for place in sorted({*old, *new}):
        here, there = old.get(place), new.get(place)
        if here == there:
            result.same += 1
            continue
        difference = Difference(*place, _sorted(here), _sorted(there))
        if here is None:
            result.added.append(difference)
        elif there is None:
            result.removed.append(difference)
        else:
            result.changed.append(difference)
    return result


def _images(library: Library, name: str) -> dict[_Place, set[UUID | None]]:
    release = gather(library, library.release_id(name))
    if release is None:
        raise NotFoundError(f"{name}: nothing of it was harvested", hint="`symcache releases` lists the builds")
    found: dict[_Place, set[UUID | None]] = {}
    for unit in release.units:
        for key in unit.expected:
            place = _Place(unit.family, unit.arch, key.path, key.arch, key.kind)
            found.setdefault(place, set()).add(key.uuid)
    return found


def _sorted(uuids: set[UUID | None] | None) -> tuple[UUID, ...]:
    return tuple(sorted(u for u in uuids or () if u))
