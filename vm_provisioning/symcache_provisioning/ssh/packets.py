"""SFTP packets, version 3 (draft-ietf-secsh-filexfer-02): every length bounded before memory is taken."""

from __future__ import annotations

import struct
import time
from enum import IntEnum
from typing import Any, NamedTuple

import paramiko

from symcache.errors import RemoteError
from symcache.text import excerpt

__all__ = [
    "Attributes",
    "ConnectionLostError",
    "NoAccessError",
    "NoSuchFileError",
    "Packets",
    "ProtocolError",
    "RemoteFileError",
    "Reply",
    "Request",
    "Response",
    "SessionError",
    "ssh_string",
]


class Request(IntEnum):
    """Types of the packets that are sent (SSH_FXP_…)."""

    INIT = 1
    OPEN = 3
    CLOSE = 4
    READ = 5
    LSTAT = 7
    FSTAT = 8
    OPENDIR = 11
    READDIR = 12
    READLINK = 19


class Response(IntEnum):
    """Types of the packets that are received (SSH_FXP_…)."""

    VERSION = 2
    STATUS = 101
    HANDLE = 102
    DATA = 103
    NAME = 104
    ATTRS = 105


_EOF, _NO_SUCH_FILE, _PERMISSION_DENIED = 1, 2, 3
_ATTR_SIZE, _ATTR_OWNER, _ATTR_MODE, _ATTR_TIMES, _ATTR_EXTENDED = 1, 2, 4, 8, 1 << 31
_MAX_PACKET = (256 << 10) + 1024
"""OpenSSH's SFTP_MAX_MSG_LENGTH, and a little."""
_SEND_AT_ONCE = 16 << 10
_STATUS_SECONDS = 1.0
_STRANGE = "see what serves SFTP there: OpenSSH's sftp-server is known to work"


class SessionError(RemoteError):
    """The session cannot go on, whatever else is requested."""


class ConnectionLostError(SessionError):
    """The connection broke or timed out; connecting again may help."""


class ProtocolError(SessionError):
    """The host does not follow the SFTP protocol."""


class RemoteFileError(RemoteError):
    """The host returned an error for one file or folder; others may be readable."""


class NoSuchFileError(RemoteFileError):
    """There is no such file on the host."""


class NoAccessError(RemoteFileError):
    """This user may not read it on the host."""


class Attributes(NamedTuple):
    """What lstat returns. `mode` is st_mode, `mtime` in seconds since 1970, `size` in bytes; 0 if not sent."""

    mode: int
    size: int
    mtime: int


class Reply:
    """The payload of a packet, read from front to back and never beyond its end."""

    def __init__(self, kind: int, body: memoryview) -> None:
        self.kind, self._body, self._at = kind, body, 0

    def take(self, count: int) -> memoryview:
        """Return the next bytes. Raises ProtocolError at the end, as everything here does."""
        if count > len(self._body) - self._at:
            raise ProtocolError("the SFTP server sent a reply that contradicts itself", hint=_STRANGE)
        self._at += count
        return self._body[self._at - count : self._at]

    def number(self) -> int:
        """Return the next uint32."""
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        """Return the next string."""
        return bytes(self.data())

    def data(self) -> memoryview:
        """Return the next string without copying it: a copy of all file data would cost a tenth of the speed."""
        return self.take(self.number())

    def attributes(self) -> Attributes:
        """Return the next ATTRS."""
        flags = self.number()
        size = int.from_bytes(self.take(8), "big") if flags & _ATTR_SIZE else 0
        if flags & _ATTR_OWNER:
            self.take(8)
        mode = self.number() if flags & _ATTR_MODE else 0
        mtime = struct.unpack(">2I", self.take(8))[1] if flags & _ATTR_TIMES else 0
        if flags & _ATTR_EXTENDED:
            for _ in range(2 * self.number()):
                self.string()
        return Attributes(mode, size, mtime)


