"""Tables and views of the catalog.

UUIDs and hashes are BLOBs in the tables, half the size and as fast as text; the views show them as text and are what
people and other tools (sqlite-utils, Datasette) should read. They are of live records only: superseded and removed ones
are left out.

================  ==================================================================================================
view              a row is
================  ==================================================================================================
``releases``      a build of a system
``caches``        a shared cache of a build: its architecture, images and kept raw files
``images``        what can be asked for: (UUID, kind), with the number of its contents and of the builds that have it
``occurrences``   a stored image of a record: (uuid, kind, cache, extractor, revision) → SHA-256
``manifests``     an image that a source said it has
``missing``       an image of ``manifests`` that nothing was stored for
================  ==================================================================================================

====================  ==============================================================================================
table                 a row is
====================  ==============================================================================================
``records``           a record; `live` is 0 when another one supersedes or removes it; `system` is its product, by
                      the one name that tells releases of one build apart
``record_keys``       a place in the store where a record lies (one may lie in two, after a repeated upload)
``retired``           a record id that a record takes back
``preferences``       a person's decision
``paths``             a path, with its last part
``layouts``           what all images of one shared cache and extractor have in common
``objects``           a stored image
``manifest_entries``  an image that a source said it has
``cache_files``       a kept raw file of a shared cache
``sources``           a folder of the machine that built a binary, and where a dSYM says that it is
``collections``       an image inside a kernel collection
``record_marks``      what the store said of the object at a place when its record was folded in
``lost_records``      a record that was known, and is no longer in the store
``library``           something about the library that the records are of: its id
====================  ==============================================================================================

The last three say nothing of what the library holds. They tell a catalog of this library from one of another that was
at its place, and are made where they lack: programs of the same version that know nothing of them can do without.
"""

from __future__ import annotations

import re

from sqlite_utils import Database

from symcache.catalog.views import VIEWS

__all__ = ["SCHEMA_VERSION", "create", "create_indexes", "create_notes", "release_order", "upgrade"]

SCHEMA_VERSION = 6
"""Stored as `user_version`."""

_TABLES = """
CREATE TABLE records (
    id INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    live INTEGER NOT NULL,
    trust INTEGER NOT NULL,
    product TEXT NOT NULL,
    version TEXT NOT NULL,
    extra TEXT NOT NULL,
    build TEXT,
    system TEXT NOT NULL,
    release_order TEXT NOT NULL,
    sealed INTEGER NOT NULL,
    source TEXT NOT NULL,
    extractor TEXT NOT NULL,
    tool TEXT NOT NULL,
    operator TEXT NOT NULL,
    started TEXT NOT NULL,
    finished TEXT NOT NULL,
    problems TEXT NOT NULL,
    images INTEGER NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE INDEX records_build ON records (build);
CREATE TABLE record_keys (
    key TEXT PRIMARY KEY,
    record INTEGER NOT NULL REFERENCES records (id)
) WITHOUT ROWID;
CREATE TABLE retired (
    sha256 TEXT NOT NULL,
    record INTEGER NOT NULL REFERENCES records (id),
    PRIMARY KEY (sha256, record)
) WITHOUT ROWID;
CREATE TABLE preferences (
    record INTEGER PRIMARY KEY REFERENCES records (id),
    uuid BLOB NOT NULL,
    kind TEXT NOT NULL,
    cache_uuid BLOB NOT NULL,
    sha256 BLOB NOT NULL
);
CREATE TABLE paths (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL
);
CREATE INDEX paths_name ON paths (name);
CREATE TABLE layouts (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    arch TEXT NOT NULL,
    origin TEXT NOT NULL,
    cache_uuid BLOB NOT NULL,
    extractor TEXT NOT NULL,
    revision INTEGER NOT NULL,
    UNIQUE (cache_uuid, kind, arch, origin, extractor, revision)
);
CREATE TABLE objects (
    id INTEGER PRIMARY KEY,
    uuid BLOB NOT NULL,
    layout INTEGER NOT NULL REFERENCES layouts (id),
    record INTEGER NOT NULL REFERENCES records (id),
    path INTEGER NOT NULL REFERENCES paths (id),
    sha256 BLOB NOT NULL,
    size INTEGER NOT NULL,
    symbols INTEGER,
    code BLOB NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE TABLE manifest_entries (
    record INTEGER NOT NULL REFERENCES records (id),
    path INTEGER NOT NULL REFERENCES paths (id),
    layout INTEGER NOT NULL REFERENCES layouts (id),
    uuid BLOB NOT NULL,
    PRIMARY KEY (record, path, layout, uuid)
) WITHOUT ROWID;
CREATE TABLE cache_files (
    record INTEGER NOT NULL REFERENCES records (id),
    cache_uuid BLOB NOT NULL,
    name TEXT NOT NULL,
    arch TEXT NOT NULL,
    path TEXT NOT NULL,
    sha256 BLOB NOT NULL,
    size INTEGER NOT NULL,
    partial INTEGER NOT NULL,
    PRIMARY KEY (cache_uuid, name, record, path)
) WITHOUT ROWID;
CREATE TABLE sources (
    uuid BLOB NOT NULL,
    record INTEGER NOT NULL REFERENCES records (id),
    number INTEGER NOT NULL,
    recorded TEXT NOT NULL,
    place TEXT NOT NULL,
    PRIMARY KEY (uuid, record, number)
) WITHOUT ROWID;
CREATE TABLE collections (
    uuid BLOB NOT NULL,
    record INTEGER NOT NULL REFERENCES records (id),
    path INTEGER NOT NULL REFERENCES paths (id),
    collection BLOB NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (uuid, record, path, collection, name)
) WITHOUT ROWID;
CREATE INDEX cache_files_record ON cache_files (record);
CREATE INDEX cache_files_sha256 ON cache_files (sha256);
"""

