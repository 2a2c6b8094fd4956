"""Completeness: what a release should have, held against what the library really has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from symcache.late_imports import late_imports

if TYPE_CHECKING:
    from symcache.verify.check import verify
    from symcache.verify.coverage import CoverageCell, CoverageState, ReleaseCoverage, release_coverage
    from symcache.verify.crash_reports import CrashReport, ReportModule, parse_uuid_list, read_report
    from symcache.verify.diff import Difference, ReleaseDiff, diff_releases
    from symcache.verify.expectations import SYSTEM, Expectations, family_of_path
    from symcache.verify.findings import Finding, FindingCode, Level, ReleaseSummary, VerifyReport, Waived
    from symcache.verify.glance import archs_at_a_glance, lacking_at_a_glance
    from symcache.verify.missing import MissedRequest, Wanted, missing_images
    from symcache.verify.modules import library_holder, read_reports, verify_modules
    from symcache.verify.musts import Had, Lack, has_cryptexes, lost_cryptexes, musts_lacking
    from symcache.verify.policy import RetentionPolicy, SyncPolicy, is_beta, version_number
    from symcache.verify.remote import (
        remote_builds,
        remote_holder,
        remote_misses,
        verify_against_library,
        verify_coverage,
    )
    from symcache.verify.retention import Verdict, plan_pruning
    from symcache.verify.verdicts import github_lines, junit_xml, markdown
    from symcache.verify.waivers import Waiver, apply_waivers, load_waivers

__all__ = [
    "SYSTEM",
    "CoverageCell",
    "CoverageState",
    "CrashReport",
    "Difference",
    "Expectations",
    "Finding",
    "FindingCode",
    "Had",
    "Lack",
    "Level",
    "MissedRequest",
    "ReleaseCoverage",
    "ReleaseDiff",
    "ReleaseSummary",
    "ReportModule",
    "RetentionPolicy",
    "SyncPolicy",
    "Verdict",
    "VerifyReport",
    "Waived",
    "Waiver",
    "Wanted",
    "apply_waivers",
    "archs_at_a_glance",
    "diff_releases",
    "family_of_path",
    "github_lines",
    "has_cryptexes",
    "is_beta",
    "junit_xml",
    "lacking_at_a_glance",
    "library_holder",
    "load_waivers",
    "lost_cryptexes",
    "markdown",
    "missing_images",
    "musts_lacking",
    "parse_uuid_list",
    "plan_pruning",
    "read_report",
    "read_reports",
    "release_coverage",
    "remote_builds",
    "remote_holder",
    "remote_misses",
    "verify",
    "verify_against_library",
    "verify_coverage",
    "verify_modules",
    "version_number",
]

# What needs numpy, a client or LLDB's side: harvests and servers need it late, or never.
__getattr__ = late_imports(
    __name__,
    {
        "check": ("verify",),
        "coverage": ("CoverageCell", "CoverageState", "ReleaseCoverage", "release_coverage"),
        "crash_reports": ("CrashReport", "ReportModule", "parse_uuid_list", "read_report"),
        "diff": ("Difference", "ReleaseDiff", "diff_releases"),
        "expectations": ("SYSTEM", "Expectations", "family_of_path"),
        "findings": ("Finding", "FindingCode", "Level", "ReleaseSummary", "VerifyReport", "Waived"),
        "glance": ("archs_at_a_glance", "lacking_at_a_glance"),
        "missing": ("MissedRequest", "Wanted", "missing_images"),
        "modules": ("library_holder", "read_reports", "verify_modules"),
        "musts": ("Had", "Lack", "has_cryptexes", "lost_cryptexes", "musts_lacking"),
        "policy": ("RetentionPolicy", "SyncPolicy", "is_beta", "version_number"),
        "remote": ("remote_builds", "remote_holder", "remote_misses", "verify_against_library", "verify_coverage"),
        "retention": ("Verdict", "plan_pruning"),
        "verdicts": ("github_lines", "junit_xml", "markdown"),
        "waivers": ("Waiver", "apply_waivers", "load_waivers"),
    },
)
