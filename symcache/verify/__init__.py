"""Completeness: what a release should have, held against what the library really has."""

from symcache.verify.check import verify
from symcache.verify.crash_reports import AskedModule, CrashReport, parse_uuid_list, read_report
from symcache.verify.diff import Difference, ReleaseDiff, diff_releases
from symcache.verify.expectations import Expectations, lacking_families
from symcache.verify.findings import Finding, FindingCode, Level, ReleaseSummary, VerifyReport, Waived
from symcache.verify.missing import Asked, Wanted, shopping_list
from symcache.verify.modules import library_holder, read_reports, verify_modules
from symcache.verify.remote import (
    remote_builds,
    remote_holder,
    remote_misses,
    verify_against_library,
    verify_coverage,
)
from symcache.verify.verdicts import github_lines, junit_xml, markdown
from symcache.verify.waivers import Waiver, apply_waivers, load_waivers

__all__ = [
    "Asked",
    "AskedModule",
    "CrashReport",
    "Difference",
    "Expectations",
    "Finding",
    "FindingCode",
    "Level",
    "ReleaseDiff",
    "ReleaseSummary",
    "VerifyReport",
    "Waived",
    "Waiver",
    "Wanted",
    "apply_waivers",
    "diff_releases",
    "github_lines",
    "junit_xml",
    "lacking_families",
    "library_holder",
    "load_waivers",
    "markdown",
    "parse_uuid_list",
    "read_report",
    "read_reports",
    "remote_builds",
    "remote_holder",
    "remote_misses",
    "shopping_list",
    "verify",
    "verify_against_library",
    "verify_coverage",
    "verify_modules",
]
