"""Crash reports as people have them: Apple's forms of headings, frames and images, and what copying makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from symcache.reports import Report, ReportFrame, is_report, parse_report, read_report

KERNEL_BASE, LEDGER_BASE = 0x7FFF602B4000, 0x10A3F2000
HEAD = """\
Process:               Ledger [712]
Path:                  /Applications/Ledger.app/Contents/MacOS/Ledger
Version:               2.4.1 (241)
Code Type:             X86-64 (Native)
OS Version:            Mac OS X 10.15.7 (19H15)

"""
FIELDS = """\
Crashed Thread:        0  Dispatch queue: com.apple.main-thread

Exception Type:        EXC_BAD_ACCESS (SIGSEGV)
Exception Codes:       KERN_INVALID_ADDRESS at 0x0000000000000010

"""
LEDGER = "       0x10a3f2000 -        0x10a44efff +com.example.ledger (2.4.1 - 241) <E68DE610-908A-4061-9F1D-429BDE8842D7> /Applications/Ledger.app/Contents/MacOS/Ledger\n"  # noqa: E501
KERNEL = "    0x7fff602b4000 -     0x7fff602dfff6  libsystem_kernel.dylib (6153.141.1) <DE086F8F-E459-4BE4-9D39-885C1D67E898> /usr/lib/system/libsystem_kernel.dylib\n"  # noqa: E501
IMAGES = f"Binary Images:\n{LEDGER}{KERNEL}\nExternal Modification Summary:\n"
WAITING = "0   libsystem_kernel.dylib        \t0x00007fff602b6d5c __workq_kernreturn + 8\n"
MAIN = "0   com.example.ledger            \t0x000000010a3f4a54 main + 68\n"
NULL = "0   ???                           \t000000000000000000 0 + 0\n"


def read(stacks: str, fields: str = FIELDS, images: str = IMAGES) -> Report:
    return parse_report(HEAD + fields + stacks + "\n" + images, "x.crash")


def stacks_of(report: Report) -> dict[int, list[int]]:
    return {thread.index: [f.address for f in thread.frames] for thread in report.threads}


@pytest.mark.parametrize(
    ("heading", "name", "crashed"),
    [
        # Mac OS X 10.6
        ("Thread 1 Crashed:  Dispatch queue: com.example.q", "Dispatch queue: com.example.q", True),
        ("Thread 1:  Dispatch queue: com.example.q", "Dispatch queue: com.example.q", False),
        # 10.7 to 15
        ("Thread 1:: Dispatch queue: com.example.q", "Dispatch queue: com.example.q", False),
        ("Thread 1:: import", "import", False),
        ("Thread 1 Crashed:: import  Dispatch queue: com.example.q", "import  Dispatch queue: com.example.q", True),
        ("Thread 1:", "", False),
        # 26
        ("Thread 1 Crashed::  Dispatch queue: com.example.q", "Dispatch queue: com.example.q", True),
        # other programs
        ("Thread 1 Crashed: import", "import", True),
        ("Thread 1: import", "import", False),
        # iOS
        ("Thread 1 name:  Dispatch queue: com.example.q\nThread 1 Crashed:", "Dispatch queue: com.example.q", True),
        ("Thread 1 name:  import\nThread 1:", "import", False),
        ("Thread 1 Attributed:", "", True),
        ("Thread 1 Highlighted:", "", True),
        # of a system to come
        ("Thread 1 Suspended:", "", False),
    ],
)
def test_headings_of_threads(heading: str, name: str, crashed: bool) -> None:
    report = read(f"Thread 0:\n{MAIN}\n{heading}\n{WAITING}\nThread 2:\n{WAITING}")
    assert stacks_of(report) == {0: [0x10A3F4A54], 1: [0x7FFF602B6D5C], 2: [0x7FFF602B6D5C]}
    assert report.threads[1].label == name
    assert report.crashed_thread == int(crashed)


def test_as_sentry_writes_it() -> None:
    """No colon behind a thread that did not crash, all on one line, and inlined functions with a word in front."""
    row = "{:<4}{:<32}{:<20}{}\n".format
    stacks = (
        "Thread 0 name: main Crashed:\n"
        + row(0, "Ledger", "0x10a3f4a54", "[inlined] Money.sum() (Money.swift:41)")
        + row(1, "Ledger", "0x10a3f4a54", "post (Entry.swift:7)")
        + row(2, "Ledger", "0x10a3f4a58", "<unknown> + 4")
        + "\nThread 1 name: com.example.import\n"
        + row(0, "libsystem_kernel.dylib", "0x7fff602b6d5c", "0x7fff602b4000 + 11612")
        + "\nThread 2\n"
        + row(0, "libsystem_kernel.dylib", "0x7fff602b6d5c", "__workq_kernreturn")
    )
    head = "OS Version: macOS 10.15.7 (19H15)\nReport Version: 104\n\nException Type: EXC_CRASH (SIGABRT)\n\n"
    images = (
        "Binary Images:\n0x10a3f2000 - 0x10a44efff Ledger x86_64  <e68de610908a40619f1d429bde8842d7> /x/Ledger\n\nEOF"
    )
    report = parse_report(f"{head}{stacks}\n{images}", "x")
    assert [(t.index, t.name) for t in report.threads] == [(0, "main"), (1, "com.example.import"), (2, "")]
    assert report.threads[0].frames == (
        ReportFrame(0x10A3F4A54, "Money.sum()", None, "Money.swift", 41, inlined=True),
        ReportFrame(0x10A3F4A54, "post", None, "Entry.swift", 7),
        ReportFrame(0x10A3F4A58),
    )
    assert report.threads[1].frames + report.threads[2].frames == (
        ReportFrame(0x7FFF602B6D5C),
        ReportFrame(0x7FFF602B6D5C, "__workq_kernreturn"),
    )
    assert (report.crashed_thread, report.arch, report.notes) == (0, "x86_64", ())


@pytest.mark.parametrize(
    "line",
    [
        "Thread 1 was resumed by a debugger:",
        "Thread 1 instruction stream:",
        "Thread 0 last branch register state not available.",
        "Kernel Triage:",
        "Backtrace not available",
        "",
    ],
)
def test_what_is_no_frame_ends_a_stack(line: str) -> None:
    """What such a line begins is nobody's stack: least of all that of the thread before."""
    report = read(f"Thread 0 Crashed:\n{MAIN}{line}\n{WAITING}\nThread 2:\n{WAITING}")
    assert stacks_of(report) == {0: [0x10A3F4A54], 2: [0x7FFF602B6D5C]}
    thrown = read(f"Last Exception Backtrace:\n{MAIN}{line}\n{WAITING}\nThread 0 Crashed:\n{MAIN}")
    assert [f.address for f in thrown.last_exception] == [0x10A3F4A54]


