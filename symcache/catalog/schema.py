"""Tables and views of the catalog.

UUIDs and hashes are BLOBs in the tables, half the size and as fast as text; the views show them as text and are
what people and other tools should read.

=============  =====================================================================================
``records``    one row a harvest record, with the release it is of
``images``     one row a stored image of a record: (uuid, kind, cache, extractor, revision) → SHA-256
``manifest``   one row an image that the source said it has
``cache_files``  one row a kept raw file of a shared cache
``releases``   view: a row a build
``occurrences``  view: ``images`` with its record, as text
=============  =====================================================================================
"""

from __future__ import annotations

import re

from sqlite_utils import Database

__all__ = ["SCHEMA_VERSION", "create", "release_order"]

SCHEMA_VERSION = 1
"""Stored as `user_version`. A catalog of another version is dropped and folded anew: it holds nothing of its own."""

_TABLES = """
CREATE TABLE records (
    id INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL,
    key TEXT NOT NULL UNIQUE,
    trust INTEGER NOT NULL,
    product TEXT NOT NULL,
    version TEXT NOT NULL,
    extra TEXT NOT NULL,
    build TEXT,
    release_order TEXT NOT NULL,
    sealed INTEGER NOT NULL,
    source TEXT NOT NULL,
    extractor TEXT NOT NULL,
    tool TEXT NOT NULL,
    operator TEXT NOT NULL,
    started TEXT NOT NULL,
    finished TEXT NOT NULL,
    problems TEXT NOT NULL
);
CREATE INDEX records_build ON records (build);
CREATE TABLE images (
    uuid BLOB NOT NULL,
    kind TEXT NOT NULL,
    cache_uuid BLOB NOT NULL,
    record INTEGER NOT NULL REFERENCES records (id),
    path TEXT NOT NULL,
    extractor TEXT NOT NULL,
    revision INTEGER NOT NULL,
    arch TEXT NOT NULL,
    origin TEXT NOT NULL,
    sha256 BLOB NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (uuid, kind, cache_uuid, record, path, extractor, revision)
) WITHOUT ROWID;
CREATE INDEX images_record ON images (record);
CREATE INDEX images_path ON images (path);
CREATE TABLE manifest (
    record INTEGER NOT NULL REFERENCES records (id),
    path TEXT NOT NULL,
    arch TEXT NOT NULL,
    uuid BLOB NOT NULL,
    kind TEXT NOT NULL,
    origin TEXT NOT NULL,
    cache_uuid BLOB NOT NULL,
    PRIMARY KEY (record, path, arch, kind, cache_uuid, uuid)
) WITHOUT ROWID;
CREATE TABLE cache_files (
    record INTEGER NOT NULL REFERENCES records (id),
    cache_uuid BLOB NOT NULL,
    name TEXT NOT NULL,
    arch TEXT NOT NULL,
    path TEXT NOT NULL,
    sha256 BLOB NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (cache_uuid, name, record)
) WITHOUT ROWID;
"""

_RELEASES = """
SELECT product, version, extra, build, max(release_order) AS release_order, max(sealed) AS sealed,
       count(*) AS harvests,
       (SELECT count(DISTINCT i.uuid) FROM images i JOIN records x ON x.id = i.record WHERE x.build = r.build) AS images
FROM records r WHERE build IS NOT NULL GROUP BY build
"""

_OCCURRENCES = """
SELECT hex(i.uuid) AS uuid, i.kind, i.path, i.arch, i.origin, hex(i.cache_uuid) AS cache_uuid, i.extractor,
       i.revision, lower(hex(i.sha256)) AS sha256, i.size, r.build, r.version, r.sealed, r.sha256 AS record
FROM images i JOIN records r ON r.id = i.record
"""


def create(database: Database) -> None:
    """Make all tables and views in an empty database, inside the caller's transaction."""
    # Not executescript: that commits what is open, and a half-made schema would be visible.
    for statement in _TABLES.split(";"):
        if statement.strip():
            database.execute(statement)
    database.create_view("releases", _RELEASES)
    database.create_view("occurrences", _OCCURRENCES)
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def release_order(version: str, build: str) -> str:
    """Return a text that sorts releases from old to new: numbers in version, then in build, padded with zeros.

    Builds of one version sort by train letter and number (`22G90` before `22G120`).
    """

    def padded(text: str) -> str:
        return re.sub(r"[0-9]+", lambda m: m[0].lstrip("0").zfill(8), text)

    parts = [*version.split("."), "0", "0", "0"][:4]
    return f"{padded('.'.join(parts))} {padded(build)}"
