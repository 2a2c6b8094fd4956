"""The list of published builds of AppleDB: https://github.com/littlebyteorg/appledb/blob/main/API.md

`/ios/macOS/main.json`, `.gz` and `.xz` hold an array of builds; one build may have several entries, as a release
candidate and as the release. People keep it: what an entry says is believed only as far as it can be checked.
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from symcache.client import read_url, without_password
from symcache.errors import EnvironmentFailure, UsageError
from symcache.model import APPLE_BUILD
from symcache.text import excerpt
from symcache.verify import version_number

__all__ = ["APPLEDB", "MAX_FIRMWARE", "Firmware", "PublishedBuild", "PublishedBuilds", "parse_appledb", "read_appledb"]

APPLEDB = "https://api.appledb.dev"
"""Where AppleDB is, if nothing else is named."""
_PATH = "ios/macOS/main.json.xz"
_MAX_PACKED = 64 << 20
_MAX_SIZE = 256 << 20
"""Bytes; all of macOS has less than a third of that in 2026."""
_MAX_CONTAINERS, _MAX_VALUES = 6_000_000, 30_000_000
"""Of the document, which becomes many times as large in memory."""
MAX_FIRMWARE = 64 << 30
"""Bytes; a restore image of macOS 27 has 27 GB."""
_MOST_PROBLEMS = 1000
_PRODUCTS = {"macOS", "OS X", "Mac OS X"}
_BUILD = re.compile(APPLE_BUILD)
_RELEASED = re.compile(r"([0-9]{4}(?:-[0-9]{2}(?:-[0-9]{2})?)?)(?:[T ].*)?")
_HINT = "name another URL of AppleDB, or a file of it, with --appledb"


class _Lax(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class _Link(_Lax):
    url: str
    active: bool = True


class _Source(_Lax):
    links: list[_Link] = []
    hashes: dict[str, Any] = {}
    size: int | None = None


class _Entry(_Lax):
    osStr: str = ""
    version: str = ""
    build: str = ""
    released: str | None = ""
    beta: bool = False
    rc: bool = False
    rsr: bool = False
    internal: bool = False
    sdk: bool = False
    sources: list[Any] = []


@dataclass(frozen=True, slots=True)
class Firmware:
    """A restore image (.ipsw) that is offered. Nothing of it was checked but that it is in form."""

    url: str
    size: int
    """In bytes."""
    sha256: str = ""
    sha1: str = ""
    active: bool = True


@dataclass(frozen=True, slots=True)
class PublishedBuild:
    """One build of macOS."""

    build: str
    version: str = ""
    """As it is called: `27.0 beta 3`, `26.3 beta (a)`."""
    kind: str = "release"
    """`release`, `rc`, `beta` or `response` (a Rapid Security Response)."""
    released: str = ""
    """ISO 8601: a day, a month or a year; empty if unknown."""
    firmware: tuple[Firmware, ...] = ()
    others: tuple[str, ...] = ()
    """In which other forms it is published, which cannot be harvested: `ota`, `installassistant`."""
    problems: tuple[str, ...] = ()
    """What is said of its firmware and cannot be."""

    @property
    def number(self) -> tuple[int, ...]:
        """The version as numbers that compare; (0,) if unknown."""
        return version_number(self.version)


@dataclass
class PublishedBuilds:
    """All of a list, by build."""

    builds: dict[str, PublishedBuild] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """Invalid entries, one sentence each."""


def read_appledb(location: str) -> PublishedBuilds:
    """Read AppleDB at a URL, of a mirror or of one document of it, or in a file or folder that holds the same.

    Raises UsageError for a file that cannot be read, RemoteError, and EnvironmentFailure for what is no such list.
    """
    if "://" in location:
        if not location.startswith(("https://", "http://")):
            shown = excerpt(without_password(location))
            raise UsageError(f"{shown}: no URL that can be read", hint="name one with https://, or a file")
        url = location if re.search(r"\.json(\.[gx]z)?$", location) else f"{location.rstrip('/')}/{_PATH}"
        return parse_appledb(read_url(url, _MAX_PACKED), without_password(url))
    path = Path(location).expanduser()
    try:
        if path.is_dir():
            names = [path / _PATH, *((path / _PATH).with_suffix(end) for end in (".gz", ""))]
            path = next((name for name in names if name.is_file()), names[0])
        with path.open("rb") as file:
            data = file.read(_MAX_SIZE + 1)  # a device or a growing file has no size to ask for
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}", hint="check --appledb") from error
    if len(data) > _MAX_SIZE:
        raise EnvironmentFailure(f"{path}: larger than {_MAX_SIZE} bytes", hint=_HINT)
    return parse_appledb(data, str(path))


def parse_appledb(data: bytes, name: str) -> PublishedBuilds:
    """Return the builds of a document; invalid entries are listed in `problems`.

    Raises EnvironmentFailure.
    """
    content = _unpacked(data, name)
    if content.lstrip()[:1] != b"[":
        what = "a page" if content.lstrip()[:1] == b"<" else "something else"
        raise EnvironmentFailure(f"{name}: is {what} where a JSON array of builds was expected", hint=_HINT)
    if content.count(b"{") + content.count(b"[") > _MAX_CONTAINERS or content.count(b",") > _MAX_VALUES:
        raise EnvironmentFailure(f"{name}: has more values than AppleDB can have", hint=_HINT)
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise EnvironmentFailure(f"{name}: not readable as JSON: {excerpt(str(error))}", hint=_HINT) from error
    result = PublishedBuilds()
    for number, raw in enumerate(entries):
        try:
            if isinstance(raw, dict) and raw.get("osStr") not in _PRODUCTS:
                continue
            entry = _Entry.model_validate(raw)
            if not entry.internal and not entry.sdk and _BUILD.fullmatch(entry.build):
                _add(result, _published(entry))
        except ValidationError as error:
            key = raw.get("key") or raw.get("build") if isinstance(raw, dict) else None
            _note(result.problems, f"{excerpt(str(key or f'entry {number}'), 80)}: {_fault(error)}")
    if not result.builds:
        why = f": {result.problems[0]}" if result.problems else ""
        raise EnvironmentFailure(f"{name}: names no build of macOS{why}", hint=_HINT)
    return result


def _unpacked(data: bytes, name: str) -> bytes:
    """Return what is packed by xz or gzip, if it is. Raises EnvironmentFailure."""
    try:
        if data.startswith(b"\xfd7zXZ\0"):
            with lzma.LZMAFile(io.BytesIO(data)) as xz:
                content = xz.read(_MAX_SIZE + 1)
        elif data.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as gz:
                content = gz.read(_MAX_SIZE + 1)
        else:
            content = data
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise EnvironmentFailure(f"{name}: cannot be unpacked: {error}", hint=_HINT) from error
    if len(content) > _MAX_SIZE:
        raise EnvironmentFailure(f"{name}: more than {_MAX_SIZE} bytes", hint=_HINT)
    return content


def _published(entry: _Entry) -> PublishedBuild:
    firmware, others, problems = list[Firmware](), list[str](), list[str]()
    for raw in entry.sources:
        kind = raw.get("type") if isinstance(raw, dict) else None
        if kind != "ipsw" or raw.get("prerequisiteBuild"):
            if isinstance(kind, str) and len(kind) < 40 and kind not in others:
                others.append(kind)
            continue
        try:
            source = _Source.model_validate(raw)
        except ValidationError as error:
            _note(problems, f"its firmware: {_fault(error)}")
            continue
        if source.size is None or not 0 < source.size <= MAX_FIRMWARE:
            _note(problems, f"its firmware: a size of {excerpt(str(source.size)[:40])} bytes cannot be")
            continue
        sha256, sha1 = (_digest(source.hashes.get(key), size) for key, size in (("sha2-256", 64), ("sha1", 40)))
        firmware += [Firmware(link.url, source.size, sha256, sha1, link.active) for link in source.links]
    released = _RELEASED.fullmatch(entry.released or "")
    kind = "response" if entry.rsr else "beta" if entry.beta else "rc" if entry.rc else "release"
    version = entry.version if len(entry.version) <= 64 and entry.version.isprintable() else ""
    offered = sorted(firmware, key=lambda f: not f.active)
    return PublishedBuild(
        *(entry.build, version, kind, released[1] if released else ""),
        tuple(offered),
        tuple(sorted(others)),
        tuple(problems),
    )


def _digest(value: object, length: int) -> str:
    return value if isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{length}}}", value) else ""


def _add(result: PublishedBuilds, new: PublishedBuild) -> None:
    """Add an entry; of several of one build the release counts most, then the candidate."""
    rank = ("release", "response", "rc", "beta")
    old = result.builds.get(new.build)
    if old is None or rank.index(new.kind) < rank.index(old.kind):
        result.builds[new.build] = new


def _fault(error: ValidationError) -> str:
    """Return the first thing that is wrong, behind where it stands."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _note(problems: list[str], text: str) -> None:
    if len(problems) < _MOST_PROBLEMS:
        problems.append(text)
