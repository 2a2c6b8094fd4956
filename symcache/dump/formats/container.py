"""The container of a dump: a zip whose member `minidump.dmp` is an XML header, followed at once by a Mach-O core.

A bare Mach-O core, without zip and header, is taken as well. Offsets inside the core count from the byte behind
`</root>`. Nothing is ever extracted by a member's name, and nothing is kept in memory but the header.
"""

from __future__ import annotations

import re
import shutil
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from symcache.dump.formats.core import Core, check_crashed, read_core
from symcache.dump.formats.header import DumpHeader, header_encoding, parse_header
from symcache.dump.formats.zip_member import archives, open_member
from symcache.errors import DumpError
from symcache.macho import LITTLE_64, MH, mach_header

__all__ = ["MEMBER", "OpenedDump", "open_dump"]

MEMBER = "minidump.dmp"
_ENDS = {
    encoding: re.compile(re.escape("</root".encode(encoding)) + b"(?:%b)*" % space + re.escape(end))
    for encoding, space, end in (
        ("utf-8", rb"\s", b">"),
        ("utf-16-le", rb"[ \t\r\n]\0", b">\0"),
        ("utf-16-be", rb"\0[ \t\r\n]", b"\0>"),
    )
}
_LONGEST_END = 128
"""Bytes of an end tag with white space in it, and of the white space behind it; no known writer puts any there."""
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA})
_CHUNK = 1 << 20
_MAX_HEADER = 16 << 20
_MAX_CORE = 16 << 30
_BOMB_SIZE, _BOMB_RATIO = 1 << 30, 400
"""Stacks compress well, but not a gigabyte of them by this much."""


@dataclass(frozen=True, slots=True)
class OpenedDump:
    """A dump whose core lies in a file that a debugger can open."""

    path: Path
    header: DumpHeader | None
    """None for a bare core: then only its LC_NOTEs may tell the modules."""
    core: Core
    core_path: Path
    """Below the scratch folder, or the dump itself if that is a bare core."""


def open_dump(path: Path, scratch: Path) -> OpenedDump:
    """Check a dump and unpack its core into the folder `scratch`. Raises DumpError, OSError.

    Runs of zeros become holes, so the core takes no more space than it has content.
    """
    try:
        return _open(path, scratch)
    except DumpError as error:
        error.hint = error.hint or "the dump is cut or damaged, or no crash handler wrote it: copy it again"
        raise


def _open(path: Path, scratch: Path) -> OpenedDump:
    core: Core | None = None
    with path.open("rb") as file:
        head = mach_header(file.read(LITTLE_64.header.size))
        if head and head.filetype == MH.CORE:
            core = read_core(path)
            if not core.odd_states:
                return OpenedDump(path, None, core, path)
    target = scratch / "core"
    if core:  # the user's file stays as it is
        shutil.copyfile(path, target)
        _make_readable(target, core)
        return OpenedDump(path, None, core, target)
    try:
        header = _unpack_zip(path, target)
        core = read_core(target, name=str(path))
        check_crashed(core, header.thread, str(path))
        _make_readable(target, core)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return OpenedDump(path, header, core, target)


def _make_readable(target: Path, core: Core) -> None:
    """Put the states of threads into the form that LLDB reads, in our copy of the core."""
    if core.odd_states:
        with target.open("r+b") as file:
            for offset, states in core.odd_states:
                file.seek(offset)
                file.write(states)


