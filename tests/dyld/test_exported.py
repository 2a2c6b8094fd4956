"""What an image exports, held against LLVM's own reading of it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from symcache.dyld import exported_symbols
from symcache.errors import MachOError, SharedCacheError
from symcache.macho import LC, mach_header
from tests.support.toolchain import compile_image

_SOURCE = """
int shown(int x) __asm__("__ZN4demo5shownEi");
static int hidden(int x) { return x * 3; }
int shown(int x) { return hidden(x) + 1; }
int other = 5;
__attribute__((visibility("hidden"))) int inner(int x) { return x; }
int (*use)(int) = inner;
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_image(tmp_path_factory.mktemp("exported"), "libexported.dylib", _SOURCE)


def _by_llvm(image: Path) -> dict[str, int]:
    """Return {name: address} of llvm-nm's external, defined symbols: the image's own header is at 0."""
    listed = subprocess.run(["llvm-nm-19", "-gU", image], capture_output=True, text=True, check=True).stdout
    return {name: int(address, 16) for address, name in re.findall(r"^([0-9a-f]+) \S (\S+)$", listed, re.MULTILINE)}


def test_the_trie_names_what_llvm_names(image: Path) -> None:
    expected = _by_llvm(image)
    assert set(expected) == {"__ZN4demo5shownEi", "_other", "_use"}
    assert {s.name.decode(): s.offset for s in exported_symbols(image.read_bytes())} == expected


def test_an_image_without_trie_has_its_external_symbols(image: Path) -> None:
    data = bytearray(image.read_bytes())
    header = mach_header(data)
    assert header
    for command in header.load_commands(data, {LC.DYLD_EXPORTS_TRIE, LC.DYLD_INFO, LC.DYLD_INFO_ONLY}):
        data[command.offset : command.offset + 4] = (0x7777).to_bytes(4, "little")
    assert {s.name.decode(): s.offset for s in exported_symbols(bytes(data))} == _by_llvm(image)


def test_what_is_cut_is_refused(image: Path) -> None:
    data = image.read_bytes()
    for damaged in (b"", data[:100], data[:3000], b"\xcf\xfa\xed\xfe" + bytes(3000)):
        with pytest.raises((MachOError, SharedCacheError)):
            if not list(exported_symbols(damaged)):
                raise MachOError("nothing is exported")
