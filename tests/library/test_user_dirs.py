"""What belongs to this machine and user: where the catalog lies, and the name that records are written under."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from symcache.library import Library, user_dirs
from symcache.library.user_dirs import catalog_path, now, writer_id
from symcache.store import LocalStore, RecordKey

MOUNTS = """\
21 1 252:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
22 21 0:40 / {share} rw,relatime shared:2 - {kind} server:/export rw
23 21 0:41 / {share}/local\\040disk rw,relatime - xfs /dev/vdb1 rw
25 21 252:2 / {share}/twice rw,relatime - ext4 /dev/vdc1 rw
26 25 0:43 / {share}/twice rw,relatime - nfs server:/twice rw
24 21 0:42 / /elsewhere rw,relatime - nfs server:/other rw
"""


@pytest.mark.parametrize(
    ("kind", "folder", "inside"),
    [
        ("nfs4", "library", False),
        ("cifs", "library", False),
        ("ext4", "library", True),
        ("nfs4", "local disk/library", True),  # mounted on a folder of the share
        ("ext4", "twice/library", False),  # something else was mounted there before
    ],
)
def test_sqlite_is_not_trusted_to_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, folder: str, inside: bool
) -> None:
    share = tmp_path / "share"
    (share / folder).parent.mkdir(parents=True)
    real, mounts = Path.read_text, MOUNTS.format(share=share, kind=kind)
    monkeypatch.setattr(
        Path, "read_text", lambda path, **how: mounts if str(path) == "/proc/self/mountinfo" else real(path, **how)
    )
    with Library.open(share / folder, create=True) as library:
        assert (library.catalog.path == share / folder / "catalog.db") is inside
        assert library.catalog.path == catalog_path(library.store, library.catalog.library_id())


@pytest.mark.parametrize(("place", "shared"), [("/Volumes/share/x", True), ("/Network/x", True), ("/Users/x", False)])
def test_a_mac_mounts_shares_where_it_does(monkeypatch: pytest.MonkeyPatch, place: str, shared: bool) -> None:
    def fail(path: Path, **_: object) -> str:
        raise FileNotFoundError(path)  # it has no /proc

    monkeypatch.setattr(Path, "read_text", fail)
    assert user_dirs._on_network(Path(place)) is shared


def test_a_library_that_may_only_be_read_has_its_catalog_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Library.open(tmp_path / "library", create=True) as library:
        assert library.catalog.path == tmp_path / "library" / "catalog.db"
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with Library.open(tmp_path / "library") as library:
        # The same name in every version: what an earlier one has folded is gone on with.
        name = hashlib.sha256(f"{library.catalog.library_id()} {tmp_path}/library".encode()).hexdigest()[:16]
        assert library.catalog.path == Path(os.environ["XDG_CACHE_HOME"]) / f"symcache/catalogs/{name}.db"
        name = hashlib.sha256(f"{tmp_path}/library".encode()).hexdigest()[:16]
        (tmp_path / "link").symlink_to(tmp_path / "library")
        for path in ("library", "link"):
            assert catalog_path(LocalStore(tmp_path / path), "") == library.catalog.path.with_name(f"{name}.db")


def test_a_time_is_later_than_one_that_is_known_if_that_says_where() -> None:
    assert now(after="2199-12-31T23:59:59.999999-01:00") == "2200-01-01T01:00:00.000000+00:00"
    for odd in ("2199-12-31T23:59:59.999999", "9999-12-31T23:59:59.999999+00:00", "some day", ""):
        assert now(after=odd) < "2199"
    assert now() < now(after="2026-01-01T00:00:00.000000+00:00")


@pytest.mark.parametrize("error", [KeyError, OSError])
def test_who_has_no_name_is_no_operator(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def fail() -> str:
        raise error("uid not found")

    monkeypatch.setattr("getpass.getuser", fail)
    assert user_dirs.operator() == ""


@pytest.fixture
def kept() -> Path:
    """Where a machine keeps its name as a writer."""
    return Path(os.environ["XDG_STATE_HOME"]) / "symcache" / "writer"


def test_a_writer_keeps_its_name(kept: Path) -> None:
    name = writer_id()
    assert RecordKey.parse(str(RecordKey(name, 1))) == RecordKey(name, 1)
    assert writer_id() == name
    with ThreadPoolExecutor(8) as pool:
        kept.unlink()
        assert len(set(pool.map(lambda _: writer_id(), range(8)))) == 1
    assert [p.name for p in kept.parent.iterdir()] == ["writer"]


@pytest.mark.parametrize("text", [b"", b"../../elsewhere", b"A" * 32, b"a" * 31, b"a" * 33, b"\xff" * 32])
def test_a_damaged_name_of_a_writer_is_not_used(kept: Path, text: bytes) -> None:
    kept.parent.mkdir(parents=True)
    kept.write_bytes(text)
    name = writer_id()
    assert RecordKey.parse(str(RecordKey(name, 1))) == RecordKey(name, 1)
    assert name.encode() != text
    assert writer_id() == name


def test_without_a_home_a_writer_has_a_name_for_one_run(kept: Path) -> None:
    kept.parent.parent.mkdir(parents=True)
    kept.parent.write_text("not a folder")
    assert writer_id() != writer_id()


@pytest.mark.parametrize("name", ["Bücher", "two\u2028lines\u00a0", "\udcff"])
def test_a_share_is_known_whatever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    share = tmp_path / name
    (share / "library").mkdir(parents=True)
    mounts, store = MOUNTS.format(share=share, kind="nfs4"), LocalStore(share / "library", create=True)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: mounts)
    assert not catalog_path(store, "").is_relative_to(share)
