"""Outcomes of checking a machine and of setting it up."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Check", "Outcome"]


class Outcome(StrEnum):
    """What came of one check, or of one step of the set-up."""

    OK = "ok"
    """It is as it should be, and was so before."""
    DONE = "done"
    """It was set up."""
    WOULD_DO = "would do"
    """It would be set up, but for a dry run."""
    SKIPPED = "skipped"
    WARN = "warn"
    FAIL = "fail"
    """A check found what keeps a harvest from working."""
    FAILED = "failed"
    """A step could not be done."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked or set up; `hint` is the next step where one is needed."""

    name: str
    outcome: Outcome
    text: str
    hint: str = ""

    @property
    def failed(self) -> bool:
        """Return whether a harvest would not work, or the step could not be done."""
        return self.outcome in {Outcome.FAIL, Outcome.FAILED}
