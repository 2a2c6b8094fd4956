"""The main path over a library in an object store: harvest, verify, serve, fetch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from symcache.library import Library
from tests.support.commands import answer_here
from tests.support.flaky_proxy import FlakyProxy
from tests.support.recipes import blocks, placed
from tests.support.seaweed import new_location, s3_environment, seaweed
from tests.support.servers import serve
from tests.support.shell import Shell
from tests.support.tiny_image import tiny_image


def test_harvest_verify_serve_and_fetch(system: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_environment(seaweed()).items():
        monkeypatch.setenv(name, value)
    location = new_location()
    monkeypatch.setenv("SYMCACHE_LIBRARY", location)
    harvested = answer_here("harvest", str(system))
    assert harvested["sealed"]
    assert answer_here("verify", "--level", "bytes", "--arch", "arm64e")["complete"]
    image = next(r for r in answer_here("lookup", "*") if r["origin"] == "cache")
    with serve(location, tmp_path / "server") as server:
        answer_here("get", image["uuid"], "--server", server.url, "-o", str(tmp_path / "image"))
    assert (tmp_path / "image").stat().st_size == image["size"]
    redone = answer_here("reextract", harvested["release"]["build"], "--force")[0]
    assert (redone["problems"], redone["changed"]) == ([], 0)
    assert answer_here("fsck", "--read-data")["clean"]


def test_the_recipe_of_the_documentation_works_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, named, used, _ = blocks("howto/object-store.md", "sh")
    (tmp_path / "build/Ledger.app").mkdir(parents=True)
    tiny_image(tmp_path / "build/Ledger.app", "arm64e", UUID(int=1))
    places = {"https://s3.example": seaweed(), "s3://symbols/macos": new_location()}
    with Shell(tmp_path, monkeypatch) as shell:
        shell.run(placed(named, places))
        assert str(UUID(int=1)) in shell.run(used)


def test_a_command_waits_for_its_store_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_environment(seaweed()).items():
        monkeypatch.setenv(name, value)
    library = new_location()
    Library.open(library, create=True).close()
    with FlakyProxy(seaweed(), 1, faults=1.0, kinds=["drop"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        command = [sys.executable, "-m", "symcache", "stats", "--json", "--library", library]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            assert running.stderr
            said = running.stderr.readline()
            proxy.faults = 0.0
            printed, more = running.communicate(timeout=120)
    assert running.returncode == 0, more
    assert json.loads(printed)
    assert said.startswith(f"{library}: does not respond (")
    assert "does not respond" not in more
