"""A read-only SFTP client, version 3 (draft-ietf-secsh-filexfer-02), over an SSH channel.

paramiko brings a client of its own, but that one takes memory for whatever packet length the server claims, loses a
whole listing to one name that is not UTF-8, and reads with requests too small to be fast. Here every length is bounded
before memory is taken, names stay bytes, and requests are pipelined.
"""

from __future__ import annotations

import itertools
import struct
from collections import deque
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

from symcache.errors import RemoteError
from symcache_provisioning.ssh.packets import (
    Attributes,
    ConnectionLostError,
    Packets,
    ProtocolError,
    Request,
    Response,
    ssh_string,
)
from symcache_provisioning.text import shown

__all__ = ["Sftp", "WholeFile"]

_FLAG_READ = 1
_MAX_READ = 255 << 10
"""Most that OpenSSH's server answers to one read; older ones answer less, which is learnt from their first answer."""
_MIN_READ = 32 << 10
"""What every server must be able to answer; never learn less from a file that merely ended early."""
_LONGEST_NAME = 256
_WINDOW = 64
"""Requests under way at most. Bounds the memory of a transfer to _WINDOW * _MAX_READ bytes."""
_FILES_AHEAD = 64
_BYTES_AHEAD = _WINDOW * _MAX_READ


class WholeFile(NamedTuple):
    """A file as it was read: what it was before and after, and its bytes."""

    before: Attributes
    data: bytes | memoryview
    after: Attributes


class _Reading(NamedTuple):
    """The requests that are under way for one file; `step` is what each but the last read asks for."""

    path: bytes
    size: int
    step: int
    before: int
    reads: list[int]
    after: int


