"""Which places of a report are looked up, and whose names its frames get."""

from __future__ import annotations

import json
from typing import Any

import pytest

from symcache.reports import parse_report
from symcache.symbolicate import NamedReport, NameSource, name_report, report_json, report_text
from tests.symbolicate.namers import KnownNames, everything, function

LEDGER, KIT = 0x100000000, 0x180000000


def report(*frames: str, arch: str = "ARM-64", thrown: str = "", images: str = "") -> str:
    """Return a text report of one thread; frames are written without their numbers."""
    lines = [f"{number:<4}{frame}" for number, frame in enumerate(frames)]
    listed = f"""\
       {LEDGER:#x} -        {LEDGER + 0xFFFF:#x} com.example.ledger (1) <{1:032x}> /x/Ledger
       {KIT:#x} -        {KIT + 0xFFFF:#x} libsystem.dylib (*) <{2:032x}> /usr/lib/libsystem.dylib
"""
    return "\n".join(
        [f"Code Type: {arch}", "", *thrown.splitlines(), "", "Thread 0 Crashed::", *lines, "", "Binary Images:", ""]
    ) + (images or listed)


def named(text: str, places: dict[tuple[str, int], Any]) -> tuple[NamedReport, KnownNames]:
    names = KnownNames(places)
    return name_report(parse_report(text, "x"), names), names


@pytest.mark.parametrize(("arch", "call"), [("ARM-64", 0x204), ("X86-64", 0x207)])
def test_a_return_address_is_named_by_its_call(arch: str, call: int) -> None:
    """What follows a call that does not return is another function."""
    text = report(f"Ledger\t{LEDGER + 0x108:#x}", f"Ledger\t{LEDGER + 0x208:#x}", arch=arch)
    result, names = named(text, {("Ledger", call): function("main", 0x200)})
    assert names.asked == {("Ledger", 0x108), ("Ledger", call)}
    assert [(f.function, f.offset) for f in result.threads[0]] == [("", None), ("main", 8)]


@pytest.mark.parametrize("told", ["_sigtramp + 8", f"{KIT:#x} + 64"])
def test_what_a_signal_interrupted_is_no_call(told: str) -> None:
    text = report(
        f"Ledger\t{LEDGER + 0x100:#x}", f"libsystem.dylib\t{KIT + 0x40:#x} {told}", f"Ledger\t{LEDGER + 0x200:#x}"
    )
    result, names = named(
        text, {("libsystem.dylib", 0x3C): function("_sigtramp", 0x30), ("Ledger", 0x200): function("faulting", 0x200)}
    )
    assert [f.function for f in result.threads[0]] == ["", "_sigtramp", "faulting"]
    assert ("Ledger", 0x200) in names.asked


def test_all_frames_of_an_exception_return() -> None:
    thrown = f"Last Exception Backtrace:\n0   Ledger\t{LEDGER + 0x300:#x} 0x1\n"
    result, names = named(
        report(f"Ledger\t{LEDGER + 0x100:#x}", thrown=thrown), {("Ledger", 0x2FC): function("throwing", 0x280)}
    )
    assert [(f.function, f.offset) for f in result.last_exception] == [("throwing", 0x80)]
    assert ("Ledger", 0x300) not in names.asked


def test_pointer_authentication_codes_are_no_part_of_an_address() -> None:
    result, _ = named(report(f"Ledger\t{LEDGER + 0x100 | 0x2A << 56:#x}"), {("Ledger", 0x100): function("main", 0x100)})
    assert [(f.address >> 56, f.function, f.offset) for f in result.threads[0]] == [(0x2A, "main", 0)]
    (frame,) = report_json(result)["threads"][0]["frames"]
    assert (frame["module_offset"], frame["offset"]) == (0x100, 0)


def test_places_without_a_name_are_offsets_without_pointer_authentication_codes() -> None:
    result, _ = named(report(f"Ledger\t{LEDGER + 0x100 | 0x2A << 56:#x}", "???\t0x10"), {})
    assert [f["module_offset"] for f in report_json(result)["threads"][0]["frames"]] == [0x100, None]
    assert "0x2a00000100000100 0x100000000 + 256\n" in report_text(result)


