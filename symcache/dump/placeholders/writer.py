"""Which placeholders the modules of a dump need that nobody has the binary of, and what the core needs beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

from symcache.dump.formats.container import OpenedDump
from symcache.dump.formats.core import Core
from symcache.dump.formats.header import DumpHeader, DumpModule
from symcache.dump.placeholders.backing import back_code, framed_modules, frameless_counters, hide_code, unlisted_code
from symcache.dump.placeholders.dsym_layout import Layout
from symcache.dump.placeholders.image import unknown_layout, write_placeholder
from symcache.dump.placeholders.images_in_core import images_in_core, note_images
from symcache.dump.placeholders.symbols_only import frameless_functions, image_layout
from symcache.images import ImageFile
from symcache.kinds import Kind

__all__ = ["Placeholders", "deferred_uuid", "rewrite_core"]


@dataclass(frozen=True, slots=True)
class Placeholders:
    """What has been worked out for the placeholders of a dump. Modules are known by their numbers in its header."""

    cputype: int
    modules: Sequence[DumpModule]
    sizes: Sequence[int]
    """Bytes of each module's code."""
    layouts: Mapping[int, Layout]
    """Of the modules whose dSYM tells how they are laid out."""
    executable: frozenset[int]
    """Modules whose memory LLDB has to take for executable; see backing.py."""
    frameless: Sequence[int]
    """Where threads are in functions that keep no frame."""

    def write(self, number: int, path: Path, debug_info: ImageFile | None, *, deferred: bool = False) -> None:
        """Write the placeholder of a module. Raises OSError.

        One that is `deferred` has not the module's UUID: while LLDB knows a file with a UUID, it takes no other.
        """
        module, layout = self.modules[number], self.layouts.get(number)
        uuid = module.uuid or UUID(int=0)  # of zeros: LLDB's UUID of none
        write_placeholder(
            path,
            self.cputype,
            deferred_uuid(uuid) if deferred else uuid,
            module.path,
            layout or unknown_layout(self.cputype, self.sizes[number]),
            executable=number in self.executable,
            hollow=layout is not None,
            frameless=frameless_functions(module, layout, debug_info, self.frameless) if layout else (),
        )


def deferred_uuid(uuid: UUID) -> UUID:
    """Return the UUID of the placeholder of a module that is fetched later; the same of this is the module's."""
    return UUID(int=uuid.int ^ 1 << 127)


def rewrite_core(
    dump: OpenedDump,
    header: DumpHeader,
    sizes: Sequence[int],
    files: Mapping[tuple[UUID, Kind], ImageFile],
    *,
    memory: Core | None,
) -> Placeholders:
    """Change the core so that LLDB walks through modules of which there is no binary, and return their placeholders.

    Only a core that was unpacked for LLDB is changed, never the user's own file. `sizes` are bytes of each module's
    code, `files` those that there are. `memory`: what the dump has of the process's memory, if its core does not tell.
    Raises OSError.
    """
    missing = [n for n, m in enumerate(header.modules) if (m.uuid, Kind.EXECUTABLE) not in files]
    layouts = {n: layout for n in missing if (layout := image_layout(dump, header, sizes, n, files))}
    unpacked = dump.core_path != dump.path
    images = images_in_core(dump, [(n, header.modules[n]) for n in missing]) if unpacked else {}
    noted = note_images(dump, images)
    ranges = {n: (header.modules[n].address, sizes[n]) for n in missing}
    without_code = [ranges[n] for n in missing if n not in noted]
    framed = framed_modules(dump, header.thread, without_code) if unpacked or dump.header is None else []
    if unpacked:
        # Where a dSYM names the functions, content that is none would be taken for their instructions, and what is
        # there is right.
        unnamed = {ranges[n] for n in missing if n not in layouts}
        back_code(dump, [*(m for m in framed if m in unnamed), *unlisted_code(dump, header)])
        hide_code(dump, [m for m in without_code if m not in framed and m in unnamed])
    frameless: list[int] = []
    if layouts:
        frameless = frameless_counters(replace(dump, core=memory or dump.core), header.thread)
    executable = frozenset(n for n in missing if ranges[n] in framed)
    return Placeholders(dump.core.cputype, header.modules, sizes, layouts, executable, frameless)
