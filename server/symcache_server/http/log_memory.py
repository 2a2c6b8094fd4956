"""The last lines of the log, for the status page."""

from __future__ import annotations

import logging
from collections import deque
from datetime import UTC, datetime
from typing import NamedTuple

__all__ = ["LogMemory", "LoggedLine"]

_LINES = 50
_LONGEST = 1000


class LoggedLine(NamedTuple):
    """A line of the log; `time` is UTC, ISO 8601."""

    time: str
    level: str
    text: str


class LogMemory(logging.Handler):
    """Keeps the last warnings and errors of this process."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: deque[LoggedLine] = deque(maxlen=_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="seconds")
        try:
            text = record.getMessage()
        except Exception:  # a message that does not fit its values is no reason to fail
            text = str(record.msg)
        self._lines.append(LoggedLine(time, record.levelname.lower(), text[:_LONGEST]))

    def lines(self) -> list[LoggedLine]:
        """Return what was kept, the last line first."""
        return list(reversed(self._lines))
