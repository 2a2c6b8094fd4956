"""Export tries and the path trie of a shared cache: decode and encode."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.cachewriter.fixups import uleb


def uleb_bytes(value: int) -> bytes:
    out = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        out.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(out)


@dataclass(frozen=True)
class Export:
    """One leaf of an exports trie. `address` is relative to the header; a re-export has `ordinal` and `imported`."""

    flags: int
    address: int = 0
    resolver: int = 0
    ordinal: int = 0
    imported: str = ""

    @property
    def reexport(self) -> bool:
        return bool(self.flags & 8)

    def payload(self) -> bytes:
        if self.reexport:
            imported = self.imported.encode("utf-8", "surrogateescape")
            return uleb_bytes(self.flags) + uleb_bytes(self.ordinal) + imported + b"\0"
        tail = uleb_bytes(self.resolver) if self.flags & 0x10 else b""
        # Data may lie below the header: the distance then wraps around in 64 bits.
        return uleb_bytes(self.flags) + uleb_bytes(self.address & 0xFFFFFFFFFFFFFFFF) + tail


def exports_of(trie: bytes) -> dict[str, Export]:
    """All names of an exports trie."""
    found: dict[str, Export] = {}
    stack = [(0, b"")] if trie else []
    while stack:
        node, prefix = stack.pop()
        size, at = uleb(trie, node)
        children = at + size
        if size:
            flags, at = uleb(trie, at)
            name = prefix.decode("utf-8", "surrogateescape")
            if flags & 8:
                ordinal, at = uleb(trie, at)
                imported = trie[at : trie.index(0, at)].decode("utf-8", "surrogateescape")
                found[name] = Export(flags, ordinal=ordinal, imported=imported)
            else:
                address, at = uleb(trie, at)
                resolver = uleb(trie, at)[0] if flags & 0x10 else 0
                found[name] = Export(flags, address, resolver)
        count, at = trie[children], children + 1
        for _ in range(count):
            end = trie.index(0, at)
            edge = trie[at:end]
            child, at = uleb(trie, end + 1)
            stack.append((child, prefix + edge))
    return found


@dataclass
class _Node:
    payload: bytes = b""
    children: list[tuple[bytes, Any]] = field(default_factory=list)
    offset: int = 0

    def size(self) -> int:
        size = len(uleb_bytes(len(self.payload))) + len(self.payload) + 1
        return size + sum(len(edge) + 1 + len(uleb_bytes(child.offset)) for edge, child in self.children)


def _tree(items: list[tuple[bytes, bytes]], depth: int, nodes: list[_Node]) -> _Node:
    """A radix tree over sorted (key, payload) pairs that agree in their first `depth` bytes."""
    node = _Node()
    nodes.append(node)
    if items and len(items[0][0]) == depth:
        node.payload = items[0][1]
        items = items[1:]
    start = 0
    while start < len(items):
        first = items[start][0][depth]
        end = start
        while end < len(items) and items[end][0][depth] == first:
            end += 1
        low, high = items[start][0], items[end - 1][0]
        common = depth + 1
        while common < min(len(low), len(high)) and low[common] == high[common]:
            common += 1
        node.children.append((low[depth:common], _tree(items[start:end], common, nodes)))
        start = end
    return node


def trie_bytes(items: dict[bytes, bytes]) -> bytes:
    """Encode name to payload pairs; an empty mapping gives an empty trie."""
    if not items:
        return b""
    nodes: list[_Node] = []
    _tree(sorted(items.items()), 0, nodes)
    while True:
        at, changed = 0, False
        for node in nodes:
            changed |= node.offset != at
            node.offset = at
            at += node.size()
        if not changed:
            break
    out = bytearray()
    for node in nodes:
        out += uleb_bytes(len(node.payload)) + node.payload + bytes([len(node.children)])
        for edge, child in node.children:
            out += edge + b"\0" + uleb_bytes(child.offset)
    return bytes(out)
