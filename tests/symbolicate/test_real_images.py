"""Thousands of random addresses in real images: the names of LLDB, calls and lines of llvm-symbolizer.

For `make soak`: SYMCACHE_TEST_NAMES says how many addresses of each image.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from symcache.dyld import SharedCache, extract_all
from symcache.macho import Slice, identify, text_address
from symcache.symbolicate import Content, ImageNames, NamesFolder, NameSource
from tests.support.apple import apple_caches
from tests.support.wheels import wheel_tree
from tests.symbolicate.comparing import content, differing, need_lldb
from tests.symbolicate.lldb_names import lldb_names

_COUNT = int(os.environ.get("SYMCACHE_TEST_NAMES", "0"))
pytestmark = pytest.mark.skipif(not _COUNT, reason="SYMCACHE_TEST_NAMES is not set")
_ARM64, _X86_64 = "macosx_11_0_arm64", "macosx_10_13_x86_64"
_FILES = {
    "Qt, locals stripped": ("pyqt6-charts-qt6==6.11.2", _ARM64, "QtCharts"),
    "C, static functions stripped": ("soundfile==0.12.1", _ARM64, "libsndfile_arm64.dylib"),
    "C": ("pillow==11.0.0", _X86_64, "libtiff.6.dylib"),
    "C++": ("pillow==11.0.0", _ARM64, "libharfbuzz.0.dylib"),
    "C++, templates": ("imagecodecs==2024.9.22", _ARM64, "libSZ3c.dylib"),
    "Fortran and C of GCC": ("numpy==2.0.2", "macosx_10_9_x86_64", "libgfortran.5.dylib"),
    "Rust": ("tokenizers==0.20.0", _ARM64, "tokenizers.cpython-312-darwin.so"),
    "Rust, locals stripped": ("ruff==0.4.4", _ARM64, "ruff"),
    "Rust, symbol table stripped": ("ruff==0.14.0", _ARM64, "ruff"),
    "Swift": ("vllm-swift==0.6.2", _ARM64, "libVLLMBridge.dylib"),
    "Objective-C": ("pyobjc_core==13.0", "macosx_10_13_universal2", "_objc.cpython-312-darwin.so"),
}
_CACHES = ("arm64-reexp", "arm64e-auth", "arm64e-mac", "macos11-x86_64", "ios18-arm64e-universal-objc")
_MOST_WITHOUT = 0.001
"""The share of addresses where only we know a name: padding behind functions of which LLDB knows the size."""


@dataclass
class _Sample:
    names: ImageNames
    offsets: list[int]


def _sample(folder: Path, contents: list[Content], image: Slice, file: Path) -> _Sample:
    """Choose random offsets in the sections of one image that have code, by llvm-objdump."""
    names = NamesFolder(folder, 4 << 30).open(image.uuid or UUID(int=0), contents)
    command = ["llvm-objdump-19", "--section-headers", f"--arch-name={image.arch}", str(file)]
    if len(identify(file)) > 1:
        command = ["llvm-objdump-19", "--macho", f"--arch={image.arch}", "--section-headers", str(file)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [row.split() for row in text.splitlines()]
    code = [
        (int(row[3], 16) - _base(file, image), int(row[2], 16)) for row in rows if len(row) == 5 and row[4] == "TEXT"
    ]
    random = np.random.default_rng(20)
    sizes = np.array([size for _, size in code])
    chosen = random.choice(len(code), _COUNT, p=sizes / sizes.sum())
    starts = np.array([start for start, _ in code])
    return _Sample(names, (starts[chosen] + (random.random(_COUNT) * sizes[chosen]).astype(np.int64)).tolist())


def _base(file: Path, image: Slice) -> int:
    with file.open("rb") as opened:
        opened.seek(image.offset)
        return text_address(opened.read(1 << 16)) or 0


def _check(folder: Path, file: Path) -> None:
    need_lldb()
    for image in identify(file):
        sample = _sample(folder, [content(file)], image, file)
        (told,) = lldb_names([(file, image.arch, sample.offsets)])
        found = sample.names.look_up(np.array(sample.offsets))
        differences = differing(sample.offsets, found, told)
        without = [difference for difference in differences if difference[2] is None]
        sources = {s.value: sum(1 for one in found if one and one.source is s) for s in NameSource}
        print(
            f"\n{file.name} {image.arch}: of {_COUNT} {len(differences)} differ, {len(without)} only we have; {sources}"
        )
        assert [difference for difference in differences if difference[2] is not None] == []
        assert len(without) <= _MOST_WITHOUT * _COUNT


@pytest.mark.parametrize("kind", _FILES)
def test_names_in_third_party_images_are_those_of_lldb(kind: str, tmp_path: Path) -> None:
    requirement, platform, name = _FILES[kind]
    _check(tmp_path, next(f for f in wheel_tree(requirement, platform).rglob(name) if f.is_file() and identify(f)))


@pytest.mark.parametrize("cache", _CACHES)
def test_names_in_images_of_apples_caches_are_those_of_lldb(cache: str, tmp_path: Path) -> None:
    main = next(f for f in (apple_caches() / cache).glob("dyld_shared_cache_*") if "." not in f.name)
    with SharedCache.open(main) as opened:
        extract_all(opened, tmp_path / "images", jobs=1)
    images = sorted((f for f in (tmp_path / "images").rglob("*") if f.is_file()), key=lambda f: -f.stat().st_size)
    for file in images[:4]:
        _check(tmp_path, file)


def test_calls_and_lines_are_those_of_llvm(tmp_path: Path) -> None:
    tree = wheel_tree("pyobjc_core==13.0", "macosx_10_13_universal2") / "objc"
    binary = tree / "_objc.cpython-312-darwin.so"
    dsym = next((binary.with_name(f"{binary.name}.dSYM") / "Contents" / "Resources" / "DWARF").iterdir())
    for image in identify(dsym):
        sample = _sample(tmp_path, [content(dsym), content(binary)], image, binary)
        requests = "\n".join(hex(offset + _base(dsym, image)) for offset in sample.offsets)
        command = ["llvm-symbolizer-19", f"--obj={dsym}", f"--default-arch={image.arch}", "--output-style=JSON"]
        done = subprocess.run([*command, "--no-demangle"], input=requests, capture_output=True, text=True, check=True)
        compared = twins = 0
        for line, location in zip(
            done.stdout.splitlines(), sample.names.look_up(np.array(sample.offsets)), strict=True
        ):
            frames = [
                (f["FunctionName"].removeprefix("_"), f["FileName"], f["Line"]) for f in json.loads(line)["Symbol"]
            ]
            if location is None or location.source is not NameSource.DWARF:
                assert not frames[-1][1] or not frames[-1][2], frames
                continue
            ours = [(c.symbol.removeprefix("_"), c.file, c.line or 0) for c in location.calls]
            assert ours[:-1] == frames[:-1]
            assert ours[-1][1:] == frames[-1][1:]
            compared, twins = compared + 1, twins + (ours != frames)
        print(f"\n{dsym.name} {image.arch}: {compared} of {_COUNT} compared, {twins} have a twin's name")
        assert compared > 0.9 * _COUNT and twins <= _MOST_WITHOUT * _COUNT  # functions that were folded into one
