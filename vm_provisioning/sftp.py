"""A read-only SFTP client, version 3 (draft-ietf-secsh-filexfer-02), over an SSH channel.

paramiko brings a client of its own, but that one takes memory for whatever packet length the server claims, loses a
whole listing to one name that is not UTF-8, and reads with requests too small to be fast. Here every length is bounded
before memory is taken, names stay bytes, and requests are pipelined.
"""

from __future__ import annotations

import itertools
import struct
import time
from collections import deque
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import paramiko

from symcache.errors import RemoteError
from vm_provisioning.text import shown

__all__ = [
    "Attributes",
    "ConnectionLostError",
    "NoAccessError",
    "NoSuchFileError",
    "ProtocolError",
    "Sftp",
    "WholeFile",
]

_INIT, _VERSION, _OPEN, _CLOSE, _READ, _LSTAT, _FSTAT, _OPENDIR, _READDIR, _READLINK = 1, 2, 3, 4, 5, 7, 8, 11, 12, 19
_STATUS, _HANDLE, _DATA, _NAME, _ATTRS = 101, 102, 103, 104, 105
_EOF, _NO_SUCH_FILE, _PERMISSION_DENIED = 1, 2, 3
_ATTR_SIZE, _ATTR_OWNER, _ATTR_MODE, _ATTR_TIMES, _ATTR_EXTENDED = 1, 2, 4, 8, 1 << 31
_FLAG_READ = 1

_MAX_PACKET = (256 << 10) + 1024
"""OpenSSH's SFTP_MAX_MSG_LENGTH, and a little."""
_MAX_READ = 255 << 10
"""Most that OpenSSH's server answers to one read; older ones answer less, which is learnt from their first answer."""
_MIN_READ = 32 << 10
"""What every server must be able to answer; never learn less from a file that merely ended early."""
_LONGEST_NAME = 256
_STRANGE = "see what serves SFTP there: OpenSSH's sftp-server is known to work"
_FILES_AHEAD = 64
_BYTES_AHEAD = 16 << 20
_WINDOW = 64
"""Requests under way at most. Bounds the memory of a transfer to _WINDOW * _MAX_READ bytes."""


class ConnectionLostError(RemoteError):
    """The host fell silent or broke off; connecting again may help."""


class ProtocolError(RemoteError):
    """The host speaks what no SFTP server would say: nothing further from it means anything."""


class NoSuchFileError(RemoteError):
    """There is no such file on the host."""


class NoAccessError(RemoteError):
    """This user may not read it on the host."""


class Attributes(NamedTuple):
    """What lstat tells. `mode` is st_mode, `mtime` in seconds since 1970, `size` in bytes; 0 where not told."""

    mode: int
    size: int
    mtime: int


class WholeFile(NamedTuple):
    """A file as it was read: what it was before and after, and its bytes."""

    before: Attributes
    data: bytes
    after: Attributes


class _Reading(NamedTuple):
    """The requests that are under way for one file; `step` is what each but the last read asks for."""

    path: bytes
    size: int
    step: int
    before: int
    reads: list[int]
    after: int


