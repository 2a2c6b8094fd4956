"""What pages show of whole releases, cached until the records of a release change, since it takes a while."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from symcache.catalog import Conflict, Counts, Growth, Harvest, ReleaseRow, StoredSize
from symcache.errors import NotFoundError
from symcache.library import Library
from symcache.model import ReleaseId
from symcache.verify import Expectations, ReleaseCoverage, ReleaseDiff, diff_releases, release_coverage

__all__ = ["Overview", "ReleaseView", "Totals"]

_MOST_HARVESTS = 50
_DIFFS = 8
_Key = tuple[object, ...]


@dataclass(frozen=True)
class ReleaseView:
    """One release: what it is, where it comes from, what there is of it."""

    release: ReleaseRow
    coverage: ReleaseCoverage | None
    """None where nothing of it was harvested: it was imported."""
    size: StoredSize
    harvests: Sequence[Harvest]
    """The latest of them, latest first."""


@dataclass(frozen=True)
class Totals:
    """Totals over all records of a library."""

    key: _Key
    """What it depends on, to compare with."""
    growth: Sequence[Growth]
    conflicts: Sequence[Conflict]
    counts: Counts


class Overview:
    """The releases of a library, compared with the site's table of releases. May be used from several threads."""

    def __init__(self, library: Library, releases: Path | None) -> None:
        self._library, self._table = library, releases
        self._views: dict[ReleaseId, tuple[_Key, ReleaseView]] = {}
        self._totals: Totals | None = None
        self._diffs: OrderedDict[_Key, ReleaseDiff] = OrderedDict()
        self._work = threading.Lock()
        """Held while something is worked out, so that no two threads work out the same."""
        self._stop = threading.Event()

    def stop(self) -> None:
        """Have `fill` end at the next release."""
        self._stop.set()

    def releases(self) -> list[tuple[ReleaseRow, ReleaseView | None]]:
        """Return all releases, newest first, with what is known of them by now."""
        keys = self._keys()
        return [(row, self._known(row.id, keys)) for row in self._library.releases()]

    def release(self, name: str) -> ReleaseView:
        """Return a release by build or `PRODUCT:BUILD`, worked out now if need be. Raises NotFoundError.

        Of several systems of one build it is the newest.
        """
        keys = self._keys()
        row = next((r for r in self._library.releases() if r.id.is_meant_by(name)), None)
        if row is None:
            raise NotFoundError(f"{name[:80]!r}: no such build in the library", hint="/ lists them")
        if (view := self._known(row.id, keys)) is not None:
            return view
        with self._work:
            if (view := self._known(row.id, keys)) is None:
                view = self._look(row)
                self._views[row.id] = keys.get(row.id, ()), view
        return view

    def totals(self) -> Totals | None:
        """Return the totals of the library, or None if `fill` has not counted them yet, which takes seconds."""
        return self._totals

    def diff(self, before: str, after: str) -> ReleaseDiff:
        """Return what differs between two releases. Raises as `Library.release_id`."""
        keys = self._keys()
        old, new = map(self._library.release_id, (before, after))
        key = old, keys.get(old), new, keys.get(new)
        if (known := self._diffs.get(key)) is None:
            with self._work:
                if (known := self._diffs.get(key)) is None:
                    known = self._diffs[key] = diff_releases(self._library, before, after)
                    while len(self._diffs) > _DIFFS:
                        self._diffs.popitem(last=False)
        return known

    def fill(self) -> None:
        """Work out whatever is not cached. That may take seconds, so it is done before anybody wants to see it."""
        keys = self._keys()
        for gone in self._views.keys() - keys.keys():
            self._views.pop(gone, None)
        for row in self._library.releases():
            began = time.monotonic()
            if self._known(row.id, keys) is None:
                with self._work:
                    self._views[row.id] = keys.get(row.id, ()), self._look(row)
                # This holds Python's lock; pause as long, so that look-ups come first.
                self._stop.wait(time.monotonic() - began)
            if self._stop.is_set():
                return
        key = tuple(sorted(keys.items()))
        if self._totals is None or self._totals.key != key:
            catalog = self._library.catalog
            self._totals = Totals(key, catalog.growth(), self._library.conflicts(), catalog.counts())

    def _keys(self) -> dict[ReleaseId, _Key]:
        """Return by release what a cached view of it depends on."""
        status = self._table.stat() if self._table else None
        table = (status.st_mtime_ns, status.st_size, status.st_ino) if status else ()
        return {one: (*ids, table) for one, ids in self._library.catalog.records_by_release().items()}

    def _known(self, release: ReleaseId, keys: dict[ReleaseId, _Key]) -> ReleaseView | None:
        key, view = self._views.get(release, (None, None))
        return view if key is not None and key == keys.get(release) else None

    def _look(self, row: ReleaseRow) -> ReleaseView:
        catalog = self._library.catalog
        return ReleaseView(
            row,
            release_coverage(self._library, row.id, Expectations.load(self._table)),
            catalog.size_of_release(row.id),
            catalog.harvests(_MOST_HARVESTS, row.id),
        )
