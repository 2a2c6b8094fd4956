"""Signals that end a run, as exceptions, so that what was started is taken down again."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

__all__ = ["Interrupted", "Interrupts", "check_interrupts", "held"]

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to end."""


@dataclass
class _State:
    """Of the whole process, as signals are."""

    open: int = 0
    held: int = 0
    requested: bool = False


_STATE = _State()


class Interrupts:
    """While open, the signals that end a process raise Interrupted; within `held` they wait until its end.

    Signals are the main thread's: in another one this does nothing.
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

    def held(self, *, forget: bool = False) -> Any:
        """See the function."""
        return held(forget=forget)


def _signalled(number: int, frame: FrameType | None) -> None:
    del frame
    _STATE.requested = True
    if not _STATE.held:
        raise Interrupted(signal.Signals(number).name)


@contextmanager
def held(*, forget: bool = False) -> Iterator[None]:
    """Let nothing interrupt what is done here; with `forget`, not afterwards either: the end has come already."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _STATE.held += 1
    try:
        yield
    finally:
        _STATE.held -= 1
        if forget:
            _STATE.requested = False
        check_interrupts()


def check_interrupts() -> None:
    """Raise Interrupted where a signal came that nobody has seen: Python drops what is raised within a finalizer."""
    if _STATE.requested and not _STATE.held and threading.current_thread() is threading.main_thread():
        raise Interrupted
