"""What was tried to bring a build into the library, kept in its store: every runner reads it, however short it lives.

===================================  ==============================================================================
key                                  content (JSON)
===================================  ==============================================================================
``sync/<build>/<number>.json``       an attempt. Who creates it holds the lease on the build: as long as it is younger
                                     than `LEASE_SECONDS` on the store's clock, or its end is there
``sync/<build>/<number>.end.json``   how it ended
``sync/<build>/published-….json``    what is known of the build's publication; the latest one counts
===================================  ==============================================================================

Objects are created on condition and never changed, so that of two runners one gets a number. Programs that know nothing
of `sync/` pass it over.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from symcache.errors import NotFoundError
from symcache.library.user_dirs import now
from symcache.model import is_build_name
from symcache.store import BlobStat, Store, put_object

__all__ = ["LEASE_SECONDS", "Attempt", "BuildLog", "Lease", "Publication", "SyncLog"]

LEASE_SECONDS = 900.0
"""A lease that was not renewed for so long is nobody's: its runner was killed."""
_KEY = re.compile(r"sync/([A-Za-z0-9._-]{1,64})/(?:([0-9]{6})(\.end)?|published-[0-9a-f]{16})\.json")
_MAX_SIZE = 64 << 10
_LONGEST = 2000
_AT_ONCE = 16


class _Stored(BaseModel):
    # Older programs read what newer ones write: unknown fields are passed over, and no value is one of a fixed set.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Publication(_Stored):
    """What is known of the publication of a build."""

    version: str = Field(default="", max_length=64)
    kind: str = Field(default="release", max_length=64)
    """`release`, `rc`, `beta` or `response` (a Rapid Security Response)."""
    released: str = Field(default="", max_length=10)
    """ISO 8601, as far as it is known: a day, a month or a year."""


class Attempt(_Stored):
    """One attempt; `outcome` is empty while it goes on, and where it was killed."""

    number: int = 0
    source: str = Field(default="", max_length=4096)
    """What was harvested: the name of a machine, or `firmware`."""
    offer: str = Field(default="", max_length=64)
    """Identifies what was offered at that time, as the links and hashes of a firmware."""
    runner: str = Field(default="", max_length=300)
    started: str = Field(default="", max_length=64)
    outcome: str = Field(default="", max_length=64)
    """`sealed`, `not sealed`, `failed` or `interrupted`."""
    error: str = Field(default="", max_length=_LONGEST)
    hint: str = Field(default="", max_length=_LONGEST)
    finished: str = Field(default="", max_length=64)
    alive: float = 0.0
    """When it was last seen going on, or ended: seconds since the epoch, by the store's clock."""


@dataclass(frozen=True, slots=True)
class BuildLog:
    """What was tried of one build, first attempt first."""

    build: str
    attempts: tuple[Attempt, ...] = ()
    published: Publication | None = None
    time: float = 0.0
    """When this was read, by the store's clock."""

    @property
    def running(self) -> Attempt | None:
        """The attempt that another runner is at."""
        last = self.attempts[-1] if self.attempts else None
        # One dated ahead of now was made before the clock of the store was set right.
        return last if last and not last.outcome and abs(self.time - last.alive) < LEASE_SECONDS else None

    def failures(self, source: str, offer: str = "") -> list[Attempt]:
        """Return the attempts with this source and this offer that failed or were killed: another may well work."""
        return [
            a
            for a in self.attempts
            if (a.source, a.offer) == (source, offer)
            and a.outcome not in {"sealed", "interrupted"}
            and a is not self.running
        ]


class Lease:
    """The right to harvest a build, held by this runner until it ends or is not renewed."""

    def __init__(self, store: Store, build: str, attempt: Attempt) -> None:
        self._store, self.build, self.attempt = store, build, attempt

    def renew(self) -> bool:
        """Hold it for longer; return False if another runner has taken it meanwhile. Raises StorageError."""
        self._store.refresh(_key(self.build, self.attempt.number))
        return self._store.stat(_key(self.build, self.attempt.number + 1)) is None

    def end(self, outcome: str, error: str = "", hint: str = "") -> None:
        """Say how the attempt ended, and give the lease back. Raises StorageError."""
        end = {"outcome": outcome, "error": error[:_LONGEST], "hint": hint[:_LONGEST], "finished": now()}
        put_object(self._store, _key(self.build, self.attempt.number, ".end"), [_json(end)])


