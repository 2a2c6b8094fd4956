"""`dyld_shared_cache_util` in the guest: finding it, reading what it prints, and not believing its exit status.

Output formats: dyld's other-tools/dyld_shared_cache_util.cpp, 10.13 to 26. It exits 0 with nothing extracted, with
truncated images, and with a missing `.symbols`; so only its list, its complaints and its files together say something.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from symcache.errors import MachOError, NotFoundError, RemoteError
from symcache.macho import Slice
from vm_provisioning.ssh_source import SshSource
from vm_provisioning.text import shown

__all__ = [
    "TOOL",
    "CacheInfo",
    "CacheUtil",
    "ListedImage",
    "NoSpaceError",
    "check_whole",
    "parse_info",
    "parse_list",
    "parse_text_info",
]

TOOL = "dyld_shared_cache_util"
"""How records call images that it extracted."""
_PLACES = (f"/usr/local/bin/{TOOL}", f"/usr/bin/{TOOL}")
_TEMPLATE = "/tmp/symcache.XXXXXXXXXX"  # noqa: S108 - mktemp -d in the guest makes it unique and private
_FOLDER = re.compile(re.escape(_TEMPLATE.rstrip("X")) + r"[A-Za-z0-9]{10}")
_LIST_OUTPUT = 64 << 20
_LIST_SECONDS = 300
_EXTRACT_SECONDS = 3600
_ENDING_SECONDS = 0.5
_UUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_LIST_LINE = re.compile(rf"(?:0x([0-9A-Fa-f]{{1,16}}) )?(?:<({_UUID}| +no uuid in dylib +)> )?(?:\[alias\] )?(/.+)")
_TEXT_LINE = re.compile(rf" +0x([0-9A-Fa-f]{{1,16}}) -> 0x([0-9A-Fa-f]{{1,16}})  <({_UUID})>  (/.+)")
_TEXT_HEADER = re.compile(r"dylib text infos \(count=([0-9]{1,9})\):")
_NO_UUID = UUID(int=0)

_LC_SEGMENT, _LC_SYMTAB, _LC_SEGMENT_64 = 0x1, 0x2, 0x19


class NoSpaceError(RemoteError):
    """The guest has too little disk space to extract a cache there."""


class ListedImage(NamedTuple):
    """One line of a list. `address` and `text_end` are unslid VM addresses, None where the verb does not print them."""

    path: str
    uuid: UUID | None
    address: int | None = None
    text_end: int | None = None


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """What `-info` says of a whole cache; None for what this version does not print."""

    uuid: UUID | None
    platform: str | None
    image_count: int | None


def parse_list(output: bytes) -> list[ListedImage]:
    """Parse `-list` with any of `-uuid` and `-vmaddr`. Aliases are lines like any other, in no order.

    Raises RemoteError for a line that the tool would not print.
    """
    found = []
    for line in _lines(output):
        match = _LIST_LINE.fullmatch(line)
        if match is None:
            raise RemoteError(f"{TOOL} -list printed {shown(line)!r}, which is no line of a list")
        address, uuid, path = match.groups()
        _check_path(path, "-list")
        found.append(ListedImage(path, _uuid(uuid), int(address, 16) if address else None))
    return found


def parse_text_info(output: bytes) -> list[ListedImage]:
    """Parse `-text_info`: every image once. Raises RemoteError where lines and the announced count differ."""
    lines = _lines(output)
    header = _TEXT_HEADER.fullmatch(lines[0]) if lines else None
    if header is None:
        raise RemoteError(
            f"{TOOL} -text_info printed {shown(lines[0]) if lines else 'nothing'!r} where a count belongs"
        )
    found = []
    for line in lines[1:]:
        match = _TEXT_LINE.fullmatch(line)
        if match is None:
            raise RemoteError(f"{TOOL} -text_info printed {shown(line)!r}, which is no line of its list")
        start, end, uuid, path = match.groups()
        _check_path(path, "-text_info")
        found.append(ListedImage(path, _uuid(uuid), int(start, 16), int(end, 16)))
    if len(found) != int(header[1]):
        raise RemoteError(f"{TOOL} -text_info announced {header[1]} images and listed {len(found)}")
    return found


def parse_info(output: bytes) -> CacheInfo:
    """Parse the part of `-info` before its mappings. Raises RemoteError for a UUID or count that is none."""
    values: dict[str, str] = {}
    for line in _lines(output):
        key, colon, value = line.partition(":")
        if key.strip() == "mappings":
            break
        if colon:
            values.setdefault(key.strip(), value.strip())
    uuid, count = values.get("uuid"), values.get("image count")
    if uuid is None or not re.fullmatch(rf"{_UUID}|n/a", uuid) or (count is not None and not count.isdecimal()):
        raise RemoteError(f"{TOOL} -info printed {shown(output)!r}, which names no cache")
    return CacheInfo(None if uuid == "n/a" else _uuid(uuid), values.get("platform"), int(count) if count else None)


def _check_path(path: str, verb: str) -> None:
    """Refuse what no install name in a cache of Apple's looks like; nothing here is opened by it all the same."""
    if ".." in path.split("/") or not path.isprintable():
        raise RemoteError(f"{TOOL} {verb} printed {shown(path)!r}, which is no path of an image")