class Sftp(Packets):
    """One SFTP session. Not for several threads at once. All paths are bytes, as the host has them.

    Every method raises RemoteError when the host does not answer within `timeout` seconds, breaks off, or answers
    nonsense, NoSuchFileError and NoAccessError where it says so.
    """

    def __init__(self, channel: Any, host: str, timeout: float) -> None:
        super().__init__(channel, host, timeout)
        self.max_read = _MAX_READ
        self._opening: dict[bytes, int] = {}
        self._listings: dict[bytes, tuple[bytes, deque[int]] | RemoteError] = {}

    def lstat(self, path: bytes) -> Attributes:
        """Return what `path` is, itself, not what it links to."""
        return self._expect(self._answer(self._ask(Request.LSTAT, ssh_string(path))), Response.ATTRS, path).attributes()

    def readlink(self, path: bytes) -> bytes:
        """Return where a symbolic link points."""
        reply = self._expect(self._answer(self._ask(Request.READLINK, ssh_string(path))), Response.NAME, path)
        reply.number()
        return reply.string()

    def prepare(self, paths: Sequence[bytes]) -> None:
        """Begin to list folders that will be scanned next: a few dozen at most, which then cost a single wait."""
        for path in paths:
            if path not in self._opening and path not in self._listings:
                self._opening[path] = self._ask(Request.OPENDIR, ssh_string(path))

    def scan(self, path: bytes) -> Generator[tuple[bytes, Attributes]]:
        """Yield the names in a folder as the host gives them, `.` and `..` too, in its order; there may be no end.

        No name is that of a file if it is longer than 255 bytes: of such, the first 256 are given.
        """
        self.prepare([path])
        for folder, request in self._opening.items():
            try:
                handle = self._expect(self._answer(request), Response.HANDLE, folder).string()
            except (ConnectionLostError, ProtocolError):
                raise
            except RemoteError as error:
                self._listings[folder] = error
            else:
                self._listings[folder] = handle, deque(self._ask_names(handle) for _ in range(2))
        self._opening.clear()
        opened = self._listings.pop(path)
        if isinstance(opened, RemoteError):
            raise opened
        handle, ahead = opened
        try:
            while True:
                reply = self._answer(ahead.popleft())
                try:
                    self._expect(reply, Response.NAME, path, may_end=True)
                except EOFError:
                    return
                ahead.append(self._ask_names(handle))
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
        opens = [self._ask_open(p) for p in paths]
        reads: list[tuple[bytes, int] | RemoteError] = []
        for path, request in zip(paths, opens, strict=True):
            try:
                handle = self._expect(self._answer(request), Response.HANDLE, path).string()
                reads.append((handle, self._ask(Request.READ, ssh_string(handle) + struct.pack(">QI", 0, length))))
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
                result.append(self._expect(self._answer(request), Response.DATA, path, may_end=True).string()[:length])
            except EOFError:
                result.append(b"")
            except (ConnectionLostError, ProtocolError):
                raise
            except RemoteError as error:
                result.append(error)
            self._release(handle, ())
        return result

    def read(self, path: bytes, start: int, end: int) -> Generator[tuple[Attributes, memoryview]]:
        """Yield the bytes of a file from `start` up to `end`, in order, each with what the open file is.

        The first and the last piece are empty, so that the caller can look at the attributes before anything is read
        and once more after. Ends early, without error, where the file does.
        """
        request = self._ask_open(path)
        handle = self._expect(self._answer(request), Response.HANDLE, path).string()
        ahead: deque[tuple[int, int, int]] = deque()
        try:
            attributes = self._fstat(handle, path)
            yield attributes, memoryview(b"")
            position = start
            while position < end or ahead:
                while position < end and len(ahead) < _WINDOW:
                    size = min(self.max_read, end - position)
                    ahead.append((self._ask_read(handle, position, size), position, size))
                    position += size
                request, offset, size = ahead.popleft()
                try:
                    data = self._expect(self._answer(request), Response.DATA, path, may_end=True).data()
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
            yield self._fstat(handle, path), memoryview(b"")
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
                opening.append((path, size, self._ask_open(path)))
            while opening and (not reading or ahead + opening[0][1] <= _BYTES_AHEAD) and len(reading) < _FILES_AHEAD:
                path, size, request = opening.popleft()
                try:
                    handle = self._expect(self._answer(request), Response.HANDLE, path).string()
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
        before = self._ask(Request.FSTAT, ssh_string(handle))
        step = self.max_read
        reads = [self._ask_read(handle, at, min(step, size - at)) for at in range(0, size, step)]
        after = self._ask(Request.FSTAT, ssh_string(handle))
        self._release(handle, ())
        return _Reading(path, size, step, before, reads, after)

    def _whole(self, file: _Reading) -> WholeFile | RemoteError:
        pieces: list[memoryview] = []
        path, short = file.path, False
        try:
            before = self._expect(self._answer(file.before), Response.ATTRS, path).attributes()
            for number, request in enumerate(file.reads):
                asked = min(file.step, file.size - number * file.step)
                try:
                    data = self._expect(self._answer(request), Response.DATA, path, may_end=True).data()
                except EOFError:
                    data = memoryview(b"")
                if len(data) > asked:
                    raise ProtocolError(f"{shown(path)}: {self._host} answered {asked} bytes with {len(data)}")
                short = short or len(data) < asked
                pieces.append(data)
            after = self._expect(self._answer(file.after), Response.ATTRS, path).attributes()
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
        return WholeFile(before, pieces[0] if len(pieces) == 1 else b"".join(pieces), after)

    def _fstat(self, handle: bytes, path: bytes) -> Attributes:
        return self._expect(
            self._answer(self._ask(Request.FSTAT, ssh_string(handle))), Response.ATTRS, path
        ).attributes()

    def _ask_open(self, path: bytes) -> int:
        return self._ask(Request.OPEN, ssh_string(path) + struct.pack(">II", _FLAG_READ, 0))

    def _ask_names(self, handle: bytes) -> int:
        return self._ask(Request.READDIR, ssh_string(handle))

    def _ask_read(self, handle: bytes, offset: int, size: int) -> int:
        return self._ask(Request.READ, ssh_string(handle) + struct.pack(">QI", offset, size))

    def _release(self, handle: bytes, requests: Sequence[int] | deque[int]) -> None:
        """Forget outstanding requests and close a handle without waiting for the answers."""
        for request in requests:
            self._abandon(request)
        try:
            self._abandon(self._ask(Request.CLOSE, ssh_string(handle)))
        except RemoteError:
            pass  # the session is gone, and its handles with it
