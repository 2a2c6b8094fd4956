"""A library in an object store is verified like one in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from symcache.library import Library
from symcache.store import blob_key
from symcache.verify import FindingCode, Level, verify
from tests.support.seaweed import new_location, s3_environment, seaweed
from tests.verify.releases import BUILD, make_library


@pytest.fixture
def location(systems: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in s3_environment(seaweed()).items():
        monkeypatch.setenv(name, value)
    place = new_location()
    make_library(place, tmp_path, systems[BUILD])
    return place


def test_whole_and_with_a_lost_blob(location: str) -> None:
    with Library.open(location) as library:
        for level in Level:
            assert verify(library, [BUILD], level=level).findings == []
        lost = next(o for o in library.by_name("libplain.dylib") if o.arch == "arm64e")
        assert library.store.delete_older(blob_key(lost.sha256), library.store.now() + 60)
        report = verify(library, [BUILD])
    assert [(f.code, f.path, f.arch) for f in report.findings] == [
        (FindingCode.BLOB_MISSING, "/usr/lib/libplain.dylib", "arm64e")
    ]
