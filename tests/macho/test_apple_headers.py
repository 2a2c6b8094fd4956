"""The numbers and the sizes of structs are those of Apple's headers."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from symcache.macho import CPU_SUBTYPE_X86_64_ALL, CPU_TYPE, LC, MH, N, S
from symcache.macho.structs import FAT_ARCHES, FAT_HEADER, STRUCTS
from tests.support.toolchain import need_toolchain

HEADERS = ("stddef.h", "mach-o/loader.h", "mach-o/nlist.h", "mach-o/fat.h", "mach/machine.h")
BODIES = ("symtab", "dysymtab", "linkedit_data", "dyld_info", "dylib", "note")
"""Structs whose commands have one form for both widths."""


def _assertions() -> Iterator[str]:
    for numbers in (CPU_TYPE, LC, MH, N, S):
        for name, value in numbers.__members__.items():
            apples = "SECTION_TYPE" if value is S.TYPE else f"{numbers.__name__}_{name}"
            yield f"({apples}) & 0xFFFFFFFFu, {value:#x}u"
    yield f"CPU_SUBTYPE_X86_64_ALL, {CPU_SUBTYPE_X86_64_ALL}"
    yield f"sizeof(struct fat_header), {FAT_HEADER.size}"
    for magic, entry in FAT_ARCHES.items():
        wide = magic[3] & 1
        yield f"sizeof(struct fat_arch{'_64' if wide else ''}), {entry.size}"
        yield f"FAT_MAGIC{'_64' if wide else ''}, 0x{magic.hex()}u"
    for structs in STRUCTS.values():
        suffix = "_64" if structs.wide else ""
        command = structs.load_command.size
        yield f"sizeof(struct mach_header{suffix}), {structs.header.size}"
        yield f"sizeof(struct load_command), {command}"
        yield f"sizeof(struct segment_command{suffix}), {command + structs.segment.size}"
        yield f"sizeof(struct section{suffix}), {structs.section.size}"
        yield f"sizeof(struct nlist{suffix}), {structs.nlist_size}"
        for name, (_, offset) in (structs.nlist.fields or {}).items():
            member = "n_un" if name == "n_strx" else name
            yield f"offsetof(struct nlist{suffix}, {member}), {offset}"
        yield from (f"sizeof(struct {b}_command), {command + getattr(structs, b).size}" for b in BODIES)
        yield f"sizeof(struct dylinker_command), {command + structs.lc_str.size}"


@pytest.fixture
def includes() -> Path:
    ziglang = pytest.importorskip("ziglang", reason="Apple's headers come with PyPI's ziglang, which is not installed")
    return Path(ziglang.__file__).parent / "lib/libc/include/any-darwin-any"


def test_every_load_command_of_theirs_has_a_name_here(includes: Path) -> None:
    """What an extracted image keeps is decided for each of them by its name."""
    names = re.findall(r"^#define\s+LC_(\w+)", (includes / "mach-o/loader.h").read_text(), re.MULTILINE)
    assert set(names) - {"REQ_DYLD"} == set(LC.__members__)


def test_numbers_and_sizes(tmp_path: Path, includes: Path) -> None:
    need_toolchain()
    source = tmp_path / "assertions.c"
    lines = [f"#include <{header}>" for header in HEADERS] + ["#define SAME(a, b) _Static_assert((a) == (b), #a)"]
    source.write_text("\n".join([*lines, *(f"SAME({pair});" for pair in _assertions())]) + "\n")
    command = ["clang-19", "-target", "arm64-apple-macos12", "-fsyntax-only", "-nostdlibinc", "-isystem", str(includes)]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
