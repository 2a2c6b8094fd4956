"""`/symbolicate/v5` as Mozilla's eliot and samply respond to it, but for what one odd module costs."""

from __future__ import annotations

import dataclasses
import gzip
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
import zstandard
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from symcache.library import Library
from symcache_server.application import create_app
from symcache_server.config import ServerConfig
from symcache_server.http.body import BodyRoom
from tests.server.symbolicate.conftest import Own
from tests.server.symbolicate.v5 import debug_id, functions_of, post, symbolicate
from tests.support.http import request
from tests.support.servers import SHARED_UUID, Samples, Server, uuid_of

Client = TestClient[web.Request, web.Application]

_NOBODY = "0" * 31 + "7"


def _job(uuid: UUID, *offsets: int, name: str = "lib.dylib") -> dict[str, object]:
    return {"memoryMap": [[name, debug_id(uuid.hex)]], "stacks": [[[0, offset] for offset in offsets]]}


def test_both_shapes_name_the_same_functions(server: Server, samples: Samples) -> None:
    functions = functions_of(samples.dylib)
    job = _job(samples.uuid, *(at + inside for at in functions.values() for inside in (0, 3)), name="libanswer.dylib")
    (one,) = symbolicate(server.url, job)
    assert symbolicate(server.url, {"jobs": [job, job], "version": 5}) == [one, one]
    frames = one["stacks"][0]
    assert [(f["function"], f["function_offset"]) for f in frames] == [
        (name, offset) for name in functions for offset in ("0x0", "0x3")
    ]
    assert [f["module_offset"] for f in frames] == [hex(offset) for _, offset in job["stacks"][0]]  # type: ignore[index]
    assert {f["module"] for f in frames} == {"libanswer.dylib"}
    assert {f["source"] for f in frames} == {"dwarf"}
    assert one["found_modules"] == {f"libanswer.dylib/{debug_id(samples.uuid.hex)}": True}


def test_lines_and_inlined_calls_are_those_of_llvm(own: Own) -> None:
    size = functions_of(own.image)["nameless"] - (start := functions_of(own.image)["outer"])
    offsets = range(start, start + size)
    command = ["llvm-symbolizer-19", "--output-style=JSON", "--no-demangle", f"--obj={own.inner}", *map(hex, offsets)]
    rows = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    (result,) = symbolicate(own.server.url, _job(uuid_of(own.image), *offsets))
    depths = {0}
    for frame, row in zip(result["stacks"][0], rows, strict=True):
        if not row["Symbol"][-1]["FileName"]:
            assert "file" not in frame  # what fills the gap to the next function
            continue
        calls = [*frame.get("inlines", []), frame]
        assert [(c["function"], c["file"], c.get("line", 0)) for c in calls] == [
            (symbol["FunctionName"].removeprefix("_"), symbol["FileName"], symbol["Line"]) for symbol in row["Symbol"]
        ]
        depths.add(len(calls))
    assert depths == {0, 1, 2, 3}


def test_nothing_gets_the_name_of_its_neighbour(own: Own) -> None:
    functions = functions_of(own.image)
    assert "nameless" not in functions_of(own.stripped)
    offset = functions["nameless"] + 4
    (result,) = symbolicate(own.server.url, _job(uuid_of(own.stripped), functions["last"], offset))
    known, nameless = result["stacks"][0]
    assert (known["function"], known["source"]) == ("last", "symbol")
    assert nameless["function"] == f"fun_{functions['nameless']:x}"
    assert (nameless["function_offset"], nameless["source"]) == ("0x4", "function-start")
    assert int(nameless["function_size"], 16) <= functions["last"] - functions["nameless"]


def test_an_image_of_any_cache_has_its_code_named(server: Server, samples: Samples) -> None:
    """The caches move it to other addresses: a client sends offsets from its header."""
    (result,) = symbolicate(server.url, _job(SHARED_UUID, 0x320, 0x324))
    assert [f.get("function") for f in result["stacks"][0]] == ["moved", "moved"]


