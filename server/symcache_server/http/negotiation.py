"""What a client accepts: encodings of a content, and what it has already (RFC 9110 12.5.3 and 13)."""

from __future__ import annotations

import gzip
import re
from functools import lru_cache

import zstandard

__all__ = ["accepts_zstd", "compressed", "entity_tags"]

_CODING = re.compile(r"\s*(zstd|gzip|identity)\s*(?:;\s*q=([0-9.]+)\s*)?", re.IGNORECASE)
_WORTH_IT = 16 << 10


@lru_cache(256)
def accepts_zstd(field: str) -> bool:
    """Return whether a client accepts zstd, and does not prefer the plain content (RFC 9110 12.5.3).

    `*` does not count: nobody means it. `field` is its Accept-Encoding, of several all with commas between them.
    """
    return _accepts("zstd", field)


def _accepts(coding: str, field: str) -> bool:
    weights: dict[str, float] = {}
    for part in field.split(","):
        if matched := _CODING.fullmatch(part):
            weights.setdefault(matched[1].lower(), _weight(matched[2]))
    weight = weights.get(coding, 0.0)
    return weight > 0 and weight >= weights.get("identity", 0.0)


def compressed(body: bytes, field: str) -> tuple[bytes, dict[str, str]]:
    """Return a body, compressed if it is worth it and Accept-Encoding allows it, and the headers for that."""
    if len(body) < _WORTH_IT:
        return body, {}
    if accepts_zstd(field):
        return zstandard.ZstdCompressor(level=1).compress(body), {"Content-Encoding": "zstd"}
    if _accepts("gzip", field):
        return gzip.compress(body, 1, mtime=0), {"Content-Encoding": "gzip"}
    return body, {}


def _weight(text: str | None) -> float:
    try:
        return 1.0 if text is None else float(text)
    except ValueError:
        return 0.0


def entity_tags(field: str, *, weak: bool = False) -> set[str]:
    """Return the entity tags of a list; for a `weak` comparison without the mark of weak ones (RFC 9110 8.8.3.2)."""
    tags = (tag.strip() for tag in field.split(","))
    return {tag.removeprefix("W/") for tag in tags} if weak else set(tags)
