"""The JSON API keeps to its own description, and says of a library what was put into it."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from symcache.model import uuid_text
from tests.support.http import Answer, request
from tests.support.servers import BASES, CACHES, SHARED_UUID, Samples, Server
from tests.support.waiting import until


def _get(server: Server, path: str) -> Any:
    answer = request(server.url, path)
    assert answer.status == 200, answer
    assert answer.headers["content-type"].startswith("application/json")
    return json.loads(answer.body)


def _post(server: Server, value: object) -> Answer:
    headers = {"Content-Type": "application/json"}
    return request(server.url, "/api/v1/uuids", method="POST", headers=headers, body=json.dumps(value).encode())


def test_releases_are_listed_newest_first(server: Server) -> None:
    found = _get(server, "/api/v1/releases")["releases"]
    assert [(r["build"], r["version"], r["sealed"], r["images"]) for r in found] == [
        ("23A344", "14.0", True, 1),
        ("22G120", "13.6", True, 2),
    ]
    assert _get(server, "/api/v1/releases/22G120") == found[1]


def test_images_are_found_by_uuid_name_and_path(server: Server, samples: Samples) -> None:
    one = _get(server, f"/api/v1/uuids/{samples.uuid}")
    assert one["uuid"] == uuid_text(samples.uuid)
    assert {c["kind"]: c["size"] for c in one["contents"]} == {
        "executable": samples.dylib.stat().st_size,
        "debuginfo": samples.dsym.stat().st_size,
    }
    for name in ("libmoved.dylib", "libmov*", "/usr/lib/libmoved.dylib", "/usr/*moved*"):
        (image,) = _get(server, f"/api/v1/images?name={name}")["images"]
        assert UUID(image["uuid"]) == SHARED_UUID
        assert [c["build"] for c in image["contents"]] == ["23A344", "22G120"]
    assert _get(server, "/api/v1/images?name=nothing") == {"images": [], "more": False}


def test_an_answer_that_was_cut_says_so(server: Server) -> None:
    every = _get(server, "/api/v1/images?name=lib*&limit=3")
    assert (len(every["images"]), every["more"]) == (3, False)
    some = _get(server, "/api/v1/images?name=lib*&limit=2")
    assert (some["images"], some["more"]) == (every["images"][:2], True)


def test_the_batch_answers_in_order_and_for_ten_thousand(server: Server, samples: Samples) -> None:
    asked = [UUID(int=n + 1) for n in range(9998)] + [samples.uuid, SHARED_UUID]
    answer = json.loads(_post(server, {"images": [{"uuid": str(u)} for u in asked]}).body)
    assert [UUID(i["uuid"]) for i in answer["images"]] == asked
    assert [bool(i["contents"]) for i in answer["images"]] == [False] * 9998 + [True] * 2
    assert answer["layout"] is None
    too_many = _post(server, {"images": [{"uuid": str(samples.uuid)}] * 10_001})
    assert too_many.status == 400
    assert "10000" in json.loads(too_many.body)["error"]


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b'{"images": 5}', b'{"images": [5]}', b'{"images": [{"uuid": "x"}]}'),
        *(b'{"images": [], "more": 1}', b'{"images": [{"uuid": "%s", "load_address": -1}]}' % (b"0" * 32)),
        b'{"images": [{"uuid": "%s", "load_address": 18446744073709551616}]}' % (b"0" * 32),
        b'{"images": [{"uuid": "%s", "load_address": "5"}]}' % (b"0" * 32),
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_wrong_question_is_refused_with_its_reason(server: Server, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = request(server.url, "/api/v1/uuids", method="POST", headers=headers, body=body)
    assert answer.status == 400
    assert set(json.loads(answer.body)) == {"error", "hint"}
    assert request(server.url, "/api/v1/uuids", method="POST", body=b"{}").status == 415
    headers["Content-Encoding"] = "deflate"  # which it is not
    assert request(server.url, "/api/v1/uuids", method="POST", headers=headers, body=b"\xffbody").status == 400


def test_load_addresses_tell_caches_apart(server: Server) -> None:
    def layout(*addresses: int) -> Any:
        asked = [{"uuid": str(SHARED_UUID), "load_address": address} for address in addresses]
        return json.loads(_post(server, {"images": asked}).body)["layout"]

    older, newer = (uuid_text(CACHES[b]) for b in ("22G120", "23A344"))
    assert layout(BASES["22G120"] + 0x4000) == {"match": "unique", "caches": [older], "slide": 0x4000}
    both = layout(BASES["23A344"])
    assert (both["match"], set(both["caches"]), both["slide"]) == ("ambiguous", {older, newer}, None)
    assert layout(0x1000) == {"match": "none", "caches": [], "slide": None}
    # No slide has one image in two places.
    assert layout(BASES["22G120"] + 0x4000, BASES["22G120"])["match"] == "none"
    assert layout(BASES["22G120"] + 0x4000, BASES["22G120"] + 0x4000)["match"] == "unique"


def test_coverage_names_what_a_release_lacks(server: Server) -> None:
    found = _get(server, "/api/v1/coverage/22G120")
    assert found["build"] == "22G120"
    assert found["complete"] is False  # one image is no macOS
    assert {"code", "text", "path", "arch", "uuid", "cache_uuid", "elsewhere"} == set(found["findings"][0])
    by_arch = {f["arch"]: f for f in found["findings"] if f["code"] == "cache-missing"}
    assert by_arch["x86_64h"]["elsewhere"] is True
    assert by_arch["x86_64h"]["text"].endswith("harvest a Mac with an Intel processor")
    assert request(server.url, "/api/v1/coverage/99Z9").status == 404


def test_misses_are_counted(server: Server) -> None:
    wanted = UUID("0BADF00D-0000-3000-8000-000000000001")
    for path in (f"/buildid/{wanted.hex}/executable", f"/build/22G120/buildid/{wanted.hex}/executable"):
        for _ in range(3):
            assert request(server.url, path).status == 404
    found = [m for m in _get(server, "/api/v1/missing")["missing"] if UUID(m["uuid"]) == wanted]
    assert sorted((m["kind"], m["build"], m["times"]) for m in found if m["build"]) == [("executable", "22G120", 3)]
    assert [(m["times"], m["name"]) for m in found if m["build"] is None] == [(3, "")]
    request(server.url, f"/libgone.dylib/mach-uuid-{wanted.hex}/libgone.dylib")
    request(server.url, f"/buildid/{wanted.hex}/executable")
    found = [m for m in _get(server, "/api/v1/missing")["missing"] if UUID(m["uuid"]) == wanted and not m["build"]]
    assert [(m["times"], m["name"]) for m in found] == [(5, "libgone.dylib")]


def test_a_check_counts_no_misses(server: Server) -> None:
    wanted = UUID("0BADF00D-0000-3000-8000-000000000002")
    for noted in (False, True):
        body = json.dumps({"images": [{"uuid": str(wanted)}], "note_missing": noted}).encode()
        headers = {"Content-Type": "application/json"}
        for _ in range(5):
            answer = request(server.url, "/api/v1/uuids", method="POST", headers=headers, body=body)
            assert json.loads(answer.body)["images"][0]["contents"] == []
        found = [m["times"] for m in _get(server, "/api/v1/missing")["missing"] if UUID(m["uuid"]) == wanted]
        assert found == [5] * noted


def test_the_description_holds_for_every_path(server: Server) -> None:
    """Schemathesis asks every operation, with valid and invalid data, and checks status, type and schema."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    schema = schemathesis.openapi.from_url(f"{server.url}/api/v1/openapi.json")
    asked: set[str] = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        assert operation is not None
        asked.add(operation.path)

        @settings(
            max_examples=25,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            # No schema says what a crash report is.
            left_out = [positive_data_acceptance] if case.path == "/api/v1/symbolicate" else []
            case.call_and_validate(excluded_checks=left_out)

        ask()
    # Schemathesis leaves out the path that it read the description from.
    assert asked | {"/api/v1/openapi.json"} == set(_get(server, "/api/v1/openapi.json")["paths"])


def test_health_and_readiness(server: Server) -> None:
    until(lambda: request(server.url, "/readyz").status == 200)
    assert request(server.url, "/healthz").body == b"ok\n"
