"""What is taken as a dump, and what each wrong one is told."""

from __future__ import annotations

import bz2
import io
import lzma
import re
import shutil
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symcache.dump import DumpModule, OpenedDump, describe, dump_kind, open_dump, parse_header
from symcache.errors import DumpError
from tests.dump.builder import MODULE, CoreFile, Module, Region, header, small_core, write_dump, x86_thread, zipped

CORE = small_core().bytes()


def refused(tmp_path: Path, content: bytes) -> str:
    """Return what the dump is told; nothing of it may be left behind."""
    path = tmp_path / "crash.zip"
    path.write_bytes(content)
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    with pytest.raises(DumpError) as error:
        open_dump(path, scratch)
    assert str(error.value).startswith(str(path))
    assert error.value.hint  # the next step
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["crash.zip", "scratch"]
    return str(error.value).removeprefix(f"{path}: ")


def test_reads_what_the_writer_of_the_format_writes(tmp_path: Path) -> None:
    modules = [
        MODULE,
        Module(0x7FF8_0000_0000, "/usr/lib/dyld", "23516BE4-29BE-350C-91C9-F36E7999F0F1"),
        Module(1 << 63, "/a&b/<c>", None, 0xFFFF_FFFF),
        Module(5),
    ]
    path = write_dump(tmp_path / "d.zip", header(modules, bundle_version="1.2 & 3", thread=1), small_core(2).bytes())
    dump = open_dump(path, tmp_path)
    assert dump.header is not None
    assert dump.header.executable == "Ledger"
    assert dump.header.bundle_version == "1.2 & 3"
    assert dump.header.format_version == "25000"
    assert dump.header.thread == 1
    assert dump.header.modules == (
        DumpModule(
            0x1_0000_0000,
            "/Applications/Ledger.app/Contents/MacOS/Ledger",
            UUID("01234567-89ab-cdef-0123-456789abcdef"),
            0x10000,
        ),
        DumpModule(0x7FF8_0000_0000, "/usr/lib/dyld", UUID("23516be4-29be-350c-91c9-f36e7999f0f1")),
        DumpModule(1 << 63, "/a&b/<c>", None, 0xFFFF_FFFF),
        DumpModule(5),
    )
    assert dump.core_path.read_bytes() == small_core(2).bytes()


