"""Tries of dyld: paths of images, and exported symbols. One walk for both, bounded against cycles.

Source: `dyld`'s Trie.hpp and <mach-o/loader.h> (exports trie). A node is: ULEB128 size of its terminal payload, the
payload, a count of children, and per child an edge string and the ULEB128 offset of its node.
"""

from __future__ import annotations

from collections.abc import Iterator

from symcache.errors import SharedCacheError

__all__ = ["uleb", "walk", "walk_exports", "walk_paths"]

_KIND, _ABSOLUTE, _REEXPORT = 0x03, 0x02, 0x08
"""EXPORT_SYMBOL_FLAGS_KIND_MASK, _KIND_ABSOLUTE, _REEXPORT."""

_MAX_NAME = 65_536
_NAME_BYTES_A_BYTE = 64
"""What all names together may have for each byte of the trie; those of real ones have about ten."""
_MAX_NAME_BYTES = 512 << 20
_MAX_NODES = 4_000_000


def uleb(data: bytes, position: int, what: str) -> tuple[int, int]:
    """Return (value, position behind it) of the ULEB128 number at `position`; at most 64 bits."""
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise SharedCacheError(f"{what}: a number at {position:#x} does not end")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def walk(trie: bytes, what: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield (name, terminal payload) of every terminal node, in the order of the trie.

    Raises SharedCacheError for bytes that are no trie.
    """
    stack: list[tuple[int, bytes]] = [(0, b"")]
    seen: set[int] = set()
    budget = min(_NAME_BYTES_A_BYTE * len(trie) + _MAX_NAME, _MAX_NAME_BYTES)
    while stack:
        position, name = stack.pop()
        if position in seen or position >= len(trie):
            raise SharedCacheError(
                f"{what}: node at {position:#x} is visited twice, or outside of {len(trie):#x} bytes"
            )
        seen.add(position)
        if len(seen) > _MAX_NODES:
            raise SharedCacheError(f"{what}: more than {_MAX_NODES} nodes")
        size, position = uleb(trie, position, what)
        if position + size >= len(trie):
            raise SharedCacheError(f"{what}: a terminal of {size} bytes at {position:#x} lies beyond its end")
        if size:
            yield name, trie[position : position + size]
        position += size
        count = trie[position]
        position += 1
        children = []
        for _ in range(count):
            end = trie.find(b"\0", position, position + _MAX_NAME)
            if end < 0:
                raise SharedCacheError(f"{what}: an edge at {position:#x} does not end")
            edge = trie[position:end]
            child, position = uleb(trie, end + 1, what)
            budget -= len(name) + len(edge)
            if budget < 0:
                raise SharedCacheError(f"{what}: its names are absurdly long for {len(trie):#x} bytes")
            children.append((child, name + edge))
        stack += reversed(children)


def walk_exports(trie: bytes, what: str) -> Iterator[tuple[bytes, int | None]]:
    """Yield (name, offset from the image's header) of an exports trie.

    The offset is None for a symbol that another image has, and for an absolute value. Raises SharedCacheError.
    """
    for name, payload in walk(trie, what):
        flags, position = uleb(payload, 0, what)
        is_here = not flags & _REEXPORT and flags & _KIND != _ABSOLUTE
        yield name, uleb(payload, position, what)[0] if is_here else None


def walk_paths(trie: bytes, what: str) -> Iterator[tuple[str, int]]:
    """Yield (path, image index) of the dylibs trie of a cache. Raises SharedCacheError."""
    for name, payload in walk(trie, what):
        yield name.decode("utf-8", "surrogateescape"), uleb(payload, 0, what)[0]
