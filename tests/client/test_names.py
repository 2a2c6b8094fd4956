"""Names that servers know: what they are sent, and what becomes of answers that are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from aiohttp import web

from symcache.client import SymbolClient, names
from symcache.errors import IntegrityError, RemoteError
from symcache.symbolicate import ModuleNames, ModuleOffsets, NameSource
from tests.client.lying_server import LyingServer

UUID_A = UUID("df10ef6d-b8d4-4d6d-8e15-0d91a445059e")
ID_A = "DF10EF6DB8D44D6D8E150D91A445059E0"
FRAME = {"frame": 0, "module": "Ledger", "module_offset": "0x104", "function": "main", "function_offset": "0x4"}


def module(*offsets: int, name: str = "Ledger") -> ModuleOffsets:
    return ModuleOffsets(UUID_A, name, f"/Users/someone/{name}", "arm64", np.array(offsets, np.int64))


def response(*frames: dict[str, Any], found: bool = True, name: str = "Ledger") -> dict[str, Any]:
    return {"results": [{"stacks": [list(frames)], "found_modules": {f"{name}/{ID_A}": found}}]}


def asked(folder: Path, answer: Callable[[Any], Any], *modules: ModuleOffsets, status: int = 200) -> Any:
    """Return what the client makes of an answer, and what it sent."""
    sent: list[Any] = []

    async def respond(request: web.Request) -> web.StreamResponse:
        assert (request.method, request.path) == ("POST", "/symbolicate/v5")
        (job,) = json.loads(await request.text())["jobs"]
        sent.append(job)
        return web.json_response(answer(sent[-1]), status=status)

    with LyingServer(respond) as server, SymbolClient([server.url], folder) as client:
        return client.look_up_names(server.url, modules), sent


def test_nothing_is_sent_but_names_of_images_and_offsets(tmp_path: Path) -> None:
    inlined = [
        {"function": "deepest()", "file": "/s/a.h", "line": 3},
        {"function": "deep\x1b[31m", "file": "/s/b.h", "line": 4},
    ]
    frame = FRAME | {"file": "/s/main.c", "line": 9, "inlines": inlined, "function_size": "0x40", "source": "dwarf"}
    (found,), sent = asked(tmp_path, lambda _: response(frame), module(-4, 0x104, 1 << 40))
    assert sent == [{"memoryMap": [["Ledger", ID_A]], "stacks": [[[0, 0x104]]]}]
    assert found.found
    assert [location is not None for location in found.locations] == [False, True, False]
    location = found.locations[1]
    assert [(c.function, c.file, c.line) for c in location.calls] == [
        ("deepest()", "/s/a.h", 3),
        ("deep\\x1b[31m", "/s/b.h", 4),
        ("main", "/s/main.c", 9),
    ]
    assert (location.start, location.size, location.source) == (0x100, 0x40, NameSource.DWARF)


def test_what_a_server_is_still_reading_is_asked_for_again(tmp_path: Path) -> None:
    second = "Other"

    def answer(job: Any) -> Any:
        names = [name for name, _ in job["memoryMap"]]
        first_time = names == ["Ledger", second]
        stacks = [[FRAME] if name == "Ledger" or not first_time else [{"frame": 0}] for name in names]
        errors = {f"{second}/{ID_A}": [{"name": "Pending", "message": "ask again"}]} if first_time else {}
        found = {f"{name}/{ID_A}": not first_time or name == "Ledger" for name in names}
        return {"results": [{"stacks": stacks, "found_modules": found, "module_errors": errors}]}

    found, sent = asked(tmp_path, answer, module(0x104), module(0x104, name=second))
    assert [[name for name, _ in job["memoryMap"]] for job in sent] == [["Ledger", second], [second]]
    assert [one.found for one in found] == [True, True]
    assert all(location for one in found for location in one.locations)


@pytest.mark.parametrize(
    ("more", "source"),
    [
        ({"source": "export"}, "export"),
        ({"source": "guess"}, "nearest"),
        ({"source": ["dwarf"]}, "nearest"),
        ({}, "nearest"),
        ({"file": "/s/main.c", "line": 9}, "dwarf"),
    ],
)
def test_a_server_that_does_not_say_may_mean_the_nearest_symbol(tmp_path: Path, more: Any, source: str) -> None:
    (found,), _ = asked(tmp_path, lambda _: response(FRAME | more), module(0x104))
    assert found.locations[0].source == source


def test_why_a_server_has_no_names_is_told(tmp_path: Path) -> None:
    errors = [{"name": "StorageError", "message": "no upstream\x1b[31m"}, {"name": "X"}, {"message": "m" * 999}]
    answer = response({}, found=False)
    answer["results"][0]["module_errors"] = {f"Ledger/{ID_A}": errors}
    (found,), _ = asked(tmp_path, lambda _: answer, module(0x104))
    _, _, said = found.problem.partition(": Ledger: ")
    assert said.startswith("no upstream\\x1b[31m; mmm")
    assert len(said) < 400


@pytest.mark.parametrize("empty", ["", None])
def test_an_empty_name_is_none(tmp_path: Path, empty: Any) -> None:
    inlined = [{"function": empty, "file": "/s/a.h", "line": 3}, {"file": "/s/b.h"}, {"function": "in()"}]
    frames = [FRAME | {"function": empty}, FRAME | {"inlines": inlined}]
    (found,), _ = asked(tmp_path, lambda _: response(*frames), module(0x100, 0x104))
    nameless, named = found.locations
    assert nameless is None
    assert [call.function for call in named.calls] == ["in()", "main"]


def test_names_that_no_server_takes_spoil_no_request(tmp_path: Path) -> None:
    name = "Foo Helper (Renderer)é"
    (found,), sent = asked(
        tmp_path, lambda _: response({}, found=False, name="Foo Helper _Renderer__"), module(1, name=name)
    )
    assert sent[0]["memoryMap"] == [["Foo Helper _Renderer__", ID_A]]
    assert found == ModuleNames([None], False)


def test_many_offsets_are_sent_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_MOST_OFFSETS", 3)

    def answer(job: Any) -> Any:
        stacks = [[FRAME | {"function": f"f{offset}"} for _, offset in stack] for stack in job["stacks"]]
        return {"results": [{"stacks": stacks, "found_modules": {}}]}

    modules = [module(*range(5)), module(), module(7)]
    found, sent = asked(tmp_path, answer, *modules)
    assert [[len(stack) for stack in job["stacks"]] for job in sent] == [[3], [2, 0, 1]]
    assert [[location.calls[0].function for location in one.locations] for one in found] == [
        [f"f{n}" for n in range(5)],
        [],
        ["f7"],
    ]


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        {"results": []},
        {"results": [{"stacks": [], "found_modules": {}}]},
        {"results": [{"stacks": [[FRAME, FRAME]], "found_modules": {}}]},
        {"results": [{"stacks": [[FRAME]], "found_modules": []}]},
        response(FRAME | {"function": 7}),
        response(FRAME | {"function_offset": 4}),
        response(FRAME | {"function_offset": "0x123456789"}),
        response(FRAME | {"inlines": 3}),
        response(FRAME | {"inlines": [FRAME] * 1001}),
    ],
)
def test_answers_that_are_none(tmp_path: Path, answer: Any) -> None:
    with pytest.raises(IntegrityError, match="not what the protocol promises"):
        asked(tmp_path, lambda _: answer, module(0x104))


def test_an_answer_is_no_longer_than_names_are(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="more than 1081344 bytes come"):
        asked(tmp_path, lambda _: {"x": "y" * (2 << 20)}, module(0x104))
    (found,), _ = asked(tmp_path, lambda _: response(FRAME | {"function": "n" * 500_000}), module(0x104))
    assert len(found.locations[0].calls[0].function) == 8192


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_that_does_not_name(tmp_path: Path, status: int) -> None:
    assert asked(tmp_path, lambda _: {}, module(0x104), status=status)[0] is None


@pytest.mark.parametrize(("status", "said"), [(400, "answers 400"), (302, "answers 302"), (401, "answers 401")])
def test_a_server_that_refuses(tmp_path: Path, status: int, said: str) -> None:
    with pytest.raises(RemoteError, match=said):
        asked(tmp_path, lambda _: {}, module(0x104), status=status)


def test_a_server_that_is_busy_is_asked_again(tmp_path: Path) -> None:
    answers = iter([(429, {}), (503, {}), (200, response(FRAME))])

    async def respond(_: web.Request) -> web.StreamResponse:
        status, body = next(answers)
        return web.json_response(body, status=status, headers={"Retry-After": "0"})

    with LyingServer(respond) as server, SymbolClient([server.url], tmp_path) as client:
        found = client.look_up_names(server.url, [module(0x104)])
    assert found is not None
    assert found[0].locations[0] is not None
