"""Following the records of a store: which are new, which cannot be read, which must have been there."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from symcache.catalog import Catalog
from symcache.errors import IntegrityError, NotFoundError
from symcache.store import (
    BlobStat,
    RecordKey,
    Store,
    last_sequence,
    load_record,
    no_garbage_collection,
    parse_record,
)

__all__ = ["Follower", "Look"]

_FEW = 16
"""Writers up to which each is asked for its next record."""
_AHEAD = 8
"""Records that are loaded while others are folded."""

Placed = tuple[RecordKey, str]
"""Where a record lies, and what the store says of the object there: `BlobStat.mark`."""


class Look(NamedTuple):
    """What was seen of the records of a store at one moment."""

    writers: Sequence[str]
    listed: Mapping[str, BlobStat] | None
    """All of them by key; None where there are so few writers that each is asked by itself."""

    def places(self) -> list[Placed]:
        """Return where all records lie that were listed, in order."""
        keys = ((RecordKey.parse(text), found.mark) for text, found in sorted((self.listed or {}).items()))
        return [(key, mark) for key, mark in keys if key]


class Follower:
    """What one process has seen of the records of a store. Not for several threads at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.unreadable: dict[str, str] = {}
        """Records that could not be folded in: key and reason. They are tried again."""
        self._last: dict[str, int] = {}
        self._holes: dict[str, set[int]] = {}
        self._newest: dict[str, int] = {}
        """The last record of each writer that was folded in."""
        self._unmarked: list[str] = []
        """Records of which nobody has noted yet what the store says of them."""

    def start(self, catalog: Catalog) -> None:
        """Begin after what `catalog` has folded in."""
        self.unreadable.clear()
        self._last.clear()
        self._holes.clear()
        places = catalog.folded()
        by_writer: dict[str, set[int]] = {}
        for text in places:
            if key := RecordKey.parse(text):
                by_writer.setdefault(key.writer, set()).add(key.sequence)
        for writer, found in by_writer.items():
            self._last[writer] = max(found)
            self._holes[writer] = set(range(1, max(found) + 1)) - found
        self._newest = dict(self._last)
        self._unmarked = [key for key, place in places.items() if not place.validator]

    def look(self, *, whole: bool = False) -> Look:
        """Look at the store; with `whole`, or where there are many writers, at all of its records."""
        writers = self._store.folders("records/")
        # Machines that forget their name between runs, or much to ask after: listing is cheaper than asking each.
        many = whole or len(writers) > _FEW or len(self._unmarked) > _FEW
        return Look(writers, dict(self._store.scan("records/")) if many else None)

    def gone(self, catalog: Catalog, look: Look, keys: Iterable[str] | None = None) -> list[str]:
        """Return those of `keys`, which `catalog` has folded in, whose records the store has no longer.

        Without `keys`, the last of each writer is looked at: numbers are given one after another, so the last one
        answers for those before it. What lies at a place may be another record: where the store says of it what it
        said before, it is the same, else it is read. One that has become damaged is still there.
        """
        newest = (str(RecordKey(writer, number)) for writer, number in self._newest.items())
        keys = list(dict.fromkeys([*newest, *self._unmarked] if keys is None else keys))
        places = catalog.folded(keys)
        stat = self._store.stat if look.listed is None else look.listed.get
        found = {key: stat(key) for key in places}
        moved = {key: s.mark for key, s in found.items() if s and s.mark != places[key].validator}
        same: dict[str, bool] = {}
        if moved:
            with ThreadPoolExecutor(_AHEAD, thread_name_prefix="records") as pool:
                same = dict(zip(moved, pool.map(lambda key: self._holds(key, places[key].sha256), moved), strict=True))
            catalog.note_validators({key: mark for key, mark in moved.items() if same[key]})
        self._unmarked = [key for key in self._unmarked if key not in found]
        return [key for key in keys if found.get(key) is None or not same.get(key, True)]

    def _holds(self, key: str, sha256: str) -> bool:
        place = RecordKey.parse(key)
        try:
            return place is None or load_record(self._store, place)[0] == sha256
        except IntegrityError:
            return True
        except NotFoundError:
            return False

    def new_keys(self, look: Look, known: Container[str] | None = None) -> Iterator[Placed]:
        """Yield the places of records not seen yet, and of those that could not be read before.

        With `known`, of all that were listed and are not among these.
        """
        if look.listed is not None:
            for key, mark in look.places():
                last, holes = self._last.get(key.writer, 0), self._holes.get(key.writer, ())
                if key.sequence > last or key.sequence in holes if known is None else str(key) not in known:
                    yield key, mark
            return
        for writer in look.writers:
            if writer not in self._last:
                yield from Look([], dict(self._store.scan(f"records/{writer}/"))).places()
                continue
            for hole in sorted(self._holes.get(writer, ())):
                if found := self._store.stat(str(RecordKey(writer, hole))):
                    yield RecordKey(writer, hole), found.mark
            for sequence in itertools.count(self._last[writer] + 1):
                key = RecordKey(writer, sequence)
                if (found := self._store.stat(str(key))) is None:
                    break
                yield key, found.mark

    def fold(self, catalog: Catalog, places: Iterable[Placed]) -> bool:
        """Read and fold records; True when this object had not seen all of them.

        Another process that shares the catalog may have folded some of them already: those are not read again.
        """
        seen = 0
        waiting = iter(places)
        with ThreadPoolExecutor(_AHEAD, thread_name_prefix="records") as pool, no_garbage_collection():
            # Loading (network, zstd, SHA-256) goes on beside; parsing would only fight for the interpreter.
            ahead: deque[tuple[RecordKey, str, Future[tuple[str, bytes]] | None]] = deque()
            while True:
                for key, mark in itertools.islice(waiting, _AHEAD - len(ahead)):
                    known = catalog.knows(str(key))
                    ahead.append((key, mark, None if known else pool.submit(load_record, self._store, key)))
                if not ahead:
                    return bool(seen)
                key, mark, loading = ahead.popleft()
                last = self._last.setdefault(key.writer, 0)
                if key.sequence > last and last_sequence([key.sequence], last) == last:
                    self.unreadable[str(key)] = f"{key}: its number cannot be, after {last}"
                    continue
                holes = self._holes.setdefault(key.writer, set())
                holes.update(range(last + 1, key.sequence))
                self._last[key.writer] = max(last, key.sequence)
                try:
                    if loading is not None:
                        catalog.fold(str(key), *parse_record(self._store, key, *loading.result()), mark)
                except (IntegrityError, NotFoundError) as error:
                    self.unreadable[str(key)] = str(error)
                    holes.add(key.sequence)
                    continue
                holes.discard(key.sequence)
                self.unreadable.pop(str(key), None)
                self._newest[key.writer] = max(self._newest.get(key.writer, 0), key.sequence)
                seen += 1

    def gaps(self, known: Iterable[str], look: Look) -> list[str]:
        """Return the keys of records that must have been, since the same writer wrote later ones, but are not there.

        `known` are those that the catalog has folded in: they were there once, too. `look` is one at all records.
        """
        present: dict[str, set[int]] = {}
        for key, _ in look.places():
            present.setdefault(key.writer, set()).add(key.sequence)
        last = dict(self._last)
        for text in known:
            if place := RecordKey.parse(text):
                present.setdefault(place.writer, set())
                last[place.writer] = max(last.get(place.writer, 0), place.sequence)
        lost = []
        for writer, found in sorted(present.items()):
            end = last_sequence(found, last.get(writer, 0))
            lost += [str(RecordKey(writer, n)) for n in range(1, end + 1) if n not in found]
        return lost
