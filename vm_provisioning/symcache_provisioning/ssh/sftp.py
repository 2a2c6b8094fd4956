"""A read-only SFTP client, version 3 (draft-ietf-secsh-filexfer-02), over an SSH channel.

paramiko has a client of its own, but that one fails on a folder with a name that is not UTF-8, and needs several round
trips for each of many small files. Here names stay bytes, and requests for many files are pipelined.
"""

from __future__ import annotations

import itertools
import struct
from collections import deque
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

from symcache.errors import RemoteError
from symcache.text import excerpt
from symcache_provisioning.ssh.packets import (
    Attributes,
    Packets,
    ProtocolError,
    RemoteFileError,
    Request,
    Response,
    ssh_string,
)

__all__ = ["Sftp", "WholeFile"]

_FLAG_READ = 1
_MAX_READ = 255 << 10
"""Most that OpenSSH's server returns for one read; older ones return less, and `max_read` adapts to the first."""
_MIN_READ = 32 << 10
"""What every server must be able to return; `max_read` never becomes less, e.g. from a file that ended early."""
_LONGEST_NAME = 256
_READS_AHEAD = 64
"""Requests under way at most for one file. Bounds the memory of a transfer to _READS_AHEAD * _MAX_READ bytes."""
_FILES_AHEAD = 64
"""Small files under way at most, and with them at most so many bytes:"""
_BYTES_AHEAD = _READS_AHEAD * _MAX_READ


class WholeFile(NamedTuple):
    """A file as it was read: its attributes before and after, and its bytes."""

    before: Attributes
    data: bytes | memoryview
    after: Attributes


class _Reading(NamedTuple):
    """The requests that are under way for one file; `step` is the size of each read but the last."""

    path: bytes
    size: int
    step: int
    before: int
    reads: list[int]
    after: int


