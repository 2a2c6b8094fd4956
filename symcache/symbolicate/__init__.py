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
    from symcache.symbolicate.named_frames import NamedFrame
    from symcache.symbolicate.naming import ModuleNames, ModuleOffsets, NamedReport, Namer, is_trampoline, name_report
    from symcache.symbolicate.report_output import report_json, report_text
    from symcache.symbolicate.rewrite import rewritten
    from symcache.symbolicate.symbolic_table import NONE, SymbolicTable

__all__ = [
    "NONE",
    "Artifact",
    "Call",
    "Content",
    "ImageNames",
    "Location",
    "ModuleNames",
    "ModuleOffsets",
    "NameSource",
    "NamedFrame",
    "NamedReport",
    "Namer",
    "NamesFolder",
    "SymbolicTable",
    "build",
    "call_offsets",
    "choose_slice",
    "is_trampoline",
    "name_report",
    "report_json",
    "report_text",
    "rewritten",
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
        "named_frames": ("NamedFrame",),
        "naming": (
            "ModuleNames",
            "ModuleOffsets",
            "NamedReport",
            "Namer",
            "is_trampoline",
            "name_report",
        ),
        "report_output": (
            "report_json",
            "report_text",
        ),
        "rewrite": ("rewritten",),
        "symbolic_table": (
            "NONE",
            "SymbolicTable",
        ),
    },
)
