"""Files of known host keys, as sshd(8) describes them under SSH_KNOWN_HOSTS FILE FORMAT."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko

from symcache.errors import StorageError

__all__ = ["KnownKey", "host_of", "known_keys"]

_AUTHORITY, _REVOKED = "@cert-authority", "@revoked"


@dataclass(frozen=True, slots=True)
class KnownKey:
    """What one line says of a host."""

    key: Any
    """paramiko's."""
    file: Path
    authority: bool
    """It signs certificates of hosts."""
    revoked: bool
    """It must not be used any more."""

    @property
    def base64(self) -> str:
        """The key as it stands in the file."""
        return str(self.key.get_base64())


def host_of(name: str) -> str:
    """Return the host of a name in such files: a host, or `[host]:port` if that is not 22."""
    return name[1:].rpartition("]:")[0] if name.startswith("[") else name


def known_keys(file: Path, name: str) -> list[KnownKey]:
    """Return what a file says of `name`, as `host_of` describes it, and what it revokes.

    Authorities are trusted for every port of a host. What is revoked is so for every host. Lines that cannot be read
    are skipped. Raises StorageError.
    """
    host = host_of(name)
    return [
        KnownKey(key, file, marker == _AUTHORITY, marker == _REVOKED)
        for marker, names, key in _lines(file)
        if marker == _REVOKED or _matches(names, name) or (marker == _AUTHORITY and _matches(names, host))
    ]


def _lines(file: Path) -> Iterator[tuple[str, Sequence[str], Any]]:
    """Yield marker, names and key of the lines that can be read."""
    try:
        lines = file.read_text("utf-8", "replace").splitlines()
    except OSError as error:
        raise StorageError(f"{file}: cannot be read: {error.strerror}", hint="check who owns it") from error
    for text in lines:
        line = text.strip()
        fields = line.split(maxsplit=1) if line.startswith("@") else ["", line]
        if len(fields) < 2 or fields[0] not in {"", _AUTHORITY, _REVOKED} or fields[1][:1] in {"", "#"}:
            continue
        marker, rest = fields
        try:
            entry = paramiko.hostkeys.HostKeyEntry.from_line(" ".join(rest.split()))
        except (
            paramiko.hostkeys.InvalidHostKey,
            paramiko.SSHException,
            ValueError,
            LookupError,
            TypeError,
            struct.error,
        ):
            continue
        if entry is not None:
            yield marker, entry.hostnames, entry.key


def _matches(names: Sequence[str], host: str) -> bool:
    """Return whether a host is meant by patterns, `*` and `?` in them, none of which with a `!` before it matches."""
    found = False
    for name in names:
        if name.startswith("|1|"):
            try:
                found = found or paramiko.HostKeys.hash_host(host, name) == name
            except (AssertionError, ValueError, TypeError, LookupError):  # the first for a salt of another size
                continue
        elif _pattern(name.removeprefix("!")).fullmatch(host):
            if name.startswith("!"):
                return False
            found = True
    return found


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(re.escape(text).replace(r"\*", ".*").replace(r"\?", "."), re.IGNORECASE)
