"""Turns signals that end the process into exceptions, so that machines and folders are cleaned up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

__all__ = ["Interrupted", "Interrupts", "check_interrupts", "defer_interrupts"]

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to end."""


@dataclass
class _State:
    """State of the whole process, as signals are handled for it as a whole."""

    open: int = 0
    deferred: int = 0
    requested: bool = False


_STATE = _State()


class Interrupts:
    """Context in which signals that end the process raise Interrupted; `defer_interrupts` delays that.

    Python handles signals in the main thread: in another one this does nothing.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            _STATE.open += 1
            for number in _SIGNALS:
                before = signal.getsignal(number)
                # nohup and a shell's background jobs have signals ignored on purpose.
                if before is not signal.SIG_IGN:
                    self._before[number] = before
                    signal.signal(number, _signalled)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()
        if threading.current_thread() is threading.main_thread():
            _STATE.open -= 1
            if not _STATE.open:
                _STATE.requested = False


def _signalled(number: int, frame: FrameType | None) -> None:
    del frame
    _STATE.requested = True
    if not _STATE.deferred:
        raise Interrupted(signal.Signals(number).name)


@contextmanager
def defer_interrupts(*, forget: bool = False) -> Iterator[None]:
    """Delay Interrupted until the end of this context; with `forget`, drop it, as the process is ending already."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _STATE.deferred += 1
    try:
        yield
    finally:
        _STATE.deferred -= 1
        if forget:
            _STATE.requested = False
        check_interrupts()


def check_interrupts() -> None:
    """Raise Interrupted if a signal came but its exception was lost: Python drops those raised in finalizers."""
    if _STATE.requested and not _STATE.deferred and threading.current_thread() is threading.main_thread():
        raise Interrupted
