"""How a library grew, as a drawing: what came on a day was not there the day before."""

from __future__ import annotations

from symcache.catalog import Growth
from symcache_server.pages.documents import growth
from symcache_server.pages.render import _day
from symcache_server.pages.start import _drawing


def test_the_outline_rises_on_the_day_something_came() -> None:
    days = [Growth("2026-01-01", 100, 0), Growth("2026-01-03", 0, 50), Growth("2026-01-05", 50, 0)]
    grown = growth(days)
    assert [(day["image_bytes"], day["cache_bytes"]) for day in grown] == [(100, 0), (100, 50), (150, 50)]
    drawing = _drawing(grown)
    assert drawing
    width, height = drawing["width"], drawing["height"]
    points = [tuple(map(float, point.split(","))) for point in drawing["everything"].split()]
    # Half of all came on the first day, three quarters were there after the second one, which is in the middle.
    assert points == [
        *((0, height), (0, height), (0, height / 2)),
        *((width / 2, height / 2), (width / 2, height / 4)),
        *((width, height / 4), (width, 0), (width, height)),
    ]


def test_what_records_call_a_day_may_be_none() -> None:
    days = [Growth("2026-01-01", 100, 0), Growth("2026-01-05", 50, 0), Growth("2026-13-45", 1, 0)]
    assert [day["day"] for day in growth(days)] == ["2026-01-01", "2026-01-05"]
    assert _drawing(growth(days))
    assert [_day(time) for time in ("0001-01-01T00:00:00+14:00", "soon")] == ["0001-01-01T00:00:00+14:00", "soon"]


def test_of_one_day_there_is_nothing_to_draw() -> None:
    assert _drawing(growth([Growth("2026-01-01", 100, 0)])) is None
    assert _drawing([]) is None
