"""Asking the catalog for contents: by UUID, name, blob or record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from symcache.catalog.file import REBUILD, CatalogFile, in_parts
from symcache.catalog.fold import layout_checksum, object_checksum, record_checksum
from symcache.catalog.ranking import TRUSTS, Row, Slot, believed, rank
from symcache.catalog.rows import CollectedImage, Conflict, Occurrence, RecordRow
from symcache.errors import StorageError
from symcache.model import Kind

__all__ = ["Lookup"]

_TRIES = 20
_KINDS = {kind.value: kind for kind in Kind}
_SELECT = (
    "SELECT o.uuid, o.sha256, o.size, o.symbols, o.code, o.checksum, o.record, l.kind, l.arch, l.origin, l.cache_uuid,"
    " l.extractor, l.revision, p.path FROM objects o JOIN layouts l ON l.id = o.layout JOIN paths p ON p.id = o.path"
)


class Lookup(CatalogFile):
    """Look-up of contents, ranked, each row checked against its checksum."""

    def __init__(self, path: Path | None, *, filling: bool = False) -> None:
        self._records: dict[int, RecordRow] = {}
        self._preferences: dict[Slot, str] = {}
        self._conflicts: list[Conflict] | None = None
        """All of them, once they were looked for; that goes over the whole table."""
        self._commons: dict[tuple[Any, ...], int] = {}
        """What rows of one record and layout have in common, as checksums start with it."""
        super().__init__(path, filling=filling)

    def resolve(
        self, uuid: UUID, kind: Kind | None = None, *, cache: UUID | None = None, build: str | None = None
    ) -> list[Occurrence]:
        """Return every content under `uuid`, the preferred one first; narrowed to a cache or a build if given."""
        rows = self._rows("WHERE o.uuid = ?", [uuid.bytes])
        if kind is not None or cache is not None or build is not None:
            rows = [
                (o, r)
                for o, r in rows
                if (kind is None or o.kind is kind)
                and (cache is None or o.cache_uuid == cache)
                and (build is None or r.build == build)
            ]
        return rank(rows, self._preferences) if rows else []

    def believed(self, uuid: UUID, *, cache: UUID | None = None, build: str | None = None) -> list[Occurrence]:
        """Return the contents that may answer for `uuid`, preferred first; under a cache or build, of those it has."""
        return believed(self.resolve(uuid, cache=cache, build=build), self._preferences)

    def unbound(self, uuid: UUID, *, cache: UUID | None = None, build: str | None = None) -> list[Occurrence]:
        """Return those that may answer under any cache or build, since they lie in no cache, or belong to no release.

        Their records say nothing of the one asked for, so trust is compared over all contents of the UUID.
        """
        return [
            o
            for o in believed(self.resolve(uuid), self._preferences)
            if (cache is None or o.cache_uuid is None) and (build is None or o.build is None)
        ]

    def holdings(self, uuids: Sequence[UUID]) -> dict[UUID, list[Occurrence]]:
        """Return every content of every one of `uuids`, preferred first; those unknown are left out."""
        found: dict[UUID, list[Row]] = {}
        for marks, part in in_parts(uuids):
            for row in self._rows(f"WHERE o.uuid IN ({marks})", part):
                if row[0].uuid:
                    found.setdefault(row[0].uuid, []).append(row)
        return {uuid: rank(rows, self._preferences) for uuid, rows in found.items()}

    def collected(self, uuid: UUID) -> list[CollectedImage]:
        """Return the kernel collections of live records that hold the image with this UUID, newest release first."""
        rows = self._all(
            "SELECT c.name, c.collection, p.path, r.build FROM collections c JOIN records r ON r.id = c.record"
            " JOIN paths p ON p.id = c.path WHERE c.uuid = ? AND r.live ORDER BY r.release_order DESC, p.path",
            [uuid.bytes],
        )
        return list(dict.fromkeys(CollectedImage(n, UUID(bytes=c) if c else None, p, b) for n, c, p, b in rows))

    def sources(self, uuids: Sequence[UUID]) -> dict[UUID, list[tuple[str, str]]]:
        """Return (recorded folder, place) of sources, as the dSYMs of `uuids` note them; those without are left out.

        Of several records, the one of most trust is believed, and of equals the latest; none, where the dSYM itself has
        less trust than others there are.
        """
        found: dict[UUID, dict[str, list[tuple[str, str]]]] = {}
        for marks, part in in_parts(uuids):
            for uuid, record, recorded, place in self._all(
                "SELECT s.uuid, r.sha256, s.recorded, s.place FROM sources s JOIN records r ON r.id = s.record"  # noqa: S608
                f" WHERE s.uuid IN ({marks}) AND r.live"
                " ORDER BY s.uuid, r.trust, r.finished DESC, r.sha256, s.number",
                part,
            ):
                found.setdefault(UUID(bytes=uuid), {}).setdefault(record, []).append((recorded, place))
        result = {}
        for one, contents in self.holdings(list(found)).items():
            records = {o.record for o in believed(contents, self._preferences) if o.kind is Kind.DEBUGINFO}
            if told := next((notes for record, notes in found[one].items() if record in records), None):
                result[one] = told
        return result

    def by_name(
        self,
        pattern: str,
        limit: int = 1000,
        *,
        kind: Kind | None = None,
        build: str | None = None,
        cache: UUID | None = None,
        arch: str | None = None,
    ) -> list[Occurrence]:
        """Return the contents whose path, or last part of it, matches the glob `pattern`; newest releases first.

        Fewer than `limit` are all that there are; else they are the newest of those at the first `limit` paths.
        """
        column = "path" if pattern.startswith("/") else "name"
        operator = "GLOB" if any(c in pattern for c in "*?[") else "="
        meant = f"({column} {operator} ? OR path = ?)", [pattern, pattern]
        return self._at_paths(meant, "path", limit, kind=kind, build=build, cache=cache, arch=arch)[:limit]

    def _at_paths(
        self,
        meant: tuple[str, Sequence[str]],
        order: str,
        limit: int,
        *,
        kind: Kind | None,
        build: str | None,
        cache: UUID | None,
        arch: str | None,
    ) -> list[Occurrence]:
        """Return the contents at the first `limit` paths of which a condition with its values is true."""
        condition, wanted = meant
        narrowed = {
            "+o.record IN (SELECT id FROM records WHERE live AND build = ?)": build,
            "+o.layout IN (SELECT id FROM layouts WHERE kind = ?)": kind,
            "+o.layout IN (SELECT id FROM layouts WHERE arch = ?)": arch,
            "+o.layout IN (SELECT id FROM layouts WHERE cache_uuid = ?)": cache.bytes if cache else None,
        }
        # The plus keeps SQLite from going over all that a record holds, where a path leads to a few rows.
        terms = ["+o.record IN (SELECT id FROM records WHERE live)", *(s for s, v in narrowed.items() if v is not None)]
        values = [value for value in narrowed.values() if value is not None]
        where = " AND ".join(terms)
        rows = self._rows(
            f"WHERE o.path IN (SELECT id FROM paths f WHERE {condition}"  # noqa: S608 - constants
            f" AND EXISTS (SELECT 1 FROM objects o WHERE o.path = f.id AND {where}) ORDER BY {order} LIMIT ?)"
            f" AND {where}",
            [*wanted, *values, limit, *values],
        )
        groups: dict[tuple[UUID | None, str], list[Row]] = {}
        for row in rows:
            groups.setdefault((row[0].uuid, row[0].path if row[0].uuid is None else ""), []).append(row)
        orders = {o.record: r.release_order for o, r in rows}
        ranked = sorted(
            (rank(g, self._preferences) for g in groups.values()), key=lambda g: (g[0].path, str(g[0].uuid))
        )
        ranked.sort(key=lambda g: orders[g[0].record], reverse=True)
        return [o for group in ranked for o in group]

    def objects_of(self, record: int) -> list[Occurrence]:
        """Return what one live record stored, by path."""
        rows = self._rows("WHERE o.record = ?", [record])
        return sorted((o for o, _ in rows), key=lambda o: (o.path, o.arch, o.kind, o.extractor, o.revision, o.sha256))

    def occurrences_of_blob(self, sha256: str) -> list[Occurrence]:
        """Return what live records say of one content."""
        content = bytes.fromhex(sha256)
        rows = self._rows("WHERE substr(o.sha256, 1, 8) = ? AND o.sha256 = ?", [content[:8], content])
        return sorted((o for o, _ in rows), key=lambda o: (o.path, o.arch, o.record))

    def slices_of(self, image: Occurrence) -> list[Occurrence]:
        """Return the images of the file that `image` is a slice of, itself among them, one an architecture, by name.

        Those that may not answer for their own UUIDs are left out.
        """
        rows = self._rows("WHERE p.path = ?", [image.path])
        same = (image.record, image.kind, image.cache_uuid)
        found = {o.arch: o for o, _ in rows if (o.record, o.kind, o.cache_uuid) == same}
        return [o for _, o in sorted((found | {image.arch: image}).items()) if o is image or self._is_believed(o)]

    def _is_believed(self, image: Occurrence) -> bool:
        return image.uuid is None or any(o.sha256 == image.sha256 for o in self.believed(image.uuid))

    def conflicts(self, uuids: Sequence[UUID] | None = None) -> list[Conflict]:
        """Return every UUID (or those of `uuids`) whose contents under one full key contradict each other."""
        if uuids is None:
            with self._lock:
                self._load_records()
                if self._conflicts is not None:
                    return list(self._conflicts)
                seen, every = self._seen, self.conflicts(self._suspects())
                self._load_records()
                if self._seen == seen:  # else another process wrote meanwhile
                    self._conflicts = every
                return list(every)
        result = []
        for uuid in uuids:
            slots: dict[Slot, dict[str, Occurrence]] = {}
            for o in self.resolve(uuid):
                slots.setdefault((o.uuid, o.kind, o.cache_uuid), {}).setdefault(o.sha256, o)
            for slot, contents in slots.items():
                if any(o.rival for o in contents.values()):
                    found = (uuid, slot[1], slot[2], tuple(contents.values()), slot in self._preferences)
                    result.append(Conflict(*found))
        return sorted(result, key=lambda c: (str(c.uuid), c.kind, str(c.cache_uuid)))

    def _suspects(self) -> list[UUID]:
        """Return the UUIDs with more than one content under one full key: all conflicts, and stripped twins."""
        rows = self._all(
            "SELECT DISTINCT o.uuid FROM objects o JOIN layouts l ON l.id = o.layout"
            " JOIN records r ON r.id = o.record WHERE r.live AND length(o.uuid) = 16"
            " GROUP BY o.uuid, l.kind, l.cache_uuid, l.extractor, l.revision HAVING count(DISTINCT o.sha256) > 1"
        )
        return [UUID(bytes=row[0]) for row in rows]

    def _rows(self, where: str, parameters: Sequence[Any]) -> list[Row]:
        """Return matching objects of live records, each row checked against its checksum."""
        with self._lock:
            for _ in range(_TRIES):
                self._load_records()
                rows = self._all(f"{_SELECT} {where}", parameters)
                if self.data_version() == self._seen[0]:
                    break  # else another process wrote between the two, and the numbers may not fit
            found: list[Row] = []
            for row in rows:
                uuid, sha256, size, symbols, code, checksum, number = row[:7]
                kind, arch, origin, cache, extractor, revision, path = row[7:]
                record = self._records.get(number)
                if record is None:
                    continue  # superseded or removed
                key = (number, kind, arch, origin, cache, extractor, revision)
                common = self._commons.get(key)
                if common is None:
                    common = self._commons[key] = layout_checksum(key[1:], record.sha256)
                if object_checksum(common, uuid, sha256, size) != checksum:
                    raise StorageError(f"catalog {self.path or ''}: a row about {path} is damaged", hint=REBUILD)
                found.append(
                    (
                        Occurrence(
                            UUID(bytes=uuid) if uuid else None,
                            _KINDS[kind],
                            path,
                            arch,
                            origin,
                            UUID(bytes=cache) if cache else None,
                            extractor,
                            revision,
                            sha256.hex(),
                            size,
                            record.build,
                            record.version,
                            record.sealed,
                            record.sha256,
                            record.trust,
                            symbols,
                            code.hex(),
                        ),
                        record,
                    )
                )
            return found

    def _load_records(self) -> None:
        """Keep live records and preferences in memory: there are few, and every answer needs them."""
        seen = (self.data_version(), self.database.conn.total_changes)
        if seen == self._seen:
            return
        records = {}
        for row in self._all(
            "SELECT id, sha256, trust, build, version, release_order, sealed, finished, checksum FROM records"
            " WHERE live AND type = 'harvest'"
        ):
            number, sha256, trust, build, version, order, sealed, finished, checksum = row
            if record_checksum(sha256, trust, version, build, sealed, finished) != checksum:
                raise StorageError(f"catalog {self.path or ''}: the row of record {sha256} is damaged", hint=REBUILD)
            records[number] = RecordRow(sha256=sha256, id=number, trust=TRUSTS[trust], build=build, version=version,
                                        release_order=order, sealed=bool(sealed), finished=finished)  # fmt: skip
        preferences: dict[Slot, str] = {}
        # Of decisions that know nothing of each other, the latest holds, with ties broken by the record's id.
        for uuid, kind, cache, content in self._all(
            "SELECT p.uuid, p.kind, p.cache_uuid, p.sha256 FROM preferences p JOIN records r ON r.id = p.record"
            " WHERE r.live ORDER BY r.finished, r.sha256"
        ):
            preferences[UUID(bytes=uuid), _KINDS[kind], UUID(bytes=cache) if cache else None] = content.hex()
        self._records, self._preferences, self._seen = records, preferences, seen
        self._commons.clear()
        self._conflicts = None
