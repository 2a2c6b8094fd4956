"""Which builds a site keeps: its `[retention]` held against what the library has, and what servers were asked for."""

from __future__ import annotations

import calendar
import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from symcache.catalog import ReleaseRow, release_order
from symcache.library import BuildLog, Library, Publication, SyncLog, Uses, read_uses
from symcache.model import MACOS, ReleaseId
from symcache.verify.policy import RetentionPolicy, is_beta, version_number

__all__ = ["Verdict", "plan_pruning"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a release, and why."""

    release: ReleaseId
    title: str
    """As `Release` is shown."""
    goes: bool
    reason: str

    @property
    def build(self) -> str:
        """Of the release."""
        return self.release.build


def plan_pruning(library: Library, policy: RetentionPolicy, *, pinned: Sequence[ReleaseId] = ()) -> list[Verdict]:
    """Return what becomes of each release that the library has, newest first. Raises StorageError.

    `pinned` releases stay besides those of the policy. What is not known keeps a build.
    """
    library.refresh()
    rows = library.releases()
    logs = SyncLog(library.store).read()
    uses = read_uses(library.store) if policy.requested_days is not None else Uses(None, {})
    today = dt.datetime.fromtimestamp(library.store.now(), dt.UTC).date()
    context = _Context(library, rows, policy, logs, uses, today, (*policy.pinned, *map(str, pinned)))
    # What was never harvested whole takes no place from what was, unless nothing of its line can be.
    sealed = {_line(row) for row in rows if row.sealed and not context.is_beta(row)}
    places = Counter[_Line]()
    verdicts = []
    for row in rows:
        place = 0
        if not context.is_beta(row):
            line = _line(row)
            place = places[line] + 1
            places[line] += row.sealed or line not in sealed
        goes, reason = context.judge(row, place)
        title = f"{row.product} {row.version}{f' {row.extra}' if row.extra else ''} ({row.build})"
        verdicts.append(Verdict(row.id, title, goes, reason))
    return verdicts


_Line = tuple[str, int]


def _line(row: ReleaseRow) -> _Line:
    """Return the product and major version of a release."""
    return row.id.product, version_number(row.version)[0]


@dataclass(frozen=True, slots=True)
class _Context:
    """All that a verdict depends on."""

    library: Library
    rows: Sequence[ReleaseRow]
    policy: RetentionPolicy
    logs: dict[str, BuildLog]
    uses: Uses
    today: dt.date
    pinned: Sequence[str]

    def is_beta(self, row: ReleaseRow) -> bool:
        """Return whether it is a beta or release candidate: as was published, else by its name.

        A false word of AppleDB takes no release back: a beta has to be called like one, too, and after a candidate that
        was none another build of its version has come out.
        """
        published = self._published(row)
        if published is not None and published.kind == "rc":
            return self._is_followed(row)
        if published is not None and published.kind != "beta":
            return False
        return is_beta(row.build, row.extra)

    def _is_followed(self, row: ReleaseRow) -> bool:
        """Return whether a later build of its version is here or published, and is no beta or candidate."""
        order, version = release_order(row.version, row.build), version_number(row.version)
        builds = {
            other.build: (other.version, "beta" if is_beta(other.build, "") else "release")
            for other in self.rows
            if other.id.product == row.id.product
        }
        builds |= {build: (p.version, p.kind) for build, log in self.logs.items() if (p := log.published)}
        return any(
            kind == "release" and release_order(row.version, build) > order and version_number(other) == version
            for build, (other, kind) in builds.items()
        )

    def judge(self, row: ReleaseRow, place: int) -> tuple[bool, str]:
        """Return whether a build goes, and why it does or stays; `place` is its number in its line, 0 for a beta."""
        goes, reason = self._rule(row, place)
        if not goes:
            return False, reason
        if any(row.id.is_meant_by(name) for name in self.pinned):
            return False, f"pinned, though {reason}"
        log = self._log(row)
        if log is not None and log.running:
            return False, f"it is being harvested, though {reason}"
        if why := self._requested(row):
            return False, f"{why}, though {reason}"
        return True, reason

    def _rule(self, row: ReleaseRow, place: int) -> tuple[bool, str]:
        policy = self.policy
        if not place:
            if policy.beta_days is None:
                return False, "betas are kept"
            day, what = self._came_out(row)
            if day is None:
                return False, "nobody knows when this beta came out"
            age = (self.today - day).days
            text = f"a beta that {what} {day.isoformat()}, {age} days ago; betas are kept for {policy.beta_days}"
            return age > policy.beta_days, text
        line = "{} {}".format(*_line(row))
        if policy.last is None:
            return False, f"every build of {line} is kept"
        return place > policy.last, f"number {place} of the builds of {line}, of which {policy.last} are kept"

    def _log(self, row: ReleaseRow) -> BuildLog | None:
        """Return what `sync` tried of it: that knows macOS only."""
        return self.logs.get(row.build) if row.id.product == MACOS else None

    def _published(self, row: ReleaseRow) -> Publication | None:
        log = self._log(row)
        return log.published if log else None

    def _came_out(self, row: ReleaseRow) -> tuple[dt.date | None, str]:
        """Return when it was released, at the latest, or first harvested: the later, and in words which that is."""
        published = self._published(row)
        released = _last_day(published.released) if published is not None else None
        harvested = _last_day(self.library.catalog.first_harvested(row.id)[:10])
        if released is None or (harvested is not None and harvested > released):
            return harvested, "was first harvested on"
        return released, "came out on"

    def _requested(self, row: ReleaseRow) -> str:
        """Return why it stays for having been asked for, or an empty string."""
        days = self.policy.requested_days
        if days is None:
            return ""
        start = self.today - dt.timedelta(days)
        if self.uses.since is None:
            return "no server has noted yet what it is asked for"
        if self.uses.since > start:
            return f"what servers are asked for is known since {self.uses.since.isoformat()} only"
        last = self.uses.last.get(row.build)
        return f"asked for on {last.isoformat()}" if last and last >= start else ""


def _last_day(text: str) -> dt.date | None:
    """Return the last day that an ISO 8601 day, month or year may mean."""
    try:
        parts = [int(part) for part in text.split("-")]
        year, month = (*parts, 12)[:2]
        day = parts[2] if len(parts) > 2 else calendar.monthrange(year, month)[1]
        return dt.date(year, month, day)
    except (ValueError, OverflowError):
        return None
