"""What is read over SFTP is what the host has, whatever of it is answered at once, and whatever cannot be read."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator

import pytest

from symcache_provisioning.ssh import sftp as module
from symcache_provisioning.ssh.packets import (
    NoAccessError,
    NoSuchFileError,
    ProtocolError,
    RemoteFileError,
    Request,
)
from symcache_provisioning.ssh.sftp import Sftp, WholeFile
from tests.support.hostile import Directory, File, HostileHost, Link, SftpChannel

CONTENT = bytes(range(251)) * 4000


def status(packet: bytes, code: int, text: bytes = b"") -> bytes:
    """Return the packet of an error, in the place of another."""
    body = b"\x65" + packet[5:9] + struct.pack(">II", code, len(text)) + text + bytes(4)
    return struct.pack(">I", len(body)) + body


@pytest.fixture
def host() -> HostileHost:
    return HostileHost()


@pytest.fixture
def channel(host: HostileHost) -> SftpChannel:
    return SftpChannel(host)


@pytest.fixture
def sftp(host: HostileHost, channel: SftpChannel) -> Iterator[Sftp]:
    """A session, of which nothing may be left at the end: neither handles there, nor answers here."""
    client = Sftp(channel, "mac", 60)
    yield client
    host.reply = None
    client.lstat(b"/")
    assert channel.open_handles == 0
    assert (client._waiting, client._stash, client._abandoned) == (set(), {}, set())


def read(sftp: Sftp, path: bytes, start: int, end: int) -> bytes:
    return b"".join(data for _, data in sftp.read(path, start, end))


def test_attributes_and_links_are_told(host: HostileHost, sftp: Sftp) -> None:
    host.add("/link", Link(target=b"to/\xff", mtime=7))
    host.add("/folder/.", Directory())
    assert sftp.readlink(b"/link") == b"to/\xff"
    assert sftp.lstat(b"/link") == (0o120777, 0, 7)
    sftp.enter(b"/folder")
    with pytest.raises(NoSuchFileError, match=r"^/nothing: "):
        sftp.enter(b"/nothing")
    with pytest.raises(NoSuchFileError, match=r"^/nothing: no such file on mac$"):
        sftp.lstat(b"/nothing")


@pytest.mark.parametrize("kind", [Request.LSTAT, Request.OPEN, Request.OPENDIR, Request.READLINK])
@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        (1, RemoteFileError, "mac says: SFTP status 1"),
        (3, NoAccessError, "not readable for this user"),
        (4, RemoteFileError, "mac says: I/O error"),
    ],
)
def test_errors_are_those_of_the_host(
    kind: Request, code: int, error: type[RemoteFileError], text: str, host: HostileHost, channel: SftpChannel
) -> None:
    sftp = Sftp(channel, "mac", 60)
    host.add("/file", File(data=b"x"))
    host.reply = lambda k, packet: status(packet, code, b"I/O error" if code == 4 else b"") if k == kind else packet
    with pytest.raises(error, match=rf"^/file: {text}"):
        {
            Request.LSTAT: sftp.lstat,
            Request.OPEN: lambda path: read(sftp, path, 0, 1),
            Request.OPENDIR: lambda path: list(sftp.scan(path)),
            Request.READLINK: sftp.readlink,
        }[kind](b"/file")


def test_folders_are_listed_as_they_are_asked_for(host: HostileHost, sftp: Sftp) -> None:
    for number in range(200):
        host.add(f"/many/{number}", File(size=number))
    host.add("/long/" + "n" * 300, File())
    host.add("/empty", Directory())
    sftp.prepare([b"/many", b"/missing", b"/many", b"/long"])
    assert list(sftp.scan(b"/empty")) == []
    assert [(name, entry.size) for name, entry in sftp.scan(b"/many")] == [(b"%d" % n, n) for n in range(200)]
    sftp.prepare([b"/long"])
    assert [name for name, _ in sftp.scan(b"/long")] == [b"n" * 256]
    with pytest.raises(NoSuchFileError, match=r"^/missing"):
        list(sftp.scan(b"/missing"))


def test_a_listing_that_breaks_is_no_shorter_folder(host: HostileHost, sftp: Sftp) -> None:
    for number in range(200):
        host.add(f"/many/{number}", File())
    pages = 0

    def damaged(kind: int, packet: bytes) -> bytes:
        nonlocal pages
        pages += kind == Request.READDIR
        return status(packet, 4) if kind == Request.READDIR and pages > 2 else packet

    host.reply = damaged
    with pytest.raises(RemoteFileError, match=r"^/many: mac says"):
        list(sftp.scan(b"/many"))


def test_a_listing_may_be_left(host: HostileHost, sftp: Sftp) -> None:
    for number in range(500):
        host.add(f"/many/{number}", File())
    names = sftp.scan(b"/many")
    assert next(names)[0] == b"0"
    names.close()
    assert sftp.lstat(b"/many/7").size == 0


def test_the_beginnings_of_files(host: HostileHost, sftp: Sftp) -> None:
    host.add("/a", File(data=b"abcdef"))
    host.add("/more", File(data=lambda _, length: bytes(length + 1)))
    host.add("/empty", File())
    found = sftp.heads([b"/missing", b"/a", b"/empty", b"/more", b"/a"], 4)
    assert isinstance(found[0], NoSuchFileError)
    assert found[1:] == [b"abcd", b"", bytes(4), b"abcd"]
    host.reply = lambda kind, packet: status(packet, 4) if kind == Request.READ else packet
    (error,) = sftp.heads([b"/a"], 4)
    assert isinstance(error, RemoteFileError)


@pytest.mark.parametrize("most", [1 << 20, 40_000, 1000])
def test_a_range_is_read_whole_whatever_is_answered_at_once(
    most: int, host: HostileHost, channel: SftpChannel, sftp: Sftp
) -> None:
    host.add("/file", File(size=len(CONTENT), data=lambda at, length: CONTENT[at : at + min(length, most)]))
    assert read(sftp, b"/file", 10, 900_000) == CONTENT[10:900_000]
    assert sftp.max_read == {1 << 20: 255 << 10, 40_000: 40_000, 1000: 32 << 10}[most]
    if most > 1000:
        before = Counter(channel.requests)
        assert read(sftp, b"/file", 10, 900_000) == CONTENT[10:900_000]
        assert (Counter(channel.requests) - before)[Request.READ] == -(-899_990 // sftp.max_read)


def test_reading_looks_at_the_file_before_and_after(host: HostileHost, sftp: Sftp) -> None:
    host.add("/file", File(data=CONTENT, later=7))
    came = list(sftp.read(b"/file", 0, len(CONTENT)))
    assert [bytes(data) for _, data in (came[0], came[-1])] == [b"", b""]
    assert [attributes.size for attributes, _ in (came[0], came[-1])] == [len(CONTENT), 7]


def test_a_file_that_ends_early_ends_there(host: HostileHost, sftp: Sftp) -> None:
    sftp.max_read = 100
    host.add("/file", File(size=1000, data=lambda at, length: b"" if at == 500 else bytes(length)))
    assert read(sftp, b"/file", 0, 1000) == bytes(500)
    host.add("/short", File(size=1000, data=CONTENT[:777]))
    assert read(sftp, b"/short", 0, 1000) == CONTENT[:777]


def test_reading_ahead_is_bounded(host: HostileHost, channel: SftpChannel, sftp: Sftp) -> None:
    sftp.max_read = 1000
    host.add("/file", File(data=CONTENT))
    for number, (_, data) in enumerate(sftp.read(b"/file", 0, 200_000)):
        if data:
            assert channel.requests.count(Request.READ) - number < 64
    assert channel.requests.count(Request.READ) == 200


@pytest.mark.parametrize("answer", [b"", bytes(101)])
def test_a_read_is_answered_with_neither_nothing_nor_more(
    answer: bytes, host: HostileHost, channel: SftpChannel
) -> None:
    host.add("/file", File(data=bytes(100)))

    def other(kind: int, packet: bytes) -> bytes:
        body = packet[4:9] + struct.pack(">I", len(answer)) + answer
        return struct.pack(">I", len(body)) + body if kind == Request.READ else packet

    host.reply = other
    with pytest.raises(ProtocolError, match=f"^/file: mac answered 100 bytes with {len(answer)}$"):
        read(Sftp(channel, "mac", 60), b"/file", 0, 100)


@pytest.mark.parametrize("most", [1 << 20, 40_000])
def test_many_files_come_whole_and_in_order(most: int, host: HostileHost, channel: SftpChannel, sftp: Sftp) -> None:
    sizes = [0, 1, 1000, 255 << 10, (255 << 10) + 1, 600_000, 5] * 15
    for number, size in enumerate(sizes):
        host.add(f"/{number}", File(size=size, data=lambda at, length: CONTENT[at : at + min(length, most)]))
    came = list(sftp.whole([(b"/%d" % number, size) for number, size in enumerate(sizes)]))
    for size, file in zip(sizes, came, strict=True):
        assert isinstance(file, WholeFile)
        assert bytes(file.data) == CONTENT[:size]
        assert (file.before.size, file.after.size) == (size, size)
    if most == 1 << 20:
        assert channel.requests.count(Request.OPEN) == len(sizes), "none is read twice"


def test_files_that_cannot_be_read_do_not_keep_others(host: HostileHost, sftp: Sftp) -> None:
    host.add("/good", File(data=CONTENT[:1000]))
    host.add("/bad", File(data=b"x" * 66))
    host.add("/short", File(size=1000, data=CONTENT[:700]))
    host.add("/ended", File(size=1000, data=b""))
    reads = iter([False, True])  # of the second file there is none to be had

    def damaged(kind: int, packet: bytes) -> bytes:
        return status(packet, 4) if kind == Request.READ and next(reads, False) else packet

    host.reply = damaged
    files = [(b"/good", 1000), (b"/missing", 5), (b"/bad", 66), (b"/short", 1000), (b"/ended", 9), (b"/good", 1000)]
    came = [file.data if isinstance(file, WholeFile) else type(file) for file in sftp.whole(files)]
    assert came == [CONTENT[:1000], NoSuchFileError, RemoteFileError, CONTENT[:700], b"", CONTENT[:1000]]


def test_a_file_that_goes_while_it_is_read_is_an_error(host: HostileHost, sftp: Sftp) -> None:
    def vanish(at: int, length: int) -> bytes:
        host.root.children.clear()
        return CONTENT[at : at + length // 2]

    host.add("/file", File(size=1000, data=vanish))
    (error,) = sftp.whole([(b"/file", 1000)])
    assert isinstance(error, NoSuchFileError)


def test_files_under_way_are_bounded(
    host: HostileHost, channel: SftpChannel, sftp: Sftp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BYTES_AHEAD", 10_000)
    sizes = [3000] * 20 + [20_000] + [0] * 200
    asked = 0

    def data(at: int, length: int) -> bytes:
        nonlocal asked
        asked += length
        return bytes(length)

    for number, size in enumerate(sizes):
        host.add(f"/{number}", File(size=size, data=data))
    taken = 0
    for number, file in enumerate(sftp.whole([(b"/%d" % number, size) for number, size in enumerate(sizes)])):
        assert isinstance(file, WholeFile)
        assert asked - taken <= max(10_000, sizes[number])
        assert channel.requests.count(Request.OPEN) - number <= 2 * 64
        if number == 100:
            assert channel.requests.count(Request.FSTAT) >= 2 * 140, "small ones are asked for long before"
        taken += len(file.data)
    assert taken == sum(sizes)
