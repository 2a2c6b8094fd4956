"""How far a harvest is, over all its stages, and how long it will still take."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Amount", "HarvestProgress", "NoProgress", "Whole"]

_COPY, _KEEP, _IMAGES = 1.0, 1.4, 2.0
"""Relative costs of a byte of a shared cache: copying; hashing and compressing; making and storing its images."""
_FILES = 0.3
"""Expected bytes of Mach-O files outside the caches, for each byte of caches, until they have been found."""
_EARLIEST_SECONDS, _EARLIEST_SHARE = 5.0, 0.02
"""Seconds and share of the work before the remaining time is estimated."""
_REPORT_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Amount:
    """How far the whole is."""

    copied: int
    """Bytes of caches and files that are here."""
    to_copy: int
    """How many there are of these; files outside the caches count once they are found."""
    images: int
    """Images of shared caches that are stored."""
    of_images: int
    share: float
    """Of all the work, from 0 to 1."""
    seconds_left: float | None
    """None if nobody can tell yet."""


class HarvestProgress(Protocol):
    """Receives the progress of a harvest, from one thread."""

    def step(self, title: str) -> None:
        """Begin another step."""

    def update(self, amount: Amount) -> None:
        """Show how far the whole is; called a few times a second."""


class NoProgress:
    """Ignores progress."""

    def step(self, title: str) -> None:
        """Do nothing."""

    def update(self, amount: Amount) -> None:
        """Do nothing."""


class Whole:
    """The progress over all stages, which overlap, each in a thread of its own.

    Where the processor is what takes time, as on a fast network, work costs as much as it takes of it; where it is the
    network, all stages follow the copying. So one sum of costs tells time in both cases.
    """

    def __init__(self, progress: HarvestProgress, *, copies: bool, keeps: bool, in_guest: bool) -> None:
        """Files need no copying if not `copies`; raw caches are stored if `keeps`.

        What a tool `in_guest` will take, nobody knows: then no time is told.
        """
        self._progress, self._in_guest = progress, in_guest
        self._copy, self._keep = _COPY if copies else 0.0, _KEEP if keeps else 0.0
        self._lock = threading.Lock()
        self._start = self._reported = 0.0
        self._caches = self._copied = self._kept = 0
        self._copied_files = 0
        self._files_known = False
        self._images = self._of_images = 0
        self._made = 0.0
        """Of the bytes of caches, those whose images are stored."""

    def step(self, title: str) -> None:
        """Begin another step."""
        self._progress.step(title)
        self.report(at_once=True)

    def expect(self, caches: int) -> None:
        """Say how many bytes of shared caches there are in all; the time counts from here on."""
        self._caches, self._start = caches, time.monotonic()

    def copied(self, count: int) -> None:
        """Count bytes of a shared cache that came."""
        self._copied = min(self._copied + count, self._caches)  # a damaged copy is made twice
        self.report()

    def kept(self, count: int) -> None:
        """Count bytes of raw cache files that are hashed and compressed; from any thread."""
        with self._lock:
            self._kept = min(self._kept + count, self._caches)

    def opened(self, images: int) -> None:
        """Count the images that a cache lists."""
        self._of_images += images

    def made(self, images: int, size: float) -> None:
        """Count images that are stored, and the share of their cache in bytes; from any thread."""
        with self._lock:
            self._images += images
            self._made += size

    def copied_file(self, size: int) -> None:
        """Count a file outside of the caches that came."""
        self._copied_files += size
        self.report()

    def copied_all(self) -> None:
        """Say that there are no more of these files."""
        self._files_known = True

    def report(self, *, at_once: bool = False) -> None:
        """Tell how far it is, unless that was told just now."""
        now = time.monotonic()
        if self._start and (at_once or now - self._reported >= _REPORT_SECONDS):
            self._reported = now
            self._progress.update(self._amount(now - self._start))

    def _amount(self, elapsed: float) -> Amount:
        files = self._copied_files if self._files_known else max(_FILES * self._caches, self._copied_files)
        done = self._copied * self._copy + self._kept * self._keep + self._made * _IMAGES
        done += self._copied_files * (self._copy + _KEEP)
        total = self._caches * (self._copy + self._keep + _IMAGES) + files * (self._copy + _KEEP)
        # Without caches, nothing is known of the whole before all files were found.
        share = min(done / total, 1.0) if total and (self._caches or self._files_known) else 0.0
        known = share >= _EARLIEST_SHARE and elapsed >= _EARLIEST_SECONDS and not self._in_guest
        return Amount(
            self._copied + self._copied_files,
            self._caches + self._copied_files,
            self._images,
            self._of_images,
            share,
            elapsed * (1 - share) / share if known else None,
        )