_NOTES = (
    "CREATE TABLE IF NOT EXISTS record_marks (key TEXT PRIMARY KEY, mark TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS lost_records (sha256 TEXT PRIMARY KEY, key TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS library (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)

_INDEXES = {
    "objects_uuid": "objects (uuid)",
    "objects_record": "objects (record)",
    "objects_path": "objects (path)",
    "objects_sha256": "objects (substr(sha256, 1, 8))",
}
"""Of the one large table: made after it is filled, where it is filled at one go."""


def create_indexes(database: Database) -> None:
    """Make the indexes of the large table."""
    for name, columns in _INDEXES.items():
        database.execute(f"CREATE INDEX {name} ON {columns}")


def create_notes(database: Database) -> None:
    """Make the tables that a catalog of this version may lack."""
    for statement in _NOTES:
        database.execute(statement)


def create(database: Database, *, indexes: bool = True) -> None:
    """Make all tables and views in an empty database, inside the caller's transaction."""
    # Not executescript: that commits what is open, and a half-made schema would be visible.
    for statement in _TABLES.split(";"):
        if statement.strip():
            database.execute(statement)
    create_notes(database)
    if indexes:
        create_indexes(database)
    for name, select in VIEWS.items():
        database.create_view(name, select)
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def upgrade(database: Database) -> None:
    """Empty a catalog of another version, to be filled anew from the records; inside the caller's transaction."""
    if database.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION:
        return  # another process was faster
    objects = database.execute(
        "SELECT type, name FROM sqlite_master WHERE type IN ('view', 'table') AND name NOT LIKE 'sqlite_%'"
        " ORDER BY type DESC"
    ).fetchall()
    for kind, name in objects:
        database.execute(f'DROP {kind} IF EXISTS "{name}"')
    create(database)


def release_order(version: str, build: str) -> str:
    """Return a text that sorts releases from old to new: numbers in version, then in build, padded with zeros.

    Builds of one version sort by train letter and number (`22G90` before `22G120`), before all what has no version.
    """

    def padded(text: str) -> str:
        return re.sub(r"[0-9]+", lambda m: m[0].lstrip("0").zfill(8), text)

    parts = [*(version if version[:1].isdigit() else "0").split("."), "0", "0", "0"][:4]
    return f"{padded('.'.join(parts))} {padded(build)}"