@dataclass
class _Keys:
    """What the store has of one build: keys with what it knows of them."""

    attempts: dict[int, BlobStat] = field(default_factory=dict)
    ends: dict[int, BlobStat] = field(default_factory=dict)
    published: dict[str, BlobStat] = field(default_factory=dict)


class SyncLog:
    """The log of a library's store. Methods raise StorageError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, builds: Iterable[str] | None = None) -> dict[str, BuildLog]:
        """Return the logs of these builds, or of all that have one; an object that cannot be read says nothing."""
        time = self._store.now()
        prefixes = ["sync/"] if builds is None else [f"sync/{build}/" for build in builds if is_build_name(build)]
        listed: dict[str, _Keys] = {}
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="sync") as pool:
            for objects in pool.map(lambda prefix: list(self._store.scan(prefix)), prefixes):
                _sort(objects, listed)
            logs = pool.map(lambda item: self._log(item[0], item[1], time), listed.items())
            result = {log.build: log for log in logs}
        return {build: BuildLog(build, time=time) for build in builds or ()} | result

    def acquire(self, log: BuildLog, *, source: str, offer: str, runner: str) -> Lease | None:
        """Return the lease on the next attempt after those of `log`; None if another runner was faster.

        Raises ValueError for what is no build.
        """
        if not is_build_name(log.build):
            raise ValueError(f"{log.build!r} is no build")
        number = log.attempts[-1].number + 1 if log.attempts else 1
        attempt = Attempt(number=number, source=source[:4096], offer=offer, runner=runner[:300], started=now())
        written = attempt.model_dump(exclude={"alive", "outcome", "error", "hint", "finished"})
        if not put_object(self._store, _key(log.build, number), [_json(written)]):
            return None
        return Lease(self._store, log.build, attempt)

    def publish(self, log: BuildLog, publication: Publication) -> None:
        """Note what is known of the publication of a build, unless the log says it already."""
        if log.published == publication or not is_build_name(log.build):
            return
        # Its name differs from that of each earlier one: what was said before may be said again.
        text = _json(publication.model_dump() | {"noted": now()})
        put_object(self._store, f"sync/{log.build}/published-{hashlib.sha256(text).hexdigest()[:16]}.json", [text])

    def _log(self, build: str, keys: _Keys, time: float) -> BuildLog:
        attempts = []
        for number, stat in sorted(keys.attempts.items()):
            attempt = self._load(_key(build, number), Attempt)
            changes: dict[str, Any] = {"number": number, "alive": stat.modified, "outcome": ""}
            if number in keys.ends:
                ended = self._load(_key(build, number, ".end"), Attempt)
                ended = ended or Attempt(outcome="failed", error="nobody can read how it ended")
                changes |= ended.model_dump(include={"outcome", "error", "hint", "finished"})
                changes |= {"outcome": ended.outcome or "failed", "alive": keys.ends[number].modified}
            attempts.append((attempt or Attempt()).model_copy(update=changes))
        published = max(keys.published, key=lambda key: keys.published[key].modified, default=None)
        return BuildLog(build, tuple(attempts), self._load(published, Publication) if published else None, time)

    def _load(self, key: str, model: type[_Model]) -> _Model | None:
        with contextlib.suppress(ValidationError, NotFoundError), self._store.open(key) as stored:
            return model.model_validate_json(stored.read(_MAX_SIZE))
        return None


_Model = TypeVar("_Model", bound=_Stored)


def _sort(objects: Iterable[tuple[str, BlobStat]], listed: dict[str, _Keys]) -> None:
    for key, stat in objects:
        match = _KEY.fullmatch(key)
        if match is None:
            continue  # of a newer program
        keys = listed.setdefault(match[1], _Keys())
        if match[2] is None:
            keys.published[key] = stat
        else:
            (keys.ends if match[3] else keys.attempts)[int(match[2])] = stat


def _key(build: str, number: int, end: str = "") -> str:
    return f"sync/{build}/{number:06d}{end}.json"


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"
