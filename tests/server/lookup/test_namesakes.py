"""Systems of one build number over HTTP: each by its own name, and whoever asks by the build is not misled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from symcache.errors import UsageError
from symcache.library import Library, ingest
from symcache.verify import Expectations, verify_coverage
from tests.library.images import Image, harvest
from tests.support.http import request
from tests.support.servers import Server, serve

BUILD = "21J354"
"""Of tvOS 17.0, and of what HomePods run."""
DYLD, LIBC = Image("/usr/lib/dyld", 3), Image("/usr/lib/libc.dylib", 4)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A site that wants one architecture, with two systems of one build, and an image of a Mac."""
    folder = tmp_path_factory.mktemp("namesakes")
    (folder / "releases.toml").write_text('archs = ["x86_64h"]')
    with Library.open(folder / "library", create=True) as library:
        of = {"build": BUILD, "version": "17.0"}
        ingest(library, harvest(folder / "1", [DYLD, LIBC], product="Apple TVOS", **of))  # type: ignore[arg-type]
        ingest(library, harvest(folder / "2", [DYLD], lost=[LIBC], product="audioOS", **of))  # type: ignore[arg-type]
        ingest(library, harvest(folder / "3", [DYLD]))
    with serve(folder / "library", folder, env={"SYMCACHE_RELEASES": str(folder / "releases.toml")}) as running:
        yield running


def test_coverage_is_of_what_the_site_wants(server: Server) -> None:
    found = json.loads(request(server.url, "/api/v1/coverage/22G120").body)["findings"]
    assert {f["arch"] for f in found if f["code"] == "cache-missing"} == {"x86_64h"}


def test_each_is_shown_and_judged_by_itself(server: Server) -> None:
    def codes(name: str) -> set[str]:
        answer = request(server.url, f"/api/v1/coverage/{quote(name)}")
        return {f["code"] for f in json.loads(answer.body)["findings"]}

    unknown, lacking = {"unknown-release"}, {"unknown-release", "not-sealed", "missing"}
    assert (codes(f"tvOS:{BUILD}"), codes(f"audioOS:{BUILD}"), codes(BUILD)) == (unknown, lacking, lacking)
    report = verify_coverage([server.url], [], Expectations())
    images = {(r.product, r.build): r.images for r in report.releases}
    assert images == {("tvOS", BUILD): 2, ("audioOS", BUILD): 2, ("macOS", "22G120"): 1}
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