def test_one_odd_module_or_stack_costs_itself_alone(server: Server, samples: Samples) -> None:
    start = functions_of(samples.dylib)["answer"]
    key = samples.uuid.hex  # lower case, no age
    hyphens = str(samples.uuid).upper() + "0"
    odd = [
        ["", ""],
        ["x", "no hex"],
        ["x"],
        "text",
        None,
        ["x", 5],
        {"a": 1},
        ["a b (Renderer)<&>", "ABC"],
        ["z", "0" * 33],
    ]
    payload = {
        "memoryMap": [
            ["Own (Renderer)", key],
            ["libanswer.dylib", hyphens],
            ["nobody", _NOBODY + "0"],
            *odd,
            ["unused", "1" * 33],
        ],
        "stacks": [
            [[0, start], [1, start], [2, start], *([number + 3, start] for number in range(len(odd)))],
            [[-1, 5], [0, -1], [-1, -1], [99, 1], [True, 1], [0, 1 << 70], [0, "7"], [0], 5, [0, 1.5], None],
            [],
            "no stack",
            [[0, start + 3]],
        ],
        "processName": "ignored",
    }
    (result,) = symbolicate(server.url, payload)
    named, unknown, empty, wrong, last = result["stacks"]
    assert [f.get("function") for f in named] == ["answer", "answer", *[None] * 10]
    assert [f["module"] for f in named[:5]] == ["Own (Renderer)", "libanswer.dylib", "nobody", "<unknown>", "x"]
    assert [f["frame"] for f in unknown] == list(range(11))
    assert not any("function" in f for f in unknown)
    assert unknown[0] == {"frame": 0, "module": "<unknown>", "module_offset": "0x5"}
    assert (empty, wrong, last[0]["function"]) == ([], [], "answer")
    assert result["found_modules"] == {
        f"Own (Renderer)/{key}": True,
        f"libanswer.dylib/{hyphens}": True,
        f"nobody/{_NOBODY}0": False,
        "/": False,
        "x/no hex": False,
        "a b (Renderer)<&>/ABC": False,
        "z/" + "0" * 33: False,
        "unused/" + "1" * 33: None,
    }


def test_no_stacks_and_no_jobs_are_no_error(server: Server) -> None:
    assert symbolicate(server.url, {"jobs": []}) == []
    job = {"memoryMap": [["a", "B" * 33]], "stacks": []}  # fx-crash-sig sends such
    assert symbolicate(server.url, job) == [{"stacks": [], "found_modules": {"a/" + "B" * 33: None}}]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"5",
        b'{"jobs": 5}',
        b'{"jobs": [5]}',
        b'{"jobs": [{}]}',
        b'{"memoryMap": []}',
        b'{"memoryMap": 1, "stacks": []}',
        b"[" * 100_000,
        b'{"memoryMap": [], "stacks": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"jobs": [' + b",".join([b'{"memoryMap": [], "stacks": []}'] * 101) + b"]}",
        b'{"memoryMap": [], "stacks": [[' + b",".join([b"[-1,0]"] * 100_001) + b"]]}",
        b'{"memoryMap": [], "stacks": [' + b"0," * 500_000 + b"0]}",
    ],
    ids=lambda payload: repr(payload[:12]),
)
def test_what_is_no_request_is_refused_with_a_title(server: Server, payload: bytes) -> None:
    answer = post(server.url, payload)
    assert (answer.status, answer.headers["cache-control"]) == (400, "no-store")
    assert json.loads(answer.body)["title"]


def test_a_large_body_is_refused_before_it_is_read(server: Server) -> None:
    answer = post(server.url, b" " * ((16 << 20) + 1))
    assert answer.status == 413
    assert json.loads(answer.body)["title"]
    assert request(server.url, "/symbolicate/v5").status == 405


def test_what_nobody_has_is_missing_under_its_name(server: Server) -> None:
    names = {UUID(int=0x71): "Nobody Has This", UUID(int=0x72): "lone \ud800\n", UUID(int=0x73): ""}
    unused = UUID(int=0x74)
    payload = {
        "memoryMap": [[name, debug_id(uuid.hex)] for uuid, name in names.items()] + [["unused", debug_id(unused.hex)]],
        "stacks": [[[number, 16] for number in range(len(names))]],
    }
    symbolicate(server.url, payload)
    missing = json.loads(request(server.url, "/api/v1/missing").body)["missing"]
    listed = {UUID(row["uuid"]): row["name"] for row in missing}
    assert (
        listed.items()
        >= {UUID(int=0x71): "Nobody Has This", UUID(int=0x72): "lone \\ud800\\n", UUID(int=0x73): ""}.items()
    )
    assert unused not in listed


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    """Return settings of a server within this process, over an empty library."""
    Library.open(tmp_path / "library", create=True).close()
    return ServerConfig(str(tmp_path / "library"), tmp_path / "cache", tmp_path / "state")


