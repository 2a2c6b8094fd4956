"""What the samples lack: code that Apple's linker made, out of macOS wheels, and debug maps."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from tests.cachewriter import BuiltCache, CacheOptions, DylibInput, build_cache
from tests.cachewriter.disassembly import addresses_in_code
from tests.cachewriter.machinput import Image, Section
from tests.support.toolchain import compile_image
from tests.support.wheels import wheel_tree

_WHEELS = {"x86_64": "macosx_10_9_x86_64", "arm64": "macosx_11_0_arm64"}
_NAMES = ("_multiarray_tests", "_rational_tests", "_simd", "_pocketfft_umath")


@pytest.fixture(scope="module", params=_WHEELS)
def wheel(request: pytest.FixtureRequest) -> BuiltCache:
    tree = wheel_tree("numpy==2.0.2", _WHEELS[request.param])
    files: list[Path] = [next(tree.rglob(f"{name}.cpython-*.so")) for name in _NAMES]
    inputs = [DylibInput(f"/usr/lib/{f.name}", f) for f in files]
    return build_cache(inputs, CacheOptions(request.param, 0x228, layout_seed=5))


def _moved(cache: BuiltCache, image: Image, address: int) -> int:
    segments = cache.placed_image(image.path).segments
    inside = [c + address - o for _, o, c, size in segments if o <= address < o + max(size, 1)]
    return inside[0]


def _section(image: Image, name: str) -> Section:
    return next(s for s in image.text.sections if s.name == name)


def test_moved_code_refers_to_the_same_things(wheel: BuiltCache) -> None:
    crossing = 0
    for image in wheel.images:
        section = _section(image, "__text")
        original = image.text.content[section.addr - image.text.vmaddr :][: section.size]
        moved = wheel.read(_moved(wheel, image, section.addr), section.size)
        old = addresses_in_code(original, section.addr, wheel.options.arch)
        new = addresses_in_code(moved, _moved(wheel, image, section.addr), wheel.options.arch)
        # What a linear sweep takes for a reference in a jump table need not be one: it stays as it is.
        delta = _moved(wheel, image, section.addr) - section.addr
        assert len(old) == len(new) > 50
        for before, after in zip(old, new, strict=True):
            if image.segment_of(before) not in (None, image.segments.index(image.text)):
                assert after == _moved(wheel, image, before), f"{image.path}: {before:#x}"
                crossing += 1
            else:
                assert after == before + delta, f"{image.path}: {before:#x}"
    assert crossing > 300


def test_unwinding_still_finds_its_personality_routine(wheel: BuiltCache) -> None:
    """C++ code names a pointer to its personality in another segment, relative to the header or to itself."""
    found = 0
    for image in wheel.images:
        section, header = _section(image, "__unwind_info"), image.text.vmaddr
        before = image.text.content[section.addr - header :]
        at, count = struct.unpack_from("<2I", before, 12)
        after = wheel.read(_moved(wheel, image, section.addr), section.size)
        for old, new in zip(
            struct.unpack_from(f"<{count}I", before, at), struct.unpack_from(f"<{count}I", after, at), strict=True
        ):
            assert wheel.placed_image(image.path).address + new == _moved(wheel, image, header + old)
            found += 1
    assert found


def test_relative_method_lists_still_name_their_selectors(tmp_path: Path) -> None:
    tree = wheel_tree("pyobjc_core==13.0", "macosx_10_13_universal2")
    thin = tmp_path / "_objc"
    fat = next(p for p in tree.rglob("_objc.cpython-*.so") if p.is_file())
    subprocess.run(["llvm-lipo-19", "-thin", "arm64", fat, "-output", thin], check=True)
    cache = build_cache([DylibInput("/usr/lib/libpyobjc.dylib", thin)], CacheOptions("arm64", 0x228, layout_seed=2))
    (image,) = cache.images
    section = _section(image, "__objc_methlist")
    before = image.text.content[section.addr - image.text.vmaddr :]
    after = cache.read(_moved(cache, image, section.addr), section.size)
    kind, count = struct.unpack_from("<2I", before)
    assert kind == 0x8000000C and count
    for at in range(8, 8 + 12 * count, 4):
        (old,), (new,) = struct.unpack_from("<i", before, at), struct.unpack_from("<i", after, at)
        here = section.addr + at
        assert _moved(cache, image, here) + new == _moved(cache, image, here + old)


def test_debug_map_entries_move_with_their_functions(tmp_path: Path) -> None:
    source = "static int kept = 3;\nstatic __attribute__((noinline)) int inner(int x) { return kept += x; }\n"
    source += "int outer(int x) { return inner(x) + 1; }\n"
    file = compile_image(tmp_path, "libstabs.dylib", source, arch="arm64", install_name="/usr/lib/libstabs.dylib")
    cache = build_cache([DylibInput("/usr/lib/libstabs.dylib", file)], CacheOptions("arm64", 0x228, layout_seed=1))
    symbols = cache.expected("/usr/lib/libstabs.dylib").symbols
    values = {s.name: s.value for s in symbols if not s.type & 0xE0}
    functions = {s.name: s.value for s in symbols if s.type == 0x24 and s.section}  # N_FUN
    statics = {s.name: s.value for s in symbols if s.type == 0x26}  # N_STSYM
    assert functions == {n: values[n] for n in ("_inner", "_outer")} and statics == {"_kept": values["_kept"]}
    objects = [s.value for s in symbols if s.type == 0x66]  # N_OSO: a time, no address
    original = [int(e["value"]) for e in cache.images[0].symbols if e["type"] == 0x66]
    assert objects == original
