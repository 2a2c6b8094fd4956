"""Signals that end a run, as exceptions, so that what was started is taken down again."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Interrupted", "Interrupts"]

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to end."""


class Interrupts:
    """While open, the signals that end a process raise Interrupted; within `held` they wait until its end.

    Signals are the main thread's: in another one this does nothing.
    """

    def __init__(self) -> None:
        self._held = 0
        self._pending = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                before = signal.getsignal(number)
                # nohup and a shell's background jobs have signals ignored on purpose.
                if before is not signal.SIG_IGN:
                    self._before[number] = before
                    signal.signal(number, self._signalled)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._held:
            self._pending = True
            return
        raise Interrupted(signal.Signals(number).name)

    @contextmanager
    def held(self, *, forget: bool = False) -> Iterator[None]:
        """Let nothing interrupt what is done here; with `forget`, not afterwards either: the end has come already."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if self._pending and not self._held:
                self._pending = False
                if not forget:
                    raise Interrupted