def test_what_older_writers_leave_out_and_newer_ones_add(tmp_path: Path) -> None:
    noted = (
        '<m_strOSBuild>22G120</m_strOSBuild><m_cacheuuid val="95c8966cea443c9e86ac67d6b7a13bf7"/>'
        '<m_pvCacheStart val="6442450944"/><m_future><elem><m_uuid val="x"/></elem></m_future>'
    )
    plain = parse_header(header([MODULE]), "d")
    assert (plain.os_build, plain.cache_uuid, plain.cache_base, plain.bundle_version) == (None, None, None, "")
    rich = parse_header(header([MODULE], extra=noted), "d")
    assert rich.os_build == "22G120"
    assert rich.cache_uuid == UUID("95C8966C-EA44-3C9E-86AC-67D6B7A13BF7")
    assert rich.cache_base == 6442450944
    assert rich.modules == plain.modules


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"<root>", b"<root><!-- the end is </root>, as ever -->"),
        (b"<root>", b"<root><note><![CDATA[" + b"</root>" * 20_000 + b"]]></note>"),
        (b"</root>", b"</root\n >"),
        (b"</root>", b"</root>\r\n\n"),
    ],
)
def test_the_header_ends_where_the_core_begins(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = tmp_path / "dump.zip"
    path.write_bytes(zipped(header([MODULE]).replace(old, new) + CORE))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    dump = open_dump(path, scratch)
    assert dump.header
    assert [m.path for m in dump.header.modules] == [MODULE.path]
    assert dump.core_path.read_bytes() == CORE


def test_elements_may_have_a_namespace() -> None:
    plain = header([MODULE], bundle_version="2.4")
    for root in (b'<root xmlns="https://dumps.example/1">', b'<root xmlns:d="https://dumps.example/1" d:of="x">'):
        assert parse_header(plain.replace(b"<root>", root), "d") == parse_header(plain, "d")


def test_zeros_of_a_core_become_holes(tmp_path: Path) -> None:
    core = CoreFile(
        regions=[Region(0x1000, 64 << 20, bytes(64 << 20), 3), Region(0x10_0000_0000, 4096, b"x" * 4096, 3)],
        threads=[x86_thread()],
    ).bytes()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    dump = open_dump(write_dump(tmp_path / "d.zip", header([MODULE]), core), scratch)
    assert dump.core_path.stat().st_size == len(core)
    assert dump.core_path.stat().st_blocks * 512 < 4 << 20
    last = dump.core.segments[-1]
    with dump.core_path.open("rb") as file:
        file.seek(last.offset)
        assert file.read(last.filesize) == b"x" * 4096


def test_not_a_dump_at_all(tmp_path: Path) -> None:
    assert "neither a zip file nor a Mach-O core, but empty" in refused(tmp_path, b"")
    assert "neither a zip file nor a Mach-O core" in refused(tmp_path, b"MDMP" + bytes(100))
    whole = zipped(header([MODULE]) + CORE)
    assert "neither a zip file nor a Mach-O core" in refused(tmp_path, whole[: len(whole) // 2])


def test_zip_without_the_member(tmp_path: Path) -> None:
    message = refused(tmp_path, zipped(b"x", member="../minidump.dmp"))
    assert "has no member minidump.dmp" in message
    assert "'../minidump.dmp'" in message
    assert "holds nothing" in refused(tmp_path, b"PK\5\6" + bytes(18))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_the_name(tmp_path: Path) -> None:
    target = tmp_path / "two.zip"
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("minidump.dmp", header([MODULE]) + CORE)
        archive.writestr("minidump.dmp", b"")
    content = target.read_bytes()
    target.unlink()
    assert "2 members" in refused(tmp_path, content)


def test_encrypted_and_oddly_compressed_members(tmp_path: Path) -> None:
    whole = bytearray(zipped(header([MODULE]) + CORE))
    central = whole.rindex(b"PK\1\2")
    encrypted = whole.copy()
    encrypted[central + 8] |= 1
    assert "encrypted" in refused(tmp_path, bytes(encrypted))
    odd = bytearray(zipped(header([MODULE]) + CORE))
    odd[odd.rindex(b"PK\1\2") + 10] = 97
    assert "method 97" in refused(tmp_path, bytes(odd))


def opened(tmp_path: Path, content: bytes) -> OpenedDump:
    path = tmp_path / "crash.zip"
    path.write_bytes(content)
    scratch = tmp_path / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    dump = open_dump(path, scratch)
    assert dump.core_path.read_bytes() == CORE
    return dump


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_of_packing(method: int, tmp_path: Path) -> None:
    whole = bytearray(zipped(header([MODULE]) + CORE, method=method))
    assert opened(tmp_path, bytes(whole)).header
    shutil.rmtree(tmp_path / "scratch")
    for place in range(45, len(whole) - 100, 12):
        damaged = whole.copy()
        damaged[place] ^= 0x55
        assert re.search("cannot be unpacked|does not match its checksum", refused(tmp_path, bytes(damaged)))


def test_lzma_that_tells_its_size_in_place_of_an_end(tmp_path: Path) -> None:
    """As 7-Zip writes it."""
    content = header([MODULE]) + CORE
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16}]
    whole = lzma.compress(content, lzma.FORMAT_ALONE, filters=filters)
    stream = lzma.LZMADecompressor(lzma.FORMAT_ALONE)
    assert stream.decompress(whole) == content
    packed = b"\x09\x14" + struct.pack("<H", 5) + whole[:5] + whole[13:]
    buffer = io.BytesIO(zipped(packed, method=zipfile.ZIP_STORED))
    data = bytearray(buffer.getvalue())
    crc = zlib.crc32(content)
    struct.pack_into("<2H", data, 6, 0, 14)
    struct.pack_into("<3I", data, 14, crc, len(packed), len(content))
    central = data.rindex(b"PK\1\2")
    struct.pack_into("<2H", data, central + 8, 0, 14)
    struct.pack_into("<3I", data, central + 16, crc, len(packed), len(content))
    assert opened(tmp_path, bytes(data)).header


def test_a_bomb_by_bzip2_takes_no_memory(tmp_path: Path) -> None:
    """Its few bytes unpack to a gigabyte; the zip file claims a megabyte."""
    packed = bz2.compress(bytes(45_899_235)) * 20
    assert len(packed) < 1 << 12
    whole = bytearray(zipped(packed, method=zipfile.ZIP_STORED))
    central = whole.rindex(b"PK\1\2")
    for method, size in ((8, 22), (central + 10, central + 24)):
        struct.pack_into("<H", whole, method, zipfile.ZIP_BZIP2)
        struct.pack_into("<I", whole, size, 1 << 20)
    tracemalloc.start()
    refused(tmp_path, bytes(whole))
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "behind",
    [b"sent by mail\r\n", b"PK\5\6" + bytes(18), b"PK\5\6 is how a zip file ends", bytes(100_000)],
    ids=["text", "empty zip", "signature", "much"],
)
@pytest.mark.parametrize("declared", [True, False])
def test_comments_behind_the_zip(behind: bytes, declared: bool, tmp_path: Path) -> None:
    whole = zipped(header([MODULE]) + CORE)
    if declared and len(behind) < 1 << 16:
        whole = whole[:-2] + struct.pack("<H", len(behind))
    assert opened(tmp_path, whole + behind).header
    assert dump_kind(tmp_path / "crash.zip") == "dump"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-8"])
