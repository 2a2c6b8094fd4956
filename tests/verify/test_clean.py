"""A whole release gives no finding, at any level, whatever is odd about it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from symcache.library import Library
from symcache.verify import Level, verify
from tests.verify.releases import ARCHS, BUILD


@pytest.mark.parametrize("level", Level)
def test_a_whole_release_is_complete(harvested: Path, level: Level) -> None:
    with Library.open(harvested) as library:
        report = verify(library, [BUILD], level=level)
    assert report.findings == []
    assert {(c["family"], c["arch"]) for c in report.releases[0].caches if c["uuid"]} == {("system", a) for a in ARCHS}
    # Per architecture: seven images of its cache; outside: two slices of dyld and a tool.
    assert report.images == 7 * 3 + 3
    assert json.loads(json.dumps(report.to_json()))["complete"] is True
