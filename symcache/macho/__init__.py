"""What is known of Mach-O files: what they hold, and every struct of them that is read or written.

And what a dSYM bundle says beside its Mach-O file of where its sources are.
"""

from symcache.macho.constants import CPU_SUBTYPE_X86_64_ALL, CPU_TYPE, LC, MH, PLATFORMS, N, S, arch_name
from symcache.macho.dsym_sources import MAX_SOURCE_NOTES, noted_sources, source_maps, source_revisions
from symcache.macho.fileset import FilesetEntry, fileset_entries
from symcache.macho.fingerprint import CodeFingerprint, code_fingerprint
from symcache.macho.identify import Slice, begins_as_macho, identify, identify_at, identify_bytes
from symcache.macho.load_commands import (
    MAX_COMMANDS,
    LoadCommand,
    MachHeader,
    mach_header,
    pack_thread_states,
)
from symcache.macho.segments import file_end, header_address, sections, text_address
from symcache.macho.structs import (
    LITTLE_64,
    Dysymtab,
    FatArch,
    Note,
    Section,
    Segment,
    Symtab,
    fat_table,
    is_zerofill,
)
from symcache.macho.uuids import parse_uuid

__all__ = [
    "CPU_SUBTYPE_X86_64_ALL",
    "CPU_TYPE",
    "LC",
    "LITTLE_64",
    "MAX_COMMANDS",
    "MAX_SOURCE_NOTES",
    "MH",
    "PLATFORMS",
    "CodeFingerprint",
    "Dysymtab",
    "FatArch",
    "FilesetEntry",
    "LoadCommand",
    "MachHeader",
    "N",
    "Note",
    "S",
    "Section",
    "Segment",
    "Slice",
    "Symtab",
    "arch_name",
    "begins_as_macho",
    "code_fingerprint",
    "fat_table",
    "file_end",
    "fileset_entries",
    "header_address",
    "identify",
    "identify_at",
    "identify_bytes",
    "is_zerofill",
    "mach_header",
    "noted_sources",
    "pack_thread_states",
    "parse_uuid",
    "sections",
    "source_maps",
    "source_revisions",
    "text_address",
]