@pytest.mark.parametrize(
    ("told", "known", "shown"),
    [
        ("told() + 4", function("main", 0x100), ("main", "told()", NameSource.SYMBOL)),
        ("_main + 4", function("main", 0x100), ("main", "", NameSource.SYMBOL)),
        ("told() + 4", function("main", 0x80, NameSource.NEAREST), ("told()", "", None)),
        ("told() + 4", function("fun_100", 0x100, NameSource.FUNCTION_START), ("told()", "", None)),
        ("told() + 4 (x.c:3)", function("main", 0x100), ("told()", "main", None)),
        ("told() + 4", function("main", 0x100, line=3, file="/a/b.c"), ("main", "told()", NameSource.DWARF)),
        ("fun_100 + 4", function("main", 0x100), ("main", "", NameSource.SYMBOL)),
        ("0x100000000 + 260", function("fun_100", 0x100, NameSource.FUNCTION_START), ("fun_100", "", "function-start")),
        ("0x100000000 + 260", function("main", 0x80, NameSource.NEAREST), ("main", "", NameSource.NEAREST)),
        ("told() + 4", None, ("told()", "", None)),
    ],
)
def test_names_of_the_report_stay_where_no_more_is_known(told: str, known: Any, shown: tuple[Any, ...]) -> None:
    places = {("Ledger", 0x104): known} if known else {}
    result, _ = named(report(f"Ledger\t{LEDGER + 0x104:#x} {told}"), places)
    assert [(f.function, f.other_function, f.source) for f in result.threads[0]] == [shown]


def test_each_image_is_asked_for_a_place_once_and_says_whether_it_was_found() -> None:
    frames = [f"Ledger\t{LEDGER + 0x104:#x}", *[f"libsystem.dylib\t{KIT + 0x44:#x}"] * 50, "???\t0x10"]
    result, names = named(report(*frames), {("Ledger", 0x104): function("main", 0x100)})
    assert names.asked == {("Ledger", 0x104), ("libsystem.dylib", 0x40)}
    assert result.used == {0: True, 1: False}
    assert [module["found"] for module in report_json(result)["modules"]] == [True, False]


def test_offsets_that_no_image_has_are_harmless() -> None:
    images = [{"base": 0, "size": 1 << 62, "uuid": f"{1:032x}", "path": "/x/big"}]
    frames = [{"imageIndex": 0, "imageOffset": offset} for offset in (0, 1, 1 << 32, (1 << 64) - 1)]
    body = {"cpuType": "X86-64", "usedImages": images, "threads": [{"frames": frames}]}
    result, names = named(json.dumps(body), {})
    assert len(result.threads[0]) == 4
    assert names.asked == {("big", 0), ("big", -2)}


def test_our_text_reads_back() -> None:
    text = report(
        f"Ledger\t{LEDGER + 0x108:#x}",
        f"libsystem.dylib\t{KIT + 0x44:#x} \x1b[31mtold() + 4",
        "???\t0x10 ???",
        thrown=f"Last Exception Backtrace:\n0   Ledger\t{LEDGER + 0x300:#x} 0x1\n",
    )
    result = name_report(parse_report(text, "x"), everything)
    again = parse_report(report_text(result), "x")
    assert [(f.address, f.function, f.offset, f.file, f.line) for f in again.threads[0].frames] == [
        (LEDGER + 0x108, "f108", 0, "c.c", 9),
        (KIT + 0x44, "f40", 4, "c.c", 9),
        (0x10, "", None, "", None),
    ]
    assert [f.function for f in again.last_exception] == ["f2fc"]
    assert [(i.address, i.path, i.uuid) for i in again.images] == [
        (i.address, i.path, i.uuid) for i in result.report.images
    ]
    unnamed, _ = named(text, {})
    assert "\x1b" not in report_text(unnamed)
