"""Keeps whoever runs this out of what is written: names of users and hosts, home folders, serial numbers.

Whatever a program or an error said goes through here. What is written is looked at once more, and nothing is written
where something personal is left.
"""

from __future__ import annotations

import getpass
import plistlib
import pwd
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from symcache.text import printable
from tests.acceptance.mac import Mac

__all__ = ["PersonalDataError", "Redaction", "personal_words"]

_REPLACED = "<personal>"
_LONGEST = 500
"""Characters of one text."""
_PATTERNS = (
    r"(?<=/Users/)(?!Shared\b|<)[^/\s\"']+",
    r"(?<=/Preboot/)[0-9A-Fa-f-]{36}",
    r"/(?:private/)?var/folders/[^\s\"':]*",
    r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*",
    r"(?<![\d.])(?:10\.\d{1,3}|169\.254|172\.(?:1[6-9]|2\d|3[01])|192\.168)\.\d{1,3}\.\d{1,3}(?![\d.])",
    r"\b(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\b",
    r"\bfe80:[0-9a-fA-F:]+",
)
"""Home folders, a volume that no other Mac has, temporary folders, addresses of mail, networks and network cards."""
_HARDWARE = ("IOPlatformSerialNumber", "IOPlatformUUID")
_COMMON = {
    *("root", "admin", "user", "runner", "build", "ci", "guest", "shared", "localhost"),
    *("apple", "mac", "vm", "imac", "macbook", "macbook pro", "macbook air", "mac mini"),
}
"""Names that say nothing of anybody, which other texts may rightly have."""


class PersonalDataError(Exception):
    """Something personal was left in what was to be written."""


def personal_words(mac: Mac) -> set[str]:
    """Return what nobody else needs to know of this Mac and its users."""
    words = {getpass.getuser(), str(mac.home), mac.home.name, str(mac.work), str(Path.cwd())}
    words |= {str(mac.work.resolve()), str(mac.home.resolve())}
    for user in {getpass.getuser(), mac.home.name}:
        try:
            full = pwd.getpwnam(user).pw_gecos.split(",")[0]
        except KeyError:
            continue
        words |= {full, *(word for word in full.split() if len(word) > 3)}
    users = mac.at("/Users")
    if users.is_dir():
        words |= {path.name for path in users.iterdir() if not path.name.startswith(".")}
    names = [
        socket.gethostname(),
        *(mac.says("scutil", "--get", n) for n in ("ComputerName", "LocalHostName", "HostName")),
    ]
    for name in names:
        words |= {name, name.partition(".")[0]}
    words |= set(_hardware(mac))
    if mac.options.ssh:
        user, _, host = mac.options.ssh.removeprefix("ssh://").rpartition("@")
        words |= {user.partition(":")[0], re.split("[:/]", host)[0]}
    if mac.root != Path("/"):
        words.add(str(mac.root))
    return {word for word in words if len(word) > 1 and word.lower() not in _COMMON and word not in {"/", "127.0.0.1"}}


def _hardware(mac: Mac) -> Iterator[str]:
    if not mac.has("ioreg"):
        return
    printed = mac.run("ioreg", "-a", "-rd1", "-c", "IOPlatformExpertDevice", seconds=30).stdout
    try:
        devices = plistlib.loads(printed.encode())
    except (plistlib.InvalidFileException, ValueError):
        return
    for device in devices if isinstance(devices, list) else ():
        yield from (str(device[key]) for key in _HARDWARE if device.get(key))


class Redaction:
    """Takes words, and what looks like somebody's, out of texts."""

    def __init__(self, words: Iterable[str]) -> None:
        whole = [rf"(?<![A-Za-z0-9]){re.escape(w)}(?![A-Za-z0-9])" for w in sorted(words, key=len, reverse=True)]
        self._words = re.compile("|".join(whole) or r"(?!)", re.IGNORECASE)
        self._patterns = re.compile("|".join(_PATTERNS))

    def clean(self, value: Any) -> Any:
        """Return a value of JSON without anything personal in any text, and in keys but those that are plain words."""
        if isinstance(value, str):
            text = self._patterns.sub(_REPLACED, printable(value))
            return self._words.sub(_REPLACED, text)[:_LONGEST]
        if isinstance(value, Mapping):
            return {k if k.isidentifier() else self.clean(k): self.clean(item) for k, item in value.items()}
        return [self.clean(item) for item in value] if isinstance(value, list | tuple) else value

    def check(self, value: Any, where: str = "results") -> None:
        """Raise PersonalDataError where a text has anything personal in it."""
        if isinstance(value, str):
            if self._words.search(value) or self._patterns.search(value):
                raise PersonalDataError(f"{where}: something personal is left in it; nothing was written")
        elif isinstance(value, Mapping):
            for key, item in value.items():
                if not key.isidentifier():
                    self.check(key, where)
                self.check(item, f"{where}.{key}")
        elif isinstance(value, list | tuple):
            for number, item in enumerate(value):
                self.check(item, f"{where}[{number}]")
