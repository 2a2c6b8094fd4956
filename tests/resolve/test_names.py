"""Who names a place: files here, then servers; of servers that name nothing, files are fetched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from aiohttp import web

from symcache.cli.settings import binary_sources
from symcache.macho import identify
from symcache.resolve import SourceNamer
from symcache.symbolicate import ModuleNames, ModuleOffsets, NamesFolder, NameSource
from tests.client.lying_server import LyingServer
from tests.dump.systems import ASSETS
from tests.dump.test_corpus import truth

APP = ASSETS / "app" / "arm64"
(KIT,) = (path for path in (APP / "Ledger.app").rglob("LedgerKit") if path.is_file())
KIT_UUID = identify(KIT)[0].uuid
FRAMES = [
    (frame["pc"] - base - 4 * (number > 0), frame["function"], frame["line"])
    for path, _, base in truth("arm64")["modules"]
    if path.endswith("/LedgerKit")
    for thread in truth("arm64")["threads"]
    for number, frame in enumerate(thread["frames"])
    if frame["module"] == path
]
"""Of the corpus, whose compiler says what is where."""


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYMCACHE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("SYMCACHE_LIBRARY", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "nobody"))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> NamesFolder:
    return NamesFolder(tmp_path_factory.mktemp("names"), 1 << 30)


@contextmanager
def namer(tables: NamesFolder, folders: list[Path], servers: list[str]) -> Iterator[SourceNamer]:
    with binary_sources(folders, None, servers) as sources:
        yield SourceNamer(sources, tables)


def wanted(uuid: UUID | None = KIT_UUID) -> ModuleOffsets:
    return ModuleOffsets(uuid, "LedgerKit", "/x/LedgerKit", "arm64", np.array([offset for offset, *_ in FRAMES]))


def said(names: ModuleNames) -> list[Any]:
    return [location and (location.calls[-1].function, location.calls[-1].line) for location in names.locations]


def test_a_dsym_comes_first_and_what_nobody_has_is_told(tables: NamesFolder) -> None:
    assert FRAMES
    with namer(tables, [APP], []) as names:
        for _ in range(2):
            kit, other, none = names.look_up([wanted(), wanted(UUID(int=7)), wanted(None)])
            assert said(kit) == [(function, line) for _, function, line in FRAMES]
            assert {location.source for location in kit.locations if location} == {NameSource.DWARF}
            assert [one.found for one in (kit, other, none)] == [True, False, False]


class Server:
    """Names `LedgerKit`, or has its file, as told."""

    def __init__(self, *, names: int, file: bool) -> None:
        self.names, self.file, self.paths = names, file, []  # type: ignore[var-annotated]

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        if request.path == "/symbolicate/v5":
            (job,) = json.loads(await request.text())["jobs"]
            stacks = [
                [{"function": "by_server", "function_offset": "0x0", "source": "symbol"} for _ in stack]
                for stack in job["stacks"]
            ]
            found = {f"{name}/{identity}": True for name, identity in job["memoryMap"]}
            return web.json_response({"results": [{"stacks": stacks, "found_modules": found}]}, status=self.names)
        if self.file and request.path.endswith("/executable"):
            return web.Response(body=KIT.read_bytes())
        return web.Response(status=404)


def test_a_server_that_names_sends_no_file(tables: NamesFolder) -> None:
    answer = Server(names=200, file=True)
    with LyingServer(answer) as server, namer(tables, [], [server.url]) as names:
        (kit,) = names.look_up([wanted()])
        assert {function for function, _ in said(kit)} == {"by_server"}
        assert names.problems == []
    assert answer.paths == ["/symbolicate/v5"]


def test_why_a_server_has_no_names_is_told_where_nobody_has(tables: NamesFolder) -> None:
    async def failing(request: web.Request) -> web.StreamResponse:
        (job,) = json.loads(await request.text())["jobs"]
        keys = [f"{name}/{identity}" for name, identity in job["memoryMap"]]
        errors = {key: [{"name": "RemoteError", "message": "upstream is away"}] for key in keys}
        stacks = [[{} for _ in stack] for stack in job["stacks"]]
        return web.json_response({"results": [{"stacks": stacks, "found_modules": {}, "module_errors": errors}]})

    with LyingServer(failing) as first, LyingServer(Server(names=200, file=False)) as second:
        with namer(tables, [], [first.url]) as names:
            names.look_up([wanted(UUID(int=number)) for number in range(1, 6)])
            told = f"{first.url}: LedgerKit: upstream is away"
            assert names.problems == [told] * 3 + ["servers say the like of 2 more modules"]
            assert names.explained == {UUID(int=number) for number in range(1, 6)}
        with namer(tables, [], [first.url, second.url]) as names:
            assert [one.found for one in names.look_up([wanted()])] == [True]
            assert names.problems == []
            assert names.explained == set()


@pytest.mark.parametrize(("status", "problems"), [(405, 0), (400, 1)])
def test_of_a_server_that_does_not_name_files_are_fetched(tables: NamesFolder, status: int, problems: int) -> None:
    answer = Server(names=status, file=True)
    with LyingServer(answer) as server, namer(tables, [], [server.url]) as names:
        for _ in range(2):
            (kit,) = names.look_up([wanted()])
            pairs = [(name, function) for (name, _), (_, function, _) in zip(said(kit), FRAMES, strict=True)]
            # It is stripped: of what it does not export, the dSYM alone has names.
            assert all(name == function or name.startswith("fun_") for name, function in pairs)
            assert ("LKBookSort", "LKBookSort") in pairs
        assert len(names.problems) == problems
    assert answer.paths.count("/symbolicate/v5") == 1


def test_own_files_are_not_asked_of_servers(tables: NamesFolder) -> None:
    answer = Server(names=200, file=True)
    with LyingServer(answer) as server, namer(tables, [APP], [server.url]) as names:
        assert said(names.look_up([wanted()])[0]) == [(function, line) for _, function, line in FRAMES]
    assert answer.paths == []


def test_a_server_that_is_away_costs_its_names_alone(tables: NamesFolder) -> None:
    with namer(tables, [], ["http://127.0.0.1:9"]) as names:
        assert [one.found for one in names.look_up([wanted()])] == [False]
        assert names.problems