def _lines(output: bytes) -> list[str]:
    try:
        return [line for line in output.decode().split("\n") if line]
    except UnicodeDecodeError as error:
        raise RemoteError(f"{TOOL} printed bytes that are not UTF-8: {shown(output[error.start :], 60)}") from error


def _uuid(text: str | None) -> UUID | None:
    if text is None or text.startswith(" "):
        return None
    uuid = UUID(text)
    return None if uuid == _NO_UUID else uuid


class CacheUtil:
    """The tool at a path on a machine, and what it makes of the caches there."""

    def __init__(self, source: SshSource, path: str) -> None:
        self._source, self.path = source, path

    @classmethod
    def find(cls, source: SshSource, path: str | None = None) -> CacheUtil | None:
        """Return the tool at `path` or at the places it is installed to, or None.

        Raises NotFoundError when `path` is given and nothing there runs as the tool does.
        """
        for place in (path,) if path else _PLACES:
            # Without arguments it explains itself and exits 1, which tells it from everything else of that name.
            output = source.run([place], max_output=1 << 16)
            if f"Usage: {TOOL}".encode() in output.stderr + output.stdout:
                return cls(source, place)
        if path:
            raise NotFoundError(
                f"{source.name}: {shown(path)} is not {TOOL}",
                hint="name where it is installed there, or harvest with --extractor raw",
            )
        return None

    def images(self, cache: str) -> list[ListedImage]:
        """Return every image of a cache, once each. Raises RemoteError when the tool cannot read it."""
        return parse_text_info(self._print("-text_info", cache))

    def info(self, cache: str) -> CacheInfo:
        """Return what the tool says of a cache as a whole. Raises RemoteError."""
        return parse_info(self._print("-info", cache))

    def _print(self, verb: str, cache: str) -> bytes:
        argv = [self.path, verb, self._source.remote(cache).decode()]
        output = self._source.run(argv, timeout=_LIST_SECONDS, max_output=_LIST_OUTPUT)
        if output.status != 0:
            raise RemoteError(f"{TOOL} {verb} {shown(cache)} ended with {output.status}: {_complaint(output.stderr)}")
        return output.stdout

    @contextmanager
    def extracted(self, cache: str, need: int) -> Iterator[tuple[SshSource, list[str]]]:
        """Extract a cache into a fresh folder in the guest, which is removed at the end.

        Yields that folder as a tree whose paths are install names, and the tool's complaints. One folder a cache:
        older tools merge what is there already, newer ones overwrite it. `need` is how many bytes must be free.

        Raises RemoteError when the tool fails, NoSpaceError when there is too little space.
        """
        source = self._source
        made = source.session.run(["/usr/bin/mktemp", "-d", _TEMPLATE], max_output=4096)
        folder = made.stdout.decode("utf-8", "replace").strip()
        if made.status != 0 or not _FOLDER.fullmatch(folder):
            # Nothing but what we asked for is ever handed to rm.
            raise RemoteError(f"{source.name}: mktemp made no folder: {shown(made.stdout + made.stderr)}")
        try:
            free = self._free_bytes(folder)
            if free is not None and free < need:
                raise NoSpaceError(
                    f"{source.name}: {free >> 20} MiB are free in {folder} where {need >> 20} MiB are needed",
                    hint="free some space there, or harvest with --extractor raw, which needs none",
                )
            argv = [self.path, "-extract", folder, source.remote(cache).decode()]
            try:
                output = source.session.run(argv, timeout=_EXTRACT_SECONDS, max_output=_LIST_OUTPUT, watched=True)
            except BaseException:
                time.sleep(_ENDING_SECONDS)  # until the tool has gone, which would make its folder anew
                raise
            if output.status != 0:
                raise RemoteError(
                    f"{TOOL} -extract {shown(cache)} ended with {output.status}: {_complaint(output.stderr)}",
                    hint="harvest with --extractor raw",
                )
            complaints = [
                line for line in output.stderr.decode("utf-8", "backslashreplace").splitlines() if line.strip()
            ]
            yield SshSource(source.session, root=folder, limits=source.limits), [shown(c) for c in complaints]
        finally:
            try:
                removed = source.run(["/bin/rm", "-rf", folder], timeout=_LIST_SECONDS).status == 0
            except RemoteError:
                removed = False
            if not removed:
                source.notes.append(f"{folder} is left on {source.name}: remove it there")

    def _free_bytes(self, folder: str) -> int | None:
        output = self._source.run(["/bin/df", "-kP", folder], max_output=1 << 16)
        fields = output.stdout.decode("ascii", "replace").splitlines()[-1:]
        # Filesystem, 1024-blocks, Used, Available, Capacity, Mounted on; the first may contain blanks.
        match = re.search(r" ([0-9]{1,15}) +[0-9]+% ", fields[0]) if fields else None
        return int(match[1]) * 1024 if match and output.status == 0 else None


