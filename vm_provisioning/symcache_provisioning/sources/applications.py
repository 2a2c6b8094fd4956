"""Finds the programs in `/Applications` that came with macOS; until 12, they lie there beside the user's own.

What its code signature says decides: code of the system is that of a platform, and neither what others made nor what
Apple delivers apart, such as Xcode, is. (`platform` in CS_CodeDirectory, <kern/cs_blobs.h>; `codesign -dvv` prints it.)
"""

from __future__ import annotations

import stat

from symcache.dyld import platform_identifier
from symcache.errors import FormatError, SymcacheError
from symcache.macho import LC, identify_at, mach_header
from symcache_provisioning.sources.entries import Entry, closed_by_design
from symcache_provisioning.sources.locations import UNSEALED_APPLICATIONS
from symcache_provisioning.sources.tree import Tree
from symcache_provisioning.ssh.packets import NoAccessError, SessionError

__all__ = ["system_applications"]

_BUNDLE = ".app"
_PROGRAMS = "Contents/MacOS"
_MOST_PROGRAMS = 32
"""Of one bundle, that are looked at."""
_COMMANDS = 64 << 10
_LARGEST_SIGNATURE = 16 << 20


def system_applications(tree: Tree) -> list[str]:
    """Return the bundles that came with the system; others are noted. What cannot be read is a problem, as elsewhere.

    Raises SessionError.
    """
    top = tree.folder(UNSEALED_APPLICATIONS)
    entries = tree.entries(top.path, needed=True) if top else []
    for folder in [e for e in entries if stat.S_ISDIR(e.mode) and not e.name.endswith(_BUNDLE)]:
        entries += tree.entries(folder.path)  # such as Utilities
    bundles = [e.path for e in entries if stat.S_ISDIR(e.mode) and e.name.endswith(_BUNDLE)]
    of_system = [path for path in bundles if _is_of_system(tree, path)]
    if others := len(bundles) - len(of_system):
        tree.notes.append(
            f"{UNSEALED_APPLICATIONS}: {others} of {len(bundles)} programs did not come with macOS: not harvested"
            " (--root names a folder that shall be)"
        )
    return of_system


def _is_of_system(tree: Tree, bundle: str) -> bool:
    folder = tree.folder(f"{bundle}/{_PROGRAMS}")
    programs = [e for e in tree.entries(folder.path) if stat.S_ISREG(e.mode)] if folder else []
    return any(_is_of_platform(tree, program) for program in programs[:_MOST_PROGRAMS])


def _is_of_platform(tree: Tree, program: Entry) -> bool:
    def read_at(offset: int, length: int) -> bytes:
        return tree.read_range(program.path, offset, length)

    try:
        for image in identify_at(read_at, program.size, program.path):
            head = read_at(image.offset, min(image.size, _COMMANDS))
            header = mach_header(head)
            for command in header.load_commands(head, {LC.CODE_SIGNATURE}) if header else ():
                at, size = command.structs.linkedit_data.unpack_from(command.data.ljust(16, b"\0"), 8)
                signature = read_at(image.offset + at, min(size, _LARGEST_SIGNATURE))
                if platform_identifier(signature, program.path):
                    return True
    except SessionError:
        raise
    except FormatError:
        return False  # no program of macOS is malformed
    except SymcacheError as error:
        if isinstance(error, NoAccessError) and closed_by_design(program):
            tree.notes.append(str(error))
        else:
            tree.problems.add_error(error)
    return False
