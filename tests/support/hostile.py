"""An SSH host that lies: an SFTP server on paramiko's transport that says whatever a test wants it to say."""

from __future__ import annotations

import contextlib
import itertools
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import paramiko

__all__ = ["Directory", "File", "HostileHost", "Link", "Node", "SftpChannel", "Special"]

_STATUS, _HANDLE, _DATA, _NAME, _ATTRS = 101, 102, 103, 104, 105
_PAGE = 64
_PAGE_BYTES = 100 << 10
_MTIME = 1_700_000_000


@dataclass
class Node:
    """Anything in the host's tree. `size` is what it claims; `later` what fstat claims once it has been read."""

    mode: int = stat.S_IFREG | 0o644
    size: int = 0
    mtime: int = _MTIME
    later: int | None = None

    def attributes(self, size: int | None = None) -> bytes:
        """Return SFTP attributes: size, mode and times."""
        return struct.pack(">IQIII", 1 | 4 | 8, self.size if size is None else size, self.mode, self.mtime, self.mtime)


@dataclass
class File(Node):
    """A file with contents, or with a function of (offset, length) in their place."""

    data: bytes | Callable[[int, int], bytes] = b""

    def __post_init__(self) -> None:
        if isinstance(self.data, bytes) and not self.size:
            self.size = len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        """Return what the server answers to one read."""
        return self.data(offset, length) if callable(self.data) else self.data[offset : offset + length]


@dataclass
class Directory(Node):
    """A folder: by names, or a function that makes an iterator of (name, node), which need not end."""

    mode: int = stat.S_IFDIR | 0o755
    children: dict[bytes, Node] = field(default_factory=dict)
    listing: Callable[[], Iterator[tuple[bytes, Node]]] | None = None

    def names(self) -> Iterator[tuple[bytes, Node]]:
        """Yield what READDIR tells."""
        return self.listing() if self.listing else iter(self.children.items())


@dataclass
class Link(Node):
    """A symbolic link."""

    mode: int = stat.S_IFLNK | 0o777
    target: bytes = b""


@dataclass
class Special(Node):
    """A FIFO, socket or device."""

    mode: int = stat.S_IFIFO | 0o644


@dataclass
class HostileHost:
    """A context manager: the host is up inside of it.

    `programs` answers commands: a function of the command that returns (stdout, stderr, status); stdout may be an
    iterator. `reply` may replace any SFTP reply: a function of (request kind, reply) that returns the bytes to send,
    length and all, or None to stay silent.
    """

    root: Directory = field(default_factory=Directory)
    programs: Callable[[bytes], tuple[bytes | Iterator[bytes], bytes, int]] = lambda _: (b"", b"no", 127)
    reply: Callable[[int, bytes], bytes | None] | None = None
    banner: str | None = None
    opened: list[bytes] = field(default_factory=list)
    """Paths that were opened for reading."""

    def add(self, path: str, node: Node) -> None:
        """Put a node at a path, making the folders on the way."""
        *parents, last = [p.encode() for p in path.split("/") if p]
        at = self.root
        for part in parents:
            child = at.children.setdefault(part, Directory())
            assert isinstance(child, Directory)
            at = child
        at.children[last] = node

    def find(self, path: bytes) -> Node | None:
        """Return what is at a path; links are not followed. A folder with a `listing` holds whatever it lists first."""
        at: Node = self.root
        for part in (p for p in path.split(b"/") if p):
            if not isinstance(at, Directory):
                return None
            found = at.children.get(part)
            if found is None and at.listing:
                found = dict(itertools.islice(at.names(), 1000)).get(part)
            if found is None:
                return None
            at = found
        return at

    def __enter__(self) -> Self:
        self.host_key = paramiko.ECDSAKey.generate()
        self.client_key = paramiko.ECDSAKey.generate()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.connections: list[Any] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for transport in self.connections:
            transport.close()
        self._thread.join(5)

    def write_key(self, file: Path) -> Path:
        """Write the key that is let in to a file."""
        file.touch(mode=0o600)
        self.client_key.write_private_key_file(str(file))
        return file

    @property
    def fingerprint(self) -> str:
        return str(self.host_key.fingerprint)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport = paramiko.Transport(connection)
            transport.daemon = True
            transport.add_server_key(self.host_key)
            transport.set_subsystem_handler("sftp", _Sftp, self)
            self.connections.append(transport)
            with contextlib.suppress(Exception):
                transport.start_server(event=threading.Event(), server=_Server(self))


class _Server(paramiko.ServerInterface):  # type: ignore[misc]
    def __init__(self, host: HostileHost) -> None:
        self._host = host

    def get_banner(self) -> tuple[str | None, str]:
        return self._host.banner, "en"

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: Any) -> int:
        return int(paramiko.AUTH_SUCCESSFUL if key == self._host.client_key else paramiko.AUTH_FAILED)

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return int(paramiko.OPEN_SUCCEEDED)

    def check_channel_exec_request(self, channel: Any, command: bytes) -> bool:
        threading.Thread(target=self._run, args=(channel, command), daemon=True).start()
        return True

    def _run(self, channel: Any, command: bytes) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            channel.recv(1)  # only then has the client been told that its request is granted
            stdout, stderr, status = self._host.programs(command)
            for piece in [stdout] if isinstance(stdout, bytes) else stdout:
                channel.sendall(piece)
            channel.sendall_stderr(stderr)
            channel.send_exit_status(status)
            channel.shutdown_write()
            channel.close()


