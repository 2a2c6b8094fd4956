"""One record into the tables. Every row follows from the record, or from the set of all records, never from time."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlite_utils import Database

from symcache.catalog.ranking import TRUST_RANK
from symcache.catalog.schema import release_order
from symcache.model import HarvestRecord, PreferenceRecord, Record, TombstoneRecord

__all__ = ["NONE", "Indexer", "layout_checksum", "object_checksum", "record_checksum"]

NONE = b""
"""An absent UUID in key columns: SQLite would let several NULLs stand beside each other."""
_MAX_PATHS = 400_000
"""Path numbers kept in memory: two whole releases."""
_VARIABLES = 500

Layout = tuple[str, str, str, bytes, str, int]
"""(kind, arch, origin, cache UUID or empty, extractor, revision)"""


def layout_checksum(layout: Layout, record: str) -> int:
    """Return the CRC-32 of what all rows of one layout and record have in common."""
    text = f"{layout[0]} {layout[1]} {layout[2]} {layout[4]} {layout[5]} {record}".encode()
    return zlib.crc32(layout[3], zlib.crc32(text))


def object_checksum(common: int, uuid: bytes, sha256: bytes, size: int) -> int:
    """Return the CRC-32 of a row of `objects`, its layout and record included: a bit flip is never served."""
    return zlib.crc32(b"%b%b%d" % (uuid, sha256, size), common)


def record_checksum(sha256: str, trust: int, version: str, build: str | None, sealed: bool, finished: str) -> int:
    """Return the CRC-32 of what ranking reads of a row of `records`."""
    return zlib.crc32(f"{sha256} {trust} {version} {build} {int(sealed)} {finished}".encode())


class Indexer:
    """Adds records to a database; remembers the numbers of paths and layouts between them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._paths: dict[str, int] = {}
        self._layouts: dict[Layout, int] = {}

    def forget(self) -> None:
        """Drop what is remembered: after a rollback, or when another process wrote."""
        self._paths.clear()
        self._layouts.clear()

    def fold(self, key: str, sha256: str, record: Record) -> bool:
        """Add a record, inside the caller's transaction; return False if this place is known already."""
        execute = self._database.conn.execute
        if execute("SELECT 1 FROM record_keys WHERE key = ?", (key,)).fetchone():
            return False
        known = execute("SELECT id FROM records WHERE sha256 = ?", (sha256,)).fetchone()
        row = known[0] if known else self._record(sha256, record)
        execute("INSERT INTO record_keys VALUES (?,?)", (key, row))
        if known:
            return True
        if isinstance(record, HarvestRecord):
            self._harvest(row, sha256, record)
        elif isinstance(record, PreferenceRecord):
            cache = record.cache_uuid.bytes if record.cache_uuid else NONE
            values = (row, record.uuid.bytes, record.kind.value, cache, bytes.fromhex(record.sha256))
            execute("INSERT INTO preferences VALUES (?,?,?,?,?)", values)
        gone = record.removes if isinstance(record, TombstoneRecord) else record.supersedes
        for target in gone:
            execute("INSERT OR IGNORE INTO retired VALUES (?,?)", (target, row))
            execute("UPDATE records SET live = 0 WHERE sha256 = ?", (target,))
        return True

    def _record(self, sha256: str, record: Record) -> int:
        execute = self._database.conn.execute
        retired = execute("SELECT 1 FROM retired WHERE sha256 = ?", (sha256,)).fetchone() is not None
        harvest = record if isinstance(record, HarvestRecord) else HarvestRecord()
        release = harvest.release
        version, build = (release.version, release.build) if release else ("", None)
        trust, finished = TRUST_RANK[harvest.trust], record.finished
        cursor = execute(
            "INSERT INTO records (sha256, type, live, trust, product, version, extra, build, system, release_order,"
            " sealed, source, extractor, tool, operator, started, finished, problems, images, checksum)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                sha256,
                record.type,
                not retired,
                trust,
                release.product if release else "",
                version,
                release.extra if release else "",
                build,
                release.id.product if release else "",
                release_order(version, build) if build is not None else "",
                harvest.sealed,
                harvest.source,
                harvest.extractor,
                record.tool,
                record.operator,
                harvest.started,
                finished,
                "\n".join(harvest.problems),
                len({o.uuid for o in harvest.objects}),
                record_checksum(sha256, trust, version, build, harvest.sealed, finished),
            ),
        )
        return int(cursor.lastrowid or 0)

    def _harvest(self, row: int, sha256: str, record: HarvestRecord) -> None:
        many = self._database.conn.executemany
        paths = self._path_numbers({o.path for o in record.objects} | {m.path for m in record.manifest})
        # The inner loops: a large record has 50,000 images. Enumerations and UUIDs are hashed as they are, and turned
        # into what SQLite takes once a layout.
        layouts: dict[tuple[Any, ...], tuple[int, int]] = {}
        objects: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        notes: dict[bytes, dict[tuple[str, str], None]] = {}
        inner: set[tuple[bytes, int, int, bytes, str]] = set()
        fromhex, checksum = bytes.fromhex, object_checksum
        for o in record.objects:
            cache = o.cache_uuid
            key = (o.kind, o.arch, o.origin, cache and cache.int, o.extractor, o.revision)
            found = layouts.get(key)
            if found is None:
                layout = (o.kind.value, o.arch, o.origin.value, _bytes(cache), o.extractor, o.revision)
                found = layouts[key] = self._layout_number(layout), layout_checksum(layout, sha256)
            number, common = found
            uuid = o.uuid.int.to_bytes(16, "big") if o.uuid else NONE
            content, path = fromhex(o.sha256), paths[o.path]
            check = checksum(common, uuid, content, o.size)
            values = (uuid, number, row, path, content, o.size, o.symbols, fromhex(o.code), check)
            objects[uuid, number, path, content] = values
            if o.sources and uuid:
                for n in o.sources:
                    notes.setdefault(uuid, {})[n.recorded, n.place] = None
            if o.entries:
                inner |= {(e.uuid.bytes, row, path, uuid, e.name) for e in o.entries if e.uuid}
        # Sorted by UUID, the first index grows in order within a record instead of at random.
        many(
            "INSERT INTO objects (uuid, layout, record, path, sha256, size, symbols, code, checksum)"
            " VALUES (?,?,?,?,?,?,?,?,?)",
            [objects[key] for key in sorted(objects)],
        )
        many(
            "INSERT INTO sources (uuid, record, number, recorded, place) VALUES (?,?,?,?,?)",
            [(uuid, row, n, *pair) for uuid, pairs in sorted(notes.items()) for n, pair in enumerate(pairs)],
        )
        many("INSERT INTO collections VALUES (?,?,?,?,?)", sorted(inner))
        layouts.clear()
        manifest = set()
        for m in record.manifest:
            cache = m.cache_uuid
            short = (m.kind, m.arch, m.origin, cache and cache.int)
            found = layouts.get(short)
            if found is None:
                layout = (m.kind.value, m.arch, m.origin.value, _bytes(cache), "", 0)
                found = layouts[short] = self._layout_number(layout), 0
            manifest.add((row, paths[m.path], found[0], m.uuid.int.to_bytes(16, "big") if m.uuid else NONE))
        many("INSERT INTO manifest_entries VALUES (?,?,?,?)", sorted(manifest))
        many(
            "INSERT OR IGNORE INTO cache_files VALUES (?,?,?,?,?,?,?,?)",
            (
                (row, _bytes(f.cache_uuid), f.name, f.arch, f.path, bytes.fromhex(f.sha256), f.size, f.partial)
                for f in record.cache_files
            ),
        )

    def _path_numbers(self, paths: Iterable[str]) -> dict[str, int]:
        known = self._paths
        if len(known) > _MAX_PATHS:
            known.clear()
        new = sorted(p for p in paths if p not in known)
        conn = self._database.conn
        conn.executemany(
            "INSERT OR IGNORE INTO paths (path, name) VALUES (?,?)", ((p, p.rpartition("/")[2]) for p in new)
        )
        for start in range(0, len(new), _VARIABLES):
            part = new[start : start + _VARIABLES]
            marks = ",".join("?" * len(part))
            known.update(conn.execute(f"SELECT path, id FROM paths WHERE path IN ({marks})", part))  # noqa: S608
        return known

    def _layout_number(self, layout: Layout) -> int:
        number = self._layouts.get(layout)
        if number is None:
            execute = self._database.conn.execute
            execute(
                "INSERT OR IGNORE INTO layouts (kind, arch, origin, cache_uuid, extractor, revision)"
                " VALUES (?,?,?,?,?,?)",
                layout,
            )
            (number,) = execute(
                "SELECT id FROM layouts WHERE kind = ? AND arch = ? AND origin = ? AND cache_uuid = ?"
                " AND extractor = ? AND revision = ?",
                layout,
            ).fetchone()
            self._layouts[layout] = number
        return int(number)


def _bytes(uuid: UUID | None) -> bytes:
    return uuid.bytes if uuid else NONE
