"""A TCP proxy before an HTTP server that drops, delays, cuts, loses answers and answers 500, as a seed decides."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Sequence
from typing import Self
from urllib.parse import urlsplit

__all__ = ["FAULTS", "FlakyProxy"]

FAULTS = ("drop", "delay", "cut request", "cut answer", "lose answer", "500")

_ERROR = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class FlakyProxy:
    """Relays to `upstream`; a share of the connections meets a fault, and every other ends after some bytes.

    As long as no connection is to meet a fault, none ends.
    """

    def __init__(self, upstream: str, seed: int, faults: float, kinds: Sequence[str] = FAULTS) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._kinds = kinds
        self.faults = faults
        """Share of new connections that meet one; may be changed at any time."""
        self.counts: dict[str, int] = {}
        """How often each thing happened."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        self.cut()

    def cut(self) -> None:
        """End every connection that is open."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                fault = "pass"
                if self._chance.random() < self.faults:
                    fault = self._chance.choice(self._kinds)
                budget = self._chance.randrange(200, 60_000) if self.faults else 1 << 40
                self.counts[fault] = self.counts.get(fault, 0) + 1
            threading.Thread(target=self._serve, args=(client, fault, budget), daemon=True).start()

    def _serve(self, client: socket.socket, fault: str, budget: int) -> None:
        self._open.add(client)
        with contextlib.suppress(OSError), client:
            if fault == "drop":
                return
            if fault == "delay":
                time.sleep(0.2)
            if fault == "500":
                client.recv(65536)
                client.sendall(_ERROR)
                return
            with socket.create_connection(self._upstream) as server:
                self._open.add(server)
                if fault == "lose answer":  # the server has done what it was told
                    threading.Thread(target=_relay, args=(client, server, 1 << 30), daemon=True).start()
                    while server.recv(65536).startswith(b"HTTP/1.1 100 "):
                        pass
                    client.shutdown(socket.SHUT_RDWR)  # the other thread still reads from it
                    return
                # Even a good connection does not live long: else all would be said over the first good one.
                up = budget if fault == "cut request" else 2 * budget
                down = budget if fault == "cut answer" else 2 * budget
                back = threading.Thread(target=_relay, args=(server, client, down), daemon=True)
                back.start()
                _relay(client, server, up)
                back.join(30)
                self._open.discard(server)
        self._open.discard(client)


def _relay(source: socket.socket, target: socket.socket, budget: int) -> None:
    with contextlib.suppress(OSError):
        while budget > 0 and (data := source.recv(min(16384, budget))):
            target.sendall(data)
            budget -= len(data)
    for connection in (source, target) if budget <= 0 else (target,):
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR if budget <= 0 else socket.SHUT_WR)
