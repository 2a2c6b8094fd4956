"""Names for addresses in images: of functions, source files and lines, without a debugger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from symcache.late_imports import late_imports
from symcache.symbolicate.model import Call, Location, NameSource

if TYPE_CHECKING:
    from symcache.symbolicate.artifact import Artifact
    from symcache.symbolicate.builder import build, choose_slice
    from symcache.symbolicate.folder import Content, NamesFolder
    from symcache.symbolicate.image_names import ImageNames, call_offsets
    from symcache.symbolicate.symbolic_table import NONE, SymbolicTable

__all__ = [
    "NONE",
    "Artifact",
    "Call",
    "Content",
    "ImageNames",
    "Location",
    "NameSource",
    "NamesFolder",
    "SymbolicTable",
    "build",
    "call_offsets",
    "choose_slice",
]

# What the child that reads images has no use for is not imported with it.
__getattr__ = late_imports(
    __name__,
    {
        "artifact": ("Artifact",),
        "builder": (
            "build",
            "choose_slice",
        ),
        "folder": (
            "Content",
            "NamesFolder",
        ),
        "image_names": (
            "ImageNames",
            "call_offsets",
        ),
        "symbolic_table": (
            "NONE",
            "SymbolicTable",
        ),
    },
)
