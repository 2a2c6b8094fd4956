"""What a record says of an image besides its names, taken from its bytes wherever they are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from uuid import UUID

from symcache.errors import IntegrityError
from symcache.macho import Slice, code_fingerprint, identify_bytes
from symcache.model import Kind, uuid_text

__all__ = ["HEAD", "check_image", "code_facts"]

HEAD = 32 << 10
"""Bytes of an image that tell what it is, if its load commands are not longer."""
_CODE_LIMIT = 64 << 20


def check_image(head: bytes, size: int, path: str, arch: str, kind: Kind, uuid: UUID | None) -> Slice:
    """Return what an image of `size` bytes that begins with `head` is. Raises IntegrityError for anything but that."""
    slices = identify_bytes(head, size)
    if len(slices) != 1:
        raise IntegrityError(f"{path}: is {len(slices)} images where one Mach-O was expected")
    found = slices[0]
    if found.uuid != uuid or found.kind is not kind or found.arch != arch:
        want = f"{arch} {kind} {uuid_text(uuid) if uuid else 'without UUID'}"
        got = f"{found.arch} {found.kind} {uuid_text(found.uuid) if found.uuid else 'without UUID'}"
        raise IntegrityError(f"{path}: holds {got} where {want} was expected")
    return found


def code_facts(head: bytes, size: int, read: Callable[[int, int], Iterable[bytes | memoryview]]) -> tuple[int, str]:
    """Return (entries of the symbol table, hash of the code; empty without code), of what `check_image` accepted.

    `read` returns the bytes of a range, given by offset and size.
    """
    fingerprint = code_fingerprint(head, size)
    if not fingerprint.text_size:
        return fingerprint.symbols, ""
    digest = hashlib.sha256()
    for piece in read(fingerprint.text_offset, min(fingerprint.text_size, _CODE_LIMIT)):
        digest.update(piece)
    return fingerprint.symbols, digest.hexdigest()[:16]
