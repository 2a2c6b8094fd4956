"""Which placeholders the modules of a dump need that nobody has the binary of, and what the core needs beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from symcache.dump.formats.container import OpenedDump
from symcache.dump.formats.core import Core
from symcache.dump.formats.header import DumpHeader
from symcache.dump.placeholders.backing import back_code, framed_modules, frameless_counters, hide_code
from symcache.dump.placeholders.held_images import held_images, note_images
from symcache.dump.placeholders.image import unknown_layout, write_placeholder
from symcache.dump.placeholders.symbols_only import frameless_functions, image_layout
from symcache.images import ImageFile
from symcache.kinds import Kind

__all__ = ["StandIns"]


class StandIns:
    """The placeholders of a dump. Making them changes its core, where that is our copy; see backing.py."""

    def __init__(
        self,
        dump: OpenedDump,
        header: DumpHeader,
        sizes: Sequence[int],
        found: Mapping[tuple[UUID, Kind], ImageFile],
        *,
        walk: bool,
        memory: Core | None,
    ) -> None:
        """Find out what is needed, from the `sizes` of the modules' code and the files `found`; else as `load`."""
        self._cputype, self._modules, self._sizes = dump.core.cputype, header.modules, sizes
        lost = [n for n, m in enumerate(header.modules) if (m.uuid, Kind.EXECUTABLE) not in found]
        self._layouts = {n: layout for n in lost if (layout := image_layout(dump, header, sizes, n, found))}
        # A report has its frames already; a bare core is the user's file, an unpacked one ours.
        unpacked = dump.core_path != dump.path
        images = held_images(dump, [(n, header.modules[n]) for n in lost]) if unpacked and walk else {}
        held = note_images(dump, images)
        missing = [(header.modules[n].address, sizes[n]) for n in lost if n not in held]
        # Where functions are known, content that is none would be taken for their instructions, and what is there is
        # right.
        unknown = {(header.modules[n].address, sizes[n]) for n in lost if n not in self._layouts}
        self._framed = framed_modules(dump, header.thread, missing) if unpacked or dump.header is None else []
        if unpacked:
            back_code(dump, [m for m in self._framed if m in unknown])
            hide_code(dump, [m for m in missing if m not in self._framed and m in unknown])
        self._frameless: list[int] = []
        if self._layouts and walk:  # the frames of a report have been walked already
            self._frameless = frameless_counters(replace(dump, core=memory or dump.core), header.thread)

    def laid_out(self, number: int) -> bool:
        """Return whether the placeholder of a module is laid out for its dSYM."""
        return number in self._layouts

    def write(self, number: int, path: Path, debug_info: ImageFile | None) -> None:
        """Write the placeholder of a module. Raises OSError."""
        module, layout = self._modules[number], self._layouts.get(number)
        write_placeholder(
            path,
            self._cputype,
            module.uuid or UUID(int=0),  # of zeros: LLDB's UUID of none
            module.path,
            layout or unknown_layout(self._cputype, self._sizes[number]),
            executable=(module.address, self._sizes[number]) in self._framed,
            hollow=layout is not None,
            frameless=frameless_functions(module, layout, debug_info, self._frameless) if layout else (),
        )
