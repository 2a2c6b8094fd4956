"""Looking after a library as a user types it, in a folder and in an object store."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

import pytest
from typer.testing import CliRunner

from symcache.cli.app import application
from symcache.library import Library, ingest
from symcache.model import uuid_text
from symcache.store import blob_key
from tests.library.images import Image, harvest, macho
from tests.store.conftest import make_location
from tests.support.commands import answer_here, run_here
from tests.support.servers import serve

A = uuid_text(UUID(int=1))


@pytest.fixture
def folder_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SYMCACHE_LIBRARY", str(tmp_path / "library"))
    return str(tmp_path / "library")


@pytest.fixture(params=["folder", "s3"])
def own_library(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    location = make_location(request.param, tmp_path, monkeypatch)
    monkeypatch.setenv("SYMCACHE_LIBRARY", location)
    monkeypatch.setenv("COLUMNS", "1000")
    return location


def _ingest(where: str, folder: Path, *images: Image, build: str = "22G120") -> list[str]:
    with Library.open(where, create=True) as library:
        result = ingest(library, harvest(folder, images, build=build))
        rows = library.catalog.database.execute(
            "SELECT path, sha256 FROM occurrences WHERE record = ?", [result.record_id]
        )
        contents = dict(rows)
        return [contents[i.path] for i in images]


def test_a_library_is_made_asked_and_looked_after(own_library: str, tmp_path: Path) -> None:
    binary = tmp_path / "libown.dylib"
    binary.write_bytes(macho(UUID(int=7), pad=b"own"))
    assert answer_here("add", str(binary))["images"][0]["uuid"] == uuid_text(UUID(int=7))
    _ingest(own_library, tmp_path / "1", Image("/usr/lib/a", 1), Image("/usr/lib/b", 2))
    assert [r["build"] for r in answer_here("releases")] == ["22G120"]
    assert answer_here("lookup", A)[0]["path"] == "/usr/lib/a"
    out = tmp_path / "out"
    assert answer_here("get", A, "-o", str(out))["path"] == str(out)
    assert out.read_bytes() == Image("/usr/lib/a", 1).data
    for output in ("-", "/dev/stdout"):
        command = [sys.executable, "-m", "symcache", "get", A, "-o", output]
        printed = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
        assert printed == Image("/usr/lib/a", 1).data  # and no line behind it
    counted = answer_here("stats")
    assert (counted["releases"], counted["images"], counted["image_blobs"], counted["conflicts"]) == (1, 3, 3, 0)
    assert counted["image_stored"] < counted["image_content"] + 1000
    report = answer_here("fsck", "--read-data")
    assert (report["clean"], report["records"], report["blobs"]) == (True, 2, 3)
    assert answer_here("rebuild", "--snapshot")["records"] == 2
    assert answer_here("fsck", "--read-data-subset", "1/2")["clean"]
    assert "clean" in run_here("fsck").stdout


def test_conflict_preference_removal_and_collection(own_library: str, tmp_path: Path) -> None:
    (first,) = _ingest(own_library, tmp_path / "1", Image("/usr/lib/a", 1))
    (second,) = _ingest(own_library, tmp_path / "2", Image("/usr/lib/a", 1, seed=3), build="23A1")
    ran = run_here("fsck")
    assert ran.returncode == 1
    assert "conflict" in ran.stdout
    assert A in ran.stdout
    assert answer_here("prefer", A, second[:12])["sha256"] == second
    assert answer_here("fsck")["clean"]
    assert len(answer_here("remove", "23A1", "--reason", "test")["23A1"]["records"]) == 1
    assert run_here("lookup", A, "--build", "23A1").returncode == 1
    report = answer_here("gc", "--dry-run")
    assert (report["deleted"], report["live"], report["young"]) == (0, 1, 1)
    assert answer_here("lookup", A)[0]["sha256"] == first


def test_damage_is_mended_from_another_library(own_library: str, tmp_path: Path) -> None:
    (sha256,) = _ingest(own_library, tmp_path / "1", Image("/usr/lib/a", 1))
    other = tmp_path / "other"
    _ingest(str(other), tmp_path / "1", Image("/usr/lib/a", 1))
    with Library.open(own_library) as library:
        library.store.quarantine(blob_key(sha256))
    report = answer_here("fsck", code=1)
    assert [f["code"] for f in report["findings"]] == ["blob-missing"]
    said = run_here("fsck", "--repair").stderr
    assert "next: `symcache fsck --repair --from PATH|URL` has it again from a backup" in said
    assert answer_here("fsck", "--repair", "--from", str(other))["findings"][0]["repaired"].startswith("copied from")
    assert answer_here("fsck")["clean"]


def test_what_changed_inside_of_a_blob_is_not_called_clean_without_a_word(folder_library: str, tmp_path: Path) -> None:
    (sha256,) = _ingest(folder_library, tmp_path / "1", Image("/usr/lib/a", 1))
    other = tmp_path / "other"
    _ingest(str(other), tmp_path / "1", Image("/usr/lib/a", 1))
    blob = Path(folder_library, blob_key(sha256))
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 0xFF
    blob.chmod(0o644)
    blob.write_bytes(content)
    assert "contents not read (--read-data)" in run_here("fsck", "--repair", "--from", str(other)).stdout
    assert "`symcache fsck --read-data --repair --from PATH|URL`" in run_here("fsck", "--read-data").stderr
    ran = run_here("fsck", "--read-data", "--repair", "--from", str(other))
    assert "repaired (copied from" in ran.stdout
    assert "not read" not in ran.stdout
    assert answer_here("fsck", "--read-data")["clean"]


def test_damage_is_mended_from_a_server(folder_library: str, tmp_path: Path) -> None:
    (sha256,) = _ingest(
        folder_library, tmp_path / "1", Image("/usr/lib/a", 1, cache=9, extractor="symcache", revision=1)
    )
    _ingest(str(tmp_path / "other"), tmp_path / "1", Image("/usr/lib/a", 1, cache=9, extractor="symcache", revision=1))
    (Path(folder_library) / blob_key(sha256)).unlink()
    with serve(tmp_path / "other", tmp_path / "server") as server:
        report = answer_here("fsck", "--repair", "--from", server.url)
    assert [f["repaired"] for f in report["findings"]] == ["fetched again"]
    assert answer_here("fsck", "--read-data")["clean"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["remove", "99Z9"], 1, "nothing of this build"),
        (["reextract", "99Z9"], 1, "nothing of this build"),
        (["prefer", A, "00000000"], 1, "no content"),
        (["prefer", "nonsense", "00000000"], 2, "not a UUID"),
        (["gc", "--grace", "5m"], 2, "harvest that runs now"),
        (["gc", "--grace", "soon"], 2, "not a time"),
        (["fsck", "--read-data-subset", "200%"], 2, "not a share"),
        (["fsck", "--from", "x"], 2, "--repair"),
        (["fsck", "--repair", "--from", "x"], 1, "x: no library here"),
        (["add"], 2, "nothing to add"),
    ],
)
def test_wrong_use_is_told_from_no(
    folder_library: str, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    _ingest(folder_library, tmp_path / "1", Image("/usr/lib/a", 1))
    ran = CliRunner().invoke(application(arguments[0]), arguments)
    assert ran.exit_code == code
    assert message in ran.output
    assert "Traceback" not in ran.output


def test_a_broken_catalog_is_rebuilt(own_library: str, tmp_path: Path) -> None:
    _ingest(own_library, tmp_path / "1", Image("/usr/lib/a", 1))
    with Library.open(own_library) as library:
        path = library.catalog.path
    assert path
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.write_bytes(b"garbage" * 1000)
    ran = run_here("releases")
    assert ran.returncode == 3
    assert "rebuild" in ran.stderr or "delete this file" in ran.stderr
    assert answer_here("rebuild")["records"] == 1
    assert len(answer_here("releases")) == 1


def test_the_grace_runs_out(folder_library: str, tmp_path: Path) -> None:
    _ingest(folder_library, tmp_path / "1", Image("/usr/lib/a", 1))
    assert run_here("remove", "22G120").returncode == 0
    then = time.time() - 30 * 86400
    for path in Path(folder_library).rglob("*.zst"):
        os.utime(path, (then, then))
    ran = run_here("gc")
    assert ran.returncode == 0
    assert "deleted 1 blob" in ran.stdout
    assert list((Path(folder_library) / "blobs").rglob("*.zst")) == []
