"""The catalog is an ordinary database to ordinary tools, and moves from version to version."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlite_utils import Database

from symcache.catalog import SCHEMA_VERSION, Catalog
from symcache.catalog import schema as schema_module
from symcache.library import Library, ingest, remove_build
from tests.library.images import Image, harvest

VIEWS = ("releases", "caches", "images", "occurrences", "manifests", "missing")


@pytest.fixture(scope="module")
def catalog_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalog")
    a = Image("/usr/lib/a", 1, cache=9, extractor="symcache", revision=1)
    b, c, gone = (Image(f"/usr/lib/{n}", i) for i, n in enumerate(("b", "c", "gone"), 2))
    with Library.open(folder / "library", create=True) as library:
        ingest(library, harvest(folder / "1", [a, b], raw=[("dyld_shared_cache_arm64e", 9, b"raw")]))
        ingest(library, harvest(folder / "2", [b, c], build="23A1", version="14.0", lost=[gone]))
        ingest(library, harvest(folder / "3", [c], build="24A1", version="15.0"))
        remove_build(library, "24A1")
    return folder / "library" / "catalog.db"


def _tool(path: Path, sql: str) -> list[dict[str, object]]:
    command = [sys.executable, "-m", "sqlite_utils", "query", str(path), sql]
    return list(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def test_the_documented_views_answer_in_plain_sqlite_utils(catalog_file: Path) -> None:
    assert set(VIEWS) <= set(Database(catalog_file).view_names())
    releases = _tool(catalog_file, "SELECT build, sealed, images FROM releases ORDER BY release_order")
    assert releases == [
        {"build": "22G120", "sealed": 1, "images": 2},
        {"build": "23A1", "sealed": 0, "images": 2},
    ]


def test_views_show_uuids_as_people_write_them(catalog_file: Path) -> None:
    rows = Database(catalog_file).query("SELECT * FROM occurrences WHERE path = '/usr/lib/a'")
    (row,) = rows
    assert row["uuid"] == "00000000-0000-0000-0000-000000000001"
    assert row["cache_uuid"] == "00000000-0000-0000-0000-000000000009"
    assert (row["trust"], row["build"], row["extractor"]) == ("harvest", "22G120", "symcache")


def test_each_view_counts_what_it_says(catalog_file: Path) -> None:
    database = Database(catalog_file)
    counts = {view: next(database.query(f"SELECT count(*) AS n FROM {view}"))["n"] for view in VIEWS}
    assert counts == {"releases": 2, "caches": 1, "images": 3, "occurrences": 4, "manifests": 5, "missing": 1}
    assert next(database.query("SELECT path, build FROM missing")) == {"path": "/usr/lib/gone", "build": "23A1"}
    assert next(database.query("SELECT images, raw_files FROM caches")) == {"images": 1, "raw_files": 1}
    shared = "SELECT builds, contents FROM images WHERE name = 'b'"
    assert next(database.query(shared)) == {"builds": 2, "contents": 1}


def test_every_table_and_view_can_be_browsed(catalog_file: Path) -> None:
    database = Database(catalog_file)
    for name in [*database.table_names(), *database.view_names()]:
        list(database.query(f'SELECT * FROM "{name}" LIMIT 3'))


def test_a_catalog_of_another_version_is_emptied(catalog_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    path.write_bytes(catalog_file.read_bytes())
    with sqlite3.connect(path) as other:
        other.execute("ALTER TABLE records DROP COLUMN operator")
        other.execute(f"PRAGMA user_version = {SCHEMA_VERSION - 1}")
    other.close()
    catalog = Catalog(path)
    assert catalog.known_keys() == set()
    assert "operator" in catalog.database["records"].columns_dict
    catalog.close()


def test_an_upgrade_that_fails_leaves_the_old_catalog(
    catalog_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "catalog.db"
    path.write_bytes(catalog_file.read_bytes())
    with sqlite3.connect(path) as other:
        other.execute(f"PRAGMA user_version = {SCHEMA_VERSION - 1}")
    other.close()

    def broken(database: Database) -> None:
        assert not database.table_names()
        raise RuntimeError("power failed")

    monkeypatch.setattr(schema_module, "create", broken)
    with pytest.raises(RuntimeError):
        Catalog(path)
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT count(*) FROM objects").fetchone()[0] == 5
        assert other.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION - 1
    other.close()
