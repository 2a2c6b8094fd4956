"""Transfers that break: continued in the middle, never half visible, and disks that are full."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from symcache.errors import IntegrityError, StorageError, UsageError
from symcache.library import Library
from symcache_provisioning import SshSource, harvest
from symcache_provisioning.ssh import transfer
from symcache_provisioning.ssh.packets import Attributes, ConnectionLostError
from symcache_provisioning.ssh.sftp import Sftp, WholeFile
from symcache_provisioning.staging import Staging
from tests.support.openssh import OpenSshServer
from tests.support.systems import make_system
from tests.vm_provisioning.conftest import session_of

_SIZE = 24 << 20


class CuttingProxy:
    """Passes a TCP connection on, and cuts it after so many bytes to the client; counts them."""

    def __init__(self, port: int, cuts: list[int]) -> None:
        self._port, self.cuts = port, cuts
        self.passed: list[int] = []
        """Bytes to the client, by connection."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._port))
            number = len(self.passed)
            self.passed.append(0)
            limit = self.cuts[number] if number < len(self.cuts) else 1 << 60
            threading.Thread(target=self._pump, args=(client, server, -1, 1 << 60), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, number, limit), daemon=True).start()

    def _pump(self, reader: socket.socket, writer: socket.socket, number: int, limit: int) -> None:
        try:
            while limit > 0 and (data := reader.recv(min(65536, limit))):
                writer.sendall(data)
                limit -= len(data)
                if number >= 0:
                    self.passed[number] += len(data)
        except OSError:
            pass
        for end in (reader, writer):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


@pytest.fixture
def content() -> bytes:
    return os.urandom(_SIZE)


