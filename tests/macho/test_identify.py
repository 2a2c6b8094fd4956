"""What a file is, told by its own headers and held against LLVM's tools."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symcache.errors import MachOError
from symcache.macho import arch_name, begins_as_macho, code_fingerprint, identify, identify_bytes, parse_uuid
from symcache.model import Kind, uuid_text
from tests.support.toolchain import compile_image, dsym, lipo
from tests.support.wheels import wheel_tree

SOURCE = "static int hidden(int x) { return x * 7; }\nint answer(int x) { return hidden(x) + 42; }\n"
X86_64, ARM64, POWERPC = 0x0100_0007, 0x0100_000C, 18


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("macho")
    for arch in ("x86_64", "arm64"):
        compile_image(folder / arch, "libanswer.dylib", SOURCE, arch=arch, install_name="/usr/lib/libanswer.dylib")
    compile_image(folder / "exe", "prog", "int main(void) { return 0; }\n", dylib=False)
    return folder


def _thin(built: Path, arch: str = "x86_64") -> Path:
    return built / arch / "libanswer.dylib"


def _llvm_uuids(path: Path) -> list[tuple[str, str]]:
    """Return [(UUID, architecture)] as llvm-dwarfdump prints them."""
    text = subprocess.run(["llvm-dwarfdump-19", "--uuid", str(path)], capture_output=True, text=True, check=True).stdout
    return re.findall(r"^UUID: ([0-9A-F-]{36}) \((\S+)\)", text, re.MULTILINE)


def _image(
    order: str = "<",
    magic: int = 0xFEEDFACF,
    cpu: tuple[int, int] = (X86_64, 3),
    filetype: int = 6,
    commands: bytes = b"",
    ncmds: int = 0,
) -> bytes:
    header = struct.pack(order + "7I", magic, *cpu, filetype, ncmds, len(commands), 0)
    return header + (b"\0" * 4 if magic == 0xFEEDFACF else b"") + commands


def _uuid_command(order: str, uuid: UUID) -> bytes:
    return struct.pack(order + "2I", 0x1B, 24) + uuid.bytes


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
def test_a_thin_dylib_is_one_slice_with_its_uuid_and_install_name(built: Path, arch: str) -> None:
    (found,) = identify(_thin(built, arch))
    assert [(uuid_text(found.uuid or UUID(int=0)), found.arch)] == _llvm_uuids(_thin(built, arch))
    assert (found.offset, found.size) == (0, _thin(built, arch).stat().st_size)
    assert (found.kind, found.install_name) == (Kind.EXECUTABLE, "/usr/lib/libanswer.dylib")


def test_a_dsym_has_the_uuid_of_its_binary_and_another_kind(built: Path, tmp_path: Path) -> None:
    image = tmp_path / "libanswer.dylib"
    image.write_bytes(_thin(built).read_bytes())
    compile_image(tmp_path, "libanswer.dylib", SOURCE)
    (dwarf,) = identify(dsym(image) / "Contents/Resources/DWARF/libanswer.dylib")
    (binary,) = identify(image)
    assert dwarf.uuid == binary.uuid
    assert (binary.kind, dwarf.kind) == (Kind.EXECUTABLE, Kind.DEBUGINFO)


def test_objects_have_no_kind_to_be_served_as(built: Path) -> None:
    (found,) = identify(built / "x86_64" / "libanswer.dylib.o")
    assert found.kind is None


@pytest.mark.parametrize("wide", [False, True])
def test_every_slice_of_a_universal_file_is_found(built: Path, tmp_path: Path, wide: bool) -> None:
    images = [_thin(built), _thin(built, "arm64")]
    target = tmp_path / "universal.dylib"
    if wide:
        command = ["llvm-lipo-19", "-create", "-fat64", *map(str, images), "-output", str(target)]
        subprocess.run(command, check=True)
        assert target.read_bytes()[:4] == b"\xca\xfe\xba\xbf"
    else:
        lipo(target, *images)
    found = identify(target)
    assert sorted((uuid_text(s.uuid or UUID(int=0)), s.arch) for s in found) == sorted(_llvm_uuids(target))
    for piece in found:
        thin = target.read_bytes()[piece.offset : piece.offset + piece.size]
        assert thin == _thin(built, piece.arch).read_bytes()


def test_a_slice_beyond_the_bytes_that_were_read_is_an_error(built: Path, tmp_path: Path) -> None:
    target = lipo(tmp_path / "universal", _thin(built), _thin(built, "arm64"))
    with pytest.raises(MachOError, match="beyond what was read"):
        identify_bytes(target.read_bytes()[:4096], target.stat().st_size)


def test_a_java_class_file_is_no_universal_file(tmp_path: Path) -> None:
    path = tmp_path / "Main.class"
    for major in (45, 52, 65):
        path.write_bytes(struct.pack(">IHH", 0xCAFEBABE, 0, major) + bytes(100))
        assert identify(path) == []


@pytest.mark.parametrize("content", [b"", b"\xcf", b"\xcf\xfa\xed", b"#!/bin/sh\n", b"\x7fELF" + bytes(60)])
def test_other_files_are_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    assert identify(path) == []


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        *((bytes.fromhex(magic) + b"\7\0\0\1", True) for magic in ("cffaedfe", "cefaedfe", "feedfacf", "feedface")),
        *((bytes.fromhex(magic) + b"\0\0\0\2", True) for magic in ("cafebabe", "cafebabf")),
        (b"\xca\xfe\xba\xbe\0\0\0\0", False),
        (b"\xca\xfe\xba\xbe\0\0\0\x2d", False),  # Java 1.1
        (b"\xca\xfe\xba\xbe\0\3\0\x2d", False),
        (b"\x7fELF\2\1\1\0", False),
        (b"\xcf\xfa", False),
        (b"", False),
    ],
)
def test_eight_bytes_tell_what_is_worth_reading(head: bytes, expected: bool) -> None:
    assert begins_as_macho(head) is expected


def test_capability_bits_do_not_change_the_architecture(built: Path, tmp_path: Path) -> None:
    data = bytearray(_thin(built, "arm64").read_bytes())
    for subtype in (0x8000_0002, 0xC000_0002, 0x0000_0002):
        struct.pack_into("<I", data, 8, subtype)
        path = tmp_path / "arm64e.dylib"
        path.write_bytes(data)
        (found,) = identify(path)
        assert (found.arch, found.cpusubtype) == ("arm64e", subtype)
        assert _llvm_uuids(path)[0][1] == "arm64e"


@pytest.mark.parametrize(
    ("cpu", "name"),
    [
        ((X86_64, 0x8000_0003), "x86_64"),
        ((X86_64, 4), "x86_64"),  # CPU_SUBTYPE_X86_ARCH1, the processor itself: in cores by older kernels and OpenJ9
        ((X86_64, 8), "x86_64h"),
        ((7, 3), "i386"),
        ((ARM64, 0), "arm64"),
        ((0x0200_000C, 1), "arm64_32"),
        ((12, 12), "armv7k"),
        ((99, 5), "cpu-0x63-0x5"),
    ],
)
def test_architectures_have_apples_names(cpu: tuple[int, int], name: str) -> None:
    assert arch_name(*cpu) == name


def test_big_endian_images_are_read_as_llvm_reads_them(tmp_path: Path) -> None:
    uuid = UUID("0F1E2D3C-4B5A-6978-8796-A5B4C3D2E1F0")
    path = tmp_path / "power"
    path.write_bytes(_image(">", 0xFEEDFACE, (POWERPC, 0), 8, _uuid_command(">", uuid), 1))
    (found,) = identify(path)
    assert (found.arch, found.uuid, found.kind) == ("ppc", uuid, Kind.EXECUTABLE)
    assert _llvm_uuids(path)[0][0] == uuid_text(uuid)


def test_a_zero_uuid_is_none(tmp_path: Path) -> None:
    path = tmp_path / "zero"
    path.write_bytes(_image(commands=_uuid_command("<", UUID(int=0)), ncmds=1))
    assert identify(path)[0].uuid is None


def test_a_file_cut_anywhere_in_its_headers_is_an_error(built: Path, tmp_path: Path) -> None:
    data = _thin(built).read_bytes()
    commands = struct.unpack_from("<I", data, 20)[0]
    path = tmp_path / "cut"
    for size in (4, 27, 31, 32 + commands // 2, 32 + commands - 1):
        path.write_bytes(data[:size])
        with pytest.raises(MachOError, match=r"cut|fit|ends"):
            identify(path)


def test_a_universal_file_that_lost_its_end_is_an_error(built: Path, tmp_path: Path) -> None:
    whole = lipo(tmp_path / "whole", _thin(built), _thin(built, "arm64")).read_bytes()
    path = tmp_path / "cut"
    for size in (9, 30, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(MachOError):
            identify(path)


@pytest.mark.parametrize(
    "commands",
    [
        struct.pack("<2I", 0x1B, 0) + bytes(16),
        struct.pack("<2I", 0x1B, 7) + bytes(16),
        struct.pack("<2I", 0x1B, 4096) + bytes(16),
        struct.pack("<2I", 0x1B, 16) + bytes(8),
    ],
)
def test_impossible_load_commands_are_errors(commands: bytes) -> None:
    data = _image(commands=commands, ncmds=1)
    with pytest.raises(MachOError):
        identify_bytes(data, len(data))


def test_a_claim_of_four_gigabytes_of_load_commands_takes_no_memory() -> None:
    data = _image()
    data = data[:20] + struct.pack("<I", 0xFFFF_FFF0) + data[24:]
    with pytest.raises(MachOError, match="do not fit"):
        identify_bytes(data, 1 << 40)


def test_real_files_of_a_wheel_agree_with_llvm() -> None:
    tree = wheel_tree("pyobjc_core==13.0", "macosx_10_13_universal2")
    files = [f for f in sorted(tree.rglob("*")) if f.is_file() and identify(f)]
    universal, debug = 0, 0
    assert len(files) > 50
    for path in files:
        found = identify(path)
        universal += len(found) > 1
        debug += found[0].kind is Kind.DEBUGINFO
        assert sorted((uuid_text(s.uuid), s.arch) for s in found if s.uuid) == sorted(_llvm_uuids(path)), path
    assert universal > 50


def test_the_fingerprint_tells_how_much_of_the_symbol_table_is_left(built: Path, tmp_path: Path) -> None:
    whole = _thin(built)
    stripped = tmp_path / "stripped.dylib"
    subprocess.run(["llvm-strip-19", "-x", str(whole), "-o", str(stripped)], check=True)
    counts = []
    codes = []
    for path in (whole, stripped):
        data = path.read_bytes()
        found = code_fingerprint(data[: 32 << 10], len(data))
        listed = subprocess.run(["llvm-nm-19", "-a", str(path)], capture_output=True, text=True, check=True).stdout
        assert found.symbols == len(listed.splitlines())
        counts.append(found.symbols)
        codes.append(data[found.text_offset : found.text_offset + found.text_size])
    assert counts[0] > counts[1]
    assert codes[0] == codes[1] != b""


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(0, 1 << 40))
def test_any_bytes_are_images_or_nothing_or_an_error(data: bytes, size: int) -> None:
    for start in (b"", b"\xcf\xfa\xed\xfe", b"\xfe\xed\xfa\xce", b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf"):
        try:
            found = identify_bytes(start + data, size)
        except MachOError:
            continue
        for piece in found:
            assert piece.offset + piece.size <= size
        code_fingerprint(start + data, size)


@settings(deadline=None)
@given(
    order=st.sampled_from("<>"),
    wide=st.booleans(),
    uuid=st.uuids(),
    others=st.lists(st.tuples(st.sampled_from([0x2, 0xB, 0x26, 0x32]), st.binary(max_size=40)), max_size=8),
    place=st.integers(0, 8),
)
def test_the_uuid_is_found_among_any_commands(
    order: str, wide: bool, uuid: UUID, others: list[tuple[int, bytes]], place: int
) -> None:
    parts = [struct.pack(order + "2I", cmd, 8 + len(rest)) + rest for cmd, rest in others]
    parts.insert(min(place, len(parts)), _uuid_command(order, uuid))
    data = _image(order, 0xFEEDFACF if wide else 0xFEEDFACE, commands=b"".join(parts), ncmds=len(parts))
    (found,) = identify_bytes(data, len(data))
    assert found.uuid == (uuid if uuid.int else None)


@settings(deadline=None)
@given(st.uuids())
def test_a_uuid_is_read_in_every_spelling(uuid: UUID) -> None:
    for text in (str(uuid), str(uuid).upper(), uuid.hex, uuid.hex.upper()):
        assert parse_uuid(text) == uuid
