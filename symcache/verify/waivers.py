"""Findings that a site accepts: each with a reason, and until a day."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from symcache.verify.findings import Finding, FindingCode, VerifyReport, Waived
from symcache.verify.tables import load_table

__all__ = ["Waiver", "apply_waivers", "load_waivers"]

_Glob = Annotated[str, Field(max_length=1024)]


class Waiver(BaseModel):
    """One waiver. Patterns are globs (`*`, `?`); those left out fit everything."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: FindingCode
    reason: str = Field(min_length=1, max_length=1000)
    expires: date
    """The last day on which it holds."""
    product: _Glob = "*"
    build: _Glob = "*"
    path: _Glob = "*"
    arch: _Glob = "*"
    uuid: _Glob = "*"

    def fits(self, finding: Finding) -> bool:
        """Return whether this waiver is about a finding."""
        return finding.code is self.code and all(
            fnmatch.fnmatchcase(text, pattern)
            for text, pattern in (
                (finding.product, self.product),
                (finding.build, self.build),
                (finding.path, self.path),
                (finding.arch, self.arch),
                (finding.uuid, self.uuid.upper()),
            )
        )

    def __str__(self) -> str:
        """Return what it is about, for messages."""
        parts = [f"{n}={v}" for n in ("product", "build", "path", "arch", "uuid") if (v := getattr(self, n)) != "*"]
        return " ".join([self.code.value, *parts])


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    waiver: tuple[Waiver, ...] = ()


def load_waivers(path: Path) -> tuple[Waiver, ...]:
    """Read a file of waivers. Raises UsageError."""
    return load_table(_File, path, "--waivers", "a waiver has a code, a reason, and the day it expires").waiver


def apply_waivers(report: VerifyReport, waivers: Sequence[Waiver], today: date) -> None:
    """Move what is waived out of the report's findings.

    An expired waiver excuses nothing; it is noted when it would still apply, and so is a waiver that no finding needs.
    """
    used: set[int] = set()
    expired: set[int] = set()
    left: list[Finding] = []
    for finding in report.findings:
        fitting = [n for n, w in enumerate(waivers) if w.fits(finding)]
        valid = [n for n in fitting if today <= waivers[n].expires]
        if valid:
            used.add(valid[0])
            waiver = waivers[valid[0]]
            report.waived.append(Waived(finding, waiver.reason, waiver.expires.isoformat()))
        else:
            expired.update(fitting)
            left.append(finding)
    report.findings[:] = left
    report.notes += _notes(waivers, used, expired)


def _notes(waivers: Sequence[Waiver], used: set[int], expired: set[int]) -> Iterable[str]:
    for number, waiver in enumerate(waivers):
        if number in expired:
            yield f"waiver {waiver}: expired on {waiver.expires.isoformat()}, so its findings count again"
        elif number not in used:
            yield f"waiver {waiver}: excuses nothing any more; remove it"
