"""Reads all files on this machine's disks again, little by little, to find damage before somebody needs them.

It reads the decoded files, and the blobs of a library in a folder; only one process of a server does it. Files lie in
256 folders by the first two digits of their hash. `scrubber.json` in the state folder says when each folder was last
read, and the one that was read longest ago is next. For object stores there is `symcache fsck --read-data-subset`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

from symcache.errors import IntegrityError, SymcacheError
from symcache.files import atomic_write_bytes
from symcache.library import Library
from symcache.store import BLOB_KEY, LocalStore
from symcache_server.files.checked import content_hash, decoded_hash, put_aside
from symcache_server.files.decoded import Repair
from symcache_server.http.metrics import OLDEST_CHECK

__all__ = ["Scrubber"]

log = logging.getLogger("symcache.server")
PERIOD = 20 * 86400.0
"""Seconds after which a folder is read again; of thirty days, that leaves a third for the reading itself."""
_REST = 4.0
"""It waits so many times as long as it reads, so it takes a fifth of the disk's time, and of a core."""
_LOOK_SECONDS = 60.0
"""Seconds between two looks for the lock of another process, or for a folder that is due."""
_SAVE_SECONDS = 60.0
_SINCE = "since"
_DECODED = re.compile(r"([0-9a-f]{64})(\.zst)?")
_PREFIXES = tuple(f"{number:02x}" for number in range(256))


class _Area(NamedTuple):
    """Files in 256 folders."""

    name: str
    """As the metrics call it."""
    key: str
    """Key in the state; names the library or folder, so that another one begins anew."""
    folder: Path
    check: Callable[[Path], None]
    """Checks one file, and puts it aside or repairs it. Raises OSError, SymcacheError."""


class Scrubber:
    """Checks the decoded files in `decoded` and the blobs of `library`; a damaged blob goes to `repair`."""

    def __init__(self, library: Library, decoded: Path, state: Path, repair: Repair) -> None:
        self._repair, self._decoded, self._folder = repair, decoded, state
        self._areas = [_Area("decoded", f"decoded {decoded}", decoded, self._check_decoded)]
        if isinstance(library.store, LocalStore):
            name = library.catalog.library_id() or library.store.location
            self._areas.append(_Area("library", f"library {name}", library.store.root / "blobs", self._check_blob))
        self._state = _State(state / "scrubber.json")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scrubber", daemon=True)

    def start(self) -> None:
        """Begin, in a thread of low priority."""
        self._thread.start()

    def close(self) -> None:
        """End, at the next file."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        if sys.platform == "linux":  # elsewhere this is about the whole process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / "scrubber.lock").open("a") as lock:
                while not self._stop.is_set() and not _locked(lock):
                    self._stop.wait(_LOOK_SECONDS)
                self._state.load()
                while not self._stop.is_set():
                    self.tell()
                    self._stop.wait(_LOOK_SECONDS)
                    while not self._stop.is_set() and self.check_next(time.time()):
                        self._state.save(_SAVE_SECONDS)
                    self._state.save()
        except OSError as error:
            log.error("nothing is checked any more: %s", error)

    def tell(self) -> None:
        """Update the metric of the oldest check."""
        for name, checked in self.oldest(time.time()).items():
            OLDEST_CHECK.labels(name).set(checked)

    def oldest(self, now: float) -> dict[str, float]:
        """Return by area when the folder was checked that has waited longest, in seconds since 1970."""
        return {area.name: self._state.oldest(area.key, now) for area in self._areas}

    def check_next(self, now: float) -> bool:
        """Check the folder that has waited longest; return False if none is due at `now`, in seconds since 1970."""
        checked, number, prefix = min(
            (self._state.checked(area.key, prefix, now), number, prefix)
            for number, area in enumerate(self._areas)
            for prefix in _PREFIXES
        )
        if checked + PERIOD > now:
            return False
        area = self._areas[number]
        if finished := self._check_folder(area, area.folder / prefix):
            self._state.note(area.key, prefix, now)
        return finished

    def _check_folder(self, area: _Area, folder: Path) -> bool:
        """Check every file of a folder; return False if `close` was called meanwhile."""
        try:
            paths = sorted(folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return True
        for path in paths:
            began = time.monotonic()
            try:
                area.check(path)
            except FileNotFoundError:
                continue  # removed meanwhile
            except (OSError, SymcacheError) as error:
                log.error("%s: %s", path, error)
            if self._stop.wait(_REST * (time.monotonic() - began)):
                return False
        return True

    def _check_decoded(self, path: Path) -> None:
        if not (match := _DECODED.fullmatch(path.name)):
            return
        status = path.stat()
        damaged = _read(path, decoded_hash if match[2] else content_hash) != match[1]
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # that was no use
        if damaged:
            put_aside(self._decoded, path, "decoded")

    def _check_blob(self, path: Path) -> None:
        match = BLOB_KEY.fullmatch(f"blobs/{path.parent.name}/{path.name}")
        if match and _read(path, decoded_hash) != match[2]:
            self._repair(match[2], IntegrityError(f"{path}: damaged"))


class _State:
    """When each folder was last checked, in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._saved = time.monotonic()
        self._times: dict[str, dict[str, float]] = {}

    def load(self) -> None:
        """Load the saved state; begin anew if it cannot be read."""
        with contextlib.suppress(FileNotFoundError, ValueError, AttributeError, TypeError):
            saved = json.loads(self._file.read_bytes())
            self._times = {str(k): {str(n): float(t) for n, t in times.items()} for k, times in saved.items()}

    def save(self, after: float = 0.0) -> None:
        """Save, unless that was tried within `after` seconds. Where there is no room, the next time may have some."""
        if time.monotonic() - self._saved >= after:
            self._saved = time.monotonic()
            with contextlib.suppress(OSError):  # as what looks after the folder tells
                atomic_write_bytes(self._file, json.dumps(self._times).encode())

    def checked(self, area: str, prefix: str, now: float) -> float:
        """Return when a folder was last checked, in seconds since 1970; 0 for never, and for what a clock got wrong."""
        at = self._times.get(area, {}).get(prefix, 0.0)
        return at if at <= now else 0.0

    def oldest(self, area: str, now: float) -> float:
        """Return when the folder was checked that waits longest; those that never were, count from the first look."""
        since = self._times.setdefault(area, {}).setdefault(_SINCE, now)
        return min(self.checked(area, prefix, now) or since for prefix in _PREFIXES)

    def note(self, area: str, prefix: str, now: float) -> None:
        """Note that a folder was checked."""
        self._times.setdefault(area, {})[prefix] = now


def _locked(lock: IO[str]) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _read(path: Path, hashed: Callable[[BinaryIO], str]) -> str:
    """Return the hash of what is on the disk, not of what the kernel has of it in memory."""
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return hashed(file)