class _Reply:
    """One packet's payload, read from front to back and never beyond its end."""

    def __init__(self, kind: int, body: bytes) -> None:
        self.kind, self._body, self._at = kind, body, 0

    def take(self, count: int) -> bytes:
        if count > len(self._body) - self._at:
            raise ProtocolError("the SFTP server sent a reply that contradicts itself", hint=_STRANGE)
        self._at += count
        return self._body[self._at - count : self._at]

    def number(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        return self.take(self.number())

    def attributes(self) -> Attributes:
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


class Sftp:
    """One SFTP session. Not for several threads at once. All paths are bytes, as the host has them.

    Every method raises RemoteError when the host does not answer within `timeout` seconds, breaks off, or answers
    nonsense, NoSuchFileError and NoAccessError where it says so.
    """

    def __init__(self, channel: Any, host: str, timeout: float) -> None:
        self._channel, self._host = channel, host
        self._timeout = timeout
        self._left = memoryview(b"")
        self._next_id = 0
        self._waiting: set[int] = set()
        self._stash: dict[int, _Reply] = {}
        self._abandoned: set[int] = set()
        self.max_read = _MAX_READ
        self._send(struct.pack(">BI", _INIT, 3))
        reply = self._packet()
        if reply.kind != _VERSION or reply.number() < 3:
            raise ProtocolError(f"{host} speaks no SFTP version 3", hint="use OpenSSH's sftp-server there")

    # Packets

    def _send(self, body: bytes) -> None:
        try:
            self._channel.settimeout(self._timeout)
            self._channel.sendall(struct.pack(">I", len(body)) + body)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise self._lost(error) from error

    def _exactly(self, count: int, deadline: float) -> bytes:
        out = bytearray(count)
        filled = 0
        while filled < count:
            if not self._left:
                try:
                    self._channel.settimeout(max(0.001, deadline - time.monotonic()))
                    data = self._channel.recv(1 << 20)
                except (OSError, EOFError, paramiko.SSHException) as error:
                    raise self._lost(error) from error
                if not data:
                    raise self._lost(None)
                self._left = memoryview(data)
            part = self._left[: count - filled]
            out[filled : filled + len(part)] = part
            filled += len(part)
            self._left = self._left[len(part) :]
        return bytes(out)

    def _lost(self, error: BaseException | None) -> ConnectionLostError:
        why = "did not answer in time" if isinstance(error, TimeoutError) else "broke off the SFTP session"
        detail = f": {shown(str(error))}" if error and not isinstance(error, TimeoutError) and str(error) else ""
        return ConnectionLostError(f"{self._host} {why}{detail}", hint="run the same command again: it continues there")

    def _packet(self) -> _Reply:
        deadline = time.monotonic() + self._timeout  # for the whole packet: a trickle is silence too
        length = int.from_bytes(self._exactly(4, deadline), "big")
        if not 5 <= length <= _MAX_PACKET:
            raise ProtocolError(
                f"{self._host} sent an SFTP packet of {length} bytes, where {_MAX_PACKET} is the most",
                hint="if the account's shell prints something at login (~/.zshenv), silence it",
            )
        body = self._exactly(length, deadline)
        return _Reply(body[0], body[1:])

    def _ask(self, kind: int, body: bytes) -> int:
        self._next_id = (self._next_id + 1) & 0xFFFFFFFF
        self._send(struct.pack(">BI", kind, self._next_id) + body)
        self._waiting.add(self._next_id)
        return self._next_id

    def _answer(self, request: int) -> _Reply:
        """Return the reply to one request; replies to others wait their turn."""
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
        return self._stash.pop(request)

    def _abandon(self, request: int) -> None:
        """Nobody waits for this reply any more."""
        self._waiting.discard(request)
        if self._stash.pop(request, None) is None:
            self._abandoned.add(request)

    def _expect(self, reply: _Reply, kind: int, path: bytes, *, may_end: bool = False) -> _Reply:
        """Return the reply if it is of this kind, else raise what it says: EOFError only if it `may_end` here."""
        if reply.kind == kind:
            return reply
        if reply.kind != _STATUS:
            raise ProtocolError(
                f"{shown(path)}: {self._host} answered with SFTP packet {reply.kind} instead of {kind}", hint=_STRANGE
            )
        code, text = reply.number(), reply.string()
        if code == _NO_SUCH_FILE:
            raise NoSuchFileError(f"{shown(path)}: no such file on {self._host}")
        if code == _PERMISSION_DENIED:
            raise NoAccessError(
                f"{shown(path)}: not readable for this user on {self._host}", hint="log in as a user who may read it"
            )
        if code == _EOF and may_end:
            raise EOFError
        raise RemoteError(f"{shown(path)}: {self._host} says: {shown(text) or f'SFTP status {code}'}")

    # Operations

    def lstat(self, path: bytes) -> Attributes:
        """Return what `path` is, itself, not what it links to."""
        return self._expect(self._answer(self._ask(_LSTAT, _text(path))), _ATTRS, path).attributes()

    def readlink(self, path: bytes) -> bytes:
        """Return where a symbolic link points."""
        reply = self._expect(self._answer(self._ask(_READLINK, _text(path))), _NAME, path)
        reply.number()
        return reply.string()

    def scan(self, path: bytes) -> Generator[tuple[bytes, Attributes]]:
        """Yield the names in a folder as the host gives them, `.` and `..` too, in its order; there may be no end.

        No name is that of a file if it is longer than 255 bytes: of such, the first 256 are given.
        """
        handle = self._expect(self._answer(self._ask(_OPENDIR, _text(path))), _HANDLE, path).string()
        ahead = deque(self._ask(_READDIR, _text(handle)) for _ in range(2))
        try:
            while True:
                reply = self._answer(ahead.popleft())
                try:
                    self._expect(reply, _NAME, path, may_end=True)
                except EOFError:
                    return
                ahead.append(self._ask(_READDIR, _text(handle)))
                count = reply.number()
                if count == 0:
                    raise RemoteError(f"{shown(path)}: {self._host} lists it without names and without end")
                for _ in range(count):
                    name = reply.string()[:_LONGEST_NAME]
                    reply.string()  # the line that ls -l would print
                    yield name, reply.attributes()
        finally:
            self._release(handle, ahead)

    def heads(self, paths: Sequence[bytes], length: int) -> list[bytes | RemoteError]:
        """Return the first `length` bytes of each of up to 64 files, or why there are none."""
        result: list[bytes | RemoteError] = []
        opens = [self._ask(_OPEN, _text(p) + struct.pack(">II", _FLAG_READ, 0)) for p in paths]
        reads: list[tuple[bytes, int] | RemoteError] = []
        for path, request in zip(paths, opens, strict=True):
            try:
                handle = self._expect(self._answer(request), _HANDLE, path).string()
                reads.append((handle, self._ask(_READ, _text(handle) + struct.pack(">QI", 0, length))))
            except (ConnectionLostError, ProtocolError):
                raise
            except RemoteError as error:
                reads.append(error)
        for path, read in zip(paths, reads, strict=True):
            if isinstance(read, RemoteError):
                result.append(read)
                continue
            handle, request = read
            try:
                result.append(self._expect(self._answer(request), _DATA, path, may_end=True).string()[:length])
            except EOFError:
                result.append(b"")
            except (ConnectionLostError, ProtocolError):
                raise
            except RemoteError as error:
                result.append(error)
            self._release(handle, ())
        return result

    def read(self, path: bytes, start: int, end: int) -> Generator[tuple[Attributes, bytes]]:
        """Yield the bytes of a file from `start` up to `end`, in order, each with what the open file is.

        The first and the last piece are empty, so that the caller can look at the attributes before anything is read
        and once more after. Ends early, without error, where the file does.
        """
        request = self._ask(_OPEN, _text(path) + struct.pack(">II", _FLAG_READ, 0))
        handle = self._expect(self._answer(request), _HANDLE, path).string()
        ahead: deque[tuple[int, int, int]] = deque()
        try:
            attributes = self._fstat(handle, path)
            yield attributes, b""
            position = start
            while position < end or ahead:
                while position < end and len(ahead) < _WINDOW:
                    size = min(self.max_read, end - position)
                    ahead.append((self._ask_read(handle, position, size), position, size))
                    position += size
                request, offset, size = ahead.popleft()
                try:
                    data = self._expect(self._answer(request), _DATA, path, may_end=True).string()
                except EOFError:
                    break
                if not data or len(data) > size:
                    raise ProtocolError(f"{shown(path)}: {self._host} answered {size} bytes with {len(data)}")
                if len(data) < size:
                    # Less than asked for is no error: ask for the rest first, and from now on for what it can give.
                    self.max_read = max(_MIN_READ, min(self.max_read, len(data)))
                    rest = offset + len(data)
                    ahead.appendleft((self._ask_read(handle, rest, size - len(data)), rest, size - len(data)))
                yield attributes, data
            yield self._fstat(handle, path), b""
        finally:
            self._release(handle, [request for request, _, _ in ahead])

    def whole(self, files: Sequence[tuple[bytes, int]]) -> Generator[WholeFile | RemoteError]:
        """Yield, for each (path, size), the first `size` bytes with what the file was before and after, or an error.

        Many small files are under way at once, which one after the other would each cost several round trips; together
        they take as much memory as one `read`. `data` is shorter than `size` where the file is.
        """
        todo = iter(files)
        opening: deque[tuple[bytes, int, int]] = deque()
        reading: deque[_Reading | RemoteError] = deque()
        ahead = 0
        while True:
            for path, size in itertools.islice(todo, _FILES_AHEAD - len(opening)):
                opening.append((path, size, self._ask(_OPEN, _text(path) + struct.pack(">II", _FLAG_READ, 0))))
            while opening and (not reading or ahead + opening[0][1] <= _BYTES_AHEAD) and len(reading) < _FILES_AHEAD:
                path, size, request = opening.popleft()
                try:
                    handle = self._expect(self._answer(request), _HANDLE, path).string()
                except (ConnectionLostError, ProtocolError):
                    raise
                except RemoteError as error:
                    reading.append(error)
                    continue
                reading.append(self._ask_whole(path, handle, size))
                ahead += size
            if not reading:
                return
            first = reading.popleft()
            if isinstance(first, RemoteError):
                yield first
            else:
                ahead -= first.size
                yield self._whole(first)

    def _ask_whole(self, path: bytes, handle: bytes, size: int) -> _Reading:
        before = self._ask(_FSTAT, _text(handle))
        step = self.max_read
        reads = [self._ask_read(handle, at, min(step, size - at)) for at in range(0, size, step)]
        after = self._ask(_FSTAT, _text(handle))
        self._release(handle, ())
        return _Reading(path, size, step, before, reads, after)

    def _whole(self, file: _Reading) -> WholeFile | RemoteError:
        path, pieces, short = file.path, [], False
        try:
            before = self._expect(self._answer(file.before), _ATTRS, path).attributes()
            for number, request in enumerate(file.reads):
                asked = min(file.step, file.size - number * file.step)
                try:
                    data = self._expect(self._answer(request), _DATA, path, may_end=True).string()
                except EOFError:
                    data = b""
                if len(data) > asked:
                    raise ProtocolError(f"{shown(path)}: {self._host} answered {asked} bytes with {len(data)}")
                short = short or len(data) < asked
                pieces.append(data)
            after = self._expect(self._answer(file.after), _ATTRS, path).attributes()
        except (ConnectionLostError, ProtocolError):
            raise
        except RemoteError as error:
            for request in (file.before, *file.reads, file.after):
                if request in self._waiting:
                    self._abandon(request)
            return error
        if short:
            # Either it ended, or the host gives less at once than was asked for: `read` knows how to go on.
            try:
                return WholeFile(before, b"".join(data for _, data in self.read(path, 0, file.size)), after)
            except (ConnectionLostError, ProtocolError):
                raise
            except RemoteError as error:
                return error
        return WholeFile(before, b"".join(pieces), after)

    def _fstat(self, handle: bytes, path: bytes) -> Attributes:
        return self._expect(self._answer(self._ask(_FSTAT, _text(handle))), _ATTRS, path).attributes()

    def _ask_read(self, handle: bytes, offset: int, size: int) -> int:
        return self._ask(_READ, _text(handle) + struct.pack(">QI", offset, size))

    def _release(self, handle: bytes, requests: Sequence[int] | deque[int]) -> None:
        """Forget outstanding requests and close a handle without waiting for the answers."""
        for request in requests:
            self._abandon(request)
        try:
            self._abandon(self._ask(_CLOSE, _text(handle)))
        except RemoteError:
            pass  # the session is gone, and its handles with it


def _text(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value
