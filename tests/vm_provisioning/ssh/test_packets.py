"""How much an SFTP server can make its client hold."""

from __future__ import annotations

import struct

import pytest

from symcache_provisioning.ssh.packets import Packets, ProtocolError, Request, Response, ssh_string


class Channel:
    """What a server sends, whatever it is asked."""

    def __init__(self, *packets: bytes) -> None:
        version = struct.pack(">IBI", 5, Response.VERSION, 3)
        self.left = b"".join((version, *packets))

    def settimeout(self, seconds: float) -> None:
        del seconds

    def sendall(self, data: bytes) -> None:
        del data

    def recv(self, count: int) -> bytes:
        data, self.left = self.left[:count], self.left[count:]
        return data


def _data(size: int) -> bytes:
    """Return a packet of `size` bytes, its length not among them."""
    body = struct.pack(">BI", Response.DATA, 1) + ssh_string(bytes(size - 9))
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
