"""Completeness: what a release should have, held against what the library really has."""

from symcache.verify.check import Finding, FindingCode, Level, VerifyReport, verify

__all__ = ["Finding", "FindingCode", "Level", "VerifyReport", "verify"]
