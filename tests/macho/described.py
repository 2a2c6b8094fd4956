"""Images of either byte order and width that LLVM's yaml2obj writes, and their load commands by llvm-otool."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.toolchain import need_toolchain

__all__ = ["KINDS", "SYMBOLS", "Command", "described_image", "told_commands"]

KINDS = [(order, wide) for order in "<>" for wide in (False, True)]
_SIZE = 0x2000
_CPUS = {("<", False): 7, ("<", True): 0x0100_0007, (">", False): 18, (">", True): 0x0100_0012}
_SECTION = "{{sectname: {}, segname: __TEXT, addr: {}, size: {}, offset: {}, align: {}, flags: {}, {}}}"
_ALIKE = "reloff: 0, nreloc: 0, reserved1: 7, reserved2: 9, reserved3: 0"
_COMMANDS = """
  - {cmd: LC_ID_DYLIB, cmdsize: 48, dylib: {name: 24, timestamp: 1, current_version: 0x20304,
     compatibility_version: 0x10000}, Content: /usr/lib/libx.dylib, ZeroPadBytes: 5}
  - {cmd: LC_DYLD_INFO_ONLY, cmdsize: 48, rebase_off: 0x1000, rebase_size: 8, bind_off: 0x1010, bind_size: 16,
     weak_bind_off: 0x1020, weak_bind_size: 24, lazy_bind_off: 0x1040, lazy_bind_size: 32, export_off: 0x1080,
     export_size: 40}
  - {cmd: LC_SYMTAB, cmdsize: 24, symoff: 0x1100, nsyms: 3, stroff: 0x1200, strsize: 100}
  - {cmd: LC_DYSYMTAB, cmdsize: 80, ilocalsym: 0, nlocalsym: 1, iextdefsym: 1, nextdefsym: 1, iundefsym: 2,
     nundefsym: 1, tocoff: 0, ntoc: 0, modtaboff: 0, nmodtab: 0, extrefsymoff: 0, nextrefsyms: 0,
     indirectsymoff: 0x1300, nindirectsyms: 5, extreloff: 0, nextrel: 0, locreloff: 0, nlocrel: 0}
  - {cmd: LC_UUID, cmdsize: 24, uuid: 0F1E2D3C-4B5A-6978-8796-A5B4C3D2E1F0}
  - {cmd: LC_FUNCTION_STARTS, cmdsize: 16, dataoff: 0x1400, datasize: 48}
  - {cmd: LC_NOTE, cmdsize: 40, data_owner: all image infos, offset: 0x1500, size: 0x60}
LinkEditData:
  NameList:
"""
SYMBOLS = [(1, 0x0E, 1, 2, 0x1803), (5, 0x0F, 1, 0x102, 0x1804), (9, 0x01, 0, 3, 0)]
"""n_strx, n_type, n_sect, n_desc and n_value of the symbols in the image."""
_SYMBOL = "    - {{n_strx: {}, n_type: {}, n_sect: {}, n_desc: {}, n_value: {}}}\n"


def described_image(folder: Path, order: str, wide: bool) -> Path:
    """Have yaml2obj write a dylib with a load command of every struct that is read."""
    need_toolchain()
    segment, own, section = ("LC_SEGMENT_64", 72, 80) if wide else ("LC_SEGMENT", 56, 68)
    text = _SECTION.format("__text", 0x1800, 64, 0x800, 4, 0x8000_0400, _ALIKE)
    zeros = _SECTION.format("__sixteen_letter", 0x2000, 32, 0, 3, 1, _ALIKE)
    description = f"""--- !mach-o
IsLittleEndian: {str(order == "<").lower()}
FileHeader: {{magic: {0xFEEDFACF if wide else 0xFEEDFACE}, cputype: {_CPUS[order, wide]}, cpusubtype: 3, filetype: 6,
  ncmds: 9, sizeofcmds: {2 * (own + section) + 280}, flags: 0x85{", reserved: 0" if wide else ""}}}
LoadCommands:
  - {{cmd: {segment}, cmdsize: {own + 2 * section}, segname: __TEXT, vmaddr: 0x1000, vmsize: 0x2000, fileoff: 0,
     filesize: 0x1000, maxprot: 7, initprot: 5, nsects: 2, flags: 0, Sections: [{text}, {zeros}]}}
  - {{cmd: {segment}, cmdsize: {own}, segname: __LINKEDIT, vmaddr: 0x3000, vmsize: 0x1000, fileoff: 0x1000,
     filesize: 0xC00, maxprot: 3, initprot: 1, nsects: 0, flags: 4}}"""
    description += _COMMANDS + "".join(_SYMBOL.format(*symbol) for symbol in SYMBOLS)
    path = folder / f"image{'le' if order == '<' else 'be'}{64 if wide else 32}"
    subprocess.run(["yaml2obj-19", "-", "-o", str(path)], input=description, text=True, check=True)
    path.write_bytes(path.read_bytes().ljust(_SIZE, b"\0"))
    return path


@dataclass
class Command:
    """One load command as llvm-otool prints it: names of fields as in Apple's headers, numbers as numbers."""

    fields: dict[str, int | str] = field(default_factory=dict)
    sections: list[dict[str, int | str]] = field(default_factory=list)


def told_commands(path: Path) -> list[Command]:
    """Return the load commands of a thin image by `llvm-otool -l`."""
    text = subprocess.run(["llvm-otool-19", "-l", str(path)], capture_output=True, text=True, check=True).stdout
    found = []
    for part in re.split(r"^Load command \d+\n", text, flags=re.MULTILINE)[1:]:
        own, *sections = part.split("Section\n")
        found.append(Command(_fields(own), [_fields(section) for section in sections]))
    return found


def _fields(text: str) -> dict[str, int | str]:
    found: dict[str, int | str] = {}
    for line in text.splitlines():
        name, _, value = line.strip().partition(" ")
        if name == "align":  # "2^4 (16)"
            value = value[2:].partition(" ")[0]
        found[name] = int(value, 0) if re.fullmatch(r"0x[0-9a-fA-F]+|\d+", value) else value
    return found
