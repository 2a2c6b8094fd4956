"""TCP ports for servers that have to be told which to listen on."""

from __future__ import annotations

import contextlib
import random
import socket

__all__ = ["free_port"]

_given: set[int] = set()


def free_port(*beside: int) -> int:
    """Return a port of 127.0.0.1 that is free now, as are those so far above it.

    It lies below the ports that systems give to outgoing connections: one of those could be taken before the server,
    which needs a moment to start, comes to it. No port is given twice.
    """
    chance = random.SystemRandom()
    for _ in range(1000):
        port = chance.randrange(11_000, 22_000)
        if port in _given:
            continue
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            for each in (port, *(port + distance for distance in beside)):
                opened.enter_context(socket.socket()).bind(("127.0.0.1", each))
            _given.add(port)
            return port
    raise RuntimeError("no free port")
