"""Which of several contents a person wants served: a record like any other, which names the content."""

from __future__ import annotations

import re
from uuid import UUID

from symcache import __version__
from symcache.catalog import Occurrence
from symcache.errors import IncompleteError, NotFoundError, UsageError
from symcache.library.library import Library
from symcache.library.tombstones import take_back
from symcache.library.user_dirs import now, operator
from symcache.model import PreferenceRecord, uuid_text
from symcache.store import blob_key

__all__ = ["prefer"]


def prefer(library: Library, uuid: UUID, sha256: str) -> Occurrence:
    """Decide that of the contents under `uuid`, the one with this SHA-256 (or start of it) is served.

    Raises UsageError, NotFoundError when it is not there or is removed meanwhile, and IncompleteError when somebody
    decides otherwise at the same moment.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{8,64}", sha256):
        raise UsageError(f"{sha256[:80]!r}: not the start of a SHA-256", hint="give its first 8 hex digits or more")
    library.refresh()
    chosen = _choose(library, uuid, sha256)
    if library.store.stat(blob_key(chosen.sha256)) is None:
        raise NotFoundError(
            f"{uuid_text(uuid)}: the blob of {chosen.sha256} is gone", hint="`symcache fsck --repair` may bring it back"
        )
    record = PreferenceRecord(
        supersedes=tuple(library.catalog.preferences_of(uuid, chosen.kind, chosen.cache_uuid)),
        uuid=uuid,
        kind=chosen.kind,
        cache_uuid=chosen.cache_uuid,
        sha256=chosen.sha256,
        tool=f"symcache {__version__}",
        operator=operator(),
        finished=now(),
    )
    identity = library.write(record)
    library.refresh()
    contents = [o.sha256 for o in library.variants(uuid) if o.key.listed == chosen.key.listed]
    if chosen.sha256 not in contents:
        take_back(library, [identity], "", "names what was removed meanwhile")
        raise NotFoundError(
            f"{uuid_text(uuid)}: {chosen.sha256} was removed at this moment", hint="harvest it again to have it back"
        )
    if contents[0] != chosen.sha256:
        raise IncompleteError(
            f"{uuid_text(uuid)}: somebody has decided for {contents[0]} at this moment",
            hint="agree with them, then run the same command again",
        )
    return chosen


def _choose(library: Library, uuid: UUID, sha256: str) -> Occurrence:
    variants = library.variants(uuid)
    rows = [o for o in variants if o.sha256.startswith(sha256.lower())]
    if not rows:
        known = ", ".join(sorted({o.sha256[:12] for o in variants})) or "nothing"
        raise NotFoundError(
            f"{uuid_text(uuid)}: no content {sha256} under it, only {known}",
            hint=f"`symcache lookup {uuid_text(uuid)} --json` lists all contents",
        )
    if len({o.sha256 for o in rows}) > 1:
        raise UsageError(f"{sha256}: several contents start like this", hint="give more digits of the SHA-256")
    return rows[0]
