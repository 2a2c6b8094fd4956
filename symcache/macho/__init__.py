"""Identify bytes: which Mach-O images a file holds, of which architecture, kind and UUID. Nothing deeper."""

from symcache.macho.constants import arch_name
from symcache.macho.details import Details, details
from symcache.macho.identify import Slice, identify, identify_bytes
from symcache.macho.segments import Section, file_end, sections, text_address
from symcache.macho.uuids import parse_uuid

__all__ = [
    "Details",
    "Section",
    "Slice",
    "arch_name",
    "details",
    "file_end",
    "identify",
    "identify_bytes",
    "parse_uuid",
    "sections",
    "text_address",
]
