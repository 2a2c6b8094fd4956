"""The program that is taken to Macs, as LLVM's tools see it: no Mac runs it here."""

from __future__ import annotations

import hashlib
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from symcache_provisioning.extractors.bundle_helper import HELPER
from symcache_provisioning.extractors.bundle_helper.build import TOOLS, build
from tests.support.toolchain import need_toolchain

_BUILT_WITH = "19.1.7"
"""LLVM's version; others may make other bytes of the same source."""
_FROM_LIBSYSTEM = {"_dlopen", "_dlsym", "_dlerror", "_dprintf", "__NSConcreteGlobalBlock", "dyld_stub_binder"}

arch = pytest.mark.parametrize("arch", ["x86_64", "arm64"])


def llvm(tool: str, *arguments: str | Path) -> str:
    need_toolchain()
    if not shutil.which(tool):
        pytest.skip(f"not installed: {tool} (apt-get install llvm-19)")
    return subprocess.run([tool, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def test_it_is_small_and_for_both_processors() -> None:
    assert llvm("llvm-lipo-19", "-archs", HELPER).split() == ["x86_64", "arm64"]
    assert HELPER.stat().st_size < 100_000


@arch
def test_it_is_a_program_for_macos_11(arch: str) -> None:
    headers = llvm("llvm-objdump-19", "--macho", f"--arch={arch}", "--private-headers", HELPER)
    assert re.search(r"EXECUTE .* PIE\b", headers)
    assert "cmd LC_MAIN" in headers
    assert re.search(r"platform macos\n\s+sdk 11\.0\n\s+minos 11\.0\n", headers)


@arch
def test_it_needs_libsystem_alone(arch: str) -> None:
    libraries = llvm("llvm-objdump-19", "--macho", f"--arch={arch}", "--dylibs-used", HELPER)
    assert re.findall(r"^\s+(/\S+)", libraries, re.MULTILINE) == ["/usr/lib/libSystem.B.dylib"]
    assert set(llvm("llvm-nm-19", "-u", "-j", f"--arch={arch}", HELPER).split()) <= _FROM_LIBSYSTEM
    binds = llvm("llvm-objdump-19", "--macho", f"--arch={arch}", "--bind", "--lazy-bind", HELPER)
    assert set(re.findall(r"libSystem\s+(\S+)$", binds, re.MULTILINE)) == _FROM_LIBSYSTEM


@arch
def test_its_signature_is_right(arch: str, tmp_path: Path) -> None:
    """Apple silicon kills what is not signed, or differs from what was. Layout: <kern/cs_blobs.h>, big-endian."""
    thin = tmp_path / arch
    llvm("llvm-lipo-19", HELPER, "-thin", arch, "-output", thin)
    commands = llvm("llvm-objdump-19", "--macho", "--private-headers", thin)
    found = re.search(r"cmd LC_CODE_SIGNATURE\n\s+cmdsize 16\n\s+dataoff (\d+)\n\s+datasize (\d+)\n", commands)
    assert found
    at, size = int(found[1]), int(found[2])
    data = thin.read_bytes()
    assert at + size == len(data)
    magic, _, count, slot, offset = struct.unpack_from(">5I", data, at)
    assert (magic, count, slot) == (0xFADE0CC0, 1, 0)  # a superblob with a CodeDirectory only: nobody's certificate
    directory = data[at + offset :]
    magic, _, _, flags, hashes, identifier, special, pages, limit = struct.unpack_from(">9I", directory)
    hash_size, hash_type, _, page_bits = struct.unpack_from("4B", directory, 36)
    assert (magic, flags & 2, limit, hash_size, hash_type) == (0xFADE0C02, 2, at, 32, 2)  # ad hoc, SHA-256
    assert directory[identifier:].startswith(b"extract-cache\0")
    assert special == 0
    page = 1 << page_bits
    assert pages == -(-limit // page)
    for number in range(pages):
        expected = hashlib.sha256(data[number * page : min((number + 1) * page, limit)]).digest()
        assert directory[hashes + number * 32 :].startswith(expected)


def test_it_is_what_its_source_gives(tmp_path: Path) -> None:
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (apt-get install clang-19 lld-19 llvm-19)")
    if _BUILT_WITH not in llvm("clang-19", "--version") or _BUILT_WITH not in llvm("ld64.lld-19", "--version"):
        pytest.skip(f"it was built with LLVM {_BUILT_WITH}, which is not what is installed")
    build(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == HELPER.read_bytes()
