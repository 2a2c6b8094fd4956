"""Sections by UUID and name, as debuginfod's clients ask: the bytes that llvm-objcopy takes out of the same image."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest
from aiohttp import web

from symcache.library import Library
from tests.client.lying_server import LyingServer
from tests.support.http import request
from tests.support.servers import CACHES, SHARED_UUID, Samples, Server, serve, uuid_of
from tests.support.toolchain import compile_image, lipo


def _section(image: Path, name: str, folder: Path) -> bytes:
    tool = shutil.which("llvm-objcopy-19")
    if tool is None:
        pytest.skip("not installed: llvm-objcopy-19 (apt-get install llvm-19)")
    subprocess.run([tool, f"--dump-section={name}={folder / 'section'}", image, folder / "copy"], check=True)
    return (folder / "section").read_bytes()


def test_a_section_is_what_llvm_takes_out(server: Server, samples: Samples, tmp_path: Path) -> None:
    base = f"/buildid/{samples.uuid.hex}/section/"
    text = _section(samples.dylib, "__TEXT,__text", tmp_path)
    for name in ("__TEXT,__text", "__TEXT%2C__text", "__text", ".text"):
        answer = request(server.url, base + name)
        assert (answer.status, answer.body) == (200, text), name
        assert answer.headers["x-debuginfod-size"] == str(len(text))
        assert answer.headers["x-symcache-kind"] == "executable"
    part = request(server.url, base + "__text", headers={"Range": "bytes=3-6"})
    assert (part.status, part.body) == (206, text[3:7])
    etag = answer.headers["etag"]
    assert request(server.url, base + "__text", headers={"If-None-Match": etag}).status == 304
    assert request(server.url, base + "__text", method="HEAD").headers["content-length"] == str(len(text))
    # Only the dSYM has these.
    info = _section(samples.dsym, "__DWARF,__debug_info", tmp_path)
    for name in ("__DWARF,__debug_info", ".debug_info"):
        answer = request(server.url, base + name)
        assert (answer.body, answer.headers["x-symcache-kind"]) == (info, "debuginfo"), name
    large = _section(samples.large, "__TEXT,__const", tmp_path)
    assert len(large) == 3_000_000
    path = f"/buildid/{uuid_of(samples.large).hex}/section/__TEXT,__const"
    assert request(server.url, path, headers={"Accept-Encoding": "zstd"}).body == large
    assert request(server.url, path, headers={"Range": "bytes=1000000-1999999"}).body == large[1_000_000:2_000_000]


def test_sections_nobody_has_are_missing(server: Server, samples: Samples) -> None:
    for name in (
        ".gdb_index",
        "__DATA,__text",
        "__TEXT,",
        ",",
        "__TEXT,__TEXT,__text",
        "x" * 2000,
        "%00",
        "__pagezero",
    ):
        assert request(server.url, f"/buildid/{samples.uuid.hex}/section/{name}").status == 404, name
    assert request(server.url, f"/buildid/{'0' * 31}1/section/.text").status == 404


def test_a_pin_counts_for_sections(server: Server, samples: Samples, tmp_path: Path) -> None:
    for build, cache in CACHES.items():
        text = _section(samples.variants[build], "__TEXT,__text", tmp_path)
        assert request(server.url, f"/cache/{cache}/buildid/{SHARED_UUID.hex}/section/.text").body == text


def test_debuginfod_find_gets_a_section(server: Server, samples: Samples, tmp_path: Path) -> None:
    if not shutil.which("debuginfod-find"):
        pytest.skip("not installed: debuginfod-find")
    environment = os.environ | {"DEBUGINFOD_URLS": server.url, "DEBUGINFOD_CACHE_PATH": str(tmp_path / "cache")}
    command = ["debuginfod-find", "section", samples.uuid.hex, ".text"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).read_bytes() == _section(samples.dylib, "__TEXT,__text", tmp_path)


def test_a_section_may_come_from_another_server(server: Server, samples: Samples, tmp_path: Path) -> None:
    Library.open(tmp_path / "empty", create=True).close()
    base = f"/buildid/{samples.uuid.hex}/section/"
    text = _section(samples.dylib, "__TEXT,__text", tmp_path)
    info = _section(samples.dsym, "__DWARF,__debug_info", tmp_path)
    with serve(tmp_path / "empty", tmp_path / "front", "--upstream", server.url) as front:
        for name, expected, kind in ((".text", text, "executable"), (".debug_info", info, "debuginfo")):
            got = request(front.url, base + name)
            assert (got.status, got.body) == (200, expected)
            assert got.headers["x-symcache-kind"] == kind
            assert unquote(got.headers["x-symcache-upstream"]) == server.url
            assert got.headers["x-debuginfod-size"] == str(len(expected))
            assert request(front.url, base + name, headers={"Range": "bytes=1-4"}).body == expected[1:5]
            assert request(front.url, base + name, headers={"If-None-Match": got.headers["etag"]}).status == 304
        for build, cache in CACHES.items():
            pinned = request(front.url, f"/cache/{cache}/buildid/{SHARED_UUID.hex}/section/__text")
            assert pinned.body == _section(samples.variants[build], "__TEXT,__text", tmp_path)
            assert "immutable" not in pinned.headers["cache-control"]
        assert request(front.url, base + ".gdb_index").status == 404
        assert request(front.url, f"/buildid/{'0' * 31}1/section/.text").status == 404
    with serve(tmp_path / "empty", tmp_path / "front", "--upstream", "http://127.0.0.1:1") as front:
        assert request(front.url, base + ".text").body == text  # the whole file was kept
        assert request(front.url, f"/buildid/{'0' * 31}2/section/.text").status == 503


def test_a_section_of_a_universal_file_is_that_of_the_slice(tmp_path: Path) -> None:
    images = {}
    for arch in ("x86_64", "arm64"):
        images[arch] = compile_image(
            tmp_path / arch, "libboth.dylib", f"int both(void) {{ return {len(arch)}; }}", arch=arch
        )
    both = lipo(tmp_path / "libboth.dylib", *images.values())

    async def answer(asked: web.Request) -> web.StreamResponse:  # as servers do that take files as they come
        return web.Response(body=both.read_bytes()) if asked.path.endswith("/executable") else web.Response(status=404)

    Library.open(tmp_path / "empty", create=True).close()
    with (
        LyingServer(answer) as other,
        serve(tmp_path / "empty", tmp_path / "front", "--upstream", other.url) as front,
    ):
        for image in images.values():
            path = f"/buildid/{uuid_of(image).hex}/section/.text"
            assert request(front.url, path).body == _section(image, "__TEXT,__text", tmp_path)
