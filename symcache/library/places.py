"""Where things are that belong to this machine and user: the catalog of a library, the writer's name."""

from __future__ import annotations

import getpass
import hashlib
import os
import uuid as uuid_module
from datetime import UTC, datetime
from pathlib import Path

import platformdirs

from symcache.store import LocalStore, Store

__all__ = ["catalog_path", "now", "operator", "writer_id"]


def now() -> str:
    """Return the time in UTC, ISO 8601, to the microsecond: two records of one run differ in it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def operator() -> str:
    """Return the user's name, or nothing where there is none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def catalog_path(store: Store) -> Path:
    """Return where this machine keeps its catalog: in a local library if that may be written, else in its caches."""
    if isinstance(store, LocalStore) and os.access(store.root, os.W_OK):
        return store.root / "catalog.db"
    name = hashlib.sha256(store.location.encode()).hexdigest()[:16]
    return platformdirs.user_cache_path("symcache") / "catalogs" / f"{name}.db"


def writer_id() -> str:
    """Return this machine's name as a writer of records: a random word, made once and kept."""
    path = platformdirs.user_state_path("symcache") / "writer"
    try:
        text = path.read_text().strip()
        if text.isalnum() and text.islower() and len(text) == 32:
            return text
    except OSError:
        pass
    fresh = uuid_module.uuid4().hex
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".writer-{fresh}")
        temporary.write_text(fresh + "\n")
        try:
            os.link(temporary, path)  # the first process wins, so that all agree
        except FileExistsError:
            return path.read_text().strip() or fresh
        finally:
            temporary.unlink()
    except OSError:
        pass  # no home to keep it in: a writer for this run only
    return fresh
