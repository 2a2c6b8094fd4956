"""`symcache extract` and `symcache info`, as a user runs them."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from tests.dyld.macho_reader import read
from tests.dyld.tiny import Cache, Image, Symbol
from tests.support.commands import run_here
from tests.support.toolchain import compile_image, dsym, lipo


def _symcache(*arguments: str | Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    done = run_here(*map(str, arguments), env={"COLUMNS": "500"})
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def _images() -> list[Image]:
    return [Image(f"/usr/lib/lib{name}.dylib", UUID(int=n + 1), defined=[Symbol("_f")]) for n, name in enumerate("abc")]


def test_extract_puts_each_architecture_into_a_tree_of_its_own(tmp_path: Path) -> None:
    for arch in ("x86_64", "x86_64h"):
        path = Cache(_images(), arch=arch).write(tmp_path)
        done = _symcache("extract", path, "-o", tmp_path / "out")
        assert "3 images" in done.stdout and str(tmp_path / "out" / arch) in done.stdout
    for arch, subtype in (("x86_64", 3), ("x86_64h", 8)):
        made = read(tmp_path / "out" / arch / "usr/lib/liba.dylib")
        assert (made.cpusubtype, made.uuid) == (subtype, UUID(int=1))


def test_extract_names_what_failed_and_ends_with_1(tmp_path: Path) -> None:
    images = _images()
    images[1].commands = [struct.pack("<2I", 0x2A, 4)]
    path = Cache(images).write(tmp_path)
    done = _symcache("extract", path, "-o", tmp_path / "out", "--json", expect=1)
    report = json.loads(done.stdout)
    assert [i["path"] for i in report["images"]] == ["/usr/lib/liba.dylib", "/usr/lib/libc.dylib"]
    assert [(f["path"], f["uuid"]) for f in report["failed"]] == [
        ("/usr/lib/libb.dylib", "00000000-0000-0000-0000-000000000002")
    ]
    assert "libb.dylib" in done.stderr and "1 of 3 images" in done.stderr.replace("\n", " ")
    assert all(Path(i["file"]).stat().st_size == i["size"] for i in report["images"])


def test_extract_some(tmp_path: Path) -> None:
    path = Cache(_images()).write(tmp_path)
    _symcache("extract", path, "-o", tmp_path / "out", "--image", "lib[ac]*", "--jobs", "1")
    assert sorted(p.name for p in (tmp_path / "out").rglob("*.dylib")) == ["liba.dylib", "libc.dylib"]
    done = _symcache("extract", path, "-o", tmp_path / "out", "--image", "nothing", expect=1)
    assert "no image matches" in done.stderr and "symcache info" in done.stderr.replace("\n", " ")


def test_extract_without_a_companion_is_refused_and_named(tmp_path: Path) -> None:
    head = bytearray(Cache(_images(), arch="arm64e").build())
    head[0x3F00:0x3F38] = struct.pack("<16sQ32s", UUID(int=0xABC).bytes, 1 << 30, b".02.dylddata")
    struct.pack_into("<2I", head, 0x188, 0x3F00, 1)
    path = tmp_path / "dyld_shared_cache_arm64e"
    path.write_bytes(head)
    done = _symcache("extract", path, "-o", tmp_path / "out", expect=1)
    assert "dyld_shared_cache_arm64e.02.dylddata" in done.stderr.replace("\n", "")
    assert not (tmp_path / "out").exists()
    info = json.loads(_symcache("info", path, "--json", expect=1).stdout)
    assert info["complete"] is False and len(info["images"]) == 3
    assert [(m["name"], m["uuid"]) for m in info["missing"]] == [
        ("dyld_shared_cache_arm64e.02.dylddata", "00000000-0000-0000-0000-000000000ABC")
    ]


def test_info_of_a_cache(tmp_path: Path) -> None:
    path = Cache(_images(), arch="arm64e", base=0x1_8000_0000).write(tmp_path)
    text = _symcache("info", path).stdout
    for wanted in ("arm64e", "macOS 13.6.1", "00000000-0000-0000-0000-000000C0FFEE", "/usr/lib/libb.dylib", "3 images"):
        assert wanted in text
    found = json.loads(_symcache("info", path, "--json").stdout)
    assert (found["kind"], found["arch"], found["os_version"], found["complete"]) == (
        "shared cache", "arm64e", "13.6.1", True,
    )  # fmt: skip
    assert [m["address"] for m in found["mappings"]] == [0x1_8000_0000, 0x1_9000_0000, 0x1_A000_0000]
    assert (found["images"][0]["path"], found["images"][0]["uuid"]) == (
        "/usr/lib/liba.dylib", "00000000-0000-0000-0000-000000000001",
    )  # fmt: skip


@pytest.mark.parametrize("content", [b"dyld_v1  arm64e\0" + b"\xff" * 600, b"dyld_v1  arm64e\0", b"dyld_v1"])
def test_info_of_a_broken_cache_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "dyld_shared_cache_arm64e"
    path.write_bytes(content)
    assert "error:" in _symcache("info", path, expect=1).stderr


def test_info_of_mach_o_files_and_bundles(tmp_path: Path) -> None:
    thin = [compile_image(tmp_path / a, "libx.dylib", "int f(void){return 1;}", arch=a) for a in ("x86_64", "arm64")]
    both = lipo(tmp_path / "libx.dylib", *thin)
    uuids = [str(read(t).uuid).upper() for t in thin]
    found = json.loads(_symcache("info", both, "--json").stdout)
    assert [(s["arch"], s["type"], s["uuid"]) for s in found["slices"]] == [
        ("x86_64", "dylib", uuids[0]), ("arm64", "dylib", uuids[1]),
    ]  # fmt: skip
    bundle = dsym(thin[0])
    assert uuids[0] in _symcache("info", bundle).stdout
    found = json.loads(_symcache("info", bundle, "--json").stdout)
    assert [(s["type"], s["uuid"]) for s in found["slices"]] == [("dSYM", uuids[0])]


def test_info_of_what_is_none_of_these(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    assert "no Mach-O" in _symcache("info", tmp_path / "text", expect=1).stderr
    assert "no dSYM" in _symcache("info", tmp_path, expect=1).stderr
    assert "no such file" in _symcache("info", tmp_path / "missing", expect=2).stderr
    os.mkfifo(tmp_path / "pipe")
    assert "no ordinary file" in _symcache("info", tmp_path / "pipe", expect=1).stderr
    Cache(_images()).write(tmp_path)
    assert "dyld_shared_cache_x86_64" in _symcache("info", tmp_path, expect=1).stderr


def test_a_full_disk_ends_the_run_and_leaves_no_half_file(tmp_path: Path) -> None:
    path = Cache(_images()).write(tmp_path)
    command = f"ulimit -f 20; exec {sys.executable} -m symcache extract {path} -o {tmp_path / 'out'}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "error:" in done.stderr and "Traceback" not in done.stderr
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


def test_extract_of_a_folder_names_the_caches_in_it(tmp_path: Path) -> None:
    Cache(_images()).write(tmp_path)
    done = _symcache("extract", tmp_path, "-o", tmp_path / "out", expect=2)
    assert str(tmp_path / "dyld_shared_cache_x86_64") in done.stderr
