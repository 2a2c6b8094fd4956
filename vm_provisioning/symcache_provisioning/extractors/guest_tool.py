"""The interface of extractors that run in the guest, and what they have in common.

Their exit status proves nothing: what they extracted is compared with a list of the cache's images.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol
from uuid import UUID

from symcache.errors import IntegrityError, MachOError, RemoteError
from symcache.macho import Slice, identify, mach_header
from symcache.model import uuid_text
from symcache.text import excerpt
from symcache_provisioning.sources.entries import RemoteCache
from symcache_provisioning.sources.machine import SshSource
from symcache_provisioning.ssh.guest_folder import guest_folder
from symcache_provisioning.ssh.packets import ConnectionLostError
from symcache_provisioning.ssh.session import RemoteOutput

__all__ = [
    "EXTRACTED_SIZE",
    "GuestTool",
    "ListedImage",
    "Listing",
    "NoSpaceError",
    "check_image",
    "free_bytes",
    "run_extractor",
    "stderr_lines",
    "temporary_folder",
]

EXTRACTED_SIZE = 2
"""Space that an extracted cache needs, in sizes of the raw one."""
_REMOVE_SECONDS = 60
"""Limit for removing a folder there; signals are deferred meanwhile."""
_EXTRACT_SECONDS = 3600
_ENDING_SECONDS = 0.5
_OUTPUT = 64 << 20


class NoSpaceError(RemoteError):
    """The guest has too little disk space to extract a cache there."""


class ListedImage(NamedTuple):
    """One image of a list. `address` is its unslid VM address."""

    path: str
    uuid: UUID | None
    address: int


class Listing(NamedTuple):
    """The images of a cache."""

    origin: str
    """Where the list comes from, for messages."""
    images: list[ListedImage]
    doubts: list[str]
    """Reasons not to believe the list."""


class GuestTool(Protocol):
    """A program that extracts caches in the guest."""

    @property
    def name(self) -> str:
        """Name in records of the extractor of its images."""

    @property
    def advice(self) -> str:
        """What to do when it fails."""

    def list_images(self, cache: RemoteCache, folder: Path) -> Listing:
        """Return the images of a cache, each once; `folder` is for files. Raises RemoteError, SharedCacheError."""

    def extract(self, cache: str, need: int) -> AbstractContextManager[tuple[SshSource, list[str]]]:
        """Extract a cache into a fresh folder in the guest, which is removed at the end.

        Yields that folder as a tree whose paths are install names, and what the tool printed to stderr. Each cache
        has its own folder: older extractors merge with existing files, newer ones overwrite them. `need` is how many
        bytes must be free.

        Raises RemoteError when the tool fails, NoSpaceError when there is too little space.
        """


@contextmanager
def temporary_folder(source: SshSource, need: int) -> Iterator[str]:
    """Make a temporary folder in the guest; see `guest_folder`. If it cannot be removed, the error or a note says so.

    Raises NoSpaceError where fewer than `need` bytes are free, RemoteError.
    """

    def remove(argv: Sequence[str]) -> RemoteOutput:
        return source.run(argv, timeout=_REMOVE_SECONDS)  # not the session's: the connection may be lost by now

    with guest_folder(source.name, source.session, remove, source.notes.append) as folder:
        free = free_bytes(source, folder)
        if free is not None and free < need:
            raise NoSpaceError(
                f"{source.name}: {free >> 20} MiB are free in {folder} where {(need >> 20) + 1} MiB are needed",
                hint="free some space there, or harvest with --extractor raw, which needs none",
            )
        yield folder


def run_extractor(source: SshSource, argv: Sequence[str]) -> RemoteOutput:
    """Run an extractor, which is killed when this process ends. Raises RemoteError, never for an exit status."""
    try:
        return source.session.run(argv, timeout=_EXTRACT_SECONDS, max_output=_OUTPUT, watched=True)
    except ConnectionLostError:
        time.sleep(_ENDING_SECONDS)  # we cannot see when it has ended; it might write to its folder again
        raise


def stderr_lines(output: RemoteOutput, *, none: Sequence[str] = ("it said nothing",)) -> list[str]:
    """Return the lines that a program wrote to stderr, escaped; `none` if it wrote none."""
    lines = output.stderr.decode("utf-8", "backslashreplace").splitlines()
    return [excerpt(line) for line in lines if line.strip()] or list(none)


def free_bytes(source: SshSource, folder: str) -> int | None:
    """Return the free space of a folder's volume in the guest, or None if df does not tell."""
    output = source.run(["/bin/df", "-kP", folder], max_output=1 << 16)
    fields = output.stdout.decode("ascii", "replace").splitlines()[-1:]
    # Filesystem, 1024-blocks, Used, Available, Capacity, Mounted on; the first may contain blanks.
    match = re.search(r" ([0-9]{1,15}) +[0-9]+% ", fields[0]) if fields else None
    return int(match[1]) * 1024 if match and output.status == 0 else None


def check_image(file: Path, image: ListedImage, arch: str, tool: str) -> Slice:
    """Return the image in a file that `tool` extracted from a cache of `arch`. Raises SymcacheError for another."""
    slices = identify(file)
    if len(slices) != 1:
        raise IntegrityError(f"{excerpt(image.path)}: {tool} made a file of {len(slices)} images")
    extracted = slices[0]
    _check_whole(file, extracted)
    if extracted.arch[:5] != arch[:5]:  # x86_64h has images of x86_64, too
        raise IntegrityError(f"{excerpt(image.path)}: {tool} made an image for {extracted.arch}")
    if extracted.uuid != image.uuid:
        got = uuid_text(extracted.uuid) if extracted.uuid else "none"
        raise IntegrityError(f"{excerpt(image.path)}: {tool} made an image of UUID {got}, the cache lists another")
    return extracted


def _check_whole(file: Path, image: Slice) -> None:
    """Make sure that an extracted image holds the bytes its load commands speak of. Raises MachOError.

    Apple's extractor goes on after errors in one image and leaves it cut. Looks at segment_command, segment_command_64
    and symtab_command (<mach-o/loader.h>); the image must have been identified, so its commands are in bounds.
    """
    with file.open("rb") as opened:
        opened.seek(image.offset)
        header = mach_header(opened.read(32))
        if header is None:
            raise MachOError(f"{file}: holds no image at {image.offset:#x}")
        opened.seek(image.offset)
        head = opened.read(header.commands_end)
    for command in header.load_commands(head):
        end = 0
        if segment := command.segment():
            end = segment.fileoff + segment.filesize
        elif symtab := command.symtab():
            end = max(symtab.symoff + symtab.nsyms * header.structs.nlist_size, symtab.stroff + symtab.strsize)
        if end > image.size:
            raise MachOError(f"{file}: ends at {image.size:#x} where its load commands speak of bytes up to {end:#x}")
