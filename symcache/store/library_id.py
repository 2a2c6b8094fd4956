"""Which library a store holds, wherever it lies: an id that the first one who writes makes, and that never changes.

It is an object of its own, since `symcache-library.json` is older than it. A library that nothing has been written to
since then has none.
"""

from __future__ import annotations

import contextlib
import json
import re
import uuid

from symcache.errors import NotFoundError, StorageError
from symcache.store.base import LIBRARY_ID, Store
from symcache.store.writing import put_object

__all__ = ["make_library_id", "read_library_id"]

_ID = re.compile(r"[0-9a-f]{32}")
_MAX_SIZE = 4096


def read_library_id(store: Store) -> str:
    """Return the id of the library in `store`, 32 hex digits, or an empty string where it has none.

    Raises StorageError, also for what is no id.
    """
    try:
        with store.open(LIBRARY_ID) as stored:
            text = stored.read(_MAX_SIZE)
    except NotFoundError:
        return ""
    with contextlib.suppress(ValueError, AttributeError):
        identity = json.loads(text).get("id")
        if isinstance(identity, str) and _ID.fullmatch(identity):
            return identity
    raise StorageError(
        f"{store.location}: {LIBRARY_ID} holds no id",
        hint="restore this object, or delete it: whoever writes to the library next gives it a new id",
    )


def make_library_id(store: Store) -> str:
    """Return the id of the library in `store`, which gets one if it has none; an empty string where it cannot."""
    if identity := read_library_id(store):
        return identity
    with contextlib.suppress(StorageError):  # as where only records and blobs may be written
        put_object(store, LIBRARY_ID, [json.dumps({"id": uuid.uuid4().hex}).encode() + b"\n"])
    return read_library_id(store)