class Packets:
    """Requests and their responses over one channel. Not thread-safe.

    Every method raises ConnectionLostError when the host does not respond within `timeout` seconds or closes the
    channel, ProtocolError for a response that is none, and RemoteFileError for an error that it returns.
    """

    def __init__(self, channel: Any, host: str, timeout: float) -> None:
        self._channel, self._host = channel, host
        self._timeout = timeout
        self._left = memoryview(b"")
        """Received, and not yet part of a packet."""
        self._unsent = bytearray()
        self._next_id = 0
        self._waiting: set[int] = set()
        self._stash: dict[int, Reply] = {}
        self._abandoned: set[int] = set()
        self._send(struct.pack(">BI", Request.INIT, 3))
        try:
            reply = self._packet()
        except ConnectionLostError as error:
            raise self._not_started(channel) or error from error
        if reply.kind != Response.VERSION or reply.number() < 3:
            raise ProtocolError(f"{host} speaks no SFTP version 3", hint="use OpenSSH's sftp-server there")

    def _send(self, body: bytes) -> None:
        """Queue a packet; it is sent together with others, at the latest when a response is waited for."""
        self._unsent += struct.pack(">I", len(body)) + body
        if len(self._unsent) >= _SEND_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, bytearray()
        try:
            self._channel.settimeout(self._timeout)
            self._channel.sendall(bytes(unsent))
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise self._lost(error) from error

    def _exactly(self, count: int, deadline: float) -> memoryview:
        parts: list[memoryview] = []
        missing = count
        while missing:
            if not self._left:
                self._flush()
                try:
                    self._channel.settimeout(max(0.001, deadline - time.monotonic()))
                    data = self._channel.recv(1 << 20)
                except (OSError, EOFError, paramiko.SSHException) as error:
                    raise self._lost(error) from error
                if not data:
                    raise self._lost(None)
                self._left = memoryview(data)
            part, self._left = self._left[:missing], self._left[missing:]
            parts.append(part)
            missing -= len(part)
        return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))

    def _lost(self, error: BaseException | None) -> ConnectionLostError:
        why = "did not answer in time" if isinstance(error, TimeoutError) else "broke off the SFTP session"
        detail = f": {excerpt(str(error))}" if error and not isinstance(error, TimeoutError) and str(error) else ""
        return ConnectionLostError(f"{self._host} {why}{detail}", hint="run the same command again: it continues there")

    def _not_started(self, channel: Any) -> RemoteError | None:
        """Return the error for a server that ended before it said anything; None if it is the connection that broke."""
        if not channel.eof_received or not channel.get_transport().is_active():
            return None
        # OpenSSH tells nothing of what it wrote to stderr.
        status = f" with {channel.exit_status}" if channel.status_event.wait(_STATUS_SECONDS) else ""
        return RemoteError(
            f"{self._host} offers SFTP, but its server ended at once{status}",
            hint="see there whether the account may run programs (its shell), and what sshd_config has as"
            " `Subsystem sftp`; on macOS that is /usr/libexec/sftp-server",
        )

    def _packet(self) -> Reply:
        deadline = time.monotonic() + self._timeout  # for the whole packet: a slow trickle must end, too
        length = int.from_bytes(self._exactly(4, deadline), "big")
        if not 5 <= length <= _MAX_PACKET:
            raise ProtocolError(
                f"{self._host} sent an SFTP packet of {length} bytes, where {_MAX_PACKET} is the most",
                hint="if the account's shell prints something at login (~/.zshenv), silence it",
            )
        body = self._exactly(length, deadline)
        return Reply(body[0], body[1:])

    def _request(self, kind: int, body: bytes) -> int:
        self._next_id = (self._next_id + 1) & 0xFFFFFFFF
        self._send(struct.pack(">BI", kind, self._next_id) + body)
        self._waiting.add(self._next_id)
        return self._next_id

    def _response(self, request: int, kind: int, path: bytes, *, may_end: bool = False) -> Reply:
        """Return the response to one request; responses to others are kept until they are wanted.

        Raises the error that it holds if it is not of this type: EOFError only with `may_end`.
        """
        while request not in self._stash:
            reply = self._packet()
            number = reply.number()
            if number in self._abandoned:
                self._abandoned.discard(number)
            elif number in self._waiting and number not in self._stash:
                self._stash[number] = reply
            else:
                raise ProtocolError(f"{self._host} answered an SFTP request that nobody made", hint=_STRANGE)
        self._waiting.discard(request)
        reply = self._stash.pop(request)
        if reply.kind == kind:
            return reply
        if reply.kind != Response.STATUS:
            raise ProtocolError(
                f"{excerpt(path)}: {self._host} answered with SFTP packet {reply.kind} instead of {kind}", hint=_STRANGE
            )
        code, text = reply.number(), reply.string()
        if code == _NO_SUCH_FILE:
            raise NoSuchFileError(f"{excerpt(path)}: no such file on {self._host}")
        if code == _PERMISSION_DENIED:
            raise NoAccessError(
                f"{excerpt(path)}: not readable for this user on {self._host}",
                hint="log in as a user who may read it, or allow full disk access for remote users there",
            )
        if code == _EOF and may_end:
            raise EOFError
        raise RemoteFileError(
            f"{excerpt(path)}: {self._host} says: {excerpt(text) or f'SFTP status {code}'}",
            hint="see what a copy of it there says (cp): is the disk damaged, or the volume gone?",
        )

    def _abandon(self, request: int) -> None:
        """Ignore the response to a request."""
        self._waiting.discard(request)
        if self._stash.pop(request, None) is None:
            self._abandoned.add(request)


def ssh_string(value: bytes) -> bytes:
    """Return bytes behind their length, as SSH writes strings."""
    return struct.pack(">I", len(value)) + value