def _complaint(stderr: bytes) -> str:
    return shown(stderr.decode("utf-8", "backslashreplace").partition("\n")[0]) or "it said nothing"


def check_whole(file: Path, image: Slice) -> None:
    """Make sure that an extracted image holds the bytes its load commands speak of. Raises MachOError.

    Apple's extractor goes on after errors in one image and leaves it cut. Looks at segment_command, segment_command_64
    and symtab_command (<mach-o/loader.h>); the image must have been identified, so its commands are in bounds.
    """
    with file.open("rb") as opened:
        opened.seek(image.offset)
        header = opened.read(32)
        order = "<" if header[:1] in {b"\xce", b"\xcf"} else ">"
        wide = (header[0] if order == "<" else header[3]) == 0xCF
        ncmds, sizeofcmds = struct.unpack_from(order + "2I", header, 16)
        opened.seek(image.offset + (32 if wide else 28))
        commands = opened.read(sizeofcmds)
    position = 0
    for _ in range(ncmds):
        cmd, size = struct.unpack_from(order + "2I", commands, position)
        end = 0
        if cmd == _LC_SEGMENT_64 and size >= 72:
            end = sum(struct.unpack_from(order + "2Q", commands, position + 40))
        elif cmd == _LC_SEGMENT and size >= 56:
            end = sum(struct.unpack_from(order + "2I", commands, position + 32))
        elif cmd == _LC_SYMTAB and size >= 24:
            symoff, nsyms, stroff, strsize = struct.unpack_from(order + "4I", commands, position + 8)
            end = max(symoff + nsyms * (16 if wide else 12), stroff + strsize)
        if end > image.size:
            raise MachOError(f"{file}: ends at {image.size:#x} where its load commands speak of bytes up to {end:#x}")
        position += size
