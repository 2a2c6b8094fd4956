"""What a path requests."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from symcache.images import ImageRequest
from symcache.model import Kind

__all__ = ["Lookup", "RawCacheFile", "What"]


class What(StrEnum):
    """The things that can be requested under a UUID."""

    EXECUTABLE = "executable"
    """The binary."""
    DEBUGINFO = "debuginfo"
    """Its dSYM."""
    META = "meta"
    """JSON: name, architecture and format (unified layout)."""
    BREAKPAD = "breakpad"
    """A Breakpad symbol file made from the binary."""
    SECTION = "section"
    """The bytes of one section (debuginfod)."""
    SOURCE = "source"
    """A source file (debuginfod): comes from the trees that the operator named, not from the library."""

    @property
    def kind(self) -> Kind:
        """The kind of image that is looked for first."""
        return Kind.DEBUGINFO if self is What.DEBUGINFO else Kind.EXECUTABLE


@dataclass(frozen=True, slots=True)
class Lookup:
    """One request, whatever the layout."""

    layout: str
    what: What
    image: ImageRequest
    """The image to send, or to make the response from, with the pin in front of the path."""
    detail: str = ""
    """Name of the section or path of the source."""
    name: str = ""
    """File name, where the layout has one: nothing depends on it, but it tells people what is missing."""


class RawCacheFile(NamedTuple):
    """One raw file of a shared cache."""

    cache_uuid: UUID
    name: str
