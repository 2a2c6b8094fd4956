"""Breakpad symbol files hold the functions that LLVM's own tool and LLDB see."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from tests.support.http import request
from tests.support.servers import BASES, CACHES, SHARED_UUID, Samples, Server

_LLDB = """
import json, sys
import lldb
lldb.SBDebugger.Initialize()
debugger = lldb.SBDebugger.Create()
target = debugger.CreateTarget(sys.argv[1], "x86_64-apple-macosx", "", False, lldb.SBError())
result = lldb.SBCommandReturnObject()
debugger.GetCommandInterpreter().HandleCommand(f"target symbols add -s {sys.argv[1]} {sys.argv[2]}", result)
module = target.GetModuleAtIndex(0)
print(json.dumps({"added": result.Succeeded(), "from": str(module.GetSymbolFileSpec())}))
"""


def _nm(image: Path) -> dict[str, int]:
    text = subprocess.run(["llvm-nm-19", "--defined-only", str(image)], capture_output=True, text=True, check=True)
    rows = [line.split() for line in text.stdout.splitlines()]
    return {name.removeprefix("_"): int(address, 16) for address, _, name in rows}


def _symbols(body: bytes) -> tuple[str, dict[str, int]]:
    first, *rest = body.decode().splitlines()
    records = [line.split(" ", 3) for line in rest]
    assert all(record[0] == "PUBLIC" for record in records)
    return first, {name: int(address, 16) for _, address, _, name in records}


def test_every_function_is_named_at_its_address(server: Server, samples: Samples) -> None:
    digits = samples.uuid.hex
    for path in (f"/libanswer.dylib/{digits.upper()}0/libanswer.dylib.sym", f"/{digits[:2]}/{digits[2:]}/breakpad"):
        answer = request(server.url, path)
        assert answer.status == 200
        module, symbols = _symbols(answer.body)
        assert module == f"MODULE mac x86_64 {digits.upper()}0 libanswer.dylib"
        assert symbols == _nm(samples.dylib)
        head = request(server.url, path, method="HEAD")
        assert head.headers["content-length"] == str(len(answer.body))
        assert request(server.url, path, headers={"If-None-Match": answer.headers["etag"]}).status == 304
        part = request(server.url, path, headers={"Range": "bytes=0-5"})
        assert (part.status, part.body) == (206, b"MODULE")


def test_addresses_count_from_the_image_whatever_its_cache(server: Server, samples: Samples) -> None:
    for build, cache in CACHES.items():
        path = f"/cache/{cache}/libmoved.dylib/{SHARED_UUID.hex.upper()}0/libmoved.dylib.sym"
        _, symbols = _symbols(request(server.url, path).body)
        assert symbols == {name: at - BASES[build] for name, at in _nm(samples.variants[build]).items()}


def test_lldb_takes_the_file_for_the_module(server: Server, samples: Samples, tmp_path: Path) -> None:
    pytest.importorskip("lldb", reason="no LLDB wheel: pip install 'symcache[lldb]'")
    path = f"/libanswer.dylib/{samples.uuid.hex.upper()}0/libanswer.dylib.sym"
    file = tmp_path / "libanswer.dylib.sym"
    file.write_bytes(request(server.url, path).body)
    image = tmp_path / "libanswer.dylib"
    image.write_bytes(samples.dylib.read_bytes())
    command = [sys.executable, "-I", "-c", _LLDB, str(image), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=dict(os.environ))
    assert '"added": true' in done.stdout
    assert str(file) in done.stdout


def test_nobody_has_it_is_a_miss(server: Server) -> None:
    assert request(server.url, f"/x/{UUID(int=3).hex.upper()}0/x.sym").status == 404
