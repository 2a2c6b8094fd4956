"""What was requested and nobody had, as somebody reads it who has no library."""

from __future__ import annotations

from uuid import UUID

from symcache.verify import MissedRequest, missing_images


def test_without_a_library_all_is_wanted_most_requested_first() -> None:
    """One line for each UUID and kind, whatever build was named with the request."""
    a, b = UUID(int=1), UUID(int=2)
    log = [MissedRequest(a, "executable", 2, "a", "22G120"), MissedRequest(b, "executable", 3, "b")]
    log.append(MissedRequest(a, "executable", 4, "a"))
    assert [(w.request.uuid, w.request.times, w.hint) for w in missing_images(None, log)] == [(a, 6, ""), (b, 3, "")]
