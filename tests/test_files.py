"""A file that is published appears whole or not at all."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import stat
from pathlib import Path

import pytest

from symcache.files import atomic_write, atomic_write_bytes, file_lock, is_named


@pytest.mark.parametrize("sync", [False, True])
def test_a_file_appears_when_it_is_whole(tmp_path: Path, sync: bool) -> None:
    target = tmp_path / "file"
    target.write_text("before")
    with atomic_write(target, sync=sync) as part:
        part.write_text("after")
        assert part.parent == tmp_path  # of one file system, so that it can be renamed
        assert target.read_text() == "before"
    assert target.read_text() == "after"
    assert list(tmp_path.iterdir()) == [target]


ERRORS = [OSError(28, "No space left on device"), OSError(5, "I/O error", "disk"), ValueError(), KeyboardInterrupt()]


@pytest.mark.parametrize("error", ERRORS)
def test_nothing_is_left_of_what_was_not_finished(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "file"
    target.write_text("before")
    named = str(target) if getattr(error, "errno", 0) == 28 else getattr(error, "filename", None)
    with pytest.raises(type(error)) as raised, atomic_write(target) as part:
        part.write_text("half")
        raise error
    assert raised.value is error
    assert getattr(error, "filename", None) == named  # a full disk tells nothing itself
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_pipe_and_a_descriptor_stay_what_they_are(tmp_path: Path) -> None:
    def write(target: Path) -> None:
        with atomic_write(target) as part:
            assert part.read_bytes() == b""
            part.write_bytes(b"content")

    os.mkfifo(tmp_path / "pipe")
    with os.fdopen(os.open(tmp_path / "pipe", os.O_RDWR), "rb", 0) as reader:
        write(tmp_path / "pipe")
        assert reader.read(20) == b"content"
    with (tmp_path / "file").open("w+b") as file:
        (tmp_path / "stdout").symlink_to(f"/proc/self/fd/{file.fileno()}")
        write(tmp_path / "stdout")
        assert file.read() == b"content"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "pipe", "stdout"]


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(3):
        with atomic_write(tmp_path / "file", sync=True) as part:
            part.write_text("content")
        atomic_write_bytes(tmp_path / "file", b"content")
        with file_lock(tmp_path / "lock"):
            pass
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_an_open_file_has_a_name_until_that_is_taken_away_or_given_to_another(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    link.symlink_to("file")
    with path.open("w") as file:
        assert is_named(path, file.fileno())
        assert is_named(link, file.fileno())
        assert not is_named(link, file.fileno(), follow_symlinks=False)
        path.unlink()
        assert is_named(path, file.fileno()) is False
        path.touch()
        assert is_named(path, file.fileno()) is False


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("a") as other:
        with file_lock(tmp_path / "lock"), pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_content_reaches_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    seen = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        seen.append((os.fstat(descriptor).st_size, target.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_write(target, sync=True) as part:
        part.write_text("content")
    assert seen == [(len("content"), False)]


@pytest.mark.parametrize(("given", "expected"), [({}, 0o644), ({"mode": 0o600}, 0o600), ({"mode": 0o444}, 0o444)])
def test_permissions_are_those_asked_for_whatever_the_umask(
    tmp_path: Path, given: dict[str, int], expected: int
) -> None:
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "file", **given) as part:  # type: ignore[arg-type]
            assert stat.S_IMODE(part.stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == expected


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("other")
    (tmp_path / "file").symlink_to("elsewhere")
    with atomic_write(tmp_path / "file") as part:
        part.write_text("content")
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "elsewhere").read_text() == "other"


def test_what_the_disk_refuses_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "none" / "file"):
        raise AssertionError("there is no folder")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError), atomic_write(tmp_path / "folder") as part:
        part.write_text("content")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_bytes_at_hand_appear_whole_for_the_user_alone(tmp_path: Path) -> None:
    target = tmp_path / "file"
    for content in (b"before", b"after" * 100_000):
        atomic_write_bytes(target, content)
        assert target.read_bytes() == content
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [target]


def test_of_bytes_that_do_not_fit_nothing_is_left(tmp_path: Path) -> None:
    """The process may write no file of more than 4 KiB, as on a disk that is full."""
    target = tmp_path / "file"
    atomic_write_bytes(target, b"before")
    limits, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        with pytest.raises(OSError, match="too large"):
            atomic_write_bytes(target, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]
