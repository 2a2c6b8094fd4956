"""What a client accepts: encodings of a content, and what it has already (RFC 9110 12.5.3 and 13)."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["accepts_zstd", "entity_tags"]

_CODING = re.compile(r"\s*(zstd|identity)\s*(?:;\s*q=([0-9.]+)\s*)?", re.IGNORECASE)


@lru_cache(256)
def accepts_zstd(field: str) -> bool:
    """Return whether a client takes zstd, and not rather the plain content (RFC 9110 12.5.3).

    `*` does not count: nobody means it. `field` is its Accept-Encoding, of several all with commas between them.
    """
    weights: dict[str, float] = {}
    for part in field.split(","):
        if matched := _CODING.fullmatch(part):
            weights.setdefault(matched[1].lower(), _weight(matched[2]))
    zstd = weights.get("zstd", 0.0)
    return zstd > 0 and zstd >= weights.get("identity", 0.0)


def _weight(text: str | None) -> float:
    try:
        return 1.0 if text is None else float(text)
    except ValueError:
        return 0.0


def entity_tags(field: str, *, weak: bool = False) -> set[str]:
    """Return the entity tags of a list; for a `weak` comparison without the mark of weak ones (RFC 9110 8.8.3.2)."""
    tags = (tag.strip() for tag in field.split(","))
    return {tag.removeprefix("W/") for tag in tags} if weak else set(tags)
