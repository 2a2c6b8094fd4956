"""Names for addresses in images: of functions, source files and lines, without a debugger."""

from symcache.symbolicate.folder import Content, NamesFolder
from symcache.symbolicate.image_names import ImageNames, call_offsets
from symcache.symbolicate.model import Call, Location, NameSource
from symcache.symbolicate.symbolic_table import NONE, SymbolicTable

__all__ = [
    "NONE",
    "Call",
    "Content",
    "ImageNames",
    "Location",
    "NameSource",
    "NamesFolder",
    "SymbolicTable",
    "call_offsets",
]
