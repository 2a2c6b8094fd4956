"""The layouts that ctypes and struct use are those of the real macOS headers, for both architectures."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

import symcache.dump.capture
from symcache.dump.capture import images, mach
from symcache.dump.formats import registers
from tests.dump.builder import THREAD_STRUCTURES

TARGETS = ("x86_64-macos", "aarch64-macos")
STRUCTURES = (
    (mach.TaskDyldInfo, "struct task_dyld_info", True),
    (mach.ThreadIdentifierInfo, "struct thread_identifier_info", True),
    (mach.MachMsgHeader, "mach_msg_header_t", True),
    (mach.VmRegionSubmapInfo64, "struct vm_region_submap_info_64", False),
)
STATES = {
    "x86_64-macos": (0x0100_0007, ("x86_THREAD_STATE64", "x86_FLOAT_STATE64", "x86_EXCEPTION_STATE64"), "__rsp"),
    "aarch64-macos": (0x0100_000C, ("ARM_THREAD_STATE64", "ARM_NEON_STATE64", "ARM_EXCEPTION_STATE64"), "__sp"),
}
INFOS = "struct dyld_all_image_infos"
THREADS = {
    # Members in the order of think-cell's structure: flavor, type, what its state is called in it.
    "x86_64-macos": (
        (4, "x86_thread_state_t", "uts"),
        (5, "x86_float_state_t", "ufs"),
        (6, "x86_exception_state_t", "ues"),
    ),
    "aarch64-macos": (
        (6, "arm_unified_thread_state_t", "ts_64"),
        (17, "struct { arm_state_hdr_t header; arm_neon_state64_t state; }", "state"),
        (7, "struct { arm_state_hdr_t header; arm_exception_state64_t state; }", "state"),
    ),
}
FLAVORS = {
    "x86_64-macos": {
        4: "THREAD_STATE64",
        5: "FLOAT_STATE64",
        6: "EXCEPTION_STATE64",
        7: "THREAD_STATE",
        8: "FLOAT_STATE",
        9: "EXCEPTION_STATE",
        11: "DEBUG_STATE64",
        12: "DEBUG_STATE",
        17: "AVX_STATE64",
        18: "AVX_STATE",
        20: "AVX512_STATE64",
        21: "AVX512_STATE",
        22: "PAGEIN_STATE",
        23: "THREAD_FULL_STATE64",
    },
    "aarch64-macos": {
        1: "UNIFIED_THREAD_STATE",
        6: "THREAD_STATE64",
        7: "EXCEPTION_STATE64",
        10: "EXCEPTION_STATE64_V2",
        15: "DEBUG_STATE64",
        17: "NEON_STATE64",
        27: "PAGEIN_STATE",
        28: "SME_STATE",
        29: "SVE_Z_STATE1",
        30: "SVE_Z_STATE2",
        31: "SVE_P_STATE",
        **{31 + n: f"SME_ZA_STATE{n}" for n in range(1, 17)},
        48: "SME2_STATE",
    },
}


def _assertions(target: str) -> str:
    lines = [
        "#include <stddef.h>",
        "#include <mach/mach.h>",
        "#include <mach-o/dyld_images.h>",
        "#include <mach-o/loader.h>",
        f'#include "{Path(symcache.dump.capture.__file__).with_name("symcache_marshal.h")}"',
        "#define SAME(a, b) _Static_assert((a) == (b), #a)",
    ]
    for structure, name, whole in STRUCTURES:
        for field in structure._fields_:
            lines.append(f"SAME(offsetof({name}, {field[0]}), {getattr(structure, field[0]).offset});")
        if whole:
            lines.append(f"SAME(sizeof({name}), {ctypes.sizeof(structure)});")
    message = "struct symcache_task_message"
    lines += [
        f"SAME(sizeof({message}), {mach._MESSAGE_SIZE});",
        f"SAME(offsetof({message}, body.msgh_descriptor_count), {mach.TaskMessage.descriptor_count.offset});",
        f"SAME(offsetof({message}, task.name), {mach.TaskMessage.name.offset});",
        f"SAME(MACH_MSG_TYPE_COPY_SEND, {mach._MSG_TYPE_COPY_SEND});",
        "SAME(MACH_MSG_PORT_DESCRIPTOR, 0);",
        f"SAME(MACH_MSGH_BITS_COMPLEX, {mach._MSGH_COMPLEX}u);",
        f"SAME(MACH_SEND_MSG, {mach._MSG_SEND});",
        f"SAME(MACH_RCV_MSG, {mach._MSG_RCV});",
        f"SAME(MACH_SEND_TIMEOUT, {mach._MSG_TIMEOUT_SEND});",
        f"SAME(MACH_RCV_TIMEOUT, {mach._MSG_TIMEOUT_RCV});",
        f"SAME(VM_MEMORY_STACK, {mach._VM_MEMORY_STACK});",
        f"SAME(TASK_DYLD_INFO, {mach._TASK_DYLD_INFO});",
        f"SAME(THREAD_IDENTIFIER_INFO, {mach._THREAD_IDENTIFIER_INFO});",
        f"SAME(offsetof({INFOS}, infoArrayCount), 4);",
        f"SAME(offsetof({INFOS}, infoArray), 8);",
        f"SAME(offsetof({INFOS}, dyldImageLoadAddress), {images._DYLD_ADDRESS_AT});",
        f"SAME(offsetof({INFOS}, sharedCacheUUID), {images._CACHE_UUID_AT});",
        f"SAME(offsetof({INFOS}, sharedCacheBaseAddress), {images._CACHE_BASE_AT});",
        f"SAME(sizeof(struct dyld_image_info), {images._INFO.size});",
        "SAME(offsetof(struct dyld_image_info, imageFilePath), 8);",
    ]
    cputype, names, pointer = STATES[target]
    prefix = "x86_" if cputype == 0x0100_0007 else "ARM_"
    counts = dict(registers._COUNTS[cputype])
    assert counts.keys() == FLAVORS[target].keys()
    for flavor, name in FLAVORS[target].items():
        numbered = "Z_STATE" in name or "ZA_STATE" in name  # they share a count
        count = f"{name.rstrip('0123456789') if numbered else name}_COUNT"
        lines += [f"SAME({prefix}{name}, {flavor});", f"SAME({prefix}{count}, {counts[flavor]});"]
    members = " ".join(f"{kind} s{flavor};" for flavor, kind, _ in THREADS[target])
    lines.append(f"struct whole_thread {{ struct thread_command command; {members} }};")
    size, places = THREAD_STRUCTURES[cputype]
    lines.append(f"SAME(sizeof(struct whole_thread), {size});")
    for flavor, _, content in THREADS[target]:
        lines.append(f"SAME(offsetof(struct whole_thread, s{flavor}), {places[flavor][0]});")
        lines.append(f"SAME(offsetof(struct whole_thread, s{flavor}.{content}), {places[flavor][1]});")
    for (flavor, words, pointer_at), name in zip(mach.STATES[cputype], names, strict=True):
        lines += [f"SAME({name}, {flavor});", f"SAME({name}_COUNT, {words});"]
        if pointer_at is not None:
            state = "x86_thread_state64_t" if cputype == 0x0100_0007 else "arm_thread_state64_t"
            lines.append(f"SAME(offsetof({state}, {pointer}), {pointer_at});")
    lines.append('int main(void) { return symcache_marshal(1, 0, 0, "/x", "1"); }')
    return "\n".join(lines) + "\n"


def _compile(target: str, source: Path, *options: str) -> None:
    """Compile for macOS with all warnings as errors, and show what the compiler says where it fails."""
    pytest.importorskip("ziglang", reason="the macOS headers come with PyPI's ziglang, which is not installed")
    compiler = "c++" if source.suffix == ".cpp" else "cc"
    command = [sys.executable, "-m", "ziglang", compiler, "-target", target, "-Wall", "-Wextra", "-Werror", *options]
    done = subprocess.run(
        [*command, "-c", str(source), "-o", str(source.with_suffix(".o"))],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(source.parent), "ZIG_GLOBAL_CACHE_DIR": str(source.parent / "zig")},
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("target", TARGETS)
def test_layouts_and_numbers(target: str, tmp_path: Path) -> None:
    source = tmp_path / "assertions.c"
    source.write_text(_assertions(target))
    for standard in ("c11", "gnu99"):
        _compile(target, source, "-x", "c", f"-std={standard}", "-Wno-c11-extensions")


@pytest.mark.parametrize("target", TARGETS)
def test_the_header_compiles_as_c_plus_plus(target: str, tmp_path: Path) -> None:
    header = Path(symcache.dump.capture.__file__).with_name("symcache_marshal.h")
    source = tmp_path / "client.cpp"
    source.write_text(f'#include "{header}"\nint f() {{ return symcache_marshal(1, 0, 0, "/x", "1"); }}\n')
    _compile(target, source, "-std=c++11")
