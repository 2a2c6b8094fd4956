"""What a person decides about a library: records like any other, which name the records or contents they concern."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from symcache import __version__
from symcache.catalog import Occurrence
from symcache.errors import NotFoundError, UsageError
from symcache.library.user_dirs import now, operator, writer_id
from symcache.model import PreferenceRecord, TombstoneRecord, uuid_text
from symcache.store import write_record

if TYPE_CHECKING:
    from symcache.library.library import Library

__all__ = ["prefer", "remove", "take_back"]

_SHORTEST = 8


def remove(library: Library, build: str, reason: str) -> list[str]:
    """See `Library.remove`."""
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
    write_record(library.store, tombstone, writer_id())
    library.refresh()


def prefer(library: Library, uuid: UUID, sha256: str) -> Occurrence:
    """See `Library.prefer`."""
    if not re.fullmatch(r"[0-9a-fA-F]{8,64}", sha256):
        raise UsageError(
            f"{sha256[:80]!r}: not the start of a SHA-256", hint=f"give its first {_SHORTEST} hex digits or more"
        )
    library.refresh()
    rows = [o for o in library.variants(uuid) if o.sha256.startswith(sha256.lower())]
    if not rows:
        known = ", ".join(sorted({o.sha256[:12] for o in library.variants(uuid)})) or "nothing"
        raise NotFoundError(
            f"{uuid_text(uuid)}: no content {sha256} under it, only {known}",
            hint=f"`symcache lookup {uuid_text(uuid)} --json` lists all contents",
        )
    if len({o.sha256 for o in rows}) > 1:
        raise UsageError(f"{sha256}: several contents start like this", hint="give more digits of the SHA-256")
    chosen = rows[0]
    earlier = library.catalog.preferences_of(uuid, chosen.kind, chosen.cache_uuid)
    record = PreferenceRecord(
        supersedes=tuple(earlier),
        uuid=uuid,
        kind=chosen.kind,
        cache_uuid=chosen.cache_uuid,
        sha256=chosen.sha256,
        tool=f"symcache {__version__}",
        operator=operator(),
        finished=now(),
    )
    write_record(library.store, record, writer_id())
    library.refresh()
    return chosen
