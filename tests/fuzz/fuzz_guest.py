"""What a guest says: sw_vers, property lists, listings of dyld_shared_cache_util, SFTP packets.

The first byte chooses who reads the rest.
"""

from __future__ import annotations

import plistlib
import struct
from typing import Any

from symcache.errors import SymcacheError
from symcache.text import excerpt
from symcache_provisioning.extractors.dyld_shared_cache_util import parse_info, parse_text_info
from symcache_provisioning.sources.entries import refusal
from symcache_provisioning.sources.release import parse_sw_vers, parse_system_version
from symcache_provisioning.ssh.sftp import Sftp

__all__ = ["SEEDS", "one_input"]

_UUID = b"4C4C4412-5555-3144-A156-E853B4E92AD2"
_MAX_STEPS = 200
_VERSION = struct.pack(">IBI", 5, 2, 3)


class _Channel:
    """A channel whose other end says `data` and then goes away."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def settimeout(self, seconds: float) -> None:
        """Never wait."""

    def sendall(self, data: bytes) -> None:
        """Hear nothing."""

    def recv(self, count: int) -> bytes:
        """Say the next bytes."""
        piece = self._data[self._at : self._at + min(count, 50)]
        self._at += len(piece)
        return piece


def _packet(kind: int, request: int, body: bytes) -> bytes:
    return struct.pack(">IBI", len(body) + 5, kind, request) + body


def _text(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def SEEDS() -> list[bytes]:
    """Return one good answer of each kind."""
    attributes = struct.pack(">IQIII", 13, 40, 0o100644, 1_700_000_000, 1_700_000_000)
    plist = plistlib.dumps({"ProductName": "macOS", "ProductVersion": "13.5.1", "ProductBuildVersion": "22G120"})
    names = struct.pack(">I", 2) + (_text(b"libz.dylib") + _text(b"-rw-") + attributes) * 2
    end = struct.pack(">I", 1) + _text(b"end") + _text(b"")
    listing = _packet(102, 1, _text(b"h")) + _packet(104, 2, names) + _packet(101, 3, end)
    file = _packet(102, 1, _text(b"h")) + _packet(105, 2, attributes) + _packet(103, 3, _text(bytes(40)))
    return [
        b"\0ProductName:\t\tmacOS\nProductVersion:\t\t13.5.1\nProductVersionExtra:\t(a)\nBuildVersion:\t\t22G120\n",
        b"\1" + plist,
        b"\2dylib text infos (count=1):\n   0x180004000 -> 0x18000811C  <" + _UUID + b">  /usr/lib/libz.dylib\n",
        b"\3uuid: " + _UUID + b"\nplatform: macOS\nimage count: 30\nmappings:\n",
        b"\4" + listing,
        b"\5" + file + _packet(105, 4, attributes),
        b"\6" + _packet(102, 1, _text(b"h")) + _packet(103, 2, _text(b"\xcf\xfa\xed\xfe")),
        b"\7" + file + _packet(105, 4, attributes),
        b"\x08" + _packet(105, 1, attributes) + _packet(104, 2, struct.pack(">I", 1) + _text(b"to")),
    ]


def one_input(data: bytes) -> None:
    """Let one reader read the input; nothing but errors of our own may come of it."""
    readers = (_sw_vers, _plist, _text_info, _info, _scan, _read, _heads, _whole, _lstat)
    if data:
        try:
            readers[data[0] % len(readers)](data[1:])
        except SymcacheError as error:
            if not str(error).isprintable():
                raise AssertionError(f"an error that is not fit to print: {error!r}") from error


def _sw_vers(data: bytes) -> None:
    release = parse_sw_vers(data, "host")
    if not str(release).isprintable() or "/" in release.build:
        raise AssertionError(f"let pass: {release!r}")


def _plist(data: bytes) -> None:
    parse_system_version(data, "plist")


def _text_info(data: bytes) -> None:
    _check(image.path for image in parse_text_info(data))


def _info(data: bytes) -> None:
    parse_info(data)


def _check(paths: Any) -> None:
    for path in paths:
        if not path.startswith("/") or not path.isprintable() or ".." in path.split("/"):
            raise AssertionError(f"let pass: {path!r}")


def _sftp(data: bytes) -> Sftp:
    return Sftp(_Channel(_VERSION + data), "host", 1)


def _scan(data: bytes) -> None:
    for step, (name, _) in enumerate(_sftp(data).scan(b"/")):
        if not refusal(name) and (b"/" in name or not excerpt(name).isprintable()):
            raise AssertionError(f"let pass: {name!r}")
        if step > _MAX_STEPS:
            return


def _read(data: bytes) -> None:
    if sum(len(piece) for _, piece in _sftp(data).read(b"/f", 0, 40)) > 40:
        raise AssertionError("more than was asked for")


def _heads(data: bytes) -> None:
    for head in _sftp(data).heads([b"/f", b"/g"], 8):
        if isinstance(head, bytes) and len(head) > 8:
            raise AssertionError("more than was asked for")


def _whole(data: bytes) -> None:
    for found in _sftp(data).whole([(b"/f", 40), (b"/g", 0)]):
        if not isinstance(found, SymcacheError) and len(found.data) > 40:
            raise AssertionError("more than was asked for")


def _lstat(data: bytes) -> None:
    sftp = _sftp(data)
    sftp.lstat(b"/f")
    sftp.readlink(b"/f")