@pytest.mark.parametrize("bom", [True, False])
@pytest.mark.parametrize("said", [b"UTF-8", b"UTF-16", b"utf-16"])
def test_headers_in_utf_16(encoding: str, bom: bool, said: bytes, tmp_path: Path) -> None:
    """think-cell's writer has one kind of character for all of it, and one declaration."""
    module = Module(0x1_0000_0000, "/Applications/Zähler \U0001f4d2/Ledger", MODULE.uuid)
    text = header([module]).replace(b"UTF-8", said).decode()
    dump = opened(tmp_path, zipped(("\ufeff" * bom + text).encode(encoding) + CORE))
    assert dump.header
    assert dump.header.modules[0].path == module.path


def test_one_bad_module_costs_itself_only(tmp_path: Path) -> None:
    bad = [
        Module(1 << 64, "/far"),
        Module(-4, "/minus"),
        Module(0x1000, "/x", "zz"),
        Module(0x2000, "/y", None, 1 << 32),
        Module(0x3000, "/z\x01\x0b", MODULE.uuid),
    ]
    told = opened(tmp_path, zipped(header([MODULE, *bad]) + CORE)).header
    assert told
    assert [(m.address, m.path, m.uuid, m.version) for m in told.modules[1:]] == [
        (0x1000, "/x", None, None),
        (0x2000, "/y", None, None),
        (0x3000, "/z\\x01\\x0b", told.modules[0].uuid, None),
    ]
    escaped = header([MODULE, bad[-1]]).replace(b"\x01", b"&#1;").replace(b"\x0b", b"&#xB;")
    assert (found := opened(tmp_path, zipped(escaped + CORE)).header)
    assert found.modules[1].path == "/z\\x01\\x0b"


def test_damaged_content(tmp_path: Path) -> None:
    whole = bytearray(zipped(header([MODULE]) + CORE, method=zipfile.ZIP_STORED))
    whole[len(whole) // 2] ^= 0xFF
    assert "does not match its checksum" in refused(tmp_path, bytes(whole))
    whole = bytearray(zipped(header([MODULE]) + CORE))
    whole[60:64] = b"\xff" * 4
    assert "cannot be unpacked" in refused(tmp_path, bytes(whole))


def test_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    whole = bytearray(zipped(header([MODULE]) + CORE))
    central = whole.rindex(b"PK\1\2")
    for size, place in ((0xFFFF_0000, central + 24), (0xFFFF_0000, 22)):
        whole[place : place + 4] = struct.pack("<I", size)
    assert "claims to unpack" in refused(tmp_path, bytes(whole))


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        (b"", "no XML header"),
        (b"<root>" + b" " * 1000, "no XML header"),
        (b"<root><a></root>", "cannot be parsed"),
        (b"<root></root>", "no <PersistentType>"),
        (
            b'<!DOCTYPE root [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><root>&b;</root>',
            "declares DTDs",
        ),
        (b'<!DOCTYPE root SYSTEM "file:///etc/passwd"><root></root>', "declares DTDs"),
        (b"<root>" * 40 + b"</root>" * 40, "nested more than"),
        (b'<?xml version="1.0" encoding="no-such"?><root></root>', "cannot be parsed"),
        (b"\xff\xfe<root></root>", "no XML header"),
        ("<root><a></root>".encode("utf-16-le"), "cannot be parsed"),
        ('<!DOCTYPE root SYSTEM "file:///etc/passwd"><root></root>'.encode("utf-16"), "declares DTDs"),
    ],
)
def test_bad_xml(tmp_path: Path, xml: bytes, expected: str) -> None:
    assert expected in refused(tmp_path, zipped(xml + CORE))


