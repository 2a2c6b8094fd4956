"""Taking records back: a tombstone is a record like any other, and names those that count no longer."""

from __future__ import annotations

from collections.abc import Sequence

from symcache import __version__
from symcache.errors import NotFoundError
from symcache.library.library import Library
from symcache.library.user_dirs import now, operator
from symcache.model import TombstoneRecord

__all__ = ["remove_build", "take_back"]


def remove_build(library: Library, build: str, *, reason: str = "") -> list[str]:
    """Take back every record of a build: a tombstone. Returns the ids of the records. Raises NotFoundError."""
    library.refresh()
    ids = sorted(row.sha256 for row in library.catalog.records_of(build))
    if not ids:
        raise NotFoundError(
            f"{build}: the library has nothing of this build", hint="`symcache releases` lists what it has"
        )
    take_back(library, ids, build, reason)
    # What was made of these records meanwhile could not be named: its maker looks for the tombstone, and this for it.
    while made := library.catalog.superseding(ids):
        take_back(library, made, build, reason)
        ids += made
    return ids


def take_back(library: Library, ids: Sequence[str], build: str, reason: str) -> None:
    """Write a tombstone for the records of these ids, and fold in what has come since."""
    tombstone = TombstoneRecord(
        removes=tuple(ids),
        build=build,
        reason=reason,
        tool=f"symcache {__version__}",
        operator=operator(),
        finished=now(),
    )
    library.write(tombstone)
    library.refresh()
