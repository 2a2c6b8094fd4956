"""How often one client may send requests: a generic cell rate algorithm per key (ITU-T I.371), one number a client.

The numbers lie in a table of fixed size that all processes of a server map, so a limit holds whichever of them the
kernel gives a connection to. It is a hash table of small buckets::

    bucket      8 slots of 16 bytes
    slot        uint64 fingerprint of the client, float64 when it would be done at the even rate

The times are those of CLOCK_MONOTONIC, which is one clock for all processes. A bucket is locked while it is changed; a
process that dies lets go, and one that is held up with a lock is not waited for: then one request may go uncounted.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

from symcache.errors import StorageError

__all__ = ["RateLimit"]

_BURST_SECONDS = 30.0
"""What was not used for so long may be used at once: a dump loader wants a thousand binaries, and then none."""
_SLOTS, _SLOT_SIZE = 8, 16
_BUCKET = struct.Struct(f"={_SLOTS}Q{_SLOTS}d")
_FINGERPRINT, _UNTIL = struct.Struct("=Q"), struct.Struct("=d")
_BUCKETS = 1 << 14
"""For 131,072 clients: 2 MiB."""
_SIZE = _BUCKETS * _BUCKET.size
_TRIES = 100


class RateLimit:
    """At most `per_second` in the long run, and thirty seconds' worth of it at once.

    `file` is the table, which the first process makes; without one it is this process's own. Of more clients than fit
    into it, those are forgotten whose requests are oldest.
    """

    def __init__(
        self, per_second: float, clock: Callable[[], float] = time.monotonic, *, file: Path | None = None
    ) -> None:
        """Raises StorageError."""
        self._interval, self._clock = 1 / per_second, clock
        self._burst = max(_BURST_SECONDS, self._interval)
        self._salt = os.urandom(16) if file is None else blake2b(bytes(file), digest_size=16).digest()
        self._descriptor: int | None = None
        try:
            self._table = mmap.mmap(-1, _SIZE) if file is None else self._map(file)
        except OSError as error:
            raise StorageError(f"table of rates {file}: {error.strerror or error}", hint="free some space") from error

    def _map(self, file: Path) -> mmap.mmap:
        self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            if os.fstat(self._descriptor).st_size != _SIZE:
                os.pwrite(self._descriptor, bytes(_SIZE), 0)  # written, not just made long: the disk may be full later
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return mmap.mmap(self._descriptor, _SIZE)

    def close(self) -> None:
        """Let go of the table."""
        self._table.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def wait(self, client: str) -> float:
        """Count a request of `client` and return 0, or return the seconds after which it may send one."""
        digest = int.from_bytes(blake2b(client.encode(), digest_size=16, key=self._salt).digest(), "little")
        start, fingerprint = (digest >> 64) % _BUCKETS * _BUCKET.size, digest & (1 << 64) - 1 | 1
        locked = self._lock(start)
        try:
            return self._count(start, fingerprint)
        finally:
            if locked and self._descriptor is not None:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, _BUCKET.size, start)

    def _count(self, start: int, fingerprint: int) -> float:
        now = self._clock()
        values = _BUCKET.unpack_from(self._table, start)
        known: tuple[int, ...] = values[:_SLOTS]
        untils: tuple[float, ...] = values[_SLOTS:]
        if fingerprint in known:
            slot = known.index(fingerprint)
            until = max(now, untils[slot])
            if until > now + self._burst + self._interval:
                until = now  # of a clock that has started anew
        else:
            slot, until = untils.index(min(untils)), now
        late = until + self._interval - now - self._burst
        if late > 1e-9:
            return late
        _UNTIL.pack_into(self._table, start + _BUCKET.size // 2 + slot * _UNTIL.size, until + self._interval)
        _FINGERPRINT.pack_into(self._table, start + slot * _FINGERPRINT.size, fingerprint)
        return 0.0

    def _lock(self, start: int) -> bool:
        if self._descriptor is None:
            return False
        for _ in range(_TRIES):
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, _BUCKET.size, start)
            except OSError:
                continue
            return True
        return False
