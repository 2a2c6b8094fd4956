"""Restores damaged blobs, from another server or out of their shared cache."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from symcache.client import fetch_from
from symcache.errors import IntegrityError, NotFoundError
from symcache.library import FsckCode, FsckReport, Library, repair
from symcache.store import blob_key
from symcache_server.http.metrics import DAMAGED

__all__ = ["Repairs"]

log = logging.getLogger("symcache.server")
_FAILED_SECONDS = 600.0
"""Pause before a blob that could not be restored is tried again: a whole shared cache may have to be read for it."""


class Repairs:
    """Restores blobs of one library, from its own content or from the servers at `urls`, which get `headers`."""

    def __init__(self, open_library: Callable[[], Library], urls: Sequence[str], headers: Mapping[str, str]) -> None:
        self._open_library = open_library
        self._fetch = [fetch_from(urls, headers)] if urls else []
        self._failed: dict[str, float] = {}
        self._lock = threading.Lock()

    def repair(self, sha256: str, cause: IntegrityError | NotFoundError) -> None:
        """Restore a blob. Raises IntegrityError if that fails, and `cause` if the library does not need the blob.

        May take minutes. Raises StorageError if the library cannot be opened.
        """
        with self._lock:
            if self._failed.get(sha256, 0.0) > time.monotonic():
                raise _lost(sha256)
            with self._open_library() as library:
                if not library.catalog.is_live(sha256):
                    raise cause
                report = FsckReport()
                report.add(FsckCode.BLOB_DAMAGED, blob_key(sha256), str(cause))  # or missing: `repair` looks itself
                repair(library, report, fetch=self._fetch)
            finding = report.findings[0]
            if isinstance(cause, IntegrityError):
                DAMAGED.labels("library").inc()
            log.error("%s: %s", finding.message, finding.repaired or "not to be had again")
            if not finding.repaired:
                self._failed[sha256] = time.monotonic() + _FAILED_SECONDS
                raise _lost(sha256)


def _lost(sha256: str) -> IntegrityError:
    return IntegrityError(
        f"blob {sha256} is damaged or gone, and neither its shared cache nor another server has it",
        hint="run `symcache fsck --read-data --repair --from` a library or server that has it",
    )
