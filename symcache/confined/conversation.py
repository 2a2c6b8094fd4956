"""What a confined process is told while it is at work, and what it asks for: lines through two pipes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Self

__all__ = ["Conversation", "NoRequestError", "Respond"]

Respond = Callable[[bytes], bytes]
"""From a request, without its line end, to the line that responds to it. Raises NoRequestError."""
_MAX_REQUEST = 1 << 20
_PART = 1 << 16


class NoRequestError(Exception):
    """What came from the process is no request; the message says what it did, as in `sends no JSON`."""


class Conversation:
    """Two pipes with a confined process, for one line at a time: the first is ours, then it asks, and we respond.

    A context manager. The process may ask `most` times. `child_ends` are its descriptors, to read and to write.
    """

    def __init__(self, most: int) -> None:
        self._most = self._left = most
        self._partial, self._outgoing = bytearray(), memoryview(b"")
        self._respond: Respond | None = None
        reading, self._sending = os.pipe()
        self._receiving, writing = os.pipe()
        self.child_ends: tuple[int, ...] = (reading, writing)
        self._open = [self._sending, self._receiving]
        os.set_blocking(self._sending, False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_child_ends()
        while self._open:
            os.close(self._open.pop())

    def close_child_ends(self) -> None:
        """Close what the process has, once it has started: these pipes are to end with it."""
        for descriptor in self.child_ends:
            os.close(descriptor)
        self.child_ends = ()

    def begin(self, line: bytes, respond: Respond) -> None:
        """Send a line, and have `respond` respond from then on, as `proceed` is called."""
        self._outgoing, self._respond = memoryview(line), respond

    @property
    def writing(self) -> list[int]:
        """The descriptor to wait for until it can be written to, if there is anything to send."""
        return [self._sending] if self._outgoing else []

    @property
    def reading(self) -> list[int]:
        """The descriptor to wait for until it can be read, if there is anything to receive. It must read first."""
        return [self._receiving] if self._respond and not self._outgoing else []

    def proceed(self, ready: Sequence[int]) -> float:
        """Send and receive through the descriptors that are ready; return the seconds that a response took.

        Raises NoRequestError, and what `respond` raises.
        """
        if self._sending in ready:
            try:
                self._outgoing = self._outgoing[os.write(self._sending, self._outgoing[:_PART]) :]
            except BlockingIOError:
                pass
            except BrokenPipeError:
                self._outgoing = memoryview(b"")  # it has died, or wants no more
        respond = self._respond
        if self._receiving not in ready or not respond:
            return 0.0
        part = os.read(self._receiving, _PART)
        self._partial += part
        if len(self._partial) > _MAX_REQUEST:
            raise NoRequestError(f"sends a request of more than {_MAX_REQUEST >> 20} MiB")
        if b"\n" in part[:-1]:
            raise NoRequestError("sends a request before it has the response to another")
        if not part:
            self._respond = None
        if not part.endswith(b"\n"):
            return 0.0
        if not self._left:
            raise NoRequestError(f"sends more than {self._most} requests")
        self._left -= 1
        start = time.monotonic()
        self._outgoing = memoryview(respond(bytes(self._partial[:-1])))
        self._partial.clear()
        return time.monotonic() - start
