"""Cores: segments, threads, notes; and each way in which one can be wrong."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symcache.dump import Core, describe, open_dump, parse_core
from symcache.dump.formats.notes import header_of_core
from symcache.errors import DumpError
from tests.dump.builder import (
    ARM64,
    MODULE,
    VECTORS,
    X86_64,
    CoreFile,
    Region,
    arm_thread,
    header,
    small_core,
    states,
    structured,
    write_dump,
    x86_thread,
    zipped,
)


def parsed(core: bytes) -> Core:
    return parse_core(io.BytesIO(core), len(core), "core")


def refused(core: bytes) -> str:
    with pytest.raises(DumpError) as error:
        parsed(core)
    return str(error.value)


def test_threads_and_memory_of_x86_64() -> None:
    core = parsed(
        CoreFile(
            regions=[Region(0x7000_0000_0000, 0x2000, b"s" * 0x2000, 3), Region(0x1_0000_0000, 0x8000)],
            threads=[x86_thread(rip=1), x86_thread((13, 0, 0), rip=2, r15=7, gs=9)],
        ).bytes()
    )
    assert core.arch == "x86_64"
    assert [(s.address, s.size, s.filesize, s.protection) for s in core.segments] == [
        (0x1_0000_0000, 0x8000, 0, 5),
        (0x7000_0000_0000, 0x2000, 0x2000, 3),
    ]
    assert core.threads[0].exception is None
    assert core.threads[1].registers["rip"] == 2
    assert core.threads[1].registers["r15"] == 7
    assert core.threads[1].registers["gs"] == 9
    assert core.threads[1].exception == (13, 0, 0)
    assert core.segment_at(0x1_0000_7FFF) == core.segments[0]
    assert core.segment_at(0x1_0000_8000) is None
    assert core.segment_at(0) is None


def test_threads_of_arm64_and_its_relatives() -> None:
    for subtype, name in ((0, "arm64"), (0x8000_0002, "arm64e")):
        core = parsed(
            CoreFile(ARM64, subtype, threads=[arm_thread((1, 0x92000046, 0x10), pc=4, lr=5, fp=6, sp=7, x28=8)]).bytes()
        )
        assert core.arch == name
        registers = core.threads[0].registers
        assert [registers[r] for r in ("pc", "lr", "fp", "sp", "x28", "cpsr")] == [4, 5, 6, 7, 8, 0x6000_0000]
        assert core.threads[0].exception == (1, 0x92000046, 0x10)


def test_x86_states_may_be_wrapped() -> None:
    """x86_THREAD_STATE holds flavor and count of its own before the state."""
    inner = x86_thread(rip=5)[: 8 + 168]
    exception = struct.pack("<2I", 6, 4) + struct.pack("<2HIQ", 14, 3, 4, 0x99)
    wrapped = struct.pack("<2I", 7, len(inner) // 4) + inner + struct.pack("<2I", 9, len(exception) // 4) + exception
    thread = parsed(CoreFile(threads=[wrapped]).bytes()).threads[0]
    assert thread.registers["rip"] == 5
    assert thread.exception == (14, 4, 0x99)  # without the processor's number


def test_arm64_states_may_be_wrapped() -> None:
    """ARM_THREAD_STATE (struct arm_unified_thread_state) holds flavor and count of its own before the state."""
    inner = arm_thread(pc=4, lr=5)[: 8 + 272]
    thread = parsed(CoreFile(ARM64, 0, threads=[struct.pack("<2I", 1, len(inner) // 4) + inner]).bytes()).threads[0]
    assert (thread.registers["pc"], thread.registers["lr"]) == (4, 5)


X86_LOOKALIKES = [4, 5, 6, 7, 9, 42, 0xFFFF_FFFF, 0xB16B_00B5, 0]


@pytest.mark.parametrize("padding", X86_LOOKALIKES)
def test_states_may_be_members_of_one_structure(padding: int) -> None:
    """Between the floating-point and the exception state of x86_64, a compiler leaves four bytes of any value."""
    crashed = structured(X86_64, x86_thread((14, 6, 0x99), rip=5, rsp=6, gs=7), struct.pack("<I", padding))
    other = structured(X86_64, x86_thread((0x85, 0x0200_0131, 0), rip=8), struct.pack("<I", padding))
    core = parsed(CoreFile(threads=[other, crashed]).bytes())
    assert [t.registers["rip"] for t in core.threads] == [8, 5]
    assert (core.threads[1].registers["rsp"], core.threads[1].registers["gs"]) == (6, 7)
    assert [t.exception for t in core.threads] == [(0x85, 0x0200_0131, 0), (14, 6, 0x99)]
    assert core.odd_states == ()  # LLDB stops at the registers


@pytest.mark.parametrize(
    "padding", [bytes(8), b"\xff" * 8, *(struct.pack("<2I", *p) for p in ((6, 68), (7, 4), (17, 132)))]
)
def test_vector_states_may_be_aligned(padding: bytes) -> None:
    """Behind flavor and count of arm64's vector registers there are eight bytes, and as many behind them."""
    body = structured(ARM64, arm_thread((1, 0x92000046, 0x10), pc=4, lr=5, x28=8), padding)
    core = parsed(CoreFile(ARM64, 0, threads=[body]).bytes())
    assert [core.threads[0].registers[r] for r in ("pc", "lr", "x28", "cpsr")] == [4, 5, 8, 0x6000_0000]
    assert core.threads[0].exception == (1, 0x92000046, 0x10)
    ((_, readable),) = core.odd_states
    assert len(readable) == len(body)
    general, vectors, exception = states(readable.rstrip(b"\0"))
    assert [general[0], vectors[0], exception[0]] == [6, 17, 7]
    assert vectors[1][:512] == VECTORS[:512]
    assert struct.unpack("<QII", exception[1].ljust(16, b"\0")) == (0x10, 0x92000046, 1)