def test_an_empty_line_in_front_of_a_stack() -> None:
    """As web pages have it that make paragraphs of lines."""
    report = read(f"Thread 0 Crashed::\n\n{MAIN}\nThread 1:\n\nThread 2:: x\n\n{WAITING}\n{WAITING}")
    assert stacks_of(report) == {0: [0x10A3F4A54], 1: [], 2: [0x7FFF602B6D5C]}


def test_words_of_a_program_are_no_heading() -> None:
    said = "Application Specific Information:\nThread 7: waits for Thread 9:\n\nThread 0: it stops\n\n"
    report = read(f"{said}Thread 0 Crashed:: main\n{MAIN}\nThread 7: is what a log may say, too\n\n")
    assert report.information == ("Thread 7: waits for Thread 9:", "Thread 0: it stops")
    assert stacks_of(report) == {0: [0x10A3F4A54]}
    assert report.threads[0].name == "main"


def test_the_first_stack_of_a_thread_counts() -> None:
    report = read(f"Thread 0 Crashed:\n{MAIN}\nThread 0:\n{WAITING}\nThread 1:\n{WAITING}")
    assert stacks_of(report) == {0: [0x10A3F4A54], 1: [0x7FFF602B6D5C]}


def test_a_thread_without_frames_is_one() -> None:
    assert stacks_of(read(f"Thread 0 Crashed:\n{MAIN}\nThread 1:\n\nThread 2:: pool\n\n")) == {
        0: [0x10A3F4A54],
        1: [],
        2: [],
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("Crashed Thread:        1  Dispatch queue: com.example.q\n", 1),
        ("Triggered by Thread:  1\n", 1),
        ("Triggered by Thread: 1  Ledger Import, Dispatch Queue: com.example.q\n", 1),
        ("Triggered by Thread: 1, Dispatch Queue: com.example.q\n", 1),
        ("Highlighted by Thread: 1\n", 1),
        ("Highlighted Thread:  1\n", 1),
        ("Crashed Thread:        Unknown\n", None),
        ("Crashed Thread:        7\n", None),  # of a list that was cut
        ("", None),
    ],
)
def test_the_fields_tell_who_is_to_blame(fields: str, expected: int | None) -> None:
    report = read(f"Thread 0:\n{MAIN}\nThread 1:\n{WAITING}", fields + "\n")
    assert report.crashed_thread == expected


