"""Asking the catalog for records: which are folded in, which were lost, and which take others back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from symcache.catalog.file import FAILURES, CatalogFile, refusal
from symcache.catalog.fold import NONE
from symcache.catalog.rows import FoldedRecord, RecordId, Removal, Retirement
from symcache.catalog.schema import create_notes
from symcache.model import Kind, ReleaseId

__all__ = ["Records"]

_PLACES = (
    "places (old, new) AS (SELECT t.sha256, r.sha256 FROM retired t JOIN records r ON r.id = t.record"
    " WHERE r.type = 'harvest')"
)
"""Which harvest has taken the place of which."""


class Records(CatalogFile):
    """Records: where they lie in the store, what they take back, what was seen of them."""

    def known_keys(self) -> set[str]:
        """Return the store keys of the records that are folded in."""
        return {row[0] for row in self._all("SELECT key FROM record_keys")}

    def record_ids(self) -> dict[str, str]:
        """Return the ids of the records that are folded in, by key of the store."""
        return dict(self._all("SELECT k.key, r.sha256 FROM record_keys k JOIN records r ON r.id = k.record"))

    def knows(self, key: str) -> bool:
        """Return whether the record at this key of the store is folded in."""
        return bool(self._one("SELECT EXISTS (SELECT 1 FROM record_keys WHERE key = ?)", (key,))[0])

    def folded(self, keys: Iterable[str] | None = None) -> dict[str, FoldedRecord]:
        """Return what is folded in, by key of the store; of `keys`, if given."""
        sql = (
            "SELECT k.key, r.sha256, coalesce(m.mark, '') FROM record_keys k JOIN records r ON r.id = k.record"
            " LEFT JOIN record_marks m ON m.key = k.key"
        )
        parameters = []
        if keys is not None:
            sql += " WHERE k.key IN (SELECT value FROM json_each(?))"
            parameters.append(json.dumps(list(keys)))
        with self._lock:
            self._make_notes()
            rows = self._all(sql, parameters)
        return {key: FoldedRecord(sha256, mark) for key, sha256, mark in rows}

    def library_id(self) -> str:
        """Return the id of the library that this was folded from, or an empty string where nobody has noted it."""
        with self._lock:
            self._make_notes()
            rows = self._all("SELECT value FROM library WHERE name = 'id'")
        return str(rows[0][0]) if rows else ""

    def note_library_id(self, identity: str) -> None:
        """Note the id of the library that this was folded from."""
        self._note("library", {"id": identity})

    def note_validators(self, validators: Mapping[str, str]) -> None:
        """Note {key: validator} of objects whose records are the ones that are folded in."""
        self._note("record_marks", validators)

    def lost(self) -> dict[str, str]:
        """Return {id: key} of records that were known once, but were not found in the store again."""
        with self._lock:
            self._make_notes()
            sql = "SELECT sha256, key FROM lost_records WHERE sha256 NOT IN (SELECT sha256 FROM records) ORDER BY key"
            return dict(self._all(sql))

    def note_lost(self, records: Mapping[str, str]) -> None:
        """Note such records, {id: key}."""
        self._note("lost_records", records)

    def _note(self, table: str, rows: Mapping[str, str]) -> None:
        with self._lock:
            try:
                with self._transaction():
                    create_notes(self.database)
                    self.database.conn.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?,?)", rows.items())  # noqa: S608
            except FAILURES as error:
                raise refusal(self.path, error) from error

    def _make_notes(self) -> None:
        # Each time: another program may have put a catalog without them in the place of this one.
        try:
            create_notes(self.database)
        except FAILURES as error:
            raise refusal(self.path, error) from error

    def first_key_of(self, record: int) -> str:
        """Return where a record lies in the store; the first of the places, if there are several."""
        return str(self._one("SELECT min(key) FROM record_keys WHERE record = ?", [record])[0])

    def partial_harvests(self, release: ReleaseId, source: str) -> list[RecordId]:
        """Return the live harvests of a release from one source that are not sealed."""
        rows = self._all(
            "SELECT min(k.key), r.sha256 FROM records r JOIN record_keys k ON k.record = r.id"
            " WHERE r.live AND r.type = 'harvest' AND r.trust = 0 AND NOT r.sealed AND r.system = ? AND r.build = ?"
            " AND r.source = ? GROUP BY r.id ORDER BY r.sha256",
            [*release, source],
        )
        return [RecordId(*row) for row in rows]

    def is_live_record(self, sha256: str) -> bool:
        """Return whether the record with this id is folded in, and no other takes it back."""
        return bool(self._all("SELECT 1 FROM records WHERE sha256 = ? AND live", [sha256]))

    def is_removed(self, ids: Sequence[str], *, but: str = "") -> bool:
        """Return whether a tombstone names any of these records, or one, `but` this, that took the place of any."""
        rows = self._all(
            f"WITH RECURSIVE {_PLACES}, later (sha256) AS (SELECT value FROM json_each(?)"  # noqa: S608 - a constant
            " UNION SELECT p.new FROM later l JOIN places p ON p.old = l.sha256 WHERE p.new <> ?)"
            " SELECT 1 FROM later l JOIN retired t ON t.sha256 = l.sha256 JOIN records r ON r.id = t.record"
            " WHERE r.type = 'tombstone' LIMIT 1",
            [json.dumps(list(ids)), but],
        )
        return bool(rows)

    def superseding(self, ids: Sequence[str]) -> list[str]:
        """Return the ids of live harvests that have taken the place of any of these, or of what these have taken it of.

        However many records lie between.
        """
        rows = self._all(
            f"WITH RECURSIVE {_PLACES}, kin (sha256) AS (SELECT value FROM json_each(?)"  # noqa: S608 - a constant
            " UNION SELECT CASE k.sha256 WHEN p.old THEN p.new ELSE p.old END"
            " FROM kin k JOIN places p ON k.sha256 IN (p.old, p.new))"
            " SELECT r.sha256 FROM kin k JOIN records r ON r.sha256 = k.sha256 WHERE r.live AND r.type = 'harvest'"
            " ORDER BY r.sha256",
            [json.dumps(list(ids))],
        )
        return [row[0] for row in rows]

    def preferences_of(self, uuid: UUID, kind: Kind, cache: UUID | None) -> list[str]:
        """Return the ids of the live records that prefer a content of this UUID, kind and shared cache."""
        rows = self._all(
            "SELECT r.sha256 FROM preferences p JOIN records r ON r.id = p.record"
            " WHERE r.live AND p.uuid = ? AND p.kind = ? AND p.cache_uuid = ? ORDER BY r.sha256",
            [uuid.bytes, kind.value, cache.bytes if cache else NONE],
        )
        return [row[0] for row in rows]

    def removals(self) -> list[Removal]:
        """Return the harvests of releases that a tombstone takes back, if no other has taken their place ever.

        Of several tombstones for one of them, the last counts.
        """
        rows = self._all(
            "SELECT r.sha256, min(k.key), r.system, r.build, r.source, r.finished, t.tombstone, t.finished"
            " FROM records r JOIN (SELECT t.sha256, x.sha256 AS tombstone, max(x.finished) AS finished FROM retired t"
            " JOIN records x ON x.id = t.record WHERE x.type = 'tombstone' GROUP BY t.sha256) t ON t.sha256 = r.sha256"
            " JOIN record_keys k ON k.record = r.id WHERE r.type = 'harvest' AND r.build IS NOT NULL"
            " AND NOT EXISTS (SELECT 1 FROM retired s JOIN records h ON h.id = s.record"
            " WHERE s.sha256 = r.sha256 AND h.type = 'harvest') GROUP BY r.id ORDER BY t.finished, r.build, r.sha256"
        )
        return [Removal(record, key, ReleaseId(system, build), *rest) for record, key, system, build, *rest in rows]

    def last_finished(self) -> str:
        """Return when the latest of all harvests was finished, as their records say, or an empty string."""
        return str(self._one("SELECT coalesce(max(finished), '') FROM records WHERE type = 'harvest'")[0])

    def retirements(self) -> list[Retirement]:
        """Return every record that is live no longer, once for each record that takes it back."""
        rows = self._all(
            "SELECT r.id, min(k.key) FROM records r JOIN retired t ON t.sha256 = r.sha256"
            " JOIN record_keys k ON k.record = t.record WHERE NOT r.live GROUP BY r.id, t.record"
        )
        return [Retirement(*row) for row in rows]

    def blobs_of_only(self, records: Sequence[int]) -> list[str]:
        """Return the SHA-256 of what these records stored or kept, and no live record besides."""
        own = json.dumps(list(records))
        rows = self._all(
            "WITH own AS (SELECT value AS id FROM json_each(?)), blobs AS ("
            "SELECT sha256 FROM objects WHERE record IN (SELECT id FROM own)"
            " UNION SELECT sha256 FROM cache_files WHERE record IN (SELECT id FROM own))"
            " SELECT b.sha256 FROM blobs b WHERE NOT EXISTS (SELECT 1 FROM objects o JOIN records r ON r.id = o.record"
            " WHERE substr(o.sha256, 1, 8) = substr(b.sha256, 1, 8) AND o.sha256 = b.sha256 AND r.live"
            " AND r.id NOT IN (SELECT id FROM own))"
            " AND NOT EXISTS (SELECT 1 FROM cache_files f JOIN records r ON r.id = f.record"
            " WHERE f.sha256 = b.sha256 AND r.live AND r.id NOT IN (SELECT id FROM own)) ORDER BY b.sha256",
            [own],
        )
        return [row[0].hex() for row in rows]

    def blobs_of(self, record: int) -> list[str]:
        """Return the SHA-256 of everything that one record stored or kept."""
        rows = self._all(
            "SELECT sha256 FROM objects WHERE record = ? UNION SELECT sha256 FROM cache_files WHERE record = ?",
            [record, record],
        )
        return [row[0].hex() for row in rows]
