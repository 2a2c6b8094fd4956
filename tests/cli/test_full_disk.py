"""A full disk ends a command with exit 3, one sentence that names the file or folder, and a next step."""

from __future__ import annotations

import os
import plistlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from typer.testing import CliRunner

from symcache.cli.app import application
from symcache.library import Library, ingest
from symcache.model import uuid_text
from tests.client.lying_server import LyingServer
from tests.library.images import Image, harvest
from tests.support.disks import full_disk

__all__ = ["full_disk"]

NEXT = "free some space, mend permissions, or name another folder in SYMCACHE_CACHE_DIR"
NOBODY = "00000000-0000-0000-0000-00000000BEEF"
ASSETS = Path(__file__).resolve().parents[2] / "symcache" / "demo" / "assets"
SMALL, LARGE = Image("/usr/lib/libsmall.dylib", 1, size=20_000), Image("/usr/lib/liblarge.dylib", 2, size=2 << 20)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full")
    with Library.open(folder / "library", create=True) as opened:
        ingest(opened, harvest(folder / "harvest", [SMALL, LARGE]))
    return folder / "library"


@pytest.fixture
def server() -> Iterator[LyingServer]:
    async def answer(request: web.Request) -> web.Response:
        held = {f"/buildid/{i.uuid.hex}/{i.kind}": i.data for i in (SMALL, LARGE)}
        return web.Response(body=held[request.path]) if request.path in held else web.Response(status=404)

    with LyingServer(answer) as running:
        yield running


def _symcache(*arguments: str | Path, **environment: str) -> tuple[int, str, bytes]:
    """Run a command; return its exit code, what it said in one line, and what it printed."""
    name, *_ = words = [str(argument) for argument in arguments]
    ran = CliRunner().invoke(application(name), words, env=environment)
    assert ran.exception is None or isinstance(ran.exception, SystemExit)
    return ran.exit_code, " ".join(ran.stderr.split()), ran.stdout_bytes


@pytest.mark.parametrize("image", [SMALL, LARGE], ids=["small", "large"])
def test_get_into_the_cache(full_disk: Path, server: LyingServer, image: Image) -> None:
    cache = full_disk / "cache"
    code, said, _ = _symcache("get", str(image.uuid), "--server", server.url, SYMCACHE_CACHE_DIR=str(cache))
    assert (code, said) == (
        3,
        f"error: cache {cache}: No space left on device next: {NEXT}",
    )
    (full_disk / "room").unlink()
    code, _, printed = _symcache("get", str(image.uuid), "--server", server.url, SYMCACHE_CACHE_DIR=str(cache))
    assert code == 0
    assert Path(printed.decode().strip()).read_bytes() == image.data


def test_get_into_a_file(full_disk: Path, server: LyingServer, library: Path) -> None:
    target = full_disk / "new" / "libsmall.dylib"
    for source in (("--server", server.url), ("--library", library)):
        code, said, _ = _symcache("get", str(SMALL.uuid), *source, "-o", target)
        assert (code, said) == (
            3,
            f"error: {target}: No space left on device next: free some space, then run the same command again",
        )
        assert list(target.parent.iterdir()) == []


def test_what_a_debugger_is_told(full_disk: Path, server: LyingServer) -> None:
    cache = str(full_disk / "cache")
    code, _, printed = _symcache("dsymforuuid", str(SMALL.uuid), "--server", server.url, SYMCACHE_CACHE_DIR=cache)
    assert code == 0
    told = plistlib.loads(printed)[uuid_text(SMALL.uuid)]["DBGError"]
    assert told.startswith(f"cache {cache}: No space left on device (free some space")


def test_a_report_beside_the_answer(full_disk: Path, library: Path, tmp_path: Path) -> None:
    junit, uuids = full_disk / "junit.xml", tmp_path / "uuids"
    uuids.write_text(f"{SMALL.uuid}\n")
    code, said, _ = _symcache("verify", "--uuids", uuids, "--library", library, "--junit", junit)
    assert (code, said.partition(" next: ")[0]) == (3, f"error: {junit}: No space left on device")


def test_an_init_file(full_disk: Path) -> None:
    code, said, _ = _symcache("setup", "lldb", "--server", "http://a.example", "--init-file", full_disk / "init")
    assert code == 3
    assert f"{full_disk / 'init'}: No space left on device" in said and "free space" in said


def test_what_analyze_fetches(full_disk: Path) -> None:
    image = (ASSETS / "app/x86_64/Ledger.app/Contents/MacOS/Ledger").read_bytes()

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=image)

    cache = full_disk / "cache"
    dumps = [ASSETS / "dumps" / f"crash-{arch}.zip" for arch in ("x86_64", "arm64")]
    with LyingServer(answer) as server:
        code, said, _ = _symcache("analyze", *dumps, "--server", server.url, SYMCACHE_CACHE_DIR=str(cache))
    assert code == 3
    assert f"error: cache {cache}: No space left on device next: {NEXT}" in said


def test_where_temporary_files_lie(full_disk: Path, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.truncate(full_disk / "room", 7 << 20)
    monkeypatch.setattr(tempfile, "tempdir", str(full_disk))
    packed = full_disk.with_name("own.zip")
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("liblarge.dylib", LARGE.data)
    code, said, _ = _symcache("add", packed, "--library", library)
    step = f"free some space (temporary files lie in {full_disk}), then run the same command again"
    assert (code, said) == (3, f"error: No space left on device next: {step}")


@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [(("releases", "--json"), ""), (("releases", "--json"), "1"), (("--version",), ""), (("dsymforuuid", NOBODY), "1")],
)
def test_standard_output(library: Path, arguments: tuple[str, ...], unbuffered: str) -> None:
    command = [sys.executable, "-m", "symcache", *arguments]
    environment = os.environ | {"SYMCACHE_LIBRARY": str(library), "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60, env=environment
        )
    assert (ran.returncode, ran.stderr.splitlines()) == (
        3,
        ["error: standard output: No space left on device", "next: free some space, then run the same command again"],
    )