@pytest.mark.parametrize(
    ("line", "frame"),
    [
        ("Ledger  \t0x000000010a3f4a54 main + 68", ReportFrame(0x10A3F4A54, "main", 68)),
        ("Ledger  \t       0x10a3f4a54 main + 68", ReportFrame(0x10A3F4A54, "main", 68)),
        ("Ledger  \t0x000000010a3f4a54 main", ReportFrame(0x10A3F4A54, "main")),
        ("Ledger  \t0x000000010a3f4a54 0x10a3f2000 + 10836", ReportFrame(0x10A3F4A54)),
        ("Ledger  \t0x000000010a3f4a54 Ledger + 10836", ReportFrame(0x10A3F4A54)),
        ("Ledger  \t0x000000010a3f4a54 ???", ReportFrame(0x10A3F4A54)),
        ("Ledger  \t0x000000010a3f4a54", ReportFrame(0x10A3F4A54)),
        ("???  \t0x0000000113e1d000 _dyld_start + 0", ReportFrame(0x113E1D000, "_dyld_start", 0)),
        ("???  \t0x000000000000000a 0 + 10", ReportFrame(0xA)),
        ("???  \t000000000000000000 0 + 0", ReportFrame(0)),
        ("???  \t0000000000 0 + 0", ReportFrame(0)),  # 32 bits
        ("Ledger  \t0x000000010a3f4a54  + 12", ReportFrame(0x10A3F4A54)),
        # Names of images and of functions may have anything in them.
        ("Helper 0x1 (GPU)  \t0x0000000104501a2c draw(in:) + 44", ReportFrame(0x104501A2C, "draw(in:)", 44)),
        (
            "Ledger  \t0x0000000104501a2c Page.draw() + closure #1 in Page + 44",
            ReportFrame(0x104501A2C, "Page.draw() + closure #1 in Page", 44),
        ),
        (
            "Ledger  \t0x0000000104501a2c operator+(Money const&, Money const&) + 12",
            ReportFrame(0x104501A2C, "operator+(Money const&, Money const&)", 12),
        ),
        # Where somebody had debug info.
        (
            "Ledger  \t0x0000000104501a2c -[Book open:] + 44 (Book.m:12)",
            ReportFrame(0x104501A2C, "-[Book open:]", 44, "Book.m", 12),
        ),
        (
            "Ledger  \t0x0000000104501a2c Money::sum() const + 12 [inlined] (Money.h:41)",
            ReportFrame(0x104501A2C, "Money::sum() const", 12, "Money.h", 41, inlined=True),
        ),
        (
            "Ledger  \t0x0000000104501a2c closure #1 in f() + 8 (<compiler-generated>:0)",
            ReportFrame(0x104501A2C, "closure #1 in f()", 8),
        ),
        (
            "Ledger  \t0x0000000104501a2c main (in Ledger) (main.m:16)",
            ReportFrame(0x104501A2C, "main", None, "main.m", 16),
        ),
        # As reporters of jailbroken phones write it, in columns.
        ("Ledger  \t0x0000000104501a2c 0x1044f4000 + 0xda2c // main + 0x8", ReportFrame(0x104501A2C, "main", 8)),
        (
            "Ledger  \t0x104501a2c 0x1044f4000 + 0xda2c\t// -[Book open:] + 0x8",
            ReportFrame(0x104501A2C, "-[Book open:]", 8),
        ),
        (
            "Ledger  \t0x104501a2c 0x1044f4000 + 0xda2c \t// /x/Book.m:12",
            ReportFrame(0x104501A2C, "", None, "/x/Book.m", 12),
        ),
        ("Ledger  \t0x104501a2c 0x1044f4000 + 0xda2c      ", ReportFrame(0x104501A2C)),
        # Of a process that was killed before its images were known.
        ("       \t0x0000000104501a2c _dyld_start + 0", ReportFrame(0x104501A2C, "_dyld_start", 0)),
        ("       0x0000000104501a2c _dyld_start + 0", ReportFrame(0x104501A2C, "_dyld_start", 0)),
        # As KSCrash writes both side by side.
        (
            "Ledger  \t0x0000000104501a2c 0x1044f4000 + 55852 (-[Book(Tax) open:] + 44)",
            ReportFrame(0x104501A2C, "-[Book(Tax) open:]", 44),
        ),
        (
            "Ledger  \t0x0000000104501a2c 0x1044f4000 + 55852 (Book.m:12)",
            ReportFrame(0x104501A2C, "", None, "Book.m", 12),
        ),
        # As Xcode's symbolicatecrash writes names with parentheses.
        (
            "Foundation  \t0x0000000104501a2c -[NSRunLoop+ 32796 (NSRunLoop) runMode:beforeDate:] + 228",
            ReportFrame(0x104501A2C, "-[NSRunLoop(NSRunLoop) runMode:beforeDate:]", 228),
        ),
        (
            "libobjc  \t0x0000000104501a2c _objc_terminate+ 28848 () + 192",
            ReportFrame(0x104501A2C, "_objc_terminate()", 192),
        ),
        # Where a mail program made blanks of the tab.
        ("Ledger                         0x0000000104501a2c main + 68", ReportFrame(0x104501A2C, "main", 68)),
        ("???                            000000000000000000 0 + 0", ReportFrame(0)),
    ],
)
def test_frames(line: str, frame: ReportFrame) -> None:
    for number in ("1   ", "1    "):
        (thread,) = read(f"Thread 0 Crashed:\n{MAIN}{number}{line}\n2{MAIN[1:]}").threads
        assert thread.frames == (ReportFrame(0x10A3F4A54, "main", 68), frame, ReportFrame(0x10A3F4A54, "main", 68))


def test_a_called_null_pointer_is_the_top_frame() -> None:
    report = read(f"Thread 0 Crashed:\n{NULL}1{MAIN[1:]}\nThread 1:\n{WAITING}")
    assert stacks_of(report) == {0: [0, 0x10A3F4A54], 1: [0x7FFF602B6D5C]}


def test_a_name_without_end_is_no_end_of_the_stack() -> None:
    name = "Ledger::Page<" + "int, " * 5000 + ">"
    (thread,) = read(f"Thread 0 Crashed:\n0   Ledger  \t0x000000010a3f4a50 {name} + 12\n1{MAIN[1:]}").threads
    assert [f.address for f in thread.frames] == [0x10A3F4A50, 0x10A3F4A54]
    assert thread.frames[0].function == name[:8192]


def test_images_without_uuid() -> None:
    """Old and foreign ones have none: frames in them still have a module and an offset."""
    plug_in = "/Users/USER/Library/Plug Ins/bank.bundle/Contents/MacOS/bank"
    images = f"Binary Images:\n{LEDGER}       0x10b100000 -        0x10b106fff +bank (*) {plug_in}\n{KERNEL}\n"
    report = read(f"Thread 0 Crashed:\n{MAIN}", images=images)
    assert [(i.path.rpartition("/")[2], i.address, i.size, i.uuid is None) for i in report.images] == [
        ("Ledger", LEDGER_BASE, 0x5D000, False),
        ("bank", 0x10B100000, 0x7000, True),
        ("libsystem_kernel.dylib", KERNEL_BASE, 0x2BFF7, False),
    ]
    assert report.images[1].path == plug_in


@pytest.mark.parametrize("below", ["", "\n", " \n\n"])
def test_the_list_of_images_ends_with_an_empty_line_behind_one(below: str) -> None:
    """What stands further down is no image of this process, like the list of another report in the same mail."""
    other = "       0x10b100000 -        0x10b106fff +bank (*) <A1DB1CC2-7DE5-3431-9B0A-9CC4A1B5F9E5> /tmp/bank\n"
    images = f"Binary Images:\n{below}{LEDGER}{KERNEL}\nLoaded later:\n{other}\nBinary Images:\n{other}"
    report = read(f"Thread 0 Crashed:\n{MAIN}", images=images)
    assert [image.address for image in report.images] == [LEDGER_BASE, KERNEL_BASE]


