"""One pass over an image's bytes: what its symbol table and code must be, chunk by chunk, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from symcache.macho import N, Segment
from symcache.verify.findings import FindingCode
from symcache.verify.layout import Layout, Problem

__all__ = ["ImageScan", "Reference"]


@dataclass(frozen=True, slots=True)
class Reference:
    """What the raw shared cache says of one image."""

    address: int
    text_size: int
    commands_end: int
    """Where the load commands end: the bytes before were rewritten by the extractor."""
    text: memoryview
    """All of __TEXT as it lies in the cache."""
    symbols: int
    """How many the image must have, re-exports that an extractor added not counted."""
    indirect: int
    """How many re-exports (N_INDR) the cache's own symbol table has."""


class ImageScan:
    """Takes the content of one image in order, in pieces of any size; `problems` after the last."""

    def __init__(self, layout: Layout, reference: Reference | None = None) -> None:
        self._layout, self._reference = layout, reference
        self._position = 0
        self._carry = b""
        self._dtype = layout.header.structs.nlist
        self._max_strx = -1
        self._indirect = 0
        self._last: int | None = None
        """The last byte of the string pool."""
        self._differs_at: int | None = None
        self._compared = 0
        self._skip = max(layout.header.commands_end, reference.commands_end) if reference else 0
        """Header and load commands, which an extractor rewrites."""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the content."""
        start, end = self._position, self._position + len(chunk)
        self._position = end
        table = self._layout.symtab
        if table and table.nsyms:
            begin, stop = table.symoff, table.symoff + table.nsyms * self._dtype.itemsize
            self._symbols(chunk[max(begin - start, 0) : max(stop - start, 0)])
            last = table.stroff + table.strsize - 1
            if table.strsize and start <= last < end:
                self._last = chunk[last - start]
        if self._reference is not None and self._differs_at is None and (text := self._layout.text):
            self._compare(chunk, start, text, self._reference)

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong, now that all bytes were seen."""
        layout, reference = self._layout, self._reference
        table = layout.symtab
        if table and table.nsyms:
            if self._max_strx >= max(table.strsize, 1):
                text = f"a symbol's name lies at {self._max_strx:#x} of a string pool of {table.strsize:#x} bytes"
                yield FindingCode.TRUNCATED_LINKEDIT, text
            elif table.strsize and self._last:
                yield FindingCode.TRUNCATED_LINKEDIT, "the last name of the string pool does not end"
        if reference is None:
            return
        count = table.nsyms if table else 0
        added = self._indirect - reference.indirect
        if added < 0 or count - added != reference.symbols:
            text = f"{count} symbols, {max(added, 0)} of them added, where the cache has {reference.symbols}"
            yield FindingCode.SYMBOL_COUNT, text
        where = layout.text
        if where is None or (where.vmaddr, where.vmsize) != (reference.address, reference.text_size):
            found = f"{where.vmaddr:#x}, {where.vmsize:#x} bytes" if where else "nowhere"
            text = f"__TEXT lies at {found} where the cache has {reference.address:#x}, {reference.text_size:#x} bytes"
            yield FindingCode.WRONG_ADDRESS, text
        elif self._differs_at is not None:
            yield FindingCode.TEXT_DIFFERS, f"__TEXT differs from the raw cache at offset {self._differs_at:#x}"
        elif missing := max(len(reference.text) - self._skip, 0) - self._compared:
            yield FindingCode.TEXT_DIFFERS, f"{missing:#x} bytes of __TEXT are not in the file"

    def _symbols(self, raw: bytes) -> None:
        raw = self._carry + raw
        whole = len(raw) - len(raw) % self._dtype.itemsize
        self._carry = raw[whole:]
        if whole:
            nlists: npt.NDArray[np.void] = np.frombuffer(raw, self._dtype, whole // self._dtype.itemsize)
            self._max_strx = max(self._max_strx, int(nlists["n_strx"].max()))
            if self._reference is not None:
                self._indirect += int(np.count_nonzero(nlists["n_type"] == (N.INDR | N.EXT)))

    def _compare(self, chunk: bytes, start: int, text: Segment, reference: Reference) -> None:
        """Compare the part of __TEXT behind the load commands that lies in this chunk."""
        first = max(start, text.fileoff + self._skip)
        last = min(start + len(chunk), text.fileoff + min(text.filesize, len(reference.text)))
        if first >= last:
            return
        ours = np.frombuffer(chunk, np.uint8)[first - start : last - start]
        theirs = np.frombuffer(reference.text, np.uint8)[first - text.fileoff : last - text.fileoff]
        if not np.array_equal(ours, theirs):
            self._differs_at = first - text.fileoff + int(np.flatnonzero(ours != theirs)[0])
        self._compared += last - first
