"""How many requests an object store gets: what its operators count, and some of them bill.

A relay before SeaweedFS counts the request lines that pass. The images are tiny: how many requests there are goes by
how many files are stored, up to 64 MiB each; larger ones are sent in parts.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Self
from unittest import mock
from urllib.parse import urlsplit

from symcache.images import ImageRequest
from symcache.library import Library, Subset, fsck, ingest, write_snapshot
from tests.bench.harness import Row, figure
from tests.library.images import Image, harvest
from tests.support.seaweed import new_location, s3_environment, seaweed

__all__ = ["run"]

_IMAGES = 500
_LINE = re.compile(rb"(?:^|\n)(GET|PUT|HEAD|POST|DELETE) /\S* HTTP/1\.1\r\n")
_LISTING = re.compile(rb"(?:^|\n)GET /\S*list-type=2\S* HTTP/1\.1\r\n")


class _Relay:
    """A context manager: relays to a store, and counts."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._upstream)
                threading.Thread(target=self._pass, args=(client, server, self._count), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, lambda _: None), daemon=True).start()

    def _count(self, data: bytes) -> None:
        self.counts.update(found.decode() for found in _LINE.findall(data))
        listings = len(_LISTING.findall(data))
        self.counts["list"] += listings
        self.counts["GET"] -= listings

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket, count: Callable[[bytes], object]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                count(data)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def run(scratch: Path) -> list[Row]:
    """Return the requests of each kind for what is done to a library of 500 images."""
    rows: list[Row] = []
    images = [Image(f"/usr/lib/lib{number}.dylib", number + 1, size=3000) for number in range(_IMAGES)]
    location = new_location()
    with _Relay(seaweed()) as relay, mock.patch.dict(os.environ, s3_environment(relay.url)):

        def counted(name: str, action: Callable[[], object], each: int = _IMAGES) -> None:
            relay.counts.clear()
            action()
            for method, count in sorted(relay.counts.items()):
                if count:
                    rows.append(figure(f"requests: {name}: {method}", count / each, f"of {each}" if each > 1 else ""))

        def again(name: str, action: Callable[[Library], object], each: int = _IMAGES) -> None:
            shutil.rmtree(scratch / "cache", ignore_errors=True)
            with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(scratch / "cache")}):
                counted(name, lambda: _opened(action), each)

        def _opened(action: Callable[[Library], object]) -> None:
            with Library.open(location, create=True) as library:
                action(library)

        again("a harvest, an image", lambda library: ingest(library, harvest(scratch / "1", images)))
        again("the same once more, an image", lambda library: ingest(library, harvest(scratch / "2", images)))
        again("a new machine, two records", lambda library: None, 1)
        again("storing a snapshot", lambda library: write_snapshot(library.store, library.catalog), 1)
        again("a new machine, by the snapshot", lambda library: None, 1)
        again("fsck, an image", fsck)
        again("fsck --read-data, an image", lambda library: fsck(library, read=Subset()))
        with Library.open(location) as library:
            counted("a refresh, one writer", library.refresh, 1)
            found = library.resolve(ImageRequest(images[0].uuid))
            assert found is not None
            counted("an image, fetched", lambda: library.materialize(found.sha256, found.size, scratch / "image"), 1)
    return rows