def _unpack_zip(path: Path, target: Path) -> DumpHeader:
    name = str(path)
    try:
        with (
            path.open("rb") as file,
            _with_member(file) as archive,
            _open_member(archive, path.stat().st_size, name) as member,
        ):
            xml, rest = _split_header(member, name)
            header = parse_header(xml, name)
            _unpack(member, rest, target, name)
    except zipfile.BadZipFile as error:
        if str(error).startswith("Bad CRC"):
            message, hint = "its content does not match its checksum", "the dump is damaged: copy it again"
        else:
            message = "is neither a zip file nor a Mach-O core"
            hint = (
                "a dump is a zip file with a member minidump.dmp, a core file of macOS, or a minidump of Crashpad or"
                " Breakpad; a cut copy is none of them"
            )
            if not path.stat().st_size:
                message, hint = f"{message}, but empty", "copy it again"
            elif _is_text(path):
                message += ", but text that is no crash report"
                hint = "of texts, crash reports (.ips, .crash) are read, not what sample and spindump write"
        raise DumpError(f"{name}: {message}", hint=hint) from error
    except (zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise DumpError(f"{name}: cannot be unpacked: {error}", hint="the dump is damaged: copy it again") from error
    return header


def _is_text(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(1024).decode("utf-8", "ignore")
    return bool(start) and all(c.isprintable() or c.isspace() for c in start)


def _with_member(file: IO[bytes]) -> zipfile.ZipFile:
    """Return the zip file that a file is. Raises BadZipFile."""
    first = None
    for archive in archives(file):
        first = first or archive
        if any(i.filename == MEMBER for i in archive.infolist()):
            return archive
    if first is None:
        raise zipfile.BadZipFile("File is not a zip file")
    return first


def _open_member(archive: zipfile.ZipFile, path_size: int, name: str) -> IO[bytes]:
    members = [i for i in archive.infolist() if i.filename == MEMBER]
    if not members:
        names = sorted(i.filename[:60] for i in archive.infolist())
        listed = ", ".join(repr(n) for n in names[:3]) + (", …" if len(names) > 3 else "") if names else "nothing"
        raise DumpError(
            f"{name}: the zip file has no member {MEMBER} (it holds {listed})",
            hint="a dump is a zip file whose member minidump.dmp holds header and core",
        )
    if len(members) > 1:
        raise DumpError(f"{name}: the zip file has {len(members)} members {MEMBER} where one was expected")
    member = members[0]
    if member.flag_bits & 1:
        raise DumpError(f"{name}: {MEMBER} is encrypted", hint="unpack it with its password and zip it again")
    if member.compress_type not in _METHODS:
        raise DumpError(
            f"{name}: {MEMBER} is compressed by method {member.compress_type} where deflate, bzip2 or LZMA was"
            " expected",
            hint="unpack it with what packed it, and zip it again",
        )
    size, packed = member.file_size, member.compress_size
    if size > _MAX_CORE + _MAX_HEADER or (size > _BOMB_SIZE and size > packed * _BOMB_RATIO):
        raise DumpError(
            f"{name}: {MEMBER} claims to unpack from {packed} to {size} bytes",
            hint=f"that looks like a zip bomb; dumps of up to {_MAX_CORE >> 30} GiB are read",
        )
    if not 0 <= member.header_offset < path_size:
        raise DumpError(f"{name}: {MEMBER} is said to begin at byte {member.header_offset} of {path_size}")
    return open_member(archive, member)


def _split_header(member: IO[bytes], name: str) -> tuple[bytes, bytes]:
    """Return the header, `</root>` included, and what was read of the core.

    A comment or CDATA may hold `</root>`, too: the end is the one that a core follows, or else the first.
    """
    data = b""
    first, position = 0, 0
    while True:
        chunk = member.read(_CHUNK)
        data += chunk
        encoding = header_encoding(data)
        for match in _ENDS[encoding].finditer(data, position):
            end = match.end()
            if len(data) - end < _LONGEST_END and chunk:
                break  # what follows it is not there yet
            first = first or end
            core = data[end : end + _LONGEST_END].lstrip(b" \t\r\n" if encoding == "utf-8" else b" \t\r\n\0")
            if core.startswith(LITTLE_64.magic):
                return data[:end], core + data[end + _LONGEST_END :]
            position = end
        position = max(position, len(data) - _LONGEST_END)
        if first and (not chunk or len(data) > first + _CHUNK):
            return data[:first], data[first:]
        if not chunk or len(data) > _MAX_HEADER:
            looked = f"its first {_MAX_HEADER >> 20} MiB" if chunk else f"{len(data)} bytes"
            raise DumpError(
                f"{name}: {MEMBER} has no XML header: </root> is nowhere in {looked}",
                hint="the dump was cut while it was written, or is something else",
            )


def _unpack(member: IO[bytes], first: bytes, target: Path, name: str) -> None:
    """Write the core, leaving out blocks of zeros; reading to the end also checks the member's CRC."""
    zeros = bytes(_CHUNK)
    size = 0
    with target.open("xb") as out:
        chunk = first
        while True:
            if chunk == zeros[: len(chunk)]:
                out.seek(len(chunk), 1)
            else:
                out.write(chunk)
            size += len(chunk)
            if size > _MAX_CORE:
                raise DumpError(f"{name}: the core is larger than {_MAX_CORE >> 30} GiB")
            if not (chunk := member.read(_CHUNK)):
                break
        out.truncate(size)
    if not size:
        raise DumpError(f"{name}: nothing follows the XML header where a Mach-O core was expected")
