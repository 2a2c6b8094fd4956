"""Real clients: elfutils' debuginfod-find and stock LLDB, with nothing of ours between them and the server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from tests.support.servers import BASES, CACHES, SHARED_UUID, Samples, Server

_LLDB = """
import json, sys
import lldb
lldb.SBDebugger.Initialize()
debugger = lldb.SBDebugger.Create()
debugger.SetAsync(False)
target = debugger.CreateTarget("", "x86_64-apple-macosx", "", False, lldb.SBError())
module = target.AddModule(None, "x86_64-apple-macosx", sys.argv[1], None)
found = {}
for name in sys.argv[2:]:
    for context in module.FindFunctions(name):
        if context.GetSymbol().IsValid():
            found[name] = context.GetSymbol().GetStartAddress().GetFileAddress()
print(json.dumps({"valid": module.IsValid(), "uuid": module.GetUUIDString(), "functions": found}))
"""


def _lldb(url: str, cache: Path, uuid: UUID, *names: str) -> dict[str, object]:
    pytest.importorskip("lldb", reason="no LLDB wheel: pip install lldb-for-pwndbg")
    environment = os.environ | {"DEBUGINFOD_URLS": url, "DEBUGINFOD_CACHE_PATH": str(cache)}
    command = [sys.executable, "-I", "-c", _LLDB, str(uuid).upper(), *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _addresses(image: Path) -> dict[str, int]:
    """Return the address of each function, as LLVM's own tool prints it."""
    text = subprocess.run(["llvm-nm-19", str(image)], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in text.splitlines() if line[:1] != " "]  # undefined symbols have no address
    return {name.removeprefix("_"): int(address, 16) for address, _, name in rows}


def test_stock_lldb_finds_a_module_by_its_uuid_alone(server: Server, samples: Samples, tmp_path: Path) -> None:
    found = _lldb(server.url, tmp_path / "cache", samples.uuid, "answer", "other")
    truth = _addresses(samples.dylib)
    assert found["valid"]
    assert UUID(str(found["uuid"])) == samples.uuid
    assert found["functions"] == {name: truth[name] for name in ("answer", "other")}


def test_stock_lldb_is_pinned_by_its_base_url(server: Server, samples: Samples, tmp_path: Path) -> None:
    # LLDB's cache does not tell base URLs apart: each pin has its own, as the documentation says.
    for build, cache in CACHES.items():
        truth = _addresses(samples.variants[build])
        for number, pin in enumerate((f"build/{build}", f"cache/{cache}")):
            found = _lldb(f"{server.url}/{pin}", tmp_path / f"{build}-{number}", SHARED_UUID, "moved")
            assert found["functions"] == {"moved": truth["moved"]}
            assert truth["moved"] >= BASES[build]


def test_stock_lldb_asks_the_next_server_after_a_miss(server: Server, samples: Samples, tmp_path: Path) -> None:
    found = _lldb(f"{server.url}/nobody-here {server.url}", tmp_path / "cache", samples.uuid, "answer")
    assert found["valid"]


@pytest.mark.parametrize("upper", [False, True])
def test_debuginfod_find_gets_binary_and_dsym(server: Server, samples: Samples, tmp_path: Path, upper: bool) -> None:
    if not shutil.which("debuginfod-find"):
        pytest.skip("not installed: debuginfod-find (apt-get install debuginfod)")
    environment = os.environ | {"DEBUGINFOD_URLS": server.url, "DEBUGINFOD_CACHE_PATH": str(tmp_path / "cache")}
    digits = samples.uuid.hex.upper() if upper else samples.uuid.hex
    for kind, file in (("executable", samples.dylib), ("debuginfo", samples.dsym)):
        done = subprocess.run(
            ["debuginfod-find", kind, digits], env=environment, capture_output=True, text=True, check=True
        )
        assert Path(done.stdout.strip()).read_bytes() == file.read_bytes()
    missing = subprocess.run(
        ["debuginfod-find", "executable", "00" * 15 + "01"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert missing.returncode == 1
    assert "No such file" in missing.stderr


def test_curl_follows_the_symbolicator_and_ssqp_layouts(server: Server, samples: Samples, tmp_path: Path) -> None:
    digits, target = samples.uuid.hex, tmp_path / "got"
    for path in (f"/{digits[:2]}/{digits[2:]}/executable", f"/libanswer.dylib/mach-uuid-{digits}/libanswer.dylib"):
        subprocess.run(["curl", "-fsS", "-o", target, server.url + path], check=True)
        assert target.read_bytes() == samples.dylib.read_bytes()
