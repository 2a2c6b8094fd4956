"""Request paths from anybody: every one has a meaning in at most one layout, or none, and never an error."""

from __future__ import annotations

from urllib.parse import unquote

from symcache_server.http.negotiation import accepts_zstd
from symcache_server.http.ranges import parse_range
from symcache_server.layouts import LAYOUTS, match, match_raw_cache

__all__ = ["SEEDS", "one_input"]

_HEX = "23516be429be350c91c9f36e7999f0f1"


def SEEDS() -> list[bytes]:
    """Return a path of each layout, a pinned one, and header fields."""
    tree = "/".join([*(_HEX[n : n + 4] for n in range(0, 20, 4)), _HEX[20:]])
    return [
        f"/buildid/{_HEX}/executable".encode(),
        f"/buildid/{_HEX}/section/__TEXT,__text".encode(),
        f"/libz/mach-uuid-{_HEX}/libz".encode(),
        f"/_./_.dwarf/mach-uuid-sym-{_HEX}/_.dwarf".encode(),
        f"/{_HEX[:2]}/{_HEX[2:]}/meta".encode(),
        f"/{tree}.app".encode(),
        f"/libz/{_HEX.upper()}0/libz.sym".encode(),
        f"/cache/{_HEX}/{tree}".encode(),
        f"/build/22G120/buildid/{_HEX}/debuginfo".encode(),
        f"/caches/{_HEX}/dyld_shared_cache_arm64e.01".encode(),
        b"bytes=0-99,-5",
        b"gzip;q=0.5, zstd;q=1.0",
    ]


def one_input(data: bytes) -> None:
    """Take `data` for a path, raw and unquoted, for a range and for an Accept-Encoding."""
    text = data.decode("utf-8", "surrogateescape")
    for path in (text, unquote(text)):
        wanted = match(path)
        if wanted is not None:
            bare = path
            if wanted.image.cache or wanted.image.build:
                bare = "/" + path.split("/", 3)[3]
            if sum(layout.match(bare) is not None for layout in LAYOUTS) != 1:
                raise AssertionError("a path means two things")
            if match_raw_cache(path) is not None:
                raise AssertionError("a look-up is a raw cache file as well")
        raw = match_raw_cache(path)
        if raw is not None and "/" in raw.name:
            raise AssertionError("the name of a raw cache file has a slash")
    for length in (1, 100, 1 << 40):
        span = parse_range(text, length)
        if span and not 0 <= span[0] <= span[1] < length:
            raise AssertionError("a range lies outside of the file")
    accepts_zstd(text)
