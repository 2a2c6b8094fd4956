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


def test_what_was_asked_for_under_several_names_is_one_line_of_all_that_is_known() -> None:
    a, b, cache = UUID(int=1), UUID(int=2), UUID(int=7)
    log = [
        MissedRequest(a, "executable", 2, cache_uuid=cache, last_asked="2026-11-03"),
        MissedRequest(a, "executable", 3, "libz.dylib", "22G120", None, "2026-11-02", "2026-11-02"),
        MissedRequest(b, "executable", 5, "libc.dylib"),
    ]
    other, one = (w.to_json() for w in missing_images(None, log))
    assert one == {
        "uuid": "00000000-0000-0000-0000-000000000001",
        "kind": "executable",
        "name": "libz.dylib",
        "times": 5,
        "first_asked": "2026-11-02",
        "last_asked": "2026-11-03",
        "asked_build": "22G120",
        "asked_cache_uuid": "00000000-0000-0000-0000-000000000007",
        "build": "22G120",
        "hint": "",
    }
    assert (other["name"], other["asked_cache_uuid"]) == ("libc.dylib", "")
    assert [w.request for w in missing_images(None, reversed(log))] == [w.request for w in missing_images(None, log)]
