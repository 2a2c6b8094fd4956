"""Crash dumps: what they hold, and LLDB in a child process to make sense of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from symcache.late_imports import late_imports

if TYPE_CHECKING:
    from symcache.dump.analysis import analyze, open_in_lldb
    from symcache.dump.description import describe, dump_kind
    from symcache.dump.findings import Analysis, Frame, ModuleReport, ThreadReport
    from symcache.dump.formats.container import OpenedDump, open_dump
    from symcache.dump.formats.core import Core, CoreThread, Segment, parse_core, read_core
    from symcache.dump.formats.exceptions import describe_exception
    from symcache.dump.formats.header import DumpHeader, DumpModule, parse_header
    from symcache.dump.formats.minidump import read_minidump
    from symcache.dump.formats.notes import header_of_core
    from symcache.dump.lldb_child.process import Limits, LldbProcess, Mode
    from symcache.dump.lldb_command.response import LLDB_SCRIPT, response_for_lldb
    from symcache.dump.loader import LoadedDump, LoadedModule, load_dump
    from symcache.dump.minidump_loader import minidump_header
    from symcache.dump.module_files import Search
    from symcache.dump.sources.trees import SourceTree, SourceTrees, source_path

__all__ = [
    "LLDB_SCRIPT",
    "Analysis",
    "Core",
    "CoreThread",
    "DumpHeader",
    "DumpModule",
    "Frame",
    "Limits",
    "LldbProcess",
    "LoadedDump",
    "LoadedModule",
    "Mode",
    "ModuleReport",
    "OpenedDump",
    "Search",
    "Segment",
    "SourceTree",
    "SourceTrees",
    "ThreadReport",
    "analyze",
    "describe",
    "describe_exception",
    "dump_kind",
    "header_of_core",
    "load_dump",
    "minidump_header",
    "open_dump",
    "open_in_lldb",
    "parse_core",
    "parse_header",
    "read_core",
    "read_minidump",
    "response_for_lldb",
    "source_path",
]

# A server needs the trees of sources alone; and LLDB is started before most of the rest is imported.
__getattr__ = late_imports(
    __name__,
    {
        "analysis": ("analyze", "open_in_lldb"),
        "description": ("describe", "dump_kind"),
        "findings": ("Analysis", "Frame", "ModuleReport", "ThreadReport"),
        "formats.container": ("OpenedDump", "open_dump"),
        "formats.core": ("Core", "CoreThread", "Segment", "parse_core", "read_core"),
        "formats.exceptions": ("describe_exception",),
        "formats.header": ("DumpHeader", "DumpModule", "parse_header"),
        "formats.minidump": ("read_minidump",),
        "formats.notes": ("header_of_core",),
        "lldb_child.process": ("Limits", "LldbProcess", "Mode"),
        "lldb_command.response": ("LLDB_SCRIPT", "response_for_lldb"),
        "loader": ("LoadedDump", "LoadedModule", "load_dump"),
        "minidump_loader": ("minidump_header",),
        "module_files": ("Search",),
        "sources.trees": ("SourceTree", "SourceTrees", "source_path"),
    },
)
