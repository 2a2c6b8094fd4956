"""Following the records of a store: which are new, which cannot be read, which must have been there."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from symcache.catalog import Catalog
from symcache.errors import IntegrityError, NotFoundError
from symcache.store import RecordKey, Store, last_sequence, load_record, no_garbage_collection, parse_record

__all__ = ["Follower"]

_FEW = 16
"""Writers up to which each is asked for its next record."""
_AHEAD = 8
"""Records that are loaded while others are folded."""


class Follower:
    """What one process has seen of the records of a store. Not for several threads at once."""

    def __init__(self, store: Store, known: Iterable[str]) -> None:
        self._store = store
        self.unreadable: dict[str, str] = {}
        """Records that could not be folded in: key and reason. They are tried again."""
        self._last: dict[str, int] = {}
        self._holes: dict[str, set[int]] = {}
        self._remember(known)

    def forget(self) -> None:
        """Begin anew."""
        self.unreadable.clear()
        self._last.clear()
        self._holes.clear()

    def _remember(self, keys: Iterable[str]) -> None:
        by_writer: dict[str, set[int]] = {}
        for text in keys:
            if key := RecordKey.parse(text):
                by_writer.setdefault(key.writer, set()).add(key.sequence)
        for writer, found in by_writer.items():
            self._last[writer] = max(found)
            self._holes[writer] = set(range(1, max(found) + 1)) - found

    def new_keys(self) -> Iterator[RecordKey]:
        """Yield the keys of records not seen yet, and of those that could not be read before."""
        writers = self._store.folders("records/")
        if len(writers) > _FEW:  # machines that forget their name between runs: listing is cheaper than asking each
            for key in sorted(k for text in self._store.list("records/") if (k := RecordKey.parse(text))):
                if key.sequence > self._last.get(key.writer, 0) or key.sequence in self._holes.get(key.writer, ()):
                    yield key
            return
        for writer in writers:
            if writer not in self._last:
                listed = (RecordKey.parse(text) for text in self._store.list(f"records/{writer}/"))
                yield from sorted(k for k in listed if k)
                continue
            for hole in sorted(self._holes.get(writer, ())):
                if self._store.stat(str(RecordKey(writer, hole))):
                    yield RecordKey(writer, hole)
            for sequence in itertools.count(self._last[writer] + 1):
                key = RecordKey(writer, sequence)
                if self._store.stat(str(key)) is None:
                    break
                yield key

    def fold(self, catalog: Catalog, keys: Iterable[RecordKey]) -> bool:
        """Read and fold records; True when this object had not seen all of them.

        Another process that shares the catalog may have folded some of them already: those are not read again.
        """
        seen = 0
        waiting = iter(keys)
        with ThreadPoolExecutor(_AHEAD, thread_name_prefix="records") as pool, no_garbage_collection():
            # Loading (network, zstd, SHA-256) goes on beside; parsing would only fight for the interpreter.
            ahead: deque[tuple[RecordKey, Future[tuple[str, bytes]] | None]] = deque()
            while True:
                for key in itertools.islice(waiting, _AHEAD - len(ahead)):
                    known = catalog.knows(str(key))
                    ahead.append((key, None if known else pool.submit(load_record, self._store, key)))
                if not ahead:
                    return bool(seen)
                key, loading = ahead.popleft()
                last = self._last.setdefault(key.writer, 0)
                if key.sequence > last and last_sequence([key.sequence], last) == last:
                    self.unreadable[str(key)] = f"{key}: its number cannot be, after {last}"
                    continue
                holes = self._holes.setdefault(key.writer, set())
                holes.update(range(last + 1, key.sequence))
                self._last[key.writer] = max(last, key.sequence)
                try:
                    if loading is not None:
                        catalog.fold(str(key), *parse_record(self._store, key, *loading.result()))
                except (IntegrityError, NotFoundError) as error:
                    self.unreadable[str(key)] = str(error)
                    holes.add(key.sequence)
                    continue
                holes.discard(key.sequence)
                self.unreadable.pop(str(key), None)
                seen += 1

    def gaps(self, known: Iterable[str]) -> list[str]:
        """Return the keys of records that must have been, since the same writer wrote later ones, but are not there.

        `known` are those that the catalog has folded in: they were there once, too.
        """
        present: dict[str, set[int]] = {}
        for text in self._store.list("records/"):
            if key := RecordKey.parse(text):
                present.setdefault(key.writer, set()).add(key.sequence)
        last = dict(self._last)
        for text in known:
            if key := RecordKey.parse(text):
                present.setdefault(key.writer, set())
                last[key.writer] = max(last.get(key.writer, 0), key.sequence)
        lost = []
        for writer, found in sorted(present.items()):
            end = last_sequence(found, last.get(writer, 0))
            lost += [str(RecordKey(writer, n)) for n in range(1, end + 1) if n not in found]
        return lost
