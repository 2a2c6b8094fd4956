"""Completeness: what a release should have, held against what the library really has."""

from symcache.verify.check import verify
from symcache.verify.expectations import Expectations
from symcache.verify.findings import Finding, FindingCode, Level, ReleaseSummary, VerifyReport, Waived
from symcache.verify.verdicts import github_lines, junit_xml, markdown
from symcache.verify.waivers import Waiver, apply_waivers, load_waivers

__all__ = [
    "Expectations",
    "Finding",
    "FindingCode",
    "Level",
    "ReleaseSummary",
    "VerifyReport",
    "Waived",
    "Waiver",
    "apply_waivers",
    "github_lines",
    "junit_xml",
    "load_waivers",
    "markdown",
    "verify",
]
