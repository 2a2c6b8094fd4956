"""Identify bytes: which Mach-O images a file holds, of which architecture, kind and UUID. Nothing deeper.

And what a dSYM bundle says beside its Mach-O file of where its sources are.
"""

from symcache.macho.constants import arch_name
from symcache.macho.dsym_sources import MAX_SOURCE_NOTES, noted_sources, source_maps, source_revisions
from symcache.macho.fingerprint import CodeFingerprint, code_fingerprint
from symcache.macho.identify import Slice, identify, identify_bytes
from symcache.macho.load_commands import MAX_COMMANDS, MachHeader, load_commands, mach_header
from symcache.macho.segments import Section, file_end, sections, text_address
from symcache.macho.uuids import parse_uuid

__all__ = [
    "MAX_COMMANDS",
    "MAX_SOURCE_NOTES",
    "CodeFingerprint",
    "MachHeader",
    "Section",
    "Slice",
    "arch_name",
    "code_fingerprint",
    "file_end",
    "identify",
    "identify_bytes",
    "load_commands",
    "mach_header",
    "noted_sources",
    "parse_uuid",
    "sections",
    "source_maps",
    "source_revisions",
    "text_address",
]
