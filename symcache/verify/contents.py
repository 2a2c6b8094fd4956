"""One stored content held against what its record says of it: by its first bytes, or by all of them."""

from __future__ import annotations

import os
from typing import BinaryIO, NamedTuple
from uuid import UUID

import zstandard

from symcache.dyld import EXTRACTOR
from symcache.errors import IntegrityError, MachOError, NotFoundError
from symcache.library import Library
from symcache.model import Kind, uuid_text
from symcache.store import BlobReader, Store, blob_key, frame_sizes, unreadable_is_damaged
from symcache.verify.findings import FindingCode
from symcache.verify.image_scan import ImageScan, Reference
from symcache.verify.layout import HEADER_SIZE, Layout, Problem, commands_end, parse_layout

__all__ = ["Content", "ContentError", "check_content", "read_head"]

_HEAD = 16 << 10
"""Holds the load commands of nearly every image."""
_FRAME_HEADER = 18
"""The longest header of a zstd frame."""


class Content(NamedTuple):
    """A blob and what it should be."""

    sha256: str
    size: int
    uuid: UUID | None
    kind: Kind
    arch: str


class ContentError(IntegrityError):
    """A content that is not what was stored; `problem` says in which way."""

    def __init__(self, code: FindingCode, text: str) -> None:
        super().__init__(text)
        self.problem: Problem = (code, text)


def check_content(
    library: Library, content: Content, *, every_byte: bool, reference: Reference | None = None, extractor: str = ""
) -> list[Problem]:
    """Return what is wrong with one content; nothing else is looked at once its bytes cannot be trusted."""
    store = library.store
    try:
        if every_byte:
            try:
                layout, problems = _scan(store, content, reference)
            except IntegrityError:
                _check_head(content, read_head(store, content.sha256, content.size, _HEAD, whole_commands=True))
                raise  # the first bytes tell nothing more exact
        else:
            layout = _check_head(content, read_head(store, content.sha256, content.size, _HEAD, whole_commands=True))
            problems = list(layout.problems(content.size))
        if not (problems or reference or extractor in {"", EXTRACTOR} or (layout.symtab and layout.symtab.nsyms)):
            # Apple's extractor goes on after errors, and leaves an image without its symbols behind.
            problems.append((FindingCode.SYMBOL_COUNT, f"{extractor} left it without any symbol"))
        return problems
    except ContentError as wrong:
        return [wrong.problem]
    except MachOError as error:  # more load commands than are read
        return [_malformed(content, error).problem]
    except NotFoundError:
        return [(FindingCode.BLOB_MISSING, f"its blob {content.sha256} is gone")]
    except IntegrityError as error:
        return [(FindingCode.DAMAGED, str(error))]


def _scan(store: Store, content: Content, reference: Reference | None) -> tuple[Layout, list[Problem]]:
    """Read every byte once. Raises IntegrityError for bytes that are not those that were stored."""
    chunks = iter(BlobReader(store, content.sha256, content.size))
    head = next(chunks, b"")
    failure: ContentError | None = None
    try:
        while commands_end(head[:HEADER_SIZE]) > len(head) and (more := next(chunks, b"")):
            head += more
        layout = _check_head(content, head)
    except MachOError as error:
        failure = _malformed(content, error)
    except ContentError as error:
        failure = error
    if failure is not None:
        for _ in chunks:
            pass  # whether the bytes are right at all comes first
        raise failure
    scan = ImageScan(layout, reference)
    scan.feed(head)
    for chunk in chunks:
        scan.feed(chunk)
    return layout, list(layout.problems(content.size)) or list(scan.problems())


def read_head(store: Store, sha256: str, size: int, amount: int, *, whole_commands: bool = False) -> bytes:
    """Return the first bytes of a blob that should hold `size`; `amount` of them, or all if it holds fewer.

    When they begin a Mach-O and `whole_commands` is set, as many more as its load commands need. Raises NotFoundError,
    and ContentError for a blob that is damaged or of another size.
    """
    with store.open(blob_key(sha256)) as stored:
        try:
            head = _read_head(stored, sha256, size, amount, whole_commands)
        except ContentError:
            raise
        except (zstandard.ZstdError, IntegrityError) as error:
            raise ContentError(FindingCode.DAMAGED, f"its blob {sha256} cannot be decoded: {error}") from error
    if len(head) < min(amount, size):
        raise ContentError(FindingCode.DAMAGED, f"its blob {sha256} ends after {len(head)} of {size} bytes")
    return head


@unreadable_is_damaged()
def _read_head(stored: BinaryIO, sha256: str, size: int, amount: int, whole_commands: bool) -> bytes:
    found = zstandard.frame_content_size(stored.read(_FRAME_HEADER))
    # The many blocks of a raw cache are hopped over only where it lies in several frames.
    if whole_commands or found != size:
        stored.seek(0)
        found, end = frame_sizes(stored)
        length = stored.seek(0, os.SEEK_END)
        if end != length:
            text = f"its blob {sha256} has {length} bytes where its frames have {end}"
            raise ContentError(FindingCode.DAMAGED, text)
    if found != size:
        text = f"its blob {sha256} holds {found} bytes where {size} were stored"
        raise ContentError(FindingCode.WRONG_SIZE, text)
    stored.seek(0)
    with zstandard.ZstdDecompressor().stream_reader(stored, read_across_frames=True) as reader:
        head = reader.read(amount)
        more = commands_end(head[:HEADER_SIZE]) - len(head) if whole_commands else 0
        return head + reader.read(more) if more > 0 else head


def _check_head(content: Content, head: bytes) -> Layout:
    """Return the layout of the image that a content begins with. Raises ContentError if it is not the one stored."""
    try:
        layout = parse_layout(head, content.size)
    except MachOError as error:
        raise _malformed(content, error) from error
    found = layout.image
    for code, got, want in (
        (FindingCode.WRONG_UUID, found.uuid, content.uuid),
        (FindingCode.WRONG_ARCH, found.arch, content.arch),
        (FindingCode.WRONG_KIND, found.kind, content.kind),
    ):
        if got != want:
            text = f"its blob {content.sha256} holds {_describe(got)} where {_describe(want)} was stored"
            raise ContentError(code, text)
    return layout


def _malformed(content: Content, error: MachOError) -> ContentError:
    return ContentError(FindingCode.MALFORMED, f"its blob {content.sha256}: {error}")


def _describe(value: object) -> str:
    return uuid_text(value) if isinstance(value, UUID) else str(value or "none")
