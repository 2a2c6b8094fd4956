"""Crash dumps: what they hold, and LLDB in a child process to make sense of it."""

from symcache.dump.analysis import analyze, open_in_lldb
from symcache.dump.describe import describe, dump_kind
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
