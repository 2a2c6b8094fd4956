"""Reports in their own format with names filled in: those, and nothing else, change."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from symcache.errors import SymcacheError
from symcache.reports import parse_report, read_report
from symcache.symbolicate import NameSource, name_report, rewritten
from tests.symbolicate.namers import KnownNames, everything, function
from tests.symbolicate.test_naming import KIT, LEDGER, report

INLINED = function(
    "Ledger.post(to:)",
    0x100,
    file="/Users/dev/Entry.swift",
    line=208,
    inlined=[("Money.adding(_:) + 1", "/Users/dev/Money.swift", 41), ("Money.sum()", "/Users/dev/Money.swift", 17)],
)
MAIN = function("main", 0x300)


def rewrite(text: str, places: dict[tuple[str, int], Any]) -> str:
    return rewritten(text.encode(), name_report(parse_report(text, "x"), KnownNames(places))).decode()


def test_text_keeps_its_columns_and_counts_inlined_functions() -> None:
    text = report(
        "libsystem.dylib               \t0x0000000180000044 told + 4",
        "com.example.ledger            \t0x0000000100000204 0x100000000 + 516",
        "com.example.ledger            \t0x0000000100000310 0x100000000 + 784",
        "???                           \t0000000000000000 0 + 0",
    )
    written = rewrite(text, {("Ledger", 0x200): INLINED, ("Ledger", 0x30C): MAIN})
    assert written.splitlines()[4:11] == [
        "0   libsystem.dylib               \t0x0000000180000044 told + 4",
        "1   com.example.ledger            \t0x0000000100000204 Money.adding(_:) + 1 + 0 [inlined] (Money.swift:41)",
        "2   com.example.ledger            \t0x0000000100000204 Money.sum() + 0 [inlined] (Money.swift:17)",
        "3   com.example.ledger            \t0x0000000100000204 Ledger.post(to:) + 260 (Entry.swift:208)",
        "4   com.example.ledger            \t0x0000000100000310 main + 16",
        "5   ???                           \t0000000000000000 0 + 0",
        "",
    ]
    assert written.splitlines()[11:] == text.splitlines()[9:]
    again = parse_report(written, "x")
    assert [(f.function, f.line, f.inlined) for f in again.threads[0].frames[1:4]] == [
        ("Money.adding(_:) + 1", 41, True),
        ("Money.sum()", 17, True),
        ("Ledger.post(to:)", 208, False),
    ]


def test_names_are_escaped_as_those_beside_them() -> None:
    frames = [f"Ledger\t{LEDGER + 0x300:#x} 0x100000000 + 768", f"Ledger\t{LEDGER + 0x304:#x} f() -&gt; Int + 4"]
    text = report(*frames).partition("Binary Images:")[0]
    images = report().partition("Binary Images:")[2].replace("<", "").replace(">", "")
    named = name_report(
        parse_report(report(*frames), "x"), KnownNames({("Ledger", 0x300): function("g() -> Int", 0x300)})
    )
    assert "g() -&gt; Int + 0\n" in rewritten((text + images).encode(), named).decode()


def test_threads_without_a_colon_get_names() -> None:
    """As Sentry writes them."""
    text = report(f"Ledger {LEDGER + 0x300:#x} 0x100000000 + 768").replace("Thread 0 Crashed::", "Thread 0 name: main")
    assert text.count("Thread 0 name: main\n") == 1
    assert f"{LEDGER + 0x300:#x} main + 0" in rewrite(text, {("Ledger", 0x300): MAIN})


def test_columns_of_numbers_have_room() -> None:
    frames = [f"Ledger\t{LEDGER + 0x204:#x} 0x100000000 + 516"] * 12
    written = rewrite(report(*frames), {("Ledger", 0x200): INLINED, ("Ledger", 0x204): INLINED})
    numbered = [line for line in written.splitlines() if "\t" in line]
    assert [line[:10] for line in numbered] == [f"{number:<4}Ledger" for number in range(36)]


def test_a_name_that_may_be_the_neighbours_is_marked() -> None:
    frame = f"Ledger\t{LEDGER + 0x104:#x} 0x100000000 + 260"
    nearest = {("Ledger", 0x104): function("main", 0x80, NameSource.NEAREST)}
    written = rewrite(report(frame), nearest)
    assert "0x100000104 main + 132 [nearest]\n" in written
    (again,) = parse_report(written, "x").threads[0].frames
    assert (again.function, again.offset) == ("main", 132)
    assert '"symbol":"main","symbolLocation":132,"symbolSource":"nearest"}]' in rewrite(ips([(0, 0x104)]), nearest)
    nameless = {("Ledger", 0x104): function("fun_100", 0x100, NameSource.FUNCTION_START)}
    assert "0x100000104 fun_100 + 4\n" in rewrite(report(frame), nameless)
    assert "told + 4\n" in rewrite(report(frame.replace("0x100000000 + 260", "told + 4")), nameless)


@pytest.mark.parametrize("quoting", ["", "> ", "    ", "\t"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\n\n", "\r"])
def test_what_mail_and_web_have_made_of_text_stays(quoting: str, ending: str) -> None:
    text = report(*[f"Ledger\t{LEDGER + 0x300:#x} 0x100000000 + 768"] * 2).replace("<", "&lt;").replace(">", "&gt;")
    text = "Look at this:\n\n" + "".join(f"{quoting}{line}\n" for line in text.splitlines())
    text = text.replace("\n", ending)
    written = rewrite(text, {("Ledger", 0x300): function("a<b>", 0x300), ("Ledger", 0x2FC): MAIN})
    assert written == text.replace("0x100000000 + 768", "a&lt;b&gt; + 0", 1).replace("0x100000000 + 768", "main + 0")


def test_lines_that_were_broken_are_whole_again_where_they_get_names() -> None:
    text = report(
        f"Ledger\t{LEDGER + 0x300:#x}\n0x100000000 + 768",
        f"Ledger\n{LEDGER + 0x304:#x} told + 4",
        "Ledger\t0x100000404",
        "Ledger\t0x100000408 0x100000000 +\n1032",
        "Ledger\t0x10000040c told(int,\nint,\nint) + 4",
        "Ledger\t0x100000410 0x100000000 + 1040",
    )
    places = {("Ledger", offset): MAIN for offset in (0x300, 0x400, 0x404, 0x40C)}
    assert rewrite(text, places).splitlines()[4:13] == [
        "0   Ledger\t0x100000300 main + 0",
        "1   Ledger",
        "0x100000304 told + 4",
        "2   Ledger\t0x100000404 main + 260",
        "3   Ledger\t0x100000408 main + 264",
        "4   Ledger\t0x10000040c told(int,",
        "int,",
        "int) + 4",
        "5   Ledger\t0x100000410 main + 272",
    ]


def test_a_backtrace_of_bare_addresses_becomes_lines() -> None:
    bare = f"Last Exception Backtrace:\n({LEDGER + 0x304:#x} {KIT + 8 | 0x2A << 56:#x} 0x10)\n"
    written = rewrite(report("???\t0x10", thrown=bare), {("Ledger", 0x300): MAIN})
    assert written.splitlines()[2:6] == [
        "Last Exception Backtrace:",
        "0   Ledger                        \t0x0000000100000304 main + 4",
        "1   libsystem.dylib               \t0x2a00000180000008 0x180000000 + 8",
        "2   ???                           \t0x0000000000000010 0x0 + 16",
    ]
    assert bare in rewrite(report("???\t0x10", thrown=bare), {})


def test_a_second_report_in_the_file_is_of_another_process() -> None:
    text = report(f"Ledger\t{LEDGER + 0x300:#x} 0x100000000 + 768")
    places = {("Ledger", 0x300): MAIN}
    second = "Process: Other [1]\n" + text
    assert rewrite(f"Process: Ledger [2]\n{text}\n{second}", places) == (
        f"Process: Ledger [2]\n{rewrite(text, places)}\n{second}"
    )


def ips(frames: list[tuple[int, int]], *, separators: tuple[str, str] = (",", ":"), **more: Any) -> str:
    listed = [{"imageOffset": offset, "imageIndex": image} for image, offset in frames]
    images = [
        {"base": base, "size": 65536, "uuid": f"{n:032x}", "path": path, "source": "P"}
        for n, (base, path) in enumerate([(LEDGER, "/x/Ledger"), (KIT, "/usr/lib/libsystem.dylib")], 1)
    ]
    body = {"uptime": 1e2, "cpuType": "ARM-64", "usedImages": images, **more, "threads": [{"id": 1, "frames": listed}]}
    text = json.dumps(body, separators=separators).replace("/", "\\/")
    return '{"bug_type":"309","name":"Ledger"}\n' + text.replace("100.0", "1.0E+02") + "\nModel: Mac14,7\n"


def test_json_changes_nothing_but_frames() -> None:
    text = ips([(1, 0x40), (0, 0x204), (0, 0x310)])
    written = rewrite(text, {("Ledger", 0x200): INLINED, ("Ledger", 0x30C): MAIN})
    before, after = text.split('{"imageOffset":516,"imageIndex":0},{"imageOffset":784,"imageIndex":0}')
    assert written == (
        f'{before}{{"imageOffset":516,"imageIndex":0,"symbol":"Money.adding(_:) + 1","symbolLocation":0,'
        f'"sourceLine":41,"sourceFile":"Money.swift","inline":true}},'
        f'{{"imageOffset":516,"imageIndex":0,"symbol":"Money.sum()","symbolLocation":0,'
        f'"sourceLine":17,"sourceFile":"Money.swift","inline":true}},'
        f'{{"imageOffset":516,"imageIndex":0,"symbol":"Ledger.post(to:)","symbolLocation":260,'
        f'"sourceLine":208,"sourceFile":"Entry.swift"}},'
        f'{{"imageOffset":784,"imageIndex":0,"symbol":"main","symbolLocation":16}}{after}'
    )


def test_json_is_written_as_it_is_laid_out() -> None:
    text = ips([(0, 0x300)], separators=(", ", " : "))
    assert '{"imageOffset" : 768, "imageIndex" : 0, "symbol" : "main", "symbolLocation" : 0}]' in rewrite(
        text, {("Ledger", 0x300): MAIN}
    )


def test_all_backtraces_of_json_are_named() -> None:
    frame = {"imageOffset": 0x304, "imageIndex": 0, "symbol": "", "symbolLocation": 1, "x": [1, {"y": "}"}]}
    asi = [f"0   Ledger\t{LEDGER + 0x304:#x} 0x100000000 + 772\n1   libsystem.dylib\t{KIT + 8:#x} told + 8\n"]
    text = ips([], lastExceptionBacktrace=[frame], asiBacktraces=asi)
    body = json.loads(rewrite(text, {("Ledger", 0x300): MAIN}).partition("\n")[2].rpartition("\nModel")[0])
    assert body["lastExceptionBacktrace"] == [frame | {"symbol": "main", "symbolLocation": 4}]
    assert body["asiBacktraces"] == [asi[0].replace("0x100000000 + 772", "main + 4")]


@pytest.mark.parametrize("escaped", ["\\ud800", "\\udcff", "\\ud83d\\ude00"])
def test_escapes_of_half_characters_stay_beside_bytes_that_are_no_text(escaped: str) -> None:
    asi = [f"0   Ledger\t{LEDGER + 0x304:#x} 0x100000000 + 772\n1   ???\t0x1 @ $ é\n"]
    data = ips([], asiBacktraces=asi).encode().replace(b"@", escaped.encode()).replace(b"$", b"\xfe")
    written = rewritten(data, name_report(parse_report(data, "x"), KnownNames({("Ledger", 0x300): MAIN})))
    assert b"main + 4" in written
    (line,) = (line for line in written.split(b"\n") if b"main + 4" in line)
    assert b"\xfe" in line
    assert json.loads(f'"{escaped}"') in json.loads(line.replace(b"\xfe", b"$"))["asiBacktraces"][0]


def test_early_frames_that_are_lists_get_names_as_objects() -> None:
    text = ips([(0, 0x300)]).replace('{"imageOffset":768,"imageIndex":0}', "[ 0 , 768 ] , [1,0]")
    assert '[{"imageOffset":768,"imageIndex":0,"symbol":"main","symbolLocation":0} , [1,0]]' in rewrite(
        text, {("Ledger", 0x300): MAIN}
    )


def test_a_second_json_report_in_the_file_is_of_another_process() -> None:
    text, places = ips([(0, 0x300), (0, 0x304)]).removesuffix("\nModel: Mac14,7\n"), {("Ledger", 0x300): MAIN}
    assert rewrite(f"{text}\n{text}\n", places) == f"{rewrite(text, places)}\n{text}\n"


@pytest.mark.parametrize("again", ["threads", "\\u0074hreads", "frames", "lastExceptionBacktrace"])
def test_of_a_key_that_comes_twice_the_last_counts(again: str) -> None:
    """As for everybody who reads JSON; what was written under it before stays."""
    frame = '{"imageOffset":772,"imageIndex":0}'
    thrown = [{"imageOffset": 772, "imageIndex": 0}]
    text, places = ips([(0, 0x300)], lastExceptionBacktrace=thrown), {("Ledger", 0x300): MAIN}
    stale = f'[{{"frames":[{frame}]}}]' if "hreads" in again else f"[{frame}]"
    where = '"frames":' if again == "frames" else '"usedImages":'
    doubled = text.replace(where, f'"{again}":{stale},{where}', 1)
    assert rewrite(doubled, places) == rewrite(text, places).replace(where, f'"{again}":{stale},{where}', 1)


@pytest.mark.parametrize("pair", ['{space}"z":1', '"z"{space}:1'], ids=["comma", "colon"])
def test_white_space_of_megabytes_is_not_repeated(pair: str) -> None:
    pairs = ",".join(f'"k{n}":1' for n in range(300))
    frame = pair.format(space=" " * 200_000)
    named = '{"imageOffset":512,"imageIndex":0'
    text = ips([(0, 0x200)]).replace(named, f"{{{frame},{pairs},{named[1:]},{frame}")
    written = rewrite(text, {("Ledger", 0x200): INLINED})
    assert "Money.sum()" in written
    assert len(written) < 2 * len(text)
    frames = json.loads(written.partition("\n")[2].rpartition("\nModel")[0])["threads"][0]["frames"]
    assert [f["symbol"] for f in frames] == ["Money.adding(_:) + 1", "Money.sum()", "Ledger.post(to:)"]


def test_escapes_of_megabytes_take_no_more_memory_than_other_text() -> None:
    text = ips([(0, 0x300)], asi={"Ledger": ["\n" * 200_000]})
    named = name_report(parse_report(text, "x"), KnownNames({("Ledger", 0x300): MAIN}))
    tracemalloc.start()
    try:
        assert '"symbol":"main"' in rewritten(text.encode(), named).decode()
        assert tracemalloc.get_traced_memory()[1] < 20 * len(text)
    finally:
        tracemalloc.stop()


def test_frames_that_are_no_list_stay() -> None:
    frames = '{"a":{"imageOffset":772,"imageIndex":0},"b":{"imageOffset":772,"imageIndex":0}}'
    text = ips([(0, 0x300), (0, 0x304)], lastExceptionBacktrace="x").replace('"x"', frames)
    assert frames in rewrite(text, {("Ledger", 0x300): MAIN})


def test_what_symbolicated_already_says_as_much_stays_as_it_is() -> None:
    text = report(f"Ledger\t{LEDGER + 0x300:#x} told::main() + 0 (main.c:3)")
    assert rewrite(text, {("Ledger", 0x300): function("main", 0x300, file="/x/main.c", line=4)}) == text


@pytest.mark.parametrize(
    "data", [b"\xef\xbb\xbf", b"words \xff\xfe\xc3\n\n", "\ufeff".encode("utf-16-le")], ids=["bom", "bytes", "utf-16"]
)
def test_bytes_that_are_no_text_stay(data: bytes) -> None:
    text = report(f"Ledger\t{LEDGER + 0x300:#x} 0x100000000 + 768")
    encoding = "utf-16-le" if data.startswith(b"\xff\xfe") else "utf-8"
    named = name_report(parse_report(text, "x"), KnownNames({("Ledger", 0x300): MAIN}))
    assert rewritten(data + text.encode(encoding), named) == data + text.replace(
        "0x100000000 + 768", "main + 0"
    ).encode(encoding)


def test_utf_16_that_ends_amid_a_character() -> None:
    text = "\ufeff" + report(f"Ledger\t{LEDGER + 0x300:#x} 0x100000000 + 768")
    data = text.encode("utf-16-le") + b"\r"
    named = name_report(parse_report(data, "x"), KnownNames({("Ledger", 0x300): MAIN}))
    assert rewritten(data, named) == text.replace("0x100000000 + 768", "main + 0").encode("utf-16-le") + b"\r"


def remade() -> list[Path]:
    folder = os.environ.get("SYMCACHE_TEST_REPORTS")
    return sorted(p for p in Path(folder).iterdir() if p.suffix in {".ips", ".crash"}) if folder else []


def test_reports_of_all_kinds_say_the_same_with_names() -> None:
    """Every form that is read can be written: what comes back has the names, and all else as before."""
    if not remade():
        pytest.skip("SYMCACHE_TEST_REPORTS is not set")
    count = 0
    for path in remade():
        try:
            read = read_report(path)
        except SymcacheError:
            continue
        data = path.read_bytes()
        assert rewritten(data, name_report(read, KnownNames({}))) == data, path
        named = name_report(read, everything)
        again = parse_report(rewritten(data, named).decode("utf-8-sig"), path.name)
        stacks = [*(t.frames for t in again.threads), again.last_exception, *again.application_backtraces]
        ours = [*named.threads, named.last_exception, *named.application_backtraces]
        for stack, frames in zip(stacks, ours, strict=True):
            assert [f.address for f in stack if not f.inlined] == [f.address for f in frames if not f.inlined], path
            lines = [f.line for f in frames if f.image is not None and f.source]
            assert all(lines), path
            assert sum(f.line is not None for f in stack) >= len(lines), path
        assert (again.images, again.exception, again.registers) == (read.images, read.exception, read.registers), path
        assert again.notes == read.notes, path
        count += 1
    assert count > 30
