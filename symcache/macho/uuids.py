"""UUIDs as people and debuggers write them."""

from __future__ import annotations

import re
from uuid import UUID

from symcache.errors import UsageError

__all__ = ["parse_uuid"]

_UUID = re.compile(r"[0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def parse_uuid(text: str) -> UUID:
    """Return the UUID that `text` spells, in either case, with or without hyphens. Raises UsageError."""
    if not _UUID.fullmatch(text):
        raise UsageError(
            f"{text[:60]!r}: not a UUID", hint="write 32 hex digits, with or without hyphens (`dwarfdump --uuid FILE`)"
        )
    return UUID(text)