@pytest.mark.parametrize(
    ("changes", "modules", "expected"),
    [
        ({"executable": ""}, [MODULE], "no <m_strExecutable>"),
        ({"executable": "Other"}, [MODULE], "'Other' was expected there"),
        ({}, [], "lists no module"),
        ({"length": 3}, [MODULE], "announces 3 modules, but lists 1"),
        ({"length": "-1"}, [MODULE], "where a decimal number"),
        ({"thread": "-1"}, [MODULE], "m_nThread is '-1'"),
        ({"thread": 1 << 31}, [MODULE], "m_nThread is '2147483648'"),
        ({"thread": "٣"}, [MODULE], "m_nThread is"),
        ({"thread": "9" * 5000}, [MODULE], "m_nThread is '9999"),
        ({"thread": 1}, [MODULE], "thread 1 is said to have crashed, but the core has 1 threads"),
        ({"extra": '<m_nThread val="0"/>'}, [MODULE], "two elements <m_nThread>"),
        ({"extra": '<m_cacheuuid val="12"/>'}, [MODULE], "<m_cacheuuid>"),
        ({"bundle_version": "x" * (1 << 17)}, [MODULE], "longer than"),
    ],
)
def test_bad_header(tmp_path: Path, changes: dict[str, object], modules: list[Module], expected: str) -> None:
    assert expected in refused(tmp_path, zipped(header(modules, **changes) + CORE))  # type: ignore[arg-type]


def test_the_executable_may_be_the_last_module(tmp_path: Path) -> None:
    """As dyld of macOS 14 lists it: it puts what it loads in front."""
    others = [
        Module(0x7FF8_0000_0000 + number * 0x10000, path, version=65536)
        for number, path in enumerate(["/usr/lib/libSystem.B.dylib", "/usr/lib/libLedger", "/usr/lib/libc++.1.dylib"])
    ]
    path = write_dump(tmp_path / "crash.zip", header([*others, Module(MODULE.address, MODULE.path)]), CORE)
    told = open_dump(path, tmp_path).header
    assert told
    assert [m.path for m in told.modules] == [MODULE.path, *(m.path for m in others)]


def test_missing_thread_and_address(tmp_path: Path) -> None:
    without = header([MODULE]).replace(b'<m_nThread val="0"/>', b"")
    assert "which thread crashed" in refused(tmp_path, zipped(without + CORE))
    without = header([MODULE]).replace(b'<m_pvStartAddress val="4294967296"/>', b"")
    assert "lists no module" in refused(tmp_path, zipped(without + CORE))


def test_core_missing_or_cut(tmp_path: Path) -> None:
    assert "nothing follows" in refused(tmp_path, zipped(header([MODULE])))
    assert "no 64-bit Mach-O core" in refused(tmp_path, zipped(header([MODULE]) + b"\n;" + CORE))
    assert "cut" not in refused(tmp_path, zipped(header([MODULE]) + CORE[:40]))
    message = refused(tmp_path, zipped(header([MODULE]) + CORE[:-1]))
    assert "should end at byte" in message


def test_describe_needs_no_debugger(tmp_path: Path) -> None:
    described = describe(write_dump(tmp_path / "d.zip", header([MODULE]), CORE))
    assert described["arch"] == "x86_64"
    assert described["threads"] == 1
    assert [(m["address"], m["uuid"]) for m in described["modules"]] == [
        ("0x100000000", "01234567-89AB-CDEF-0123-456789ABCDEF")
    ]
    assert described["exception"].startswith("SIGSEGV: write to 0x10")
    assert described["bytes_kept"] == 0x2000


_TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=30)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, (1 << 64) - 1),
            st.none() | _TEXT,
            st.none() | st.uuids(),
            st.none() | st.integers(0, (1 << 32) - 1),
        ),
        max_size=8,
    ),
    _TEXT.map(lambda t: t + "x"),
    _TEXT,
)
def test_every_header_comes_back(
    others: list[tuple[int, str | None, UUID | None, int | None]], executable: str, version: str
) -> None:
    first = (0x1000, "/Apps/" + executable, None, None)
    modules = [Module(a, p, u.hex if u else None, v) for a, p, u, v in [first, *others]]
    read = parse_header(header(modules, executable=executable, bundle_version=version), "d")
    assert (read.executable, read.bundle_version) == (executable, version)
    assert [(m.address, m.path, m.uuid, m.version) for m in read.modules] == [
        (a, p or "", u if u and u.int else None, v) for a, p, u, v in [first, *others]
    ]
