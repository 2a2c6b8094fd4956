"""What one UUID can stand for, and how it is written: without the records, whose library takes its time to import."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

__all__ = ["Kind", "uuid_text"]


class Kind(StrEnum):
    """What can be asked for under one UUID; named as in debuginfod's paths."""

    EXECUTABLE = "executable"
    """The image itself: executable, dylib, bundle, dylinker, kext."""
    DEBUGINFO = "debuginfo"
    """Its dSYM companion (`MH_DSYM`): same UUID, other content."""


def uuid_text(uuid: UUID) -> str:
    """Return a UUID the way Apple's tools print it: upper case, 8-4-4-4-12."""
    return str(uuid).upper()
