"""Load commands of either byte order and width, as LLVM's tools write and read them."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import numpy as np
import pytest

from symcache.errors import MachOError
from symcache.macho import (
    LC,
    LITTLE_64,
    LoadCommand,
    MachHeader,
    code_fingerprint,
    file_end,
    identify,
    mach_header,
    sections,
    text_address,
)
from tests.macho.described import KINDS, SYMBOLS, Command, described_image, told_commands

ACCESSORS = (
    LoadCommand.segment,
    LoadCommand.symtab,
    LoadCommand.dysymtab,
    LoadCommand.linkedit_data,
    LoadCommand.dyld_info,
    LoadCommand.uuid,
    LoadCommand.current_version,
    LoadCommand.install_name,
    LoadCommand.note,
)


class Read(NamedTuple):
    """An image, and what both sides say of its load commands."""

    data: bytes
    header: MachHeader
    commands: list[LoadCommand]
    told: list[Command]

    def one(self, name: str) -> tuple[LoadCommand, dict[str, int | str]]:
        """Return the command that llvm-otool calls so."""
        return next((c, t.fields) for c, t in zip(self.commands, self.told, strict=True) if t.fields["cmd"] == name)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{'big' if kind[0] == '>' else 'little'}-{kind[1]}")
def read(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Read:
    path = described_image(tmp_path_factory.mktemp("image"), *request.param)
    data = path.read_bytes()
    header = mach_header(data)
    assert header
    return Read(data, header, list(header.load_commands(data)), told_commands(path))


def _same(ours: tuple[object, ...] | None, told: dict[str, int | str]) -> None:
    assert ours is not None
    fields = ours._asdict()  # type: ignore[attr-defined]
    assert fields == {name: told[name] for name in fields}


def test_every_command_is_found(read: Read) -> None:
    assert [f"LC_{LC(c.cmd).name}" for c in read.commands] == [t.fields["cmd"] for t in read.told]
    assert [c.cmdsize for c in read.commands] == [t.fields["cmdsize"] for t in read.told]
    assert b"".join(c.data for c in read.commands) == read.data[read.header.size : read.header.commands_end]


def test_segments_and_sections(read: Read) -> None:
    assert [t.fields["segname"] for t in read.told[:2]] == ["__TEXT", "__LINKEDIT"]
    for command, told in zip(read.commands, read.told, strict=True):
        if segment := command.segment():
            _same(segment, told.fields)
            assert len(command.sections()) == len(told.sections)
            for section, told_section in zip(command.sections(), told.sections, strict=True):
                _same(section, told_section)
        else:
            assert command.sections() == []
    assert [s.zerofill for s in read.commands[0].sections()] == [False, True]


def test_what_lies_in_the_link_edit(read: Read) -> None:
    for name, accessor in (
        ("LC_SYMTAB", LoadCommand.symtab),
        ("LC_DYSYMTAB", LoadCommand.dysymtab),
        ("LC_FUNCTION_STARTS", LoadCommand.linkedit_data),
        ("LC_DYLD_INFO_ONLY", LoadCommand.dyld_info),
        ("LC_NOTE", LoadCommand.note),
    ):
        command, told = read.one(name)
        _same(accessor(command), told)


def test_uuid_and_name(read: Read) -> None:
    command, told = read.one("LC_UUID")
    assert command.uuid() == UUID(str(told["uuid"]))
    command, told = read.one("LC_ID_DYLIB")
    assert command.install_name() == str(told["name"]).removesuffix(" (offset 24)").encode()
    assert command.current_version() == 0x20304
    assert told["current"] == "version 2.3.4"


def test_symbols(read: Read) -> None:
    symtab = read.one("LC_SYMTAB")[0].symtab()
    assert symtab
    symbols = np.frombuffer(read.data, read.header.structs.nlist, symtab.nsyms, symtab.symoff)
    assert symbols.itemsize == read.header.structs.nlist_size
    assert [tuple(symbol) for symbol in symbols.tolist()] == SYMBOLS


def test_each_is_read_as_what_it_is_and_nothing_else(read: Read) -> None:
    found = [[a.__name__ for a in ACCESSORS if a(command) is not None] for command in read.commands]
    assert found == [
        ["segment"],
        ["segment"],
        ["current_version", "install_name"],
        ["dyld_info"],
        ["symtab"],
        ["dysymtab"],
        ["uuid"],
        ["linkedit_data"],
        ["note"],
    ]


def test_only_some_are_looked_at(read: Read) -> None:
    assert [c.cmd for c in read.header.load_commands(read.data, {LC.UUID, LC.NOTE})] == [LC.UUID, LC.NOTE]


def test_what_is_written_is_what_yaml2obj_wrote(read: Read) -> None:
    assert read.header.packed() == read.data[: read.header.size]
    for command in read.commands[:2]:
        segment = command.segment()
        assert segment
        written = read.header.structs.segment_command(segment._replace(nsects=0), command.sections())
        assert written == command.data


def test_one_cut_short_is_an_error_for_its_own_accessor(read: Read) -> None:
    for command in read.commands:
        cut = replace(command, cmdsize=11)
        failed = []
        for accessor in ACCESSORS:
            try:
                assert accessor(cut) is None
            except MachOError as error:
                assert f"LC_{LC(command.cmd).name} of 11 bytes" in str(error)
                failed.append(accessor)
        assert failed == [a for a in ACCESSORS if a(command) is not None]


def test_commands_beyond_their_bounds_are_errors(read: Read) -> None:
    header, data = read.header, read.data
    for changed, words in (
        (replace(header, ncmds=10), "load command 9 of 10 lies beyond"),
        (replace(header, sizeofcmds=header.sizeofcmds - 1), "impossible size of 40"),
    ):
        commands = changed.load_commands(data)
        assert next(commands).cmd == header.structs.lc_segment
        with pytest.raises(MachOError, match=words):
            list(commands)
    with pytest.raises(MachOError, match="beyond sizeofcmds 4"):
        list(header.load_commands(data[: header.size + 4]))


def test_more_sections_than_the_command_holds_are_an_error(read: Read) -> None:
    data = bytearray(read.data)
    structs = read.header.structs
    struct.pack_into(structs.order + "I", data, read.header.size + 8 + structs.segment.size - 8, 3)
    command = next(read.header.load_commands(data))
    assert command.segment()
    with pytest.raises(MachOError, match="3 sections do not fit"):
        command.sections()


def test_what_the_file_holds(read: Read, tmp_path: Path) -> None:
    assert [(s.segname, s.sectname, s.offset) for s in sections(read.data, len(read.data))] == [
        ("__TEXT", "__text", 0x800)
    ]
    assert text_address(read.data) == 0x1000
    assert file_end(read.data) == 0x1C00
    assert code_fingerprint(read.data, len(read.data)) == (3, 0x800, 64)
    assert code_fingerprint(read.data, 0x800 + 63) == (3, 0, 0)  # its last byte is missing
    path = tmp_path / "image"
    path.write_bytes(read.data)
    (found,) = identify(path)
    assert (found.uuid, found.install_name) == (UUID("0F1E2D3C-4B5A-6978-8796-A5B4C3D2E1F0"), "/usr/lib/libx.dylib")


def test_a_name_outside_of_its_command_is_none() -> None:
    for start in (0, 8, 11, 28, 0xFFFF_FFFF):
        command = LITTLE_64.command(LC.ID_DYLIB, LITTLE_64.dylib.pack(start, 0, 0, 0) + b"/a\0\0")
        assert LoadCommand(LC.ID_DYLIB, 0, len(command), command, LITTLE_64).install_name() == b""
    endless = LITTLE_64.command(LC.ID_DYLIB, LITTLE_64.dylib.pack(24, 0, 0, 0) + b"a" * 10_000)
    assert LoadCommand(LC.ID_DYLIB, 0, len(endless), endless, LITTLE_64).install_name() == b"a" * 4096
