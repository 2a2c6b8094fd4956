"""Crash dumps: what they hold, and LLDB in a child process to make sense of it."""

from symcache.dump.analysis import analyze, open_in_lldb
from symcache.dump.container import OpenedDump, open_dump
from symcache.dump.core import Core, CoreThread, Segment, parse_core, read_core
from symcache.dump.debugger import Limits, LldbProcess, Mode
from symcache.dump.describe import describe, dump_kind
from symcache.dump.exceptions import CrashException, describe_exception
from symcache.dump.findings import Analysis, Frame, ModuleReport, ThreadReport
from symcache.dump.header import DumpHeader, DumpModule, parse_header
from symcache.dump.loader import LoadedDump, LoadedModule, load_dump
from symcache.dump.minidump import minidump_header
from symcache.dump.minidump_streams import read_minidump
from symcache.dump.notes import header_of_core
from symcache.dump.report_files import parse_report, read_report
from symcache.dump.reports import Report, ReportFrame, ReportImage, ReportThread
from symcache.dump.source_lines import SourceFiles, WantedSource
from symcache.dump.source_trees import SourceTree, SourceTrees, source_path
from symcache.dump.sources import below_roots
from symcache.dump.symbols import (
    CacheGuess,
    ChainResolver,
    FolderResolver,
    ModuleResolver,
    Progress,
    ResolvedFile,
    Wanted,
)

__all__ = [
    "Analysis",
    "CacheGuess",
    "ChainResolver",
    "Core",
    "CoreThread",
    "CrashException",
    "DumpHeader",
    "DumpModule",
    "FolderResolver",
    "Frame",
    "Limits",
    "LldbProcess",
    "LoadedDump",
    "LoadedModule",
    "Mode",
    "ModuleReport",
    "ModuleResolver",
    "OpenedDump",
    "Progress",
    "Report",
    "ReportFrame",
    "ReportImage",
    "ReportThread",
    "ResolvedFile",
    "Segment",
    "SourceFiles",
    "SourceTree",
    "SourceTrees",
    "ThreadReport",
    "Wanted",
    "WantedSource",
    "analyze",
    "below_roots",
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
    "parse_report",
    "read_core",
    "read_minidump",
    "read_report",
    "source_path",
]
