"""`dyld_shared_cache_util` in the guest: finding it, parsing its output, and checking what it extracted.

Output formats: dyld's other-tools/dyld_shared_cache_util.cpp, 10.13 to 26. It exits 0 with nothing extracted, with
truncated images, and with a missing `.symbols`; so its list, its errors and its files are compared with each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from symcache.errors import NotFoundError, RemoteError
from symcache.model import uuid_text
from symcache.text import excerpt
from symcache_provisioning.extractors.guest_tool import (
    ListedImage,
    Listing,
    run_extractor,
    stderr_lines,
    temporary_folder,
)
from symcache_provisioning.sources.entries import RemoteCache, refusal
from symcache_provisioning.sources.machine import SshSource

__all__ = ["TOOL", "CacheInfo", "CacheUtil", "parse_info", "parse_text_info"]

TOOL = "dyld_shared_cache_util"
"""Name in records of the extractor of its images."""
_LOCATIONS = (f"/usr/local/bin/{TOOL}", f"/usr/bin/{TOOL}")
_LIST_OUTPUT = 64 << 20
_LIST_SECONDS = 300
_UUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_TEXT_LINE = re.compile(rf" +0x([0-9A-Fa-f]{{1,16}}) -> 0x[0-9A-Fa-f]{{1,16}}  <({_UUID})>  (/.+)")
_TEXT_HEADER = re.compile(r"dylib text infos \(count=([0-9]{1,9})\):")
_NO_UUID = UUID(int=0)


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """What `-info` prints about a cache. `image_count` is None where this version of the tool does not print it."""

    uuid: UUID | None
    image_count: int | None


def parse_text_info(output: bytes) -> list[ListedImage]:
    """Parse `-text_info`: every image once. Raises RemoteError where lines and the announced count differ."""
    lines = _lines(output)
    header = _TEXT_HEADER.fullmatch(lines[0]) if lines else None
    if header is None:
        raise RemoteError(
            f"{TOOL} -text_info printed {excerpt(lines[0]) if lines else 'nothing'!r} where a count belongs"
        )
    images = []
    for line in lines[1:]:
        match = _TEXT_LINE.fullmatch(line)
        if match is None:
            raise RemoteError(f"{TOOL} -text_info printed {excerpt(line)!r}, which is no line of its list")
        address, uuid, path = match.groups()
        _check_path(path, "-text_info")
        images.append(ListedImage(path, _uuid(uuid), int(address, 16)))
    if len(images) != int(header[1]):
        raise RemoteError(f"{TOOL} -text_info announced {header[1]} images and listed {len(images)}")
    return images


def parse_info(output: bytes) -> CacheInfo:
    """Parse the part of `-info` before its mappings. Raises RemoteError for an invalid UUID or count."""
    values: dict[str, str] = {}
    for line in _lines(output):
        key, colon, value = line.partition(":")
        if key.strip() == "mappings":
            break
        if colon:
            values.setdefault(key.strip(), value.strip())
    uuid, count = values.get("uuid"), values.get("image count")
    if uuid is None or not re.fullmatch(rf"{_UUID}|n/a", uuid) or (count is not None and not count.isdecimal()):
        raise RemoteError(f"{TOOL} -info printed {excerpt(output)!r}, which names no cache")
    return CacheInfo(None if uuid == "n/a" else _uuid(uuid), int(count) if count else None)


def _check_path(path: str, verb: str) -> None:
    """Raise RemoteError for a path that no extracted file could have."""
    if any(refusal(part.encode()) for part in path.split("/") if part not in {"", "."}):
        raise RemoteError(f"{TOOL} {verb} printed {excerpt(path)!r}, which is no path of an image")


def _lines(output: bytes) -> list[str]:
    """Return the lines that are not empty. Raises RemoteError for output that is cut off or not UTF-8."""
    if output and not output.endswith(b"\n"):
        raise RemoteError(f"{TOOL} stopped printing in the middle of a line: {excerpt(output[-60:])!r}")
    try:
        return [line for line in output.decode().replace("\r\n", "\n").split("\n") if line]
    except UnicodeDecodeError as error:
        raise RemoteError(f"{TOOL} printed bytes that are not UTF-8: {excerpt(output[error.start :], 60)}") from error


def _uuid(text: str) -> UUID | None:
    uuid = UUID(text)
    return None if uuid == _NO_UUID else uuid


class CacheUtil:
    """dyld_shared_cache_util at a path on a machine."""

    name = TOOL
    advice = "build it from Apple's dyld sources of that release, or harvest with --extractor raw"

    def __init__(self, source: SshSource, path: str) -> None:
        self._source, self.path = source, path

    @classmethod
    def find(cls, source: SshSource, path: str | None = None) -> CacheUtil | None:
        """Return the tool at `path`, or where it is usually installed; None if it is not there.

        Raises NotFoundError when `path` is given and is not the tool.
        """
        for location in (path,) if path else _LOCATIONS:
            # Without arguments it prints its usage and exits 1.
            output = source.run([location], max_output=1 << 16)
            if f"Usage: {TOOL}".encode() in output.stderr + output.stdout:
                return cls(source, location)
        if path:
            raise NotFoundError(
                f"{source.name}: {excerpt(path)} is not {TOOL}",
                hint="name where it is installed there, or harvest with --extractor raw",
            )
        return None

    def images(self, cache: str) -> list[ListedImage]:
        """Return every image of a cache, once each. Raises RemoteError when the tool cannot read it."""
        return parse_text_info(self._print("-text_info", cache))

    def info(self, cache: str) -> CacheInfo:
        """Return what `-info` prints about a cache. Raises RemoteError."""
        return parse_info(self._print("-info", cache))

    def _print(self, verb: str, cache: str) -> bytes:
        argv = [self.path, verb, self._source.remote(cache).decode()]
        output = self._source.run(argv, timeout=_LIST_SECONDS, max_output=_LIST_OUTPUT)
        if output.status != 0:
            raise RemoteError(f"{TOOL} {verb} {excerpt(cache)} ended with {output.status}: {stderr_lines(output)[0]}")
        return output.stdout

    def list_images(self, cache: RemoteCache, folder: Path) -> Listing:
        """See GuestTool: by `-text_info`, compared with `-info` and with the cache's header."""
        del folder
        where, doubts = excerpt(cache.path), []
        info, images = self.info(cache.path), self.images(cache.path)
        if info.uuid != cache.uuid:
            printed = uuid_text(info.uuid) if info.uuid else "none"
            in_header = uuid_text(cache.uuid) if cache.uuid else "none"
            doubts.append(f"{where}: {TOOL} says its UUID is {printed}, its header says {in_header}")
        if info.image_count is not None and info.image_count != len(images):
            doubts.append(
                f"{where}: {TOOL} counts {info.image_count} images and lists {len(images)}: is it older than the cache?"
            )
        if not images:
            doubts.append(f"{where}: {TOOL} lists no image at all")
        return Listing(f"{TOOL} -text_info", images, doubts)

    @contextmanager
    def extract(self, cache: str, need: int) -> Iterator[tuple[SshSource, list[str]]]:
        """See GuestTool."""
        source = self._source
        with temporary_folder(source, need) as folder:
            argv = [self.path, "-extract", folder, source.remote(cache).decode()]
            output = run_extractor(source, argv)
            if output.status != 0:
                raise RemoteError(
                    f"{TOOL} -extract {excerpt(cache)} ended with {output.status}: {stderr_lines(output)[0]}",
                    hint="harvest with --extractor raw",
                )
            yield SshSource(source.session, root=folder, limits=source.limits), stderr_lines(output, none=())
