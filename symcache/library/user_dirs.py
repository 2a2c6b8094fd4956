"""Where things are that belong to this machine and user: the catalog of a library, the writer's name."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import re
import uuid as uuid_module
from datetime import UTC, datetime, timedelta
from pathlib import Path

import platformdirs

from symcache.store import LocalStore, Store

__all__ = ["catalog_path", "now", "operator", "utc", "writer_id"]

_NETWORK = frozenset(
    ["afs", "ceph", "cifs", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "glusterfs", "lustre", "nfs", "nfs4", "smb3"]
)
"""Types of network file systems, as Linux names them."""
_LAST = 253_402_300_799.0
"""The last second of the year 9999."""
_WRITER = re.compile(rb"[0-9a-z]{32}")


def now(*, after: str = "") -> str:
    """Return the time in UTC, ISO 8601, to the microsecond: two records of one run differ in it.

    It is later than `after`, another such time, even if this machine's clock is behind that.
    """
    moment = datetime.now(UTC)
    with contextlib.suppress(ValueError, OverflowError):  # nothing, or whoever wrote that had no clock
        known = datetime.fromisoformat(after)
        if known.tzinfo is not None:
            moment = max(moment, known.astimezone(UTC) + timedelta(microseconds=1))
    return moment.isoformat(timespec="microseconds")


def utc(moment: float) -> str:
    """Return seconds since the epoch in UTC, ISO 8601, to the second; what lies beyond the year 9999 as its end."""
    return datetime.fromtimestamp(min(max(moment, 0.0), _LAST), UTC).isoformat(timespec="seconds")


def operator() -> str:
    """Return the user's name, or nothing where there is none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def catalog_path(store: Store, identity: str) -> Path:
    """Return where this machine keeps its catalog: in a local library that may be written, else in its caches.

    There it is named by the id of the library, if it has one, and its location: a copy elsewhere has the same id, and
    may lag behind. SQLite's write-ahead log does not work between machines, so a library on a network file system does
    not count as local.
    """
    if isinstance(store, LocalStore) and os.access(store.root, os.W_OK) and not _on_network(store.root):
        return store.root / "catalog.db"
    where = str(store.root.resolve()) if isinstance(store, LocalStore) else store.location
    name = hashlib.sha256(os.fsencode(f"{identity} {where}" if identity else where)).hexdigest()[:16]
    return platformdirs.user_cache_path("symcache") / "catalogs" / f"{name}.db"


def _on_network(path: Path) -> bool:
    """Return whether `path` lies on a file system that other machines may write to, as far as that can be told."""
    resolved = path.resolve()
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return resolved.is_relative_to("/Volumes") or resolved.is_relative_to("/Network")  # macOS mounts shares there
    best, kind = Path("/"), ""
    for line in mounts.strip("\n").split("\n"):
        fields, _, rest = line.partition(" - ")
        # Blanks, line ends and backslashes are octal escapes (show_mountinfo in the kernel's fs/proc_namespace.c).
        point = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields.split(" ")[4]))
        if resolved.is_relative_to(point) and len(point.parts) >= len(best.parts):
            best, kind = point, rest.split(" ")[0]
    return kind in _NETWORK


def writer_id() -> str:
    """Return this machine's name as a writer of records: a random word, made once and kept."""
    path = platformdirs.user_state_path("symcache") / "writer"
    fresh = uuid_module.uuid4().hex
    with contextlib.suppress(OSError):  # no home to keep it in: a writer for this run only
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".writer-{fresh}")
        temporary.write_text(fresh + "\n")
        try:
            os.link(temporary, path)  # the first process wins, so that all agree
        except FileExistsError:
            if _WRITER.fullmatch(kept := path.read_bytes().strip()):
                return kept.decode()
            temporary.replace(path)  # damaged: records under such a name would be no records
        finally:
            temporary.unlink(missing_ok=True)
    return fresh
