"""Crash reports of macOS: frames and images without memory, as text (`.crash`) and as JSON (`.ips`)."""

from symcache.reports.files import is_report, parse_report, read_report
from symcache.reports.model import Report, ReportFrame, ReportImage, ReportThread, physical_frames
from symcache.reports.termination import Termination

__all__ = [
    "Report",
    "ReportFrame",
    "ReportImage",
    "ReportThread",
    "Termination",
    "is_report",
    "parse_report",
    "physical_frames",
    "read_report",
]
