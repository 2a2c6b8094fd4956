"""HTTP as RFC 9110 means it: validators, ranges, encodings; seen with curl and with a bare client."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard

from symcache.dyld import REVISION
from symcache.library import Library, ingest
from tests.support.http import request
from tests.support.servers import CACHES, SHARED_UUID, Samples, Server, serve, stage_variant
from tests.support.waiting import until


def _path(samples: Samples, image: Path | None = None) -> str:
    from tests.support.servers import uuid_of

    return f"/buildid/{uuid_of(image or samples.dylib).hex}/executable"


def test_head_says_everything_that_get_says(server: Server, samples: Samples) -> None:
    for image in (samples.dylib, samples.large):
        for encoding in ("identity", "zstd"):
            path, headers = _path(samples, image), {"Accept-Encoding": encoding}
            got = request(server.url, path, headers=headers)
            head = request(server.url, path, method="HEAD", headers=headers)
            ignored = {"date"}
            assert head.body == b""
            assert {k: v for k, v in head.headers.items() if k not in ignored} == {
                k: v for k, v in got.headers.items() if k not in ignored
            }


def test_the_headers_that_debuginfod_clients_read(server: Server, samples: Samples) -> None:
    answer = request(server.url, _path(samples))
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-length"] == str(len(answer.body)) == answer.headers["x-debuginfod-size"]
    assert answer.headers["x-debuginfod-file"] == "libanswer.dylib"


def test_the_strong_etag_is_the_content_hash(server: Server, samples: Samples) -> None:
    answer = request(server.url, _path(samples))
    assert answer.headers["etag"] == f'"{hashlib.sha256(samples.dylib.read_bytes()).hexdigest()}"'


def test_stored_zstd_goes_to_those_who_accept_it_only(server: Server, samples: Samples) -> None:
    for image in (samples.dylib, samples.large):
        liked = ("zstd;q=0.2, identity;q=0.2", "identity;q=0.5, zstd", "zstd ; q=0.1, gzip", "identity;q=0, zstd;q=0.1")
        for accept in ("zstd", "gzip, deflate, br, zstd", "gzip;q=0.5, zstd;q=1.0", "ZSTD", *liked):
            answer = request(server.url, _path(samples, image), headers={"Accept-Encoding": accept})
            assert answer.headers["content-encoding"] == "zstd"
            assert answer.headers["vary"] == "Accept-Encoding"
            assert answer.headers["etag"].endswith('-zstd"')
            assert zstandard.ZstdDecompressor().stream_reader(io.BytesIO(answer.body)).read() == image.read_bytes()
        plain = ("identity, zstd;q=0.5", "zstd;q=0.1, identity;q=0.2", "zstd;q=0, zstd")
        for accept in ("gzip", "zstd;q=0", "identity", "*", "xzstd", "zstd;q=x", *plain):
            answer = request(server.url, _path(samples, image), headers={"Accept-Encoding": accept})
            assert "content-encoding" not in answer.headers
            assert answer.body == image.read_bytes()


def test_unchanged_content_is_not_sent_again(server: Server, samples: Samples) -> None:
    path = _path(samples)
    etag = request(server.url, path).headers["etag"]
    for field in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        answer = request(server.url, path, headers={"If-None-Match": field})
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)
    assert request(server.url, path, headers={"If-None-Match": '"other"'}).status == 200
    for accepted in ("identity", "zstd"):  # whoever has either form has the content: his own tag comes back
        for own in (etag, etag[:-1] + '-zstd"'):
            headers = {"If-None-Match": own, "Accept-Encoding": accepted}
            answer = request(server.url, path, headers=headers)
            assert (answer.status, answer.headers["etag"]) == (304, own)
    for field in ('"other"', f"W/{etag}"):  # the comparison is a strong one
        for more in ({}, {"If-None-Match": etag}):
            assert request(server.url, path, headers={"If-Match": field} | more).status == 412
    assert request(server.url, path, headers={"If-Match": etag}).status == 200


def test_json_that_may_be_kept_has_a_tag_to_ask_by(server: Server, samples: Samples) -> None:
    digits = samples.uuid.hex
    for path in (f"/{digits[:2]}/{digits[2:]}/meta", "/api/v1/openapi.json"):
        first = request(server.url, path)
        assert json.loads(first.body)
        again = request(server.url, path, headers={"If-None-Match": f'"x", {first.headers["etag"]}'})
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
        assert request(server.url, path, headers={"If-None-Match": '"x"'}).body == first.body


def test_what_is_larger_than_a_debuginfod_client_wants_is_406(server: Server, samples: Samples) -> None:
    size = samples.dylib.stat().st_size
    for limit, status in ((size - 1, 406), (size, 200), (0, 200), ("x", 200), ("9" * 5000, 200)):
        headers = {"X-DEBUGINFOD-MAXSIZE": str(limit)}
        assert request(server.url, _path(samples), headers=headers).status == status


@pytest.mark.parametrize(
    ("field", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=100-199", 100, 199),
        ("bytes=-100", -100, -1),
        ("bytes=1000-", 1000, -1),
        ("bytes=1000-99999999999", 1000, -1),
        ("bytes=-99999999999", 0, -1),
        (f"bytes=1000-{'9' * 5000}", 1000, -1),
        (f"bytes=-{'9' * 5000}", 0, -1),
        (f"bytes={'0' * 5000}7-{'0' * 30}9", 7, 9),
        ("Bytes = 5 - 9", 5, 9),
    ],
)
def test_one_range_is_sent_alone(server: Server, samples: Samples, field: str, first: int, last: int) -> None:
    for image in (samples.dylib, samples.large):
        whole = image.read_bytes()
        first_at, last_at = first % len(whole), last % len(whole)
        answer = request(
            server.url, _path(samples, image), headers={"Range": field, "Accept-Encoding": "zstd, identity"}
        )
        assert answer.status == 206
        assert answer.headers["content-range"] == f"bytes {first_at}-{last_at}/{len(whole)}"
        assert answer.body == whole[first_at : last_at + 1]


@pytest.mark.parametrize(
    "field",
    ["bytes=99999999999-", f"bytes={'9' * 20}-", f"bytes=2{'0' * 30}-1{'0' * 31}", f"bytes={'9' * 5000}-", "bytes=-0"],
)
def test_a_range_outside_is_refused(server: Server, samples: Samples, field: str) -> None:
    answer = request(server.url, _path(samples), headers={"Range": field})
    assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{samples.dylib.stat().st_size}")


@pytest.mark.parametrize("field", ["bytes=5-1", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6", "bytes=", "bytes=--5", "x"])
def test_a_range_that_is_none_or_many_gets_the_whole(server: Server, samples: Samples, field: str) -> None:
    answer = request(server.url, _path(samples), headers={"Range": field})
    assert (answer.status, answer.body) == (200, samples.dylib.read_bytes())


def test_if_range_continues_only_the_same_content(server: Server, samples: Samples) -> None:
    path, whole = _path(samples), samples.dylib.read_bytes()
    etag = request(server.url, path).headers["etag"]
    zstd_etag = request(server.url, path, headers={"Accept-Encoding": "zstd"}).headers["etag"]
    same = request(server.url, path, headers={"Range": "bytes=10-", "If-Range": etag})
    assert (same.status, same.body) == (206, whole[10:])
    for other in ('"other"', f"W/{etag}", zstd_etag, "Tue, 24 Nov 2026 21:00:00 GMT"):
        answer = request(server.url, path, headers={"Range": "bytes=10-", "If-Range": other})
        assert (answer.status, answer.body) == (200, whole)


def test_only_what_can_never_change_is_immutable(server: Server, samples: Samples) -> None:
    def cached(path: str) -> str:
        return request(server.url, path, method="HEAD").headers["cache-control"]

    variant = f"/buildid/{SHARED_UUID.hex}/executable"
    assert "immutable" in cached(f"/cache/{CACHES['22G120']}{variant}")
    for path in (variant, f"/build/22G120{variant}", _path(samples), f"/cache/{CACHES['22G120']}{_path(samples)}"):
        assert "immutable" not in cached(path)
        assert "max-age=300" in cached(path)
    unknown = request(server.url, f"/buildid/{'0' * 31}1/executable")
    assert (unknown.status, unknown.headers["cache-control"]) == (404, "public, max-age=60")


def test_under_a_cache_pin_what_may_be_extracted_anew_is_not_immutable(samples: Samples, tmp_path: Path) -> None:
    cache, path = CACHES["22G120"], f"/cache/{CACHES['22G120']}/buildid/{SHARED_UUID.hex}/executable"
    made = {  # one after another: each is better than the one before
        ("dyld_shared_cache_util", 0): samples.variants["23A344"],
        ("symcache", REVISION - 1): samples.variants["22G120"],
        ("symcache", REVISION): tmp_path / "better",
    }
    made["symcache", REVISION].write_bytes(samples.variants["22G120"].read_bytes() + bytes(8))
    Library.open(tmp_path / "library", create=True).close()
    with serve(tmp_path / "library", tmp_path / "server") as server:
        etags = set()
        for (extractor, revision), image in made.items():
            staged = stage_variant(image, "22G120", cache, "/usr/lib/libmoved.dylib")
            staged.objects[:] = [replace(o, extractor=extractor, revision=revision) for o in staged.objects]
            with Library.open(tmp_path / "library") as library:
                ingest(library, staged)
            until(lambda image=image: request(server.url, path).body == image.read_bytes(), f"{extractor} {revision}")
            answer = request(server.url, path)
            final = (extractor, revision) == ("symcache", REVISION)
            expected = "public, max-age=86400, immutable" if final else "public, max-age=300"
            assert answer.headers["cache-control"] == expected
            etags.add(answer.headers["etag"])
        assert len(etags) == 3


def test_other_methods_are_refused(server: Server, samples: Samples) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = request(server.url, _path(samples), method=method)
        assert answer.status == 405
        assert answer.headers["allow"] == "GET,HEAD"
    for method, path, allowed in (
        ("POST", "/releases", "GET,HEAD"),
        ("DELETE", "/healthz", "GET,HEAD"),
        ("GET", "/api/v1/uuids", "POST"),
    ):
        answer = request(server.url, path, method=method)
        assert (answer.status, answer.headers["allow"]) == (405, allowed)
    assert request(server.url, "/nothing", method="POST").status == 404


def test_curl_puts_a_file_together_from_ranges(server: Server, samples: Samples, tmp_path: Path) -> None:
    url, size = server.url + _path(samples, samples.large), samples.large.stat().st_size
    cuts = [0, 1, 4096, size // 2, size]
    parts = []
    for number, (start, end) in enumerate(pairwise(cuts)):
        part = tmp_path / str(number)
        subprocess.run(["curl", "-fsS", "-r", f"{start}-{end - 1}", "-o", part, url], check=True)
        parts.append(part.read_bytes())
    assert b"".join(parts) == samples.large.read_bytes()
    cut = tmp_path / "cut"
    cut.write_bytes(samples.large.read_bytes()[: size // 3])
    subprocess.run(["curl", "-fsS", "-C", "-", "-o", cut, url], check=True)
    assert cut.read_bytes() == samples.large.read_bytes()
