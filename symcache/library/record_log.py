"""Reading the records of a store as a log: which are new, which cannot be read, which must have been there."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
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

__all__ = ["Listing", "RecordReader"]

_FEW = 16
"""Writers up to which each is looked at for its next record."""
_AHEAD = 8
"""Records that are loaded while others are folded."""


class StoredRecord(NamedTuple):
    """Where a record lies in the store, and the validator of the object there."""

    key: RecordKey
    validator: str


class Listing(NamedTuple):
    """What was seen of the records of a store at one moment."""

    writers: Sequence[str]
    listed: Mapping[str, BlobStat] | None
    """All of them by key; None if there are so few writers that each is looked at by itself."""

    def records(self) -> list[StoredRecord]:
        """Return all records that were listed, in order of their keys."""
        keys = ((RecordKey.parse(text), stat.validator) for text, stat in sorted((self.listed or {}).items()))
        return [StoredRecord(key, validator) for key, validator in keys if key]


class RecordReader:
    """Reads the records of a store, and knows which ones this process has seen. Not for several threads at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.unreadable: dict[str, str] = {}
        """Records that could not be folded in: key and reason. They are tried again."""
        self._last: dict[str, int] = {}
        self._holes: dict[str, set[int]] = {}
        self._newest: dict[str, int] = {}
        """The last record of each writer that was folded in."""
        self.library_id = ""
        """Which library all this is about, as the catalog says."""

    def start(self, catalog: Catalog) -> int:
        """Begin after what `catalog` has folded in; return how many records that is."""
        self.unreadable.clear()
        self._last.clear()
        self._holes.clear()
        folded = catalog.known_keys()
        by_writer: dict[str, set[int]] = {}
        for text in folded:
            if key := RecordKey.parse(text):
                by_writer.setdefault(key.writer, set()).add(key.sequence)
        for writer, numbers in by_writer.items():
            self._last[writer] = max(numbers)
            self._holes[writer] = set(range(1, max(numbers) + 1)) - numbers
        self._newest = dict(self._last)
        self.library_id = catalog.library_id()
        return len(folded)

    def scan(self, *, whole: bool = False) -> Listing:
        """List the writers of the store; with `whole`, or where there are many of them, all of its records, too."""
        writers = self._store.folders("records/")
        # Machines that forget their name between runs, or much to ask after: listing is cheaper than asking each.
        many = whole or len(writers) > _FEW
        return Listing(writers, dict(self._store.scan("records/")) if many else None)

    def gone(self, catalog: Catalog, listing: Listing, keys: Iterable[str] | None = None) -> list[str]:
        """Return those of `keys`, which `catalog` has folded in, whose records the store has no longer.

        Without `keys`, the last of each writer is looked at: numbers are given one after another, so the last one
        stands for those before it. What lies at a key may be another record: where its validator is what it was, it
        is the same, else it is read. One that has become damaged is still there.
        """
        newest = (str(RecordKey(writer, number)) for writer, number in self._newest.items())
        keys = list(newest if keys is None else keys)
        folded = catalog.folded(keys)
        stat = self._stat_of(listing)
        stats = {key: stat(key) for key in folded}
        changed = {key: s.validator for key, s in stats.items() if s and s.validator != folded[key].validator}
        same: dict[str, bool] = {}
        if changed:
            with ThreadPoolExecutor(_AHEAD, thread_name_prefix="records") as pool:
                holds = pool.map(lambda key: self._holds(key, folded[key].sha256), changed)
                same = dict(zip(changed, holds, strict=True))
            catalog.note_validators({key: validator for key, validator in changed.items() if same[key]})
        return [key for key in keys if stats.get(key) is None or not same.get(key, True)]

    def _stat_of(self, listing: Listing) -> Callable[[str], BlobStat | None]:
        """Return what tells whether a key is there: the listing, if it is of all records, or else the store."""
        return self._store.stat if listing.listed is None else listing.listed.get

    def _holds(self, key: str, sha256: str) -> bool:
        parsed = RecordKey.parse(key)
        try:
            return parsed is None or load_record(self._store, parsed)[0] == sha256
        except IntegrityError:
            return True
        except NotFoundError:
            return False

    def new_records(self, listing: Listing, known: Container[str] | None = None) -> Iterator[StoredRecord]:
        """Yield the records not seen yet, and those that could not be read before.

        With `known`, of all that were listed and are not among these. What could not be read and is not there any more
        is forgotten.
        """
        stat = self._stat_of(listing)
        for text in [text for text in self.unreadable if not stat(text)]:
            del self.unreadable[text]
        if listing.listed is not None:
            for record in listing.records():
                key = record.key
                last, holes = self._last.get(key.writer, 0), self._holes.get(key.writer, ())
                if key.sequence > last or key.sequence in holes if known is None else str(key) not in known:
                    yield record
            return
        for writer in listing.writers:
            if writer not in self._last:
                yield from Listing([], dict(self._store.scan(f"records/{writer}/"))).records()
                continue
            for hole in sorted(self._holes.get(writer, ())):
                if found := self._store.stat(str(RecordKey(writer, hole))):
                    yield StoredRecord(RecordKey(writer, hole), found.validator)
            for sequence in itertools.count(self._last[writer] + 1):
                key = RecordKey(writer, sequence)
                if (found := self._store.stat(str(key))) is None:
                    break
                yield StoredRecord(key, found.validator)

    def fold(self, catalog: Catalog, records: Iterable[StoredRecord]) -> bool:
        """Read and fold records; return True if this object had not seen all of them.

        Another process that shares the catalog may have folded some of them already: those are not read again.
        """
        seen = 0
        waiting = iter(records)
        with ThreadPoolExecutor(_AHEAD, thread_name_prefix="records") as pool, no_garbage_collection():
            # Loading (network, zstd, SHA-256) goes on beside; parsing would only fight for the interpreter.
            ahead: deque[tuple[RecordKey, str, Future[tuple[str, bytes]] | None]] = deque()
            while True:
                for key, validator in itertools.islice(waiting, _AHEAD - len(ahead)):
                    known = catalog.knows(str(key))
                    ahead.append((key, validator, None if known else pool.submit(load_record, self._store, key)))
                if not ahead:
                    return bool(seen)
                key, validator, loading = ahead.popleft()
                last = self._last.setdefault(key.writer, 0)
                if key.sequence > last and last_sequence([key.sequence], last) == last:
                    self.unreadable[str(key)] = f"{key}: its number cannot be, after {last}"
                    continue
                holes = self._holes.setdefault(key.writer, set())
                holes.update(range(last + 1, key.sequence))
                holes.add(key.sequence)  # until it is folded: the store may be away, and is asked again
                self._last[key.writer] = max(last, key.sequence)
                try:
                    if loading is not None:
                        catalog.fold(str(key), *parse_record(self._store, key, *loading.result()), validator)
                except (IntegrityError, NotFoundError) as error:
                    self.unreadable[str(key)] = str(error)
                    continue
                holes.discard(key.sequence)
                self.unreadable.pop(str(key), None)
                self._newest[key.writer] = max(self._newest.get(key.writer, 0), key.sequence)
                seen += 1

    def gaps(self, known: Iterable[str], listing: Listing) -> list[str]:
        """Return the keys of records that must have been, since the same writer wrote later ones, but are not there.

        `known` are those that the catalog has folded in: they were there once, too. `listing` is one of all records.
        """
        present: dict[str, set[int]] = {}
        for key, _ in listing.records():
            present.setdefault(key.writer, set()).add(key.sequence)
        last = dict(self._last)
        for text in known:
            if parsed := RecordKey.parse(text):
                present.setdefault(parsed.writer, set())
                last[parsed.writer] = max(last.get(parsed.writer, 0), parsed.sequence)
        lost = []
        for writer, numbers in sorted(present.items()):
            end = last_sequence(numbers, last.get(writer, 0))
            lost += [str(RecordKey(writer, n)) for n in range(1, end + 1) if n not in numbers]
        # While others write, a listing may have a later record and not an earlier one.
        return [key for key in lost if self._store.stat(key) is None]
