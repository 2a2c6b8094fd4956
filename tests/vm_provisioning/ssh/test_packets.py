"""How much an SFTP server can make its client hold and wait for, and what is said of one that breaks off."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest

from symcache.errors import RemoteError
from symcache_provisioning.ssh import packets as module
from symcache_provisioning.ssh.packets import (
    ConnectionLostError,
    Packets,
    ProtocolError,
    Reply,
    Request,
    Response,
    ssh_string,
)

VERSION_3 = struct.pack(">IBI", 5, Response.VERSION, 3)


class Channel:
    """What a server sends, whatever it is asked; then it raises `last`, or has ended."""

    def __init__(self, *packets: bytes, start: bytes = VERSION_3, last: Exception | None = None) -> None:
        self.left = b"".join((start, *packets))
        self.sent = b""
        self.last = last

    def settimeout(self, seconds: float) -> None:
        del seconds

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def recv(self, count: int) -> bytes:
        data, self.left = self.left[:count], self.left[count:]
        if self.last and not data:
            raise self.last
        return data


def _data(size: int, number: int = 1) -> bytes:
    """Return a packet of `size` bytes, its length not among them."""
    body = struct.pack(">BI", Response.DATA, number) + ssh_string(bytes(size - 9))
    return struct.pack(">I", size) + body


def _read(channel: Channel) -> bytes:
    packets = Packets(channel, "mac", 10)
    return packets._response(packets._request(Request.READ, b""), Response.DATA, b"file").string()


def test_a_packet_as_large_as_openssh_sends_is_taken() -> None:
    size = 256 * 1024  # SFTP_MAX_MSG_LENGTH of OpenSSH's sftp-common.h
    assert _read(Channel(_data(size))) == bytes(size - 9)


@pytest.mark.parametrize("length", [0, 4, 320 * 1024, 1 << 31])
def test_a_packet_of_another_length_is_refused_before_it_is_read(length: int) -> None:
    channel = Channel(struct.pack(">I", length), bytes(10))
    with pytest.raises(ProtocolError, match=f"SFTP packet of {length} bytes"):
        _read(channel)


def test_version_3_is_wanted_and_no_other_taken() -> None:
    channel = Channel()
    Packets(channel, "mac", 10)
    assert channel.sent == b"\0\0\0\5\1\0\0\0\3"
    for kind, version in ((Response.VERSION, 2), (Response.STATUS, 3)):
        with pytest.raises(ProtocolError, match="mac speaks no SFTP version 3"):
            Packets(Channel(start=struct.pack(">IBI", 5, kind, version)), "mac", 10)


@pytest.mark.parametrize(
    ("body", "attributes"),
    [
        (struct.pack(">I", 0), (0, 0, 0)),
        (struct.pack(">IQ", 1, 5), (0, 5, 0)),
        (struct.pack(">III", 2, 501, 20), (0, 0, 0)),
        (struct.pack(">II", 4, 0o100644), (0o100644, 0, 0)),
        (struct.pack(">III", 8, 6, 7), (0, 0, 7)),
        (struct.pack(">II4s4s", 1 << 31, 1, bytes(4), bytes(4)), (0, 0, 0)),
        (
            struct.pack(">IQIIIIII", 15 | 1 << 31, 1 << 40, 501, 20, 0o40755, 6, 7, 2)
            + b"".join(map(ssh_string, (b"name", b"value", b"", b"x"))),
            (0o40755, 1 << 40, 7),
        ),
    ],
)
def test_attributes_are_what_their_flags_say(body: bytes, attributes: tuple[int, int, int]) -> None:
    reply = Reply(Response.ATTRS, memoryview(body + struct.pack(">I", 42)))
    assert reply.attributes() == attributes
    assert reply.number() == 42
    with pytest.raises(ProtocolError, match="contradicts itself"):
        reply.take(1)


def test_answers_may_come_in_another_order_and_but_once() -> None:
    packets = Packets(Channel(_data(20, 2), _data(10, 1), _data(30, 3), _data(30, 3)), "mac", 10)
    requests = [packets._request(Request.READ, b"") for _ in range(4)]
    answers = [packets._response(request, Response.DATA, b"file").string() for request in requests[:3]]
    assert list(map(len, answers)) == [1, 11, 21]
    with pytest.raises(ProtocolError, match="that nobody made"):
        packets._response(requests[3], Response.DATA, b"file")
    packets = Packets(Channel(_data(20, 2), _data(20, 2), _data(10, 1)), "mac", 10)
    requests = [packets._request(Request.READ, b"") for _ in range(2)]
    with pytest.raises(ProtocolError, match="that nobody made"):
        packets._response(requests[0], Response.DATA, b"file")


def test_a_packet_that_trickles_in_has_no_longer_than_any(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    class Trickle(Channel):
        """A byte each half a second."""

        seconds = 0.0

        def settimeout(self, seconds: float) -> None:
            self.seconds = seconds

        def sendall(self, data: bytes) -> None:
            assert self.seconds == 10, "sending may take as long"

        def recv(self, count: int) -> bytes:
            if self.seconds < 0.5:
                raise TimeoutError
            now[0] += 0.5
            return super().recv(min(count, 1))

    assert _read(Trickle(_data(16))) == bytes(7)
    now[0] = 0
    with pytest.raises(ConnectionLostError, match="mac did not answer in time"):
        _read(Trickle(_data(17)))
    assert now[0] == 4.5 + 10


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (None, "mac broke off the SFTP session"),
        (OSError("gone"), "mac broke off the SFTP session: gone"),
        (EOFError(), "mac broke off the SFTP session"),
        (TimeoutError("timed out"), "mac did not answer in time"),
    ],
)
def test_a_session_that_breaks_off_is_told(last: Exception | None, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConnectionLostError) as raised:
        _read(Channel(last=last))
    assert str(raised.value) == said
    if last:
        packets = Packets(Channel(), "mac", 10)

        def sendall(*_: object) -> None:
            raise last

        monkeypatch.setattr(Channel, "sendall", sendall)
        with pytest.raises(ConnectionLostError) as raised:
            packets._response(packets._request(Request.READ, b""), Response.DATA, b"file")
        assert str(raised.value) == said


@pytest.mark.parametrize(
    ("ended", "connected", "status", "said"),
    [
        (True, True, 127, "mac offers SFTP, but its server ended at once with 127"),
        (True, True, None, "mac offers SFTP, but its server ended at once"),
        (True, False, 127, "mac broke off the SFTP session"),
        (False, True, None, "mac broke off the SFTP session"),
    ],
)
def test_a_server_that_ends_at_once_is_told_from_a_lost_connection(
    ended: bool, connected: bool, status: int | None, said: str
) -> None:
    channel: Any = Channel(start=b"")
    channel.eof_received, channel.exit_status = ended, status
    channel.get_transport = lambda: SimpleNamespace(is_active=lambda: connected)
    channel.status_event = SimpleNamespace(wait=lambda _: status is not None)
    with pytest.raises(RemoteError) as raised:
        Packets(channel, "mac", 10)
    assert str(raised.value) == said
    assert isinstance(raised.value, ConnectionLostError) == ("broke off" in said)
