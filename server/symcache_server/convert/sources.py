"""Which source files the line tables of an image name: the whole path, as its compiler recorded it.

A name in the header of a line number program lies in one of its include directories, and that in the folder in which
the unit was compiled: its first directory in DWARF 5, `DW_AT_comp_dir` of the unit before. Source: DWARF 4 and 5, 6.2.4
and 3.1.1. `symbolic` tells only of files with code of functions, so none of an assembler's; pyelftools reads it all.
"""

from __future__ import annotations

import io
import posixpath
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from inspect import signature
from pathlib import Path

from symcache.dump import source_path
from symcache.errors import UsageError
from symcache.macho import sections
from symcache_server.convert.child import begin_output, write_by_child

__all__ = ["REVISION", "line_files", "main", "make_file_list"]

REVISION = 1
"""Part of the name that a list is cached under."""
_HEAD = 4 << 20
"""Load commands beyond this many bytes are not looked at."""
_MOST_INFLATED = 1 << 30
_LONGEST_NAME = 16


def make_file_list(images: Sequence[int], target: Path) -> None:
    """Write what `line_files` tells of an image, an open descriptor, to `target`: one path a line, sorted.

    Empty where it has no line tables. Raises as `write_by_child`.
    """
    module = "symcache_server.convert.sources"
    write_by_child(module, [], images, target, unreadable="the line tables cannot be read")


def main() -> None:
    """Print the files that the line tables of the image named on the command line name."""
    begin_output()
    sys.stdout.writelines(f"{path}\n" for path in sorted(line_files(Path(sys.argv[1]).read_bytes())))


def line_files(image: bytes) -> set[str]:
    """Return the files that the line tables of a thin image name, as `source_path` writes paths.

    Of damaged debug info, those that are named before the damage.
    """
    found: set[str] = set()
    try:
        for recorded in _recorded(_debug_sections(image)):
            with suppress(UsageError):
                found.add(source_path(recorded))
    except MemoryError:
        raise
    except Exception:  # noqa: S110 - pyelftools was not made for damaged files, and raises what it likes
        pass
    return found


def _debug_sections(image: bytes) -> Mapping[str, bytes]:
    """Return the sections of DWARF by the names that they have in ELF, without the dot."""
    found: dict[str, bytes] = {}
    for section in sections(image[:_HEAD], len(image)):
        if section.segname == "__DWARF":
            data = image[section.offset : section.offset + section.size]
            name = section.sectname.removeprefix("__")
            if name.startswith("zdebug_"):  # Go's: "ZLIB", the size as 8 bytes in big endian, the packed bytes
                (size,) = struct.unpack_from(">4xQ", data)
                data = zlib.decompressobj().decompress(data[12:], min(size, _MOST_INFLATED) or 1)
                name = name.removeprefix("z")
            found[name] = data
    return found


def _recorded(dwarf: Mapping[str, bytes]) -> Iterator[str]:
    """Yield the path of every file of every line table, as far as they are absolute."""
    from elftools.dwarf.dwarfinfo import DebugSectionDescriptor, DwarfConfig, DWARFInfo  # noqa: PLC0415

    def section(parameter: str) -> DebugSectionDescriptor | None:
        name = parameter.removesuffix("_sec")
        data = dwarf.get(name[: _LONGEST_NAME - 2])  # Mach-O has no room for more of it
        return None if data is None else DebugSectionDescriptor(io.BytesIO(data), name, 0, len(data), 0)

    config = DwarfConfig(little_endian=True, machine_arch="", default_address_size=8)
    parameters = [name for name in signature(DWARFInfo).parameters if name.endswith("_sec")]
    info = DWARFInfo(config, **{name: section(name) for name in parameters})
    for unit in info.iter_CUs():
        if (program := info.line_program_for_CU(unit)) is None:
            continue
        header = program.header
        directories = [_text(directory) for directory in header.include_directory]
        if header.version < 5:
            compiled_in = unit.get_top_DIE().attributes.get("DW_AT_comp_dir")
            directories = [_text(compiled_in.value) if compiled_in else "", *directories]
        for file in header.file_entry:
            if file.dir_index < len(directories):
                yield posixpath.join(directories[0], directories[file.dir_index], _text(file.name))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


if __name__ == "__main__":
    main()
