"""Follows the library, so that records which other processes add are seen within seconds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from symcache.errors import SymcacheError
from symcache.library import Library
from symcache_server.http.metrics import LIBRARY_AGE

__all__ = ["Refresher"]

log = logging.getLogger("symcache.server")


class Refresher:
    """Folds new records into the catalog, by `background`; calls `on_change` when the catalog of `library` changes."""

    def __init__(self, library: Library, background: Library, on_change: Callable[[], None]) -> None:
        self._library, self._background, self._on_change = library, background, on_change
        self._version = self._data_version()
        self.refreshed = time.time()
        """When that last succeeded, in seconds since 1970."""
        self.error = ""
        """Why it has failed since, or an empty string."""

    async def refresh(self) -> None:
        """Look for new records once; what goes wrong is logged."""
        try:
            await asyncio.to_thread(self._background.refresh)
            # Another process may have folded the records: look at the catalog file itself.
            if (version := await asyncio.to_thread(self._data_version)) != self._version:
                self._version = version
                self._on_change()
            self.refreshed, self.error = time.time(), ""
            LIBRARY_AGE.set(self.refreshed)
        except Exception as error:  # whatever it is, it may be over the next time
            if not self.error:
                log.warning("cannot look for new records: %s", error, exc_info=not isinstance(error, SymcacheError))
            self.error = str(error) or type(error).__name__

    def _data_version(self) -> int:
        return self._library.catalog.data_version()