@pytest.fixture
def proxy(openssh: OpenSshServer) -> Iterator[CuttingProxy]:
    made = CuttingProxy(openssh.port, [_SIZE // 2, 1 << 20])
    yield made
    made.close()


def test_a_lost_connection_is_taken_up_in_the_middle_of_the_file(
    openssh: OpenSshServer, proxy: CuttingProxy, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_bytes(content)
    told: list[int] = []
    with session_of(openssh, tmp_path, port=proxy.port) as session:
        source = SshSource(session)
        entry = source.lstat("/cache")
        assert entry is not None
        target = source.fetch(entry, tmp_path / "copy", told.append)
    assert target.read_bytes() == content
    assert len(proxy.passed) == 3  # two cuts
    assert sum(proxy.passed) < _SIZE * 1.2  # nothing of note came twice
    assert sum(told) == _SIZE
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "copy"]


def test_small_files_are_taken_up_where_they_broke(openssh: OpenSshServer, content: bytes, tmp_path: Path) -> None:
    root, target = tmp_path / "root", tmp_path / "target"
    (root / "usr/lib").mkdir(parents=True)
    target.mkdir()
    for number in range(200):
        (root / f"usr/lib/{number}").write_bytes(content[number * 1000 : number * 1000 + 100_000])
    proxy = CuttingProxy(openssh.port, [4 << 20, 8 << 20])
    with session_of(openssh, root, port=proxy.port) as session:
        source = SshSource(session)
        wanted = [(entry, target / entry.name) for entry in source.entries("/usr/lib")]
        for entry, file in source.fetch_all(wanted):
            assert isinstance(file, Path)
            assert file.read_bytes() == (root / entry.path[1:]).read_bytes()
    proxy.close()
    assert len(proxy.passed) == 3
    assert sum(proxy.passed) < 60 << 20
    assert not list(target.glob(".*"))


def test_what_an_earlier_run_left_is_continued(openssh: OpenSshServer, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(content)
    with session_of(openssh, tmp_path) as session:
        source = SshSource(session)
        entry = source.lstat("/cache")
        assert entry is not None

        def stop(_: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            source.fetch(entry, tmp_path / "copy", stop)
    assert not (tmp_path / "copy").exists()
    (part,) = tmp_path.glob(".copy.*.part")
    # The beginning is believed, so a mark in it shows that it was not fetched again.
    with part.open("r+b") as file:
        file.write(b"MARK")
    with session_of(openssh, tmp_path) as session:
        SshSource(session).fetch(entry, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"MARK" + content[4:]


def test_a_file_that_changed_since_is_fetched_anew(openssh: OpenSshServer, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(content)
    with session_of(openssh, tmp_path) as session:
        source = SshSource(session)
        old = source.lstat("/cache")
        assert old is not None
        source.fetch(old, tmp_path / "copy")
        (tmp_path / "cache").write_bytes(content[::-1])
        os.utime(tmp_path / "cache", (old.mtime + 60, old.mtime + 60))
        new = source.lstat("/cache")
        assert new is not None
        source.fetch(new, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content[::-1]


def _large(expected: Attributes, *pieces: tuple[Attributes, bytes]) -> Sftp:
    """Return a client that reads these pieces, and asks for what a file is before and after them."""
    return cast(Sftp, SimpleNamespace(read=lambda *_: iter([(expected, b""), *pieces])))


def _small(*files: tuple[Attributes, bytes, Attributes]) -> Sftp:
    return cast(Sftp, SimpleNamespace(whole=lambda _: (WholeFile(*file) for file in files)))


def _file(size: int, mtime: int = 1) -> Attributes:
    return Attributes(stat.S_IFREG | 0o644, size, mtime)


@pytest.mark.parametrize(
    ("pieces", "seconds", "lost"),
    [
        ([64 << 10, 64 << 10, 64 << 10], 61, -1),
        ([(64 << 10) - 1], 61, (64 << 10) - 1),
        ([1 << 20, 100], 61, 100),
        ([100, 100, 100], 30, 300),
        ([100, 100], 30, -1),
    ],
)
def test_a_transfer_that_hardly_moves_for_a_minute_is_taken_for_lost(
    pieces: list[int], seconds: int, lost: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(transfer, "time", SimpleNamespace(monotonic=lambda: now[0]))
    expected = _file(sum(pieces))

    def read(*_arguments: object) -> Iterator[tuple[Attributes, bytes]]:
        for piece in pieces:
            now[0] += seconds
            yield expected, bytes(piece)

    error = pytest.raises(ConnectionLostError, match=f"/cache: only {lost} bytes came in 60 seconds")
    with nullcontext() if lost < 0 else error:
        transfer.copy_file(
            cast(Sftp, SimpleNamespace(read=read)), b"/cache", expected, tmp_path / "copy", lambda _: None
        )
    assert (tmp_path / "copy").exists() == (lost < 0)


@pytest.mark.parametrize(("done", "start"), [(0, 0), (3, 3), (7, 7), (8, 0)])
def test_a_copy_is_whole_whatever_an_earlier_run_left(done: int, start: int, tmp_path: Path) -> None:
    """More than there is to copy was written by somebody else."""
    part, copy = tmp_path / ".copy.7-1.part", tmp_path / "copy"
    part.write_bytes(b"content!"[:done])
    told: list[int] = []
    starts: list[int] = []
    growing: list[Path] = []

    def read(_: bytes, start: int, end: int) -> Iterator[tuple[Attributes, bytes]]:
        starts.append(start)
        for data in (b"", b"content"[start:end], b""):
            yield _file(7), data

    for _ in range(2):  # what is there is not fetched again
        client = cast(Sftp, SimpleNamespace(read=read))
        transfer.copy_file(client, b"/cache", _file(7), copy, told.append, growing.append)
        assert copy.read_bytes() == b"content"
        assert (starts, growing) == ([start], [part])
    assert sum(told) == 7 + 7
    assert sorted(tmp_path.iterdir()) == [copy]


@pytest.mark.parametrize(
    ("pieces", "problem"),
    [
        ([(_file(7), b"content"), (_file(7), b"")], ""),
        ([(_file(7), b"cont"), (_file(7), b"")], "ends after 4 of 7 bytes"),
        ([(_file(7), b"content"), (_file(8), b"")], "is not what was listed: 8 bytes where 7 were expected"),
        ([(_file(7), b"content"), (_file(7, mtime=2), b"")], "is not what was listed"),
    ],
)
def test_a_large_file_that_changes_meanwhile_leaves_nothing(
    pieces: list[tuple[Attributes, bytes]], problem: str, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    with pytest.raises(IntegrityError, match=f"^/cache: {problem}") if problem else nullcontext():
        transfer.copy_file(_large(_file(7), *pieces), b"/cache", _file(7), copy, lambda _: None)
    assert list(tmp_path.iterdir()) == ([] if problem else [copy])
    if not problem:
        assert copy.read_bytes() == b"content"
        assert (stat.S_IMODE(copy.stat().st_mode), copy.stat().st_mtime) == (0o600, 1)


def test_small_files_become_copies_one_by_one(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_bytes(b"content")
    os.utime(there, (1, 1))
    copies = [transfer.Copy(b"/file", _file(7), tmp_path / name) for name in ("changed", "there", "short", "good")]
    client = _small(
        (_file(7), b"content", _file(7, mtime=2)), (_file(7), b"cont", _file(7)), (_file(7), b"content", _file(7))
    )
    came = {copy.local.name: str(error or "") for copy, error in transfer.copy_small_files(client, copies)}
    assert came == {
        "there": "",
        "changed": "/file: is not what was listed: 7 bytes where 7 were expected, or changed since",
        "short": "/file: ends after 4 of 7 bytes",
        "good": "",
    }
    assert sorted(tmp_path.iterdir()) == [tmp_path / "good", there]
    assert (tmp_path / "good").read_bytes() == b"content"
    assert (stat.S_IMODE((tmp_path / "good").stat().st_mode), (tmp_path / "good").stat().st_mtime) == (0o600, 1)


@pytest.mark.parametrize("lies", [0, 8])
def test_what_is_not_yet_written_takes_little_memory(lies: int, tmp_path: Path) -> None:
    """Also where some files are shorter than they were said to be."""
    sizes = [0] * lies + [1 << 20] * 40
    taken = 0

    def whole(_: object) -> Iterator[WholeFile]:
        nonlocal taken
        for size in sizes:
            taken += size
            yield WholeFile(_file(1 << 20), bytes(size), _file(1 << 20))

    copies = [transfer.Copy(b"/file", _file(1 << 20), tmp_path / str(number)) for number in range(len(sizes))]
    written = 0
    client = cast(Sftp, SimpleNamespace(whole=whole))
    for size, (_, error) in zip(sizes, transfer.copy_small_files(client, copies), strict=True):
        written += size
        assert taken - written <= 16 << 20
        assert (error is None) == bool(size)
    assert written == 40 << 20


def test_copies_leave_no_file_open(tmp_path: Path) -> None:
    def opened() -> int:
        return sum(1 for _ in Path("/dev/fd").iterdir())

    before = opened()
    transfer.copy_file(_large(_file(4), (_file(4), b"data")), b"/cache", _file(4), tmp_path / "large", lambda _: None)
    small = transfer.Copy(b"/file", _file(4), tmp_path / "small")
    assert list(transfer.copy_small_files(_small((_file(4), b"data", _file(4))), [small])) == [(small, None)]
    assert opened() == before


def test_a_copy_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    place = tmp_path / "missing" / "copy"
    with pytest.raises(StorageError, match="No such file or directory"):
        transfer.copy_file(_large(_file(4), (_file(4), b"data")), b"/cache", _file(4), place, lambda _: None)
    small = transfer.Copy(b"/file", _file(4), place)
    with pytest.raises(StorageError, match="No such file or directory"):
        list(transfer.copy_small_files(_small((_file(4), b"data", _file(4))), [small]))
    place.mkdir(parents=True)
    with pytest.raises(StorageError, match="Is a directory"):
        transfer.copy_file(_large(_file(4), (_file(4), b"data")), b"/cache", _file(4), place, lambda _: None)


def test_copies_are_not_fetched_again(openssh: OpenSshServer, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(content)
    proxy = CuttingProxy(openssh.port, [])
    with session_of(openssh, tmp_path, port=proxy.port) as session:
        source = SshSource(session)
        entry = source.lstat("/cache")
        assert entry is not None
        source.fetch(entry, tmp_path / "copy")
        before = sum(proxy.passed)
        source.fetch(entry, tmp_path / "copy")
        assert sum(proxy.passed) - before < 1 << 20
    proxy.close()


def test_a_host_that_stays_away_ends_the_run_and_keeps_what_came(openssh: OpenSshServer, tmp_path: Path) -> None:
    system = make_system(tmp_path / "system", caches=("arm64e",))
    with (system / "usr/lib/libtrampolines.dylib").open("ab") as file:
        file.write(os.urandom(12 << 20))
    proxy = CuttingProxy(openssh.port, [6 << 20] + [0] * 20)
    with Library.open(tmp_path / "library", create=True) as library:
        with (
            session_of(openssh, system, port=proxy.port) as session,
            pytest.raises(Exception, match=r"broke off|cannot be reached|handshake"),
        ):
            harvest(SshSource(session), library, staging=tmp_path / "staging", extractor="raw")
        assert library.releases() == []  # nothing half-made is visible
        kept = sum(f.stat().st_size for f in (tmp_path / "staging").rglob("*") if f.is_file())
        assert kept > 1 << 20
        proxy.cuts.clear()  # it is back
        with session_of(openssh, system, port=proxy.port) as session:
            before = sum(proxy.passed)
            result = harvest(SshSource(session), library, staging=tmp_path / "staging", extractor="raw")
        assert result.sealed
        total = sum(f.stat().st_size for f in system.rglob("*") if f.is_file() and not f.is_symlink())
        assert sum(proxy.passed) - before < total - (1 << 20)
        assert not list((tmp_path / "staging").iterdir())
    proxy.close()


def test_a_full_disk_is_said_before_anything_is_copied(
    source: SshSource, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 100 << 20, "total": 1 << 40, "used": 1 << 40})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage())
    monkeypatch.setattr("symcache_provisioning.staging.RESERVE", 100 << 20)
    with pytest.raises(StorageError) as raised:
        harvest(source, library, staging=tmp_path / "staging", extractor="raw")
    said = re.search(r"100 MiB are free where (\d+) MiB are needed, 100 of them to be left free$", str(raised.value))
    assert said
    assert int(said[1]) > 100
    assert "--staging" in raised.value.hint


def test_a_disk_that_fills_up_meanwhile_ends_the_run(
    source: SshSource, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("symcache_provisioning.ssh.transfer.os.write", full)
    with pytest.raises(StorageError, match="No space left on device") as raised:
        harvest(source, library, staging=tmp_path / "staging", extractor="raw")
    assert "free some space" in raised.value.hint
    assert library.releases() == []


def test_copies_of_a_build_that_is_gone_go_too(tmp_path: Path) -> None:
    with Staging(tmp_path, "ssh://a@b", "22G120") as old, Staging(tmp_path, "ssh://a@c", "22G120") as other:
        old.file_for("files", "/usr/lib/dyld").write_text("copy")
        with Staging(tmp_path, "ssh://a@b", "22G313") as meanwhile:
            assert old.folder.exists()  # somebody is at it
    with Staging(tmp_path, "ssh://a@b", "22G400") as new:
        assert {f.name for f in tmp_path.iterdir()} == {new.folder.name, other.folder.name}
    assert not meanwhile.folder.exists()


def test_two_harvests_of_one_source_do_not_share_their_staging(tmp_path: Path) -> None:
    with (
        Staging(tmp_path, "ssh://a@b", "22G120"),
        Staging(tmp_path, "ssh://a@c", "22G120"),
        pytest.raises(UsageError, match="another process is harvesting it"),
        Staging(tmp_path, "ssh://a@b", "22G120"),
    ):
        pass


def test_staging_that_was_removed_while_its_lock_was_waited_for_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Staging(tmp_path, "ssh://a@b", "22G120")
    first.__enter__()
    lock = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        monkeypatch.undo()
        first.remove()  # all that it had is in the library
        first.__exit__(None, None, None)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with Staging(tmp_path, "ssh://a@b", "22G120") as second:
        second.file_for("files", "/usr/lib/dyld").write_text("copy")
        with pytest.raises(UsageError, match="another process is harvesting it"), first:
            pass