@pytest.mark.parametrize("quote", ["", "    ", "> ", "\t> "])
def test_quoted(quote: str, tmp_path: Path) -> None:
    """As a web page or a mail has it: words in front, something before every line, `<` escaped."""
    text = HEAD + FIELDS + f"Thread 0 Crashed:\n{MAIN}\n" + IMAGES
    lines = [quote + line for line in text.replace("<", "&lt;").replace(">", "&gt;").splitlines()]
    quoted = "\r\n".join(["It stops when I import:", "", *lines, "", "Can anybody help?"])
    assert parse_report(quoted, "x") == parse_report(text, "x")
    path = tmp_path / "mail.txt"
    path.write_text(quoted)
    assert is_report(path)
    assert parse_report("\n\n".join(lines), "x") == parse_report(text, "x")


def test_escapes_in_a_report_without_images() -> None:
    """UUIDs have brackets, but what was cut has no UUID."""
    frame = "0   Ledger  \t0x000000010a3f4a54 closure #1 in f(_: () -> 'lambda' &) + 68\n"
    text = f"{HEAD}{FIELDS}Thread 0 Crashed:\n{frame}\n"
    escaped = text.replace("&", "&amp;").replace(">", "&gt;").replace("'", "&#x27;")
    assert parse_report(escaped, "x") == parse_report(text, "x")


def test_fenced() -> None:
    """As issues are written on GitHub."""
    head = HEAD + FIELDS.replace("\n\n", "\nTermination Reason: Namespace SIGNAL, Code 11\n", 1)
    said = "Application Specific Information:\nabort() called\n"
    stack = f"Thread 0 Crashed:\n{MAIN}"
    pieces = (head, said, stack, f"Binary Images:\n{LEDGER}{KERNEL}")
    fenced = "It stops:\n" + "".join(f"```\n{piece}```\n" for piece in pieces) + "Can anybody help?\n"
    report = parse_report(fenced, "x")
    assert report == parse_report("\n".join(pieces), "x")
    assert report.information == ("abort() called",)
    assert [note for note in report.notes if "```" in note] == []


@pytest.mark.parametrize("first", ["Hardware Model:      iPhone12,1\n", "Exception Type:  EXC_CRASH (SIGABRT)\n", ""])
def test_first_lines(first: str, tmp_path: Path) -> None:
    path = tmp_path / "x.crash"
    path.write_text(f"{first}Thread 0:\n{MAIN}\n{IMAGES}")
    assert is_report(path)
    assert stacks_of(parse_report(path.read_text(), "x")) == {0: [0x10A3F4A54]}


PROFILE = "\nModel: Mac14,7, BootROM 10151.140.19, proc 8:4:4 processors, 16 GB\nGraphics: Apple M2, {spdisplays}\n"


def payload() -> dict[str, Any]:
    return {
        "procName": "Ledger",
        "cpuType": "ARM-64",
        "osVersion": {"train": "macOS 15.4", "build": "24E248"},
        "faultingThread": 0,
        "threads": [
            {
                "id": 1,
                "triggered": True,
                "name": "Ledger Import",
                "queue": "com.example.ledger.import",
                "frames": [
                    {"imageIndex": 1, "imageOffset": 0},
                    {"imageIndex": 0, "imageOffset": 64, "symbol": "Money::sum()", "symbolLocation": 12, "inline": True}
                    | {"sourceFile": "Money.h", "sourceLine": 41},
                    {"imageIndex": 0, "imageOffset": 64, "symbol": "post", "symbolLocation": 20},
                    {"imageIndex": 0, "imageOffset": 80, "symbol": "start"},
                ],
            },
            {"id": 2, "queue": "com.apple.main-thread", "frames": []},
        ],
        "usedImages": [
            {"base": 4096, "size": 4096, "uuid": "e68de610-908a-4061-9f1d-429bde8842d7", "path": "/x/Ledger"},
            {"base": 0, "size": 0, "uuid": "00000000-0000-0000-0000-000000000000", "source": "A"},
        ],
        "sharedCache": {"base": 1 << 32, "size": 1 << 32, "uuid": "49bb9b67-8dc7-4706-b7e8-b2e419d80b16"},
    }


LINE = json.dumps({"app_name": "Ledger", "bug_type": "309", "os_version": "macOS 15.4 (24E248)"}) + "\n"


@pytest.mark.parametrize("indent", [None, 2])
def test_text_behind_json(indent: int | None) -> None:
    """As the dialog of a crash copies it: a profile of the system follows."""
    body = json.dumps(payload(), indent=indent)
    report = parse_report(LINE + body, "x.ips")
    assert parse_report(LINE + body + PROFILE, "x.ips") == report
    assert parse_report(LINE + body + "\n" + body, "x.ips") == report
    alone = parse_report(body, "x.ips")  # without the line in front
    assert alone.threads == report.threads
    assert parse_report(body + PROFILE, "x.ips") == alone
    assert parse_report(("\ufeff" + LINE + body + PROFILE).replace("\n", "\r\n"), "x.ips") == report


def test_images_alone_behind_a_text_with_threads() -> None:
    """Whoever needs no threads reads the same report."""
    text = f"{HEAD}{FIELDS}Thread 0 Crashed:\n{MAIN}\n{IMAGES}\n"
    listing = LINE + json.dumps({"usedImages": payload()["usedImages"]})
    assert parse_report(text + listing, "x", threads=False) == parse_report(text + listing, "x")
    assert len(parse_report(listing, "x", threads=False).images) == 1


