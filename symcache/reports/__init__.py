"""Crash reports of macOS: frames and images without memory, as text (`.crash`) and as JSON (`.ips`)."""

from symcache.reports.document import Document, find_document
from symcache.reports.files import decoded, is_escaped, is_report, parse_report, read_report, unquoted
from symcache.reports.frames import bare_frames, frame_of, frame_pieces, split_frame
from symcache.reports.ips import frame_reader
from symcache.reports.model import Report, ReportFrame, ReportImage, ReportThread, physical_frames
from symcache.reports.termination import Termination
from symcache.reports.text import stack_begins

__all__ = [
    "Document",
    "Report",
    "ReportFrame",
    "ReportImage",
    "ReportThread",
    "Termination",
    "bare_frames",
    "decoded",
    "find_document",
    "frame_of",
    "frame_pieces",
    "frame_reader",
    "is_escaped",
    "is_report",
    "parse_report",
    "physical_frames",
    "read_report",
    "split_frame",
    "stack_begins",
    "unquoted",
]
