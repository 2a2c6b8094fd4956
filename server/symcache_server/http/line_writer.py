"""Writes log lines in a thread of its own, so that a full disk or a pipe that nobody reads delays no request."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from pathlib import Path

__all__ = ["LineWriter", "log_to_stderr"]

_SECONDS = 2.0
"""How long a line may stay in memory: one write a line would cost as much as responding to a request."""
_MANY = 500
_MOST = 50_000
"""Lines in memory; of more, the newest are dropped, and counted."""
_LAST_SECONDS = 5.0
_STUCK_SECONDS = 10.0
_PIECE = 64 << 10
"""Bytes that are written at once. Lines of several processes do not mix as long as the file takes each piece whole."""


class LineWriter:
    """Appends lines to the file `path`, or to standard error. A file that was moved away is created again."""

    def __init__(self, path: Path | None, *, at_once: bool = False) -> None:
        self._path = path
        self._lines: list[str] = []
        self._rest = bytearray()
        """Of what could not be written so far."""
        self._many = 1 if at_once else _MANY
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ended = False
        self._dropped = 0
        self._problem = ""
        self._began = 0.0
        """When the write began that is under way, or 0."""
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def add(self, line: str) -> None:
        """Have a line written soon."""
        with self._lock:
            if len(self._lines) >= _MOST:
                self._dropped += 1
                return
            self._lines.append(line)
            many = len(self._lines) >= self._many
        if many:
            self._wake.set()

    @property
    def problem(self) -> str:
        """Why the last write failed, or does not end; an empty string if it succeeded."""
        began = self._began
        stuck = began and time.monotonic() - began > _STUCK_SECONDS
        return "nothing takes what is written" if stuck else self._problem

    def take_dropped(self) -> int:
        """Return how many lines were dropped since this was last called."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        return dropped

    def flush(self) -> None:
        """Have everything written now; does not wait for it."""
        self._wake.set()

    def close(self) -> None:
        """Write what is left, within a few seconds."""
        self._ended = True
        self._wake.set()
        self._thread.join(_LAST_SECONDS)

    def _run(self) -> None:
        while not self._ended:
            self._wake.wait(_SECONDS)
            self._wake.clear()
            self._write()
            if self._problem:
                self._wake.wait(_SECONDS if not self._ended else 0)
        self._write()

    def _write(self) -> None:
        if len(self._rest) < _PIECE:
            with self._lock:
                lines, self._lines = self._lines, []
            self._rest += "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")
        if not self._rest:
            return
        self._began = time.monotonic()
        try:
            descriptor = 2 if self._path is None else os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                while self._rest:
                    written = os.write(descriptor, self._rest)
                    del self._rest[:written]
            finally:
                if self._path is not None:
                    os.close(descriptor)
            self._problem = ""
        except OSError as error:
            self._problem = error.strerror or str(error)
        finally:
            self._began = 0.0


class _LineHandler(logging.Handler):
    """Passes the records of `logging` to a `LineWriter`."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Have a record written."""
        try:
            self._writer.add(self.format(record))
        except Exception:
            self.handleError(record)


def log_to_stderr() -> None:
    """Have warnings and errors of this process written to standard error."""
    writer = LineWriter(None, at_once=True)
    atexit.register(writer.close)
    form = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.WARNING, handlers=[_LineHandler(writer)], format=form)