def test_names_in_json() -> None:
    report = parse_report(LINE + json.dumps(payload()), "x.ips")
    assert report.threads[0].frames == (
        ReportFrame(0),
        ReportFrame(0x1040, "Money::sum()", 12, "Money.h", 41, inlined=True),
        ReportFrame(0x1040, "post", 20),
        ReportFrame(0x1050, "start"),
    )
    assert [t.label for t in report.threads] == [
        "Ledger Import  Dispatch queue: com.example.ledger.import",
        "Dispatch queue: com.apple.main-thread",
    ]


def test_a_translated_report_with_the_full_one_behind_it() -> None:
    """The full one says more, such as which shared cache was mapped."""
    line, short = "-" * 37, "-" * 11
    text = f"{HEAD}{FIELDS}Thread 0 Crashed:\n{MAIN}\n{IMAGES}"
    head = f"{line}\nTranslated Report (Full Report Below)\n{line}\n\n{text}\n{short}\nFull Report\n{short}\n\n"
    body = json.dumps(payload(), indent=2)
    full = parse_report(LINE + body, "x")
    assert parse_report(head + LINE + body + PROFILE, "x") == full
    assert str(full.cache_uuid) == "49bb9b67-8dc7-4706-b7e8-b2e419d80b16"
    assert parse_report(head + LINE + body[: len(body) // 2], "x") == parse_report(text, "x")


@pytest.mark.parametrize("value", [None, "x", -1, 1 << 64, [], {"a": 1}, 1.5])
@pytest.mark.parametrize("key", ["symbolLocation", "sourceLine", "sourceFile", "inline"])
def test_names_in_json_that_are_none(key: str, value: object) -> None:
    body = payload()
    body["threads"][0]["frames"] = [{"imageIndex": 0, "imageOffset": 64, "symbol": "post", key: value}]
    assert parse_report(LINE + json.dumps(body), "x").threads[0].frames == (ReportFrame(0x1040, "post"),)


EARLY: dict[str, Any] = {
    "cpuType": "ARM-64",
    "threads": [
        {"frames": [[0, 64], [1, 0]], "threadState": {"x": [1, 2], "pc": 4160, "flavor": "ARM_THREAD_STATE64"}},
        {"frames": []},
    ],
    "usedImages": [["e68de610-908a-4061-9f1d-429bde8842d7", 4096, "P"], [str(UUID(int=0)), 0, "A"]],
    "legacyInfo": {
        "imageExtraInfo": [{"size": 4096, "arch": "arm64", "path": "/x/Ledger", "name": "Ledger"}],
        "threadTriggered": {"queue": "com.example.q", "name": "import"},
    },
    "faultingThread": 0,
}


def test_lists_in_the_place_of_objects() -> None:
    """As the first versions of the format had it."""
    report = parse_report(LINE + json.dumps(EARLY), "x")
    assert stacks_of(report) == {0: [0x1040, 0], 1: []}
    assert (report.threads[0].name, report.threads[0].queue) == ("import", "com.example.q")
    assert [(i.path, i.address, i.size, i.arch) for i in report.images] == [("/x/Ledger", 4096, 4096, "arm64")]
    assert report.registers == {"x0": 1, "x1": 2, "pc": 4160}


@pytest.mark.parametrize(
    ("told", "blamed"),
    [
        ({"faultingThread": 1}, 1),
        ({"legacyInfo": {"threadHighlighted": 1}}, 1),
        ({}, None),  # simulated, hung, or a fault that was survived
        ({"faultingThread": 7}, None),
        ({"faultingThread": None}, None),
    ],
)
def test_nobody_is_blamed_without_a_reason(told: dict[str, Any], blamed: int | None) -> None:
    body = payload()
    del body["faultingThread"], body["threads"][0]["triggered"]
    report = parse_report(LINE + json.dumps(body | told), "x")
    assert report.crashed_thread == blamed
    assert report.registers == {}
    assert bool(report.notes) == (told.get("faultingThread") == 7)


def test_frames_that_refer_to_nothing_are_counted() -> None:
    body = payload()
    body["threads"][0]["frames"][1:1] = [{"imageIndex": 9, "imageOffset": 1}, {"imageOffset": 1}, None]
    report = parse_report(LINE + json.dumps(body), "x")
    assert len(report.threads[0].frames) == 4
    assert any("3 frames" in note for note in report.notes)


@pytest.mark.parametrize(
    ("version", "code_type", "system", "written"),
    [
        ("241 (2.4.1)", "ARM-64 (Native)", "iPhone OS 14.8 (18H17)", "104"),
        ("241 (2.4.1)", "ARM (Native)", "Watch OS 2.2.1 (13V420)", "105"),
        ("241 (2.4.1)", "ARM-64 (Native)", "Apple TVOS 11.2.6 (15K600)", "104"),
        ("2.4.1", "ARM (Native)", "iPhone OS 5.0 (9A334)", "104"),
        # What Xcode and Console make of JSON, and macOS itself.
        ("2.4.1 (241)", "ARM-64 (Native)", "iPhone OS 15.2.1 (19C63)", "104"),
        ("2.4.1 (241)", "ARM (Native)", "Watch OS 8.0 (19R346)", "104"),
        ("2.4.1 (241)", "X86-64 (Native)", "Mac OS X 10.15.7 (19H15)", "12"),
        # PLCrashReporter and KSCrash.
        ("2.4.1 (241)", "ARM-64", "iPhone OS 12.4 (16G77)", "104"),
        ("2.4.1 (241)", "X86-64", "Mac OS X 10.14.0 (18A391)", "104"),
    ],
)
def test_the_version_that_users_see(version: str, code_type: str, system: str, written: str) -> None:
    head = f"Process:  Ledger [1]\nVersion:  {version}\nCode Type:  {code_type}\n\n"
    head += f"OS Version:  {system}\nReport Version:  {written}\n\n"
    assert parse_report(f"{head}Thread 0 Crashed:\n{MAIN}", "x").bundle_version == "2.4.1"


@pytest.mark.parametrize(
    ("code_type", "arch"),
    [
        *(("X86-64 (Native)", "x86_64"), ("X86-64 (Translated)", "x86_64"), ("X86 (Native)", "i386")),
        *(("ARM-64 (Native)", "arm64"), ("ARM64", "arm64"), ("ARM (Native)", "armv7"), ("PPC (Native)", "ppc")),
    ],
)
def test_architectures(code_type: str, arch: str) -> None:
    text = HEAD.replace("X86-64 (Native)", code_type) + f"Thread 0:\n{MAIN}\n{IMAGES}"
    assert parse_report(text, "x").arch == arch


@pytest.mark.parametrize(
    ("rest", "arch"),
    [
        ("Thread 0 crashed with X86 Thread State (64-bit):\n  rax: 0x1\n\n", "x86_64"),
        ("Thread 0 crashed with ARM Thread State (64-bit):\n  x0: 0x1\n\n", "arm64"),
        ("Thread 0 crashed with X86-64 Thread State:\n  rax: 0x1\n\n", "x86_64"),
        ("Thread 0 crashed with X86 Thread State (32-bit):\n  eax: 0x1\n\n", "i386"),
        ("Thread 0 crashed with ARM Thread State:\n  r0: 0x1\n\n", "armv7"),
        ("Thread 0 crashed with PPC Thread State 64:\n  r0: 0x1\n\n", "ppc"),
        ("Binary Images:\n0x100 - 0x1ff Ledger arm64e  <51614a37062f4a2ea83e1a0092554cb6> /x/Ledger\n", "arm64"),
        (f"Binary Images:\n{KERNEL}", "x86_64"),  # high up, where only Intel Macs have their libraries
    ],
)
def test_architectures_of_what_was_cut(rest: str, arch: str) -> None:
    assert parse_report(f"Thread 0 Crashed:\n{MAIN}\n{rest}", "x").arch == arch


def test_a_report_that_was_cut_says_what_it_has() -> None:
    text = f"{HEAD}{FIELDS}Thread 0 Crashed:\n{MAIN}\nThread 3:\n{WAITING}"
    report = parse_report(text, "x")
    assert stacks_of(report) == {0: [0x10A3F4A54], 3: [0x7FFF602B6D5C]}
    assert report.threads[0].frames[0].image == "com.example.ledger"
    assert report.images == ()
    assert any("binary images" in note for note in report.notes)
    (blamed,) = parse_report(f"Thread 3 Crashed:: x\n{MAIN}", "x").threads
    assert (blamed.index, blamed.name) == (3, "x")


def test_names_of_the_blamed_thread_may_stand_in_its_field() -> None:
    report = read(f"Thread 0 Crashed:\n{MAIN}", "Triggered by Thread: 0  import, Dispatch Queue: com.example.q\n\n")
    assert (report.threads[0].name, report.threads[0].queue) == ("import", "com.example.q")


def test_what_is_not_understood_is_counted() -> None:
    """And never hung onto what stands in front of it."""
    report = read(f"Thread 0 Crashed:\n{MAIN}New Section:\n  a line\n  another\n\nThread 1:\n{WAITING}")
    assert stacks_of(report) == {0: [0x10A3F4A54], 1: [0x7FFF602B6D5C]}
    assert [note for note in report.notes if "3 lines" in note and "New Section:" in note]
    tail = "VM Region Summary:\nReadOnly portion of Libraries: 1\n\nREGION TYPE\n\nModel: Mac14,7, 16 GB\nDisplay: x\n"
    assert read(f"Thread 0 Crashed:\n{MAIN}", images=f"Binary Images:\n{LEDGER}{KERNEL}\n{tail}").notes == ()


@pytest.mark.parametrize("title", ["Notes:", "Error Formulating Crash Report:"])  # since macOS 13, and earlier
def test_what_the_reporter_failed_at(title: str) -> None:
    said = "PC register does not match crashing frame (0x0 vs 0x10A3F4A54)"
    report = read(f"Thread 0 Crashed:\n{MAIN}", f"{title}\n{said}\n\n{FIELDS}")
    assert report.notes == (said,)
    assert report.cause == read(f"Thread 0 Crashed:\n{MAIN}").cause
    own = f"Application Specific Information:\nabort() called\nNotes: none\nlast words\n\nThread 0 Crashed:\n{MAIN}"
    assert read(own).information == ("abort() called", "Notes: none", "last words")


def test_a_damaged_line_ends_no_list() -> None:
    images = f"Binary Images:\n{LEDGER}   0xzz - damaged\n 0x1000 - 0x1fff + <>\n{KERNEL}\n"
    assert len(read(f"Thread 0 Crashed:\n{MAIN}", images=images).images) == 2


def test_fields_behind_a_table_of_memory() -> None:
    """iOS has them there."""
    fields = (
        "Exception Type:  EXC_BAD_ACCESS (SIGSEGV)\nVM Region Info: 0x99 is not in any region.\n"
        "      REGION TYPE  START - END\n--->  \nTermination Reason: SIGNAL 11 Segmentation fault: 11\n"
        "Terminating Process: exc handler [2415]\n\nTriggered by Thread:  1\n\n"
    )
    report = read(f"Thread 0:\n{MAIN}\nThread 1:\n{WAITING}", fields)
    assert report.crashed_thread == 1
    assert report.termination
    assert (report.termination.namespace, report.termination.by) == ("SIGNAL", "exc handler [2415]")
    assert report.notes == ()


def test_lines_that_a_mail_program_has_wrapped() -> None:
    stack = (
        "0   Ledger                        \t0x000000010a3f4a50\nLedgerKitPostEntry + 132\n"
        "1   com.example.a.very.long.identifier\n  0x000000010a3f4a54 main + 68\n"
        "2   com.example.ledger            \t0x000000010a3f4a58 Ledger::Page<std::pair<int,\n"
        "Ledger::Money> >::add(unsigned\nlong) + 116\n"
        "3   com.example.ledger            \t0x000000010a3f4a5c -[Book\nopen:] + 44\n(Book.m:12)\n"
        "4   com.example.ledger            \t0x000000010a3f4a60 0x10a3f2000 +\n10848\n"
        "4   com.example.ledger            \t0x000000010a3f4a60 main +\n 80 (main.m:23)\n"
        "5   com.example.ledger            \t0x000000010a3f4a64 post (Entry.m:7)\n"
        "5   com.example.ledger            \t0x000000010a3f4a64 0x10a3f2000 + 10852\n(post + 4)\n"
        "5   com.example.ledger            \t0x000000010a3f4a64 0x10a3f2000 + 10852\n(-[Book\nopen:]\n+ 4)\n"
        "5   com.example.ledger            \t0x000000010a3f4a64 0x10a3f2000 + 0x2a64\n//\n-[Book\nopen:] + 0x4\n"
        "5   com.example.ledger            \t0x000000010a3f4a64 0x10a3f2000 + 10852 (-[Book\nopen:] + 4)\n"
        "5   com.example.ledger            \t0x000000010a3f4a64 -[Book+ 10852\n(Book) open:] + 4\n"
        "6   libsystem_kernel.dylib        \t0x00007fff602b6d5c\n\n"
    )
    (thread,) = read(f"Thread 0 Crashed:: Dispatch queue:\n com.example.q\n{stack}").threads
    assert thread.queue == "com.example.q"
    assert thread.frames == (
        ReportFrame(0x10A3F4A50, "LedgerKitPostEntry", 132),
        ReportFrame(0x10A3F4A54, "main", 68),
        ReportFrame(0x10A3F4A58, "Ledger::Page<std::pair<int, Ledger::Money> >::add(unsigned long)", 116),
        ReportFrame(0x10A3F4A5C, "-[Book open:]", 44, "Book.m", 12),
        ReportFrame(0x10A3F4A60),
        ReportFrame(0x10A3F4A60, "main", 80, "main.m", 23),
        ReportFrame(0x10A3F4A64, "post", None, "Entry.m", 7),
        ReportFrame(0x10A3F4A64, "post", 4),
        ReportFrame(0x10A3F4A64, "-[Book open:]", 4),
        ReportFrame(0x10A3F4A64, "-[Book open:]", 4),
        ReportFrame(0x10A3F4A64, "-[Book open:]", 4),
        ReportFrame(0x10A3F4A64, "-[Book(Book) open:]", 4),
        ReportFrame(0x7FFF602B6D5C),
    )


def test_fields_and_images_that_a_mail_program_has_wrapped() -> None:
    head = HEAD.replace("Path:                  ", "Path:\n")
    images = IMAGES.replace("> /", ">\n/").replace("(2.4.1 - ", "(2.4.1 -\n").replace("141.1) ", "141.1)\n")
    images = images.replace("fff +", "fff\n+").replace("     0x7fff602dfff6", "\n0x7fff602dfff6")
    assert images.count("\n") == IMAGES.count("\n") + 6
    report = parse_report(f"{head}{FIELDS}Thread 0 Crashed:\n{MAIN}\n{images}", "x")
    assert report == read(f"Thread 0 Crashed:\n{MAIN}")
    assert report.notes == ()
    without = f"Binary Images:\n{LEDGER.replace(' <E68DE610-908A-4061-9F1D-429BDE8842D7>', '')}and words\n{KERNEL}"
    assert [i.path for i in read(f"Thread 0 Crashed:\n{MAIN}", images=without).images] == [
        "/Applications/Ledger.app/Contents/MacOS/Ledger",
        "/usr/lib/system/libsystem_kernel.dylib",
    ]


def test_registers_that_a_mail_program_has_wrapped() -> None:
    state = "  rax: 0x0000000000000001  rbx: 0x0000000000000002  rcx:\n0x0000000000000003  rdx: 0x0000000000000004\n"
    report = read(
        f"Thread 0 Crashed:\n{MAIN}\nThread 0 crashed with X86 Thread State (64-bit):\n{state}  rip:\n0x5\n\n"
    )
    assert report.registers == {"rax": 1, "rbx": 2, "rcx": 3, "rdx": 4, "rip": 5}
    assert report.notes == ()


@pytest.mark.parametrize("words", ["Can anybody help?", "a\nb\nc\nd\ne\nf\ng\nh + 9", "(see below)", "x + 9"])
def test_words_behind_a_frame_are_no_part_of_its_name(words: str) -> None:
    whole = f"0   Ledger  \t0x000000010a3f4a50 post + 3\n{words}\n"
    assert read(f"Thread 0 Crashed:\n{whole}").threads[0].frames == (ReportFrame(0x10A3F4A50, "post", 3),)
    if words != "x + 9":
        nameless = f"0   Ledger  \t0x000000010a3f4a50 post\n{words}\n"
        assert read(f"Thread 0 Crashed:\n{nameless}").threads[0].frames == (ReportFrame(0x10A3F4A50, "post"),)


def test_queues_that_a_mail_program_has_wrapped() -> None:
    """In the heading of macOS, see above, and in the line that iOS has in front of one."""
    named = "Thread 1 name:  Dispatch queue:\ncom.example.q\nThread 1:\n"
    report = read(f"Thread 0 Crashed:\n{MAIN}\n{named}{WAITING}\nThread 2 name: x\nThread 2:\n{WAITING}")
    assert [(t.name, t.queue) for t in report.threads[1:]] == [("", "com.example.q"), ("x", "")]
    assert report.notes == ()


@pytest.mark.parametrize("between", ["\n", "", "New Section:\n\n"])
def test_a_broken_line_is_no_part_of_another_stack(between: str) -> None:
    cut = "1   Ledger                        \t0x000000010a3f4a50\n"
    report = read(f"Thread 0 Crashed:\n{MAIN}{cut}{between}Thread 1:\npost + 3\n{WAITING}\nThread 2:\n{WAITING}")
    assert stacks_of(report)[0] == [0x10A3F4A54, 0x10A3F4A50]
    assert stacks_of(report)[2] == [0x7FFF602B6D5C]
    assert report.threads[0].frames[1].function == ""


def test_several_reports_in_one_file() -> None:
    one = f"{HEAD}{FIELDS}Thread 0 Crashed:\n{MAIN}\n{IMAGES}\n"
    other = one.replace("[712]", "[713]").replace("Thread 0", "Thread 1").replace("10.15.7 (19H15)", "11.0 (20A1)")
    report = parse_report(one + other, "x")
    assert report == parse_report(one, "x")
    assert any("another report" in note for note in report.notes)


def test_lists_of_images_in_parts() -> None:
    """As reporters of jailbroken phones write them, with what they know of each package."""
    images = (
        "Binary Images (App Store):\n0x100d1c000 - 0x100d9ffff Ledger arm64  <51614a37062f4a2ea83e1a0092554cb6> "
        '/x/Ledger {"identifier": "com.example.ledger"}\n\nBinary Images (Other):\n'
        "0x1a05e0000 - ??? dyld arm64e  <8d58f8034fc54933b33c81424a3b5260> /usr/lib/dyld\n\n"
    )
    report = read(f"Thread 0 Crashed:\n{MAIN}", images=images)
    assert [(i.path, i.size, i.arch) for i in report.images] == [
        ("/x/Ledger", 0x84000, "arm64"),
        ("/usr/lib/dyld", 0, "arm64e"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings(encoding: str, tmp_path: Path) -> None:
    """Windows' editor saves text so."""
    path = tmp_path / "x.txt"
    text = f"{HEAD}{FIELDS}Thread 0 Crashed:: Über\n{MAIN}\n{IMAGES}"
    path.write_bytes(text.encode(encoding))
    assert is_report(path)
    assert read_report(path) == parse_report(text, "x")


@pytest.mark.parametrize("quote", ["> ", "    ", ""])
@pytest.mark.parametrize("indent", [None, 2])
def test_quoted_json(quote: str, indent: int | None, tmp_path: Path) -> None:
    body = LINE + json.dumps(payload(), indent=indent)
    quoted = "It stops:\n\n" + "".join(f"{quote}{line}\n" for line in body.splitlines()) + "\nCan you help?\n"
    path = tmp_path / "mail.txt"
    path.write_text(quoted)
    assert is_report(path)
    assert parse_report(quoted, "x") == parse_report(body, "x")
    assert parse_report(quoted.replace('"', "&quot;"), "x") == parse_report(body, "x")


def test_the_shared_cache_as_one_image() -> None:
    """Faults (308) list it so, and name it nowhere else; their other images are an address and a UUID."""
    whole = {"base": 0x180000000, "size": 0x100000000, "source": "S", "uuid": "49bb9b67-8dc7-4706-b7e8-b2e419d80b16"}
    own = {"base": 4096, "source": "P", "uuid": "e68de610-908a-4061-9f1d-429bde8842d7"}
    line = json.dumps({"bug_type": "308", "name": "Ledger", "slice_uuid": own["uuid"]}) + "\n"
    frames = [{"imageIndex": 0, "imageOffset": 64}, {"imageIndex": 1, "imageOffset": 32}]
    report = parse_report(line + json.dumps({"usedImages": [whole, own], "threads": [{"frames": frames}]}), "x")
    assert (str(report.cache_uuid), report.cache_base) == (whole["uuid"], 0x180000000)
    assert [(i.address, i.path) for i in report.images] == [(0x180000000, ""), (4096, "Ledger")]
    assert [(f.address, f.base) for f in report.threads[0].frames] == [(0x180000040, 0x180000000), (0x1020, 4096)]


@pytest.mark.parametrize("said", ["Model: the new one", "MTE is on", "EOF", "Thread State: waits", "Full Report: no"])
def test_words_of_a_program_end_nothing(said: str) -> None:
    text = f"Application Specific Information:\nabort() called\n\n{said}\nlast words\n\nThread 0 Crashed:\n{MAIN}"
    report = read(text)
    assert report.information == ("abort() called", said, "last words")
    assert stacks_of(report) == {0: [0x10A3F4A54]}


def test_names_that_old_systems_kept_to_themselves() -> None:
    """Else all crashes in them would have one signature."""
    line = "1   UIKit                         \t0x0000000187bf0860 <redacted> + 320\n"
    assert read(f"Thread 0 Crashed:\n{MAIN}{line}").threads[0].frames[1] == ReportFrame(0x187BF0860)
