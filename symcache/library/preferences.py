"""Which of several contents a person wants served: a record like any other, which names the content."""

from __future__ import annotations

import re
from uuid import UUID

from symcache import __version__
from symcache.catalog import Occurrence
from symcache.errors import NotFoundError, UsageError
from symcache.library.library import Library
from symcache.library.user_dirs import now, operator, writer_id
from symcache.model import PreferenceRecord, uuid_text
from symcache.store import write_record

__all__ = ["prefer"]

_SHORTEST = 8


def prefer(library: Library, uuid: UUID, sha256: str) -> Occurrence:
    """Decide that of the contents under `uuid`, the one with this SHA-256 (or start of it) is served."""
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
