"""An image that is asked for, and the file that comes back: the same from the command line to the wire.

Cheap to import, as `symcache.kinds` is: hundreds of these are made when a debugger opens a dump.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from symcache.kinds import Kind, uuid_text

__all__ = ["ImageFile", "ImageRequest", "SourceRequest"]


class ImageRequest(NamedTuple):
    """One image that is asked for; `cache` and `build` narrow it to one shared cache's layout or one release.

    With both, the cache decides: it is the more exact of the two.
    """

    uuid: UUID
    kind: Kind = Kind.EXECUTABLE
    cache: UUID | None = None
    build: str | None = None

    def __str__(self) -> str:
        """Return e.g. `executable 23516BE4-… (cache …)`."""
        pin = f" (cache {uuid_text(self.cache)})" if self.cache else f" (build {self.build})" if self.build else ""
        return f"{self.kind} {uuid_text(self.uuid)}{pin}"


class SourceRequest(NamedTuple):
    """One source file that is asked for: a binary made from it, and the absolute path that its compiler recorded."""

    uuid: UUID
    path: str

    def __str__(self) -> str:
        """Return e.g. `/Users/dev/main.c of 23516BE4-…`."""
        return f"{self.path} of {uuid_text(self.uuid)}"


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file on this machine with the image that was asked for. It is never changed."""

    path: Path
    origin: str
    """Where it came from, for people: a folder, a library, the URL of a server."""
    build: str | None = None
    """The macOS build that it was taken from, as far as is known."""
    cache_uuid: UUID | None = None
    """The shared cache whose layout it has; None for a plain file, or where nobody said."""
    sources: tuple[tuple[str, str], ...] = ()
    """Of a dSYM: where its sources are, as (recorded folder, folder here or `git:REPOSITORY@REVISION`), by a note that
    does not lie beside it, as far as the user allows such notes to be followed."""
    sha256: str = ""
    """Of the file, lower-case hex; empty where it is not known."""