@pytest.mark.parametrize("arch", [X86_64, ARM64])
def test_padding_costs_nothing_wherever_it_is(arch: int) -> None:
    thread = x86_thread((14, 6, 0x99), rip=5) if arch == X86_64 else arm_thread((1, 0x92000046, 0x99), pc=5)
    parts = [struct.pack("<2I", flavor, len(state) // 4) + state for flavor, state in states(thread)]
    for gap in (b"\1\2\3\4", bytes(12), struct.pack("<4I", 99, 1 << 31, 77, 3)):
        found = parsed(CoreFile(arch, threads=[gap + gap.join(parts) + gap]).bytes())
        assert found.threads == parsed(CoreFile(arch, threads=[thread]).bytes()).threads
        assert found.odd_states[0][1].startswith(parts[0])


@pytest.mark.parametrize(
    "broken",
    [
        struct.pack("<2I", 4, 0xFFFF_FFFF),
        struct.pack("<2I", 4, 2) + bytes(8),
        struct.pack("<4I", 7, 44, 4, 1) + bytes(168),
        x86_thread(rip=4)[:172],
        b"",
    ],
)
def test_a_thread_without_its_registers_costs_only_itself(broken: bytes) -> None:
    core = parsed(CoreFile(threads=[x86_thread(rip=1), broken, x86_thread(rip=2)]).bytes())
    assert [t.registers.get("rip") for t in core.threads] == [1, None, 2]
    assert "no general-purpose registers" in refused(CoreFile(threads=[broken]).bytes())


def test_the_crashed_thread_without_its_registers_costs_only_itself(tmp_path: Path) -> None:
    core = CoreFile(threads=[x86_thread(rip=1), struct.pack("<2I2HIQ", 6, 4, 0x85, 1, 0x0200_0148, 0)])
    path = write_dump(tmp_path / "crash.zip", header([MODULE], thread=1), core.bytes())
    told = describe(path)
    assert (told["crashed_thread"], told["threads"]) == (1, 2)


@pytest.mark.parametrize(
    ("arch", "words"),
    [(7, "i386"), (12, "arm"), (18, "ppc"), (0x0200_000C, "arm64_32")],
)
def test_a_core_of_a_32_bit_process_is_named(arch: int, words: str, tmp_path: Path) -> None:
    core = struct.pack(">7I" if words == "ppc" else "<7I", 0xFEED_FACE, arch, 3 if words == "i386" else 0, 4, 0, 0, 0)
    path = tmp_path / "crash.core"
    for content in (core, zipped(header([MODULE]) + core)):
        path.write_bytes(content)
        for read in (lambda: open_dump(path, tmp_path), lambda: describe(path)):
            with pytest.raises(DumpError, match=rf"core of a 32-bit process \({words}") as error:
                read()
            assert error.value.hint


@pytest.mark.parametrize(
    ("arch", "thread", "registers"),
    [
        (X86_64, struct.pack("<2I25Q", 23, 50, *range(25)), {"rax": 0, "rsp": 7, "rip": 16, "gs": 20}),
        (ARM64, arm_thread(pc=5) + struct.pack("<2I2Q", 10, 4, 0x10, 0x92000046), {"pc": 5}),
        (
            ARM64,
            struct.pack("<2I", 29, 1024)
            + arm_thread(pc=7).ljust(4096, b"\0")
            + arm_thread((0, 0x92000046, 0x10), pc=5),
            {"pc": 5},
        ),
    ],
    ids=["x86_THREAD_FULL_STATE64", "ARM_EXCEPTION_STATE64_V2", "ARM_SVE_Z_STATE1"],
)
def test_other_flavors_of_darwin(arch: int, thread: bytes, registers: dict[str, int]) -> None:
    core = parsed(CoreFile(arch, threads=[thread]).bytes())
    assert {name: core.threads[0].registers[name] for name in registers} == registers
    if arch == ARM64:
        assert core.threads[0].exception == (0, 0x92000046, 0x10)
    general = struct.pack("<2I", *((4, 42) if arch == X86_64 else (6, 68)))
    assert core.odd_states[0][1].startswith(general) if core.odd_states else thread.startswith(general)


@pytest.mark.parametrize("arch", [X86_64, ARM64])
def test_threads_in_the_kernel_did_not_crash(arch: int, tmp_path: Path) -> None:
    """gcore and macMiniDump write an exception state for all of them; that of a system call is not zero."""
    if arch == X86_64:
        waiting, crashed = x86_thread((0x85, 0x0100_001F, 0), rip=1), x86_thread((3, 0, 0), rip=2)
    else:
        waiting, crashed = arm_thread((0, 0x5600_0080, 0), pc=1), arm_thread((0, 0xF200_0001, 0), pc=2)
    path = tmp_path / "core"
    path.write_bytes(CoreFile(arch, threads=[waiting, waiting, crashed, waiting]).bytes())
    assert describe(path)["crashed_thread"] == 2
    assert describe(path)["exception"].startswith("SIGTRAP")


@pytest.mark.parametrize(
    ("core", "expected"),
    [
        (CoreFile(filetype=6, threads=[x86_thread()]), "of type 6 where a core"),
        (CoreFile(cputype=7, threads=[x86_thread()]), "is a core of i386"),
        (CoreFile(cputype=0x0200_000C, subtype=1, threads=[x86_thread()]), "is a core of arm64_32"),
        (CoreFile(), "has no thread"),
        (CoreFile(threads=[x86_thread()], ncmds=0xFFFF_FFFF), "load commands in"),
        (CoreFile(threads=[x86_thread()], ncmds=5), "lies beyond sizeofcmds"),
        (CoreFile(threads=[x86_thread()], sizeofcmds=0xFFFF_FFFF), "load commands in"),
        (CoreFile(threads=[x86_thread()], extra_commands=[struct.pack("<2I", 9, 0)]), "impossible size of 0"),
        (CoreFile(threads=[x86_thread()], extra_commands=[struct.pack("<2I", 9, 1 << 30)]), "impossible size of"),
        (CoreFile(threads=[x86_thread()], extra_commands=[struct.pack("<2I", 0x19, 8)]), "where 72 were expected"),
        (
            CoreFile(threads=[x86_thread()], extra_commands=[struct.pack("<2I56x2I", 0x19, 72, 64, 0)]),
            "64 sections do not fit into a segment command of 72 bytes",
        ),
        (  # proto_coredata_command, packed by LZFSE
            CoreFile(
                threads=[x86_thread()],
                extra_commands=[struct.pack("<2I4Q3I4x", 0x142, 56, 0x1000, 1 << 20, 0x1000, 512, 7, 3, 0x40)],
            ),
            "a form of gcore's own (load command 0x142)",
        ),
        (  # proto_fileref_command of the first gcore that has it
            CoreFile(
                threads=[x86_thread()],
                extra_commands=[struct.pack("<3I16x4Q2I4x", 0x41, 72, 72, 0x1000, 4096, 0, 4096, 7, 3)],
            ),
            "a form of gcore's own (load command 0x41)",
        ),
        (  # and its packed memory, by LZFSE
            CoreFile(
                threads=[x86_thread()],
                extra_commands=[struct.pack("<2I16x4Q4I", 0x19, 72, 0x1000, 4096, 0, 512, 7, 3, 0, 4 << 4)],
            ),
            "the memory region at 0x1000 is packed",
        ),
        (CoreFile(threads=[arm_thread()]), "no general-purpose registers"),
        (CoreFile(threads=[x86_thread()], regions=[Region(0x1000, 0x2000), Region(0x2000, 0x1000)]), "overlap"),
        (CoreFile(threads=[x86_thread()], regions=[Region(0x1000, 1 << 20)] * 2), "overlap"),
        (CoreFile(threads=[x86_thread()], regions=[Region((1 << 64) - 8, 16)]), "ends beyond 64 bits"),
        (CoreFile(threads=[x86_thread()], regions=[Region(0x1000, 8, bytes(16))]), "more content than"),
        (CoreFile(threads=[x86_thread()], regions=[Region(0x1000, 1 << 46, bytes(16))]), "lack 70368744177648 bytes"),
    ],
)
def test_each_wrong_core_is_told_what_is_wrong(core: CoreFile, expected: str) -> None:
    assert expected in refused(core.bytes())


def test_cut_anywhere_it_is_an_error() -> None:
    whole = small_core(2).bytes()
    for size in [*range(0, 3000, 37), len(whole) - 1]:
        refused(whole[:size])


@pytest.mark.parametrize("lacking", [0x800, 0x2000, 0x2800])
def test_a_region_behind_the_end_costs_itself_unless_it_is_a_stack(lacking: int, tmp_path: Path) -> None:
    """Up to macOS 11, the kernel leaves out what it cannot read, and counts it: so the commpage, the last region."""
    core = small_core()
    core.regions += [
        Region(0x7FFF_0000_0000, 0x1000, b"\x11" * 0x1000),
        Region(0x7FFF_FFE0_0000, 0x2000, b"\x22" * 0x2000),
    ]
    path = tmp_path / "core"
    path.write_bytes(core.bytes()[:-lacking])
    assert [s.filesize for s in parsed(path.read_bytes()).segments] == [
        *(0, 0x2000),
        *(min(0x1000, 0x3000 - lacking), max(0, 0x2000 - lacking)),
    ]
    assert open_dump(path, tmp_path).core_path == path  # LLDB reads it as it is
    core.threads.append(x86_thread(rip=0x1_0000_1000, rsp=0x7FFF_FFE0_1000))
    assert "the memory region at 0x7fffffe00000, a stack, should end at byte" in refused(core.bytes()[:-lacking])


def test_a_copy_says_what_is_not_there(tmp_path: Path) -> None:
    """LLDB would take for content of the last region what is later put behind the core."""
    core = small_core()
    wrapped = struct.pack("<4I", 7, 44, 4, 42) + core.threads[0][8:176]
    core = CoreFile(regions=[*core.regions, Region(0x7FFF_FFE0_0000, 0x2000, bytes(0x2000))], threads=[wrapped])
    path = tmp_path / "core"
    path.write_bytes(core.bytes()[:-0x1800])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    dump = open_dump(path, scratch)
    assert dump.core_path != path
    last = dump.core.segments[-1]
    assert struct.unpack_from("<4Q", dump.core_path.read_bytes(), last.command + 24) == (
        *(0x7FFF_FFE0_0000, 0x2000),
        *(last.offset, 0x800),
    )


def test_threads_that_ended_while_the_core_was_written() -> None:
    """The kernel counts threads, then writes memory, then the threads that there still are."""
    core = small_core(2)
    whole = parsed(core.bytes())
    core.extra_commands, core.ncmds = [bytes(8 + len(core.threads[0]))] * 2, 6
    assert parsed(core.bytes()).threads == whole.threads
    core.extra_commands[1] = bytes(8) + core.threads[0]
    assert "impossible size of 0" in refused(core.bytes())


def test_absurd_number_of_threads() -> None:
    core = CoreFile(threads=[x86_thread()[:176]] * 16_385).bytes()
    assert "more than 16384 threads" in refused(core)


def test_a_note_outside_of_the_core_costs_itself_only(tmp_path: Path) -> None:
    note = struct.pack("<2I16s2Q", 0x31, 40, b"addrable bits", 1 << 40, 16)
    core = CoreFile(threads=[x86_thread()], extra_commands=[note])
    core.notes = [(b"load binary", struct.pack("<I16s2Q", 1, UUID(int=5).bytes, 0x5000, 0) + b"libz.dylib\0")]
    path = tmp_path / "crash.core"
    path.write_bytes(core.bytes())
    dump = open_dump(path, tmp_path)
    assert [m.path for m in header_of_core(path, dump.core).modules] == ["libz.dylib"]
    assert b"addrable" not in dump.core_path.read_bytes()  # LLDB gets a copy without it
    assert path.read_bytes() == core.bytes()


def test_modules_of_a_bare_core_come_from_its_notes(tmp_path: Path) -> None:
    uuids = [UUID(int=n + 1) for n in range(2)]
    first = small_core()
    first.notes = [(b"load binary", struct.pack("<I16s2Q", 1, uuids[1].bytes, 0x5000, 0) + b"libz.dylib\0")]
    path = tmp_path / "core"
    path.write_bytes(first.bytes())
    dump = open_dump(path, tmp_path)
    assert dump.header is None
    assert dump.core_path == path
    header = header_of_core(path, dump.core)
    assert [(m.address, m.path, m.uuid) for m in header.modules] == [(0x5000, "libz.dylib", uuids[1])]

    # `all image infos` holds offsets into the file: put the table behind the finished core.
    plain = small_core()
    plain.notes = [(b"all image infos", bytes(24))]
    data = bytearray(plain.bytes())
    names = b"/bin/a\0/lib/b\0"
    place = len(data)
    table = b"".join(
        struct.pack("<Q16s2Q2I", place + 7 * n, u.bytes, 0x1000 * (n + 1), 0, 0, 0) for n, u in enumerate(uuids)
    )
    data[-24:] = struct.pack("<2IQ2I", 1, 2, place + len(names), 48, 0)
    path.write_bytes(bytes(data) + names + table)
    header = header_of_core(path, open_dump(path, tmp_path).core)
    assert [(m.address, m.path, m.uuid) for m in header.modules] == [
        (0x1000, "/bin/a", uuids[0]),
        (0x2000, "/lib/b", uuids[1]),
    ]
    data[-24:] = struct.pack("<2IQ2I", 1, 0xFFFF_FFFF, place, 48, 0)
    path.write_bytes(bytes(data))
    assert header_of_core(path, open_dump(path, tmp_path).core).modules == ()


def test_of_several_lists_of_images_the_first_counts(tmp_path: Path) -> None:
    """A note takes 40 bytes, and its list may have 65,536 images: so many are not read for each of thousands."""
    core, lists = small_core(), []
    core.notes = [(b"all image infos", bytes(24)), (b"all image infos", bytes(24))]
    data = bytearray(core.bytes())
    for number in range(2):
        lists.append(struct.pack("<2IQ2I", 1, 1, len(data) + 48 * number, 48, 0))
    data[-48:] = b"".join(lists)
    for number in range(2):
        data += struct.pack("<Q16s2Q2I", (1 << 64) - 1, UUID(int=number + 1).bytes, 0x1000 * (number + 1), 0, 0, 0)
    path = tmp_path / "core"
    path.write_bytes(data)
    modules = header_of_core(path, open_dump(path, tmp_path).core).modules
    assert [(m.address, m.uuid) for m in modules] == [(0x1000, UUID(int=1))]


@pytest.mark.parametrize(
    ("note", "address"),
    [
        (struct.pack("<2IQ16s2I", 1, 3, 0x5000, UUID(int=7).bytes, 12, 0), 0x5000),
        (struct.pack("<2I2Q16s2I", 2, 3, 0x5000, 0x1000, UUID(int=7).bytes, 12, 1), 0x5000),
        (struct.pack("<2IQ16s2I", 1, 3, (1 << 64) - 1, UUID(int=7).bytes, 12, 0), None),
        (struct.pack("<2IQ16s2I", 1, 3, 0x5000, bytes(16), 12, 0), None),
        (struct.pack("<2IQ16s2I", 0, 3, 0x5000, UUID(int=7).bytes, 12, 0), None),
        (struct.pack("<2IQ", 1, 3, 0x5000), None),
        # macMiniDump: the slide of an executable, in the place of an address
        (struct.pack("<2I2Q16s2I", 2, 0, (1 << 64) - 1, 0x432_0000, UUID(int=7).bytes, 0, 0), 0x1_0432_0000),
        (b"", None),
    ],
)
def test_the_one_binary_of_a_core_that_lists_none(note: bytes, address: int | None, tmp_path: Path) -> None:
    core = small_core()
    core.notes = [(b"main bin spec", note)]
    path = tmp_path / "core"
    path.write_bytes(core.bytes())
    modules = header_of_core(path, open_dump(path, tmp_path).core).modules
    assert [(m.address, m.uuid) for m in modules] == ([(address, UUID(int=7))] if address else [])
    uuid = UUID(int=8)
    core.notes.append((b"load binary", struct.pack("<I16s2Q", 1, uuid.bytes, 0x9000, 0) + b"libz.dylib\0"))
    path.write_bytes(core.bytes())
    found = [m.uuid for m in header_of_core(path, open_dump(path, tmp_path).core).modules]
    assert found == ([UUID(int=7), uuid] if address else [uuid])


def test_the_executable_may_be_any_image_of_a_note(tmp_path: Path) -> None:
    """`process save-core --style stack` notes the images by the frames of the threads: most wait in a library."""
    core = small_core()
    core.notes = [(b"all image infos", bytes(24))]
    data = bytearray(core.bytes())
    images = [(0x7FF8_0000_0000, b"/usr/lib/system/libsystem_kernel.dylib"), (0x1_0000_0000, b"/bin/a")]
    names = len(data) + 48 * 2
    data[-24:] = struct.pack("<2IQ2I", 1, 2, len(data), 48, 0)
    for number, (address, _) in enumerate(images):
        place = names + sum(len(path) + 1 for _, path in images[:number])
        data += struct.pack("<Q16s2Q2I", place, UUID(int=number + 1).bytes, address, 0, 0, 1)
    path = tmp_path / "core"
    path.write_bytes(bytes(data) + b"".join(path + b"\0" for _, path in images))
    told = header_of_core(path, open_dump(path, tmp_path).core)
    assert (told.executable, [m.address for m in told.modules]) == ("/bin/a", [0x1_0000_0000, 0x7FF8_0000_0000])


@pytest.mark.parametrize("kind", [2, 4])
def test_dyld_is_not_the_executable(kind: int, tmp_path: Path) -> None:
    """A kernel that panics notes dyld (2), others may note where its list is (4)."""
    core = small_core()
    core.notes = [
        (b"main bin spec", struct.pack("<2IQ16s2I", 1, kind, 0x5000, UUID(int=7).bytes, 14, 0)),
        (b"load binary", struct.pack("<I16s2Q", 1, UUID(int=8).bytes, 0x9000, 0) + b"/bin/ls\0"),
    ]
    path = tmp_path / "core"
    path.write_bytes(core.bytes())
    told = header_of_core(path, open_dump(path, tmp_path).core)
    assert told.executable == "/bin/ls"
    assert [m.address for m in told.modules] == ([0x9000, 0x5000] if kind == 2 else [0x9000])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 1 << 20), st.integers(0, 1 << 20), st.binary(max_size=64)), max_size=12))
def test_memory_is_found_where_it_was_put(layout: list[tuple[int, int, bytes]]) -> None:
    regions, address = [], 0x1000
    for size, gap, data in layout:
        address += gap
        regions.append(Region(address, max(size, len(data)), data))
        address += max(size, len(data))
    raw = CoreFile(X86_64, regions=regions[::-1], threads=[x86_thread()]).bytes()
    core = parsed(raw)
    for region in regions:
        for place in (region.address, region.address + region.size - 1):
            found = core.segment_at(place)
            assert found is not None
            assert (found.address, found.size) == (region.address, region.size)
            assert raw[found.offset : found.offset + found.filesize] == region.data


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_core_is_refused_or_read(data: st.DataObject) -> None:
    raw = bytearray(small_core(2).bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, 1700))
        raw[place] = data.draw(st.integers(0, 255))
    try:
        core = parsed(bytes(raw))
    except DumpError:
        return
    for segment in core.segments:
        assert segment.offset + segment.filesize <= len(raw) or not segment.filesize