class Sftp(Packets):
    """One SFTP session. Not thread-safe. All paths are bytes, as the host has them; for errors see `Packets`."""

    def __init__(self, channel: Any, host: str, timeout: float) -> None:
        super().__init__(channel, host, timeout)
        self.max_read = _MAX_READ
        self._opening: dict[bytes, int] = {}
        self._listings: dict[bytes, tuple[bytes, deque[int]] | RemoteFileError] = {}

    def lstat(self, path: bytes) -> Attributes:
        """Return the attributes of `path` itself, not of what it links to."""
        return self._response(self._request(Request.LSTAT, ssh_string(path)), Response.ATTRS, path).attributes()

    def enter(self, path: bytes) -> None:
        """Make sure that a folder may not only be listed, but entered. Raises NoAccessError."""
        self._response(self._request(Request.LSTAT, ssh_string(path + b"/.")), Response.ATTRS, path)

    def readlink(self, path: bytes) -> bytes:
        """Return where a symbolic link points."""
        reply = self._response(self._request(Request.READLINK, ssh_string(path)), Response.NAME, path)
        reply.number()
        return reply.string()

    def prepare(self, paths: Sequence[bytes]) -> None:
        """Start to list folders that will be scanned next, a few dozen at most, in one round trip."""
        for path in paths:
            if path not in self._opening and path not in self._listings:
                self._opening[path] = self._request(Request.OPENDIR, ssh_string(path))

    def scan(self, path: bytes) -> Generator[tuple[bytes, Attributes]]:
        """Yield the names in a folder as the host sends them, `.` and `..` too, in its order; it may send without end.

        Names are cut to 256 bytes: no file has one longer than 255.
        """
        self.prepare([path])
        for folder, request in self._opening.items():
            try:
                handle = self._response(request, Response.HANDLE, folder).string()
            except RemoteFileError as error:
                self._listings[folder] = error
            else:
                self._listings[folder] = handle, deque(self._request_names(handle) for _ in range(2))
        self._opening.clear()
        opened = self._listings.pop(path)
        if isinstance(opened, RemoteFileError):
            raise opened
        handle, ahead = opened
        try:
            while True:
                try:
                    reply = self._response(ahead.popleft(), Response.NAME, path, may_end=True)
                except EOFError:
                    return
                ahead.append(self._request_names(handle))
                count = reply.number()
                if count == 0:
                    raise RemoteFileError(f"{excerpt(path)}: {self._host} lists it without names and without end")
                for _ in range(count):
                    name = reply.string()[:_LONGEST_NAME]
                    reply.string()  # the line that ls -l would print
                    yield name, reply.attributes()
        finally:
            self._release(handle, ahead)

    def heads(self, paths: Sequence[bytes], length: int) -> list[bytes | RemoteFileError]:
        """Return the first `length` bytes of each of up to 64 files, or the error."""
        result: list[bytes | RemoteFileError] = []
        opens = [(path, self._request_open(path)) for path in paths]
        reads: list[tuple[bytes, bytes, int] | RemoteFileError] = []
        for path, request in opens:
            try:
                handle = self._response(request, Response.HANDLE, path).string()
                reads.append((path, handle, self._request_read(handle, 0, length)))
            except RemoteFileError as error:
                reads.append(error)
        for read in reads:
            if isinstance(read, RemoteFileError):
                result.append(read)
                continue
            path, handle, request = read
            try:
                result.append(self._response(request, Response.DATA, path, may_end=True).string()[:length])
            except EOFError:
                result.append(b"")
            except RemoteFileError as error:
                result.append(error)
            self._release(handle, ())
        return result

    def read(self, path: bytes, start: int, end: int) -> Generator[tuple[Attributes, memoryview]]:
        """Yield the bytes of a file from `start` up to `end`, in order, each with the attributes of the open file.

        The first and the last piece are empty, so that the caller can look at the attributes before anything is read
        and once more after. Ends early, without error, where the file does.
        """
        request = self._request_open(path)
        handle = self._response(request, Response.HANDLE, path).string()
        ahead: deque[tuple[int, int, int]] = deque()
        try:
            attributes = self._fstat(handle, path)
            yield attributes, memoryview(b"")
            position = start
            while position < end or ahead:
                while position < end and len(ahead) < _READS_AHEAD:
                    size = min(self.max_read, end - position)
                    ahead.append((self._request_read(handle, position, size), position, size))
                    position += size
                request, offset, size = ahead.popleft()
                try:
                    data = self._response(request, Response.DATA, path, may_end=True).data()
                except EOFError:
                    break
                if not data or len(data) > size:
                    raise ProtocolError(f"{excerpt(path)}: {self._host} answered {size} bytes with {len(data)}")
                if len(data) < size:
                    # A short read is no error: request the rest first, and from now on no more than the server returns.
                    self.max_read = max(_MIN_READ, min(self.max_read, len(data)))
                    rest = offset + len(data)
                    ahead.appendleft((self._request_read(handle, rest, size - len(data)), rest, size - len(data)))
                yield attributes, data
            yield self._fstat(handle, path), memoryview(b"")
        finally:
            self._release(handle, [request for request, _, _ in ahead])

    def whole(self, files: Sequence[tuple[bytes, int]]) -> Generator[WholeFile | RemoteFileError]:
        """Yield, for each (path, size), the first `size` bytes and the attributes before and after, or an error.

        Many files are requested at once, as each would cost several round trips by itself; together they take as much
        memory as one `read`. `data` is shorter than `size` where the file is.
        """
        todo = iter(files)
        opening: deque[tuple[bytes, int, int]] = deque()
        reading: deque[_Reading | RemoteFileError] = deque()
        ahead = 0
        while True:
            for path, size in itertools.islice(todo, _FILES_AHEAD - len(opening)):
                opening.append((path, size, self._request_open(path)))
            while opening and (not reading or ahead + opening[0][1] <= _BYTES_AHEAD) and len(reading) < _FILES_AHEAD:
                path, size, request = opening.popleft()
                try:
                    handle = self._response(request, Response.HANDLE, path).string()
                except RemoteFileError as error:
                    reading.append(error)
                    continue
                reading.append(self._request_whole(path, handle, size))
                ahead += size
            if not reading:
                return
            first = reading.popleft()
            if isinstance(first, RemoteFileError):
                yield first
            else:
                ahead -= first.size
                yield self._whole(first)

    def _request_whole(self, path: bytes, handle: bytes, size: int) -> _Reading:
        before = self._request(Request.FSTAT, ssh_string(handle))
        step = self.max_read
        reads = [self._request_read(handle, at, min(step, size - at)) for at in range(0, size, step)]
        after = self._request(Request.FSTAT, ssh_string(handle))
        self._release(handle, ())
        return _Reading(path, size, step, before, reads, after)

    def _whole(self, file: _Reading) -> WholeFile | RemoteFileError:
        pieces: list[memoryview] = []
        path, short = file.path, False
        try:
            before = self._response(file.before, Response.ATTRS, path).attributes()
            for number, request in enumerate(file.reads):
                requested = min(file.step, file.size - number * file.step)
                try:
                    data = self._response(request, Response.DATA, path, may_end=True).data()
                except EOFError:
                    data = memoryview(b"")
                if len(data) > requested:
                    raise ProtocolError(f"{excerpt(path)}: {self._host} answered {requested} bytes with {len(data)}")
                short = short or len(data) < requested
                pieces.append(data)
            after = self._response(file.after, Response.ATTRS, path).attributes()
        except RemoteFileError as error:
            for request in (file.before, *file.reads, file.after):
                if request in self._waiting:
                    self._abandon(request)
            return error
        if short:
            # Either the file ended, or the host returned less than was requested: `read` handles both.
            try:
                return WholeFile(before, b"".join(data for _, data in self.read(path, 0, file.size)), after)
            except RemoteFileError as error:
                return error
        return WholeFile(before, pieces[0] if len(pieces) == 1 else b"".join(pieces), after)

    def _fstat(self, handle: bytes, path: bytes) -> Attributes:
        return self._response(self._request(Request.FSTAT, ssh_string(handle)), Response.ATTRS, path).attributes()

    def _request_open(self, path: bytes) -> int:
        return self._request(Request.OPEN, ssh_string(path) + struct.pack(">II", _FLAG_READ, 0))

    def _request_names(self, handle: bytes) -> int:
        return self._request(Request.READDIR, ssh_string(handle))

    def _request_read(self, handle: bytes, offset: int, size: int) -> int:
        return self._request(Request.READ, ssh_string(handle) + struct.pack(">QI", offset, size))

    def _release(self, handle: bytes, requests: Sequence[int] | deque[int]) -> None:
        """Ignore outstanding requests and close a handle, without waiting for the responses."""
        for request in requests:
            self._abandon(request)
        try:
            self._abandon(self._request(Request.CLOSE, ssh_string(handle)))
        except RemoteError:
            pass  # the session is gone, and its handles with it
