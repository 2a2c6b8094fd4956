"""Which notes about sources are followed.

A dSYM that the user has in a folder is believed. What a library or a server passes on was written by whoever could
write there: it may only lead to what lies below folders that the user has named for it, and nothing else is touched,
not even to see whether it is there. To look at a path may already reach out to another machine, where folders are
mounted on use.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence

__all__ = ["below_roots"]


def below_roots(notes: Iterable[tuple[str, str]], roots: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return those (recorded folder, place) whose place, a folder or `git:REPOSITORY@REVISION`, is in one of `roots`.

    By their letters, without a look at the file system: places with `.`, `..` or empty parts are left out, and so are
    roots that are not absolute.
    """
    allowed = [posixpath.normpath(root).rstrip("/") + "/" for root in roots if root.startswith("/")]
    return tuple(
        (recorded, place) for recorded, place in notes if any(_folder(place).startswith(root) for root in allowed)
    )


def _folder(place: str) -> str:
    """Return the folder of a place with a slash behind it, or an empty text for one that is not plainly written."""
    folder = place.removeprefix("git:").rpartition("@")[0] if place.startswith("git:") else place
    folder = folder.rstrip("/")
    plain = folder.startswith("/") and not folder.startswith("//") and posixpath.normpath(folder) == folder
    return folder + "/" if plain else ""