async def _results(client: Client, payload: object) -> list[dict[str, Any]]:
    async with client.post("/symbolicate/v5", json=payload) as response:
        assert response.status == 200
        results: list[dict[str, Any]] = (await response.json())["results"]
        return results


async def test_another_server_is_asked_for_what_the_library_lacks(
    server: Server, samples: Samples, config: ServerConfig
) -> None:
    job = _job(samples.uuid, functions_of(samples.dylib)["answer"])
    front = dataclasses.replace(config, upstreams=(server.url,))
    async with TestClient(TestServer(create_app(front))) as client:
        (result,) = await _results(client, job)
        assert result["stacks"][0][0]["function"] == "answer"
        assert result["stacks"][0][0]["line"]  # of the dSYM


async def test_who_cannot_be_reached_may_have_it(samples: Samples, config: ServerConfig) -> None:
    front = dataclasses.replace(config, upstreams=("http://127.0.0.1:1",))
    async with TestClient(TestServer(create_app(front))) as client:
        (result,) = await _results(client, _job(samples.uuid, 0x320))
        (key,) = result["found_modules"]
        assert result["found_modules"] == {key: False}
        assert "function" not in result["stacks"][0][0]
        (error,) = result["module_errors"][key]
        assert error["name"] == "RemoteError"
        async with client.get("/api/v1/missing") as response:
            assert (await response.json())["missing"] == []


def test_the_body_comes_as_the_client_takes_it(server: Server, samples: Samples) -> None:
    payload = _job(samples.uuid, *[functions_of(samples.dylib)["answer"]] * 300)
    plain = post(server.url, payload)
    packed = {
        coding: post(server.url, payload, headers={"Accept-Encoding": coding}) for coding in ("gzip", "zstd", "br")
    }
    assert "content-encoding" not in plain.headers.keys() | packed["br"].headers.keys()
    assert gzip.decompress(packed["gzip"].body) == plain.body == packed["br"].body
    assert zstandard.ZstdDecompressor().decompressobj().decompress(packed["zstd"].body) == plain.body
    assert {packed[coding].headers["content-encoding"] for coding in ("gzip", "zstd")} == {"gzip", "zstd"}
    assert plain.headers["cache-control"] == "no-store"


async def test_frames_and_modules_count_in_the_limit(config: ServerConfig) -> None:
    async with TestClient(TestServer(create_app(dataclasses.replace(config, lookup_rate=1)))) as client:
        (result,) = await _results(client, {"memoryMap": [], "stacks": [[[-1, 0]] * 9_000]})
        assert len(result["stacks"][0]) == 9_000
        async with client.post("/symbolicate/v5", json={"memoryMap": [], "stacks": []}) as late:
            assert late.status == 429
            assert int(late.headers["retry-after"]) >= 50  # 30 may come at once, and 90 have been had
            assert (await late.json())["title"]


async def test_bodies_of_all_clients_have_one_bound() -> None:
    async def chunks(*sizes: int) -> AsyncIterator[bytes]:
        for size in sizes:
            yield bytes(size)

    def sending(*sizes: int) -> Any:
        return SimpleNamespace(content=SimpleNamespace(iter_chunked=lambda _: chunks(*sizes)))

    room = BodyRoom(100)
    async with room.read(sending(30, 30), 5, 80) as body:
        assert len(body) == 60
        with pytest.raises(web.HTTPServiceUnavailable) as refused:
            async with room.read(sending(30, 30), 5, 80):
                pass
        assert refused.value.headers["Retry-After"] == "5"
        async with room.read(sending(30), 5, 80) as other:
            assert len(other) == 30
    with pytest.raises(web.HTTPRequestEntityTooLarge):
        async with room.read(sending(50, 50), 5, 80):
            pass
    async with room.read(sending(100), 5, 100) as body:  # what was taken has been given back
        assert len(body) == 100


def test_metrics_tell_where_names_are_from(own: Own) -> None:
    start = functions_of(own.image)["outer"]
    symbolicate(own.server.url, _job(uuid_of(own.image), start))
    text = request(own.server.url, "/metrics").body.decode()
    assert 'symcache_named_addresses_total{source="dwarf"}' in text
    assert 'symcache_named_modules_total{result="used"}' in text
    assert 'http_responses_total{result="200",type="symbolicate"}' in text