class _Sftp(paramiko.SubsystemHandler):  # type: ignore[misc]
    """The SFTP server, one packet after the other."""

    def __init__(self, channel: Any, name: str, server: Any, host: HostileHost) -> None:
        super().__init__(channel, name, server)
        self._channel, self._answers = channel, _Answers(host, channel.sendall)

    def start_subsystem(self, name: str, transport: Any, channel: Any) -> None:
        with contextlib.suppress(OSError, EOFError):
            while (length := self._exactly(4)) is not None:
                body = self._exactly(int.from_bytes(length, "big"))
                if body is None:
                    return
                self._answers.answer(body[0], body[1:])

    def _exactly(self, count: int) -> bytes | None:
        out = b""
        while len(out) < count:
            data = self._channel.recv(count - len(out))
            if not data:
                return None
            out += data
        return out


class _Answers:
    """What an SFTP server says to each request."""

    def __init__(self, host: HostileHost, send: Callable[[bytes], object]) -> None:
        self._host, self._send = host, send
        self.handles: dict[bytes, Any] = {}
        self._read: set[bytes] = set()
        self._next = 0

    def answer(self, kind: int, body: bytes) -> None:
        reply = b"\x02\0\0\0\x03" if kind == 1 else self._reply(kind, body[:4], body[4:])
        packet: bytes | None = struct.pack(">I", len(reply)) + reply
        if self._host.reply is not None:
            packet = self._host.reply(kind, packet or b"")
        if packet is not None:
            self._send(packet)

    def _reply(self, kind: int, number: bytes, body: bytes) -> bytes:
        length = int.from_bytes(body[:4], "big")
        name, rest = body[4 : 4 + length], body[4 + length :]
        if kind in {3, 7, 11, 19}:
            node = self._host.find(name)
            if node is None:
                return self._status(number, 2)
            if kind == 7:
                return bytes([_ATTRS]) + number + node.attributes()
            if kind == 19:
                target = node.target if isinstance(node, Link) else b""
                return bytes([_NAME]) + number + struct.pack(">I", 1) + _text(target) + _text(target) + bytes(4)
            self._next += 1
            handle = b"%d" % self._next
            if kind == 3:
                if rest != struct.pack(">II", 1, 0):  # to read, and nothing else
                    return self._status(number, 4)
                self._host.opened.append(name)
            self.handles[handle] = node if kind == 3 else node.names() if isinstance(node, Directory) else iter(())
            return bytes([_HANDLE]) + number + _text(handle)
        opened = self.handles.get(name)
        if kind == 4:
            self.handles.pop(name, None)
            return self._status(number, 0)
        if kind == 8:
            size = opened.later if name in self._read and opened.later is not None else None
            return bytes([_ATTRS]) + number + opened.attributes(size)
        if kind == 5:
            offset, size = struct.unpack(">QI", rest[:12])
            self._read.add(name)
            data = opened.read(offset, size) if isinstance(opened, File) else b""
            return bytes([_DATA]) + number + _text(data) if data else self._status(number, 1)
        if kind == 12:
            page, total = [], 0
            while len(page) < _PAGE and total < _PAGE_BYTES and (item := next(opened, None)) is not None:
                page.append(item)
                total += len(item[0])
            if not page:
                return self._status(number, 1)
            names = b"".join(_text(n) + _text(b"") + node.attributes() for n, node in page)
            return bytes([_NAME]) + number + struct.pack(">I", len(page)) + names
        return self._status(number, 8)

    @staticmethod
    def _status(number: bytes, code: int) -> bytes:
        return bytes([_STATUS]) + number + struct.pack(">I", code) + _text(b"\x1b]0;status\x07") + _text(b"")


class SftpChannel:
    """A channel to a host that is not started: each request is answered as it is sent. Keeps their types."""

    def __init__(self, host: HostileHost) -> None:
        self._sent, self._answered = b"", bytearray()
        self._answers = _Answers(host, self._answered.extend)
        self.requests: list[int] = []

    @property
    def open_handles(self) -> int:
        """Files and folders that the host has open."""
        return len(self._answers.handles)

    def settimeout(self, seconds: float) -> None:
        """As of a channel of paramiko."""

    def sendall(self, data: bytes) -> None:
        """See `settimeout`."""
        self._sent += data
        while len(self._sent) >= 4 and len(self._sent) >= (end := 4 + int.from_bytes(self._sent[:4], "big")):
            self.requests.append(self._sent[4])
            self._answers.answer(self._sent[4], self._sent[5:end])
            self._sent = self._sent[end:]

    def recv(self, count: int) -> bytes:
        """See `settimeout`. Empty, as at the end, where nothing was answered."""
        data = bytes(self._answered[:count])
        del self._answered[:count]
        return data


def _text(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value
