"""Systems of one build number over HTTP: each by its own name, and whoever asks by the build is not misled."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest

from symcache.errors import UsageError
from symcache.library import Library, ingest
from symcache.verify import Expectations, verify_coverage
from tests.library.images import Image, harvest
from tests.support.http import request
from tests.support.servers import serve

BUILD = "21J354"
"""Of tvOS 17.0, and of what HomePods run."""
DYLD, LIBC = Image("/usr/lib/dyld", 3), Image("/usr/lib/libc.dylib", 4)


def test_each_is_shown_and_judged_by_itself(tmp_path: Path) -> None:
    with Library.open(tmp_path / "library", create=True) as library:
        of = {"build": BUILD, "version": "17.0"}
        ingest(library, harvest(tmp_path / "1", [DYLD, LIBC], product="Apple TVOS", **of))  # type: ignore[arg-type]
        ingest(library, harvest(tmp_path / "2", [DYLD], lost=[LIBC], product="audioOS", **of))  # type: ignore[arg-type]
    with serve(tmp_path / "library", tmp_path) as server:

        def codes(name: str) -> set[str]:
            answer = request(server.url, f"/api/v1/coverage/{quote(name)}")
            return {f["code"] for f in json.loads(answer.body)["findings"]}

        unknown, lacking = {"unknown-release"}, {"unknown-release", "not-sealed", "missing"}
        assert (codes(f"tvOS:{BUILD}"), codes(f"audioOS:{BUILD}"), codes(BUILD)) == (unknown, lacking, lacking)
        report = verify_coverage([server.url], [], Expectations())
        assert {(r.product, r.build, r.images) for r in report.releases} == {("tvOS", BUILD, 2), ("audioOS", BUILD, 2)}
        assert {f.product for f in report.findings if f.code == "missing"} == {"audioOS"}
        with pytest.raises(UsageError, match=r"is a build of \w+ and of \w+"):
            verify_coverage([server.url], [BUILD], Expectations())
        for name, other in ((f"tvOS:{BUILD}", f"audioOS:{BUILD}"), (f"audioOS:{BUILD}", f"tvOS:{BUILD}")):
            page = request(server.url, f"/releases/{quote(name, safe='')}")
            assert page.status == 200
            assert f'href="/releases/{quote(other, safe="")}"'.encode() in page.body
        assert b"Of the same build number" in request(server.url, f"/releases/{BUILD}").body
        assert request(server.url, f"/diff/tvOS%3A{BUILD}/audioOS%3A{BUILD}").status == 200
        assert request(server.url, f"/diff/{BUILD}/audioOS%3A{BUILD}").status == 400
