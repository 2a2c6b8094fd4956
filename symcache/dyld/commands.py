"""What becomes of the load commands of an image that leaves its cache: rebuilt, kept or dropped.

Source: <mach-o/loader.h>; struct linkedit_data_command.
"""

from __future__ import annotations

from symcache.dyld.mach_image import MachImage
from symcache.macho import LC, LoadCommand, Segment

__all__ = ["carried_over"]

_REBUILT = frozenset((
    LC.SEGMENT, LC.SEGMENT_64, LC.SYMTAB, LC.DYSYMTAB, LC.DYLD_INFO, LC.DYLD_INFO_ONLY, LC.FUNCTION_STARTS,
    LC.DATA_IN_CODE, LC.DYLD_EXPORTS_TRIE,
))  # fmt: skip
"""Commands whose file offsets are made anew, and what they point at with them."""
_KEPT = frozenset((
    LC.UUID, LC.BUILD_VERSION, LC.SOURCE_VERSION, LC.VERSION_MIN_MACOSX, LC.VERSION_MIN_IPHONEOS, LC.VERSION_MIN_TVOS,
    LC.VERSION_MIN_WATCHOS, LC.TARGET_TRIPLE, LC.ID_DYLIB, LC.LOAD_DYLIB, LC.LOAD_WEAK_DYLIB, LC.REEXPORT_DYLIB,
    LC.LAZY_LOAD_DYLIB, LC.LOAD_UPWARD_DYLIB, LC.PREBOUND_DYLIB, LC.PREBIND_CKSUM, LC.ID_DYLINKER, LC.LOAD_DYLINKER,
    LC.DYLD_ENVIRONMENT, LC.RPATH, LC.SUB_FRAMEWORK, LC.SUB_UMBRELLA, LC.SUB_CLIENT, LC.SUB_LIBRARY, LC.ROUTINES,
    LC.ROUTINES_64, LC.THREAD, LC.UNIXTHREAD, LC.LINKER_OPTION, LC.LOADFVMLIB, LC.IDFVMLIB, LC.FVMFILE, LC.IDENT,
    LC.MAIN,  # an offset in __TEXT, which begins with the file here as in the cache
))  # fmt: skip
"""Commands that point at nothing in the file: what they say lies in them, or is an address."""
_DROPPED = frozenset(LC) - _REBUILT - _KEPT
"""All others: what they point at, mostly in __LINKEDIT, is not carried over, so that they would point nowhere."""
_LINKEDIT_DATA_SIZE = 16


def carried_over(image: MachImage) -> list[LoadCommand]:
    """Return the commands that the image has in a file of its own."""
    linkedit = image.linkedit
    return [c for c in image.commands if c.cmd not in _DROPPED and not _is_unknown_linkedit_data(c, linkedit)]


def _is_unknown_linkedit_data(command: LoadCommand, linkedit: Segment | None) -> bool:
    """Return whether a command that is newer than this program looks like one that points into __LINKEDIT."""
    if command.cmd in _REBUILT or command.cmd in _KEPT or command.cmdsize != _LINKEDIT_DATA_SIZE or linkedit is None:
        return False
    data: tuple[int, int] = command.structs.linkedit_data.unpack_from(command.image, command.body)
    dataoff, datasize = data
    return datasize > 0 and 0 <= dataoff - linkedit.fileoff <= linkedit.filesize - datasize
