"""The names that a crash report itself has, and how they get to the user where no binary knows better ones."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from typer.testing import CliRunner

from symcache.cli.app import application
from symcache.dump import analyze
from symcache.dump.html import to_html
from symcache.resolve import ChainResolver, FolderResolver
from tests.dump.systems import ASSETS
from tests.dump.test_corpus import truth
from tests.reports.writers import crash, ips, thrown

WRITERS = pytest.mark.parametrize("write", [ips, crash])


def with_names(write: Any, real: dict[str, Any]) -> str:
    """Return a report whose writer had symbols: of every function, and lines of the program's own."""
    text: str = write(real)
    if write is crash:
        return text  # it has them
    head, _, rest = text.partition("\n")
    body = json.loads(rest)
    for thread, true in zip(body["threads"], real["threads"], strict=True):
        for frame, known in zip(thread["frames"], true["frames"], strict=True):
            frame |= {"symbol": known["function"], "symbolLocation": 12}
            if known["file"]:
                frame |= {"sourceFile": "some file.c", "sourceLine": 1}
    return f"{head}\n{json.dumps(body)}"


def renamed(real: dict[str, Any]) -> dict[str, Any]:
    """Return a crash with other names of functions, as no binary has them."""
    told = copy.deepcopy(real)
    for thread in told["threads"]:
        for frame in thread["frames"]:
            frame["function"] = f"told::{frame['function']}(int) + closure #1"
    return told


@WRITERS
def test_names_of_the_report_where_nobody_has_binaries(write: Any, tmp_path: Path) -> None:
    real = renamed(truth("arm64"))
    path = tmp_path / "x.txt"
    path.write_text(with_names(write, real))
    analysis = analyze(path, FolderResolver([]))
    assert [(f.function, f.offset, f.file, f.line) for t in analysis.threads for f in t.frames] == [
        (f["function"], 12, *(("some file.c", 1) if f["file"] else ("", None)))
        for t in real["threads"]
        for f in t["frames"]
    ]
    report = analysis.to_json()
    top = report["threads"][0]["frames"][0]
    first = real["threads"][real["crashed_thread"]]["frames"][0]
    module = first["module"].rpartition("/")[2]
    assert (top["function"], top["offset"], top["module"]) == (first["function"], 12, module)
    assert f"{module}`{first['function']}" in report["signature"]["frames"]
    assert first["function"] in to_html([report])


def test_names_of_the_report_are_printed(tmp_path: Path) -> None:
    path = tmp_path / "x.crash"
    path.write_text(crash(renamed(truth("x86_64"))))
    done = CliRunner().invoke(application("analyze"), ["analyze", str(path)])
    words = " ".join(done.output.split())
    assert "Ledger`told::main(int) + closure #1 + 12 at some file.c:1" in words
    assert "their frames have only the names that the report itself has" in words


@pytest.mark.parametrize(("arch", "write"), [("arm64", ips), ("x86_64", crash)])
def test_binaries_know_better(arch: str, write: Any, system: Any, tmp_path: Path) -> None:
    """Where one tells as much as the report does, its name counts; what it does not know stays as the report has it."""
    real = truth(arch)
    path = tmp_path / "x.txt"
    path.write_text(with_names(write, renamed(real)))
    frames = [f for t in real["threads"] for f in t["frames"]]
    told = [f for t in renamed(real)["threads"] for f in t["frames"]]
    app = FolderResolver([ASSETS / "app" / arch])
    known = analyze(path, ChainResolver([app, system]))
    assert [(f.function, f.file, f.line) for t in known.threads for f in t.frames] == [
        (f["function"], f["file"] or "", f["line"]) for f in frames
    ]
    # Both are shown where they contradict each other.
    assert [f.other_function for t in known.threads for f in t.frames] == [f["function"] for f in told]
    assert known.to_json()["threads"][0]["frames"][0]["other_function"].startswith("told::")
    assert ">or told::" in to_html([known.to_json()]).replace("&gt;", ">")
    alone = analyze(path, app)
    assert [f.function for t in alone.threads for f in t.frames] == [
        f["function"] if "Ledger" in f["module"] else other["function"] for f, other in zip(frames, told, strict=True)
    ]


@pytest.mark.parametrize("write", [ips, crash])
def test_one_name_is_no_contradiction(write: Any, system: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text(with_names(write, truth("arm64")))
    known = analyze(path, ChainResolver([FolderResolver([ASSETS / "app" / "arm64"]), system]))
    assert {f.other_function for t in known.threads for f in t.frames} == {""}


def test_mangled_names_stand_beside(tmp_path: Path) -> None:
    names = {"main": "_ZN6Ledger4postEi", "start": "$s4main1fyyFyycfU_"}
    real = truth("arm64")
    for thread in real["threads"]:
        for frame in thread["frames"]:
            frame["function"] = names.get(frame["function"], frame["function"])
    path = tmp_path / "x.crash"
    path.write_text(crash(real))
    report = analyze(path, FolderResolver([])).to_json()
    shown = {frame["mangled"]: frame["function"] for thread in report["threads"] for frame in thread["frames"]}
    assert shown["_ZN6Ledger4postEi"] == "Ledger::post(int)"
    assert shown["$s4main1fyyFyycfU_"] == "closure #1 in f()"
    assert any("`Ledger::post(int)" in line for line in report["signature"]["frames"])
    assert "_ZN" not in "".join(report["signature"]["frames"])


def test_one_signature_with_and_without_binaries(system: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.crash"
    path.write_text(crash(truth("x86_64")))
    known = analyze(path, ChainResolver([FolderResolver([ASSETS / "app" / "x86_64"]), system]))
    assert analyze(path, FolderResolver([])).signature() == known.signature()


def test_lines_of_the_report_where_the_binary_has_none(tmp_path: Path) -> None:
    """A report that was symbolicated with the dSYM says more than the binary without it."""
    real = truth("arm64")
    path = tmp_path / "x.crash"
    path.write_text(crash(renamed(real)))
    for file in (ASSETS / "app" / "arm64").rglob("*"):
        if file.is_file() and ".dSYM" not in str(file):
            (tmp_path / "stripped").mkdir(exist_ok=True)
            shutil.copy(file, tmp_path / "stripped")
    analysis = analyze(path, FolderResolver([tmp_path / "stripped"]))
    own = [f for t in analysis.threads for f in t.frames if f.module and f.module.status == "have"]
    assert own
    assert {(f.function.startswith("told::"), f.file, f.line) for f in own} == {(True, "some file.c", 1)}


INLINED = [
    ("ledger::Money::sum() const", 12, "Money.h", 41, True),
    ("ledger::Money::operator+", 8, "Money.h", 17, True),
    ("LedgerKitPostEntry", 132, "Post.cpp", 208, False),
]


@WRITERS
def test_inlined_functions_of_the_report(write: Any, tmp_path: Path) -> None:
    """They have the address of the function that they were inlined into, and their own line each."""
    real = truth("x86_64")
    crashed = real["threads"][real["crashed_thread"]]["frames"]
    path = tmp_path / "x.txt"
    text: str = with_names(write, real)
    for place in (-1, 0):
        text = (inlined_text if write is crash else inlined_json)(text, real, place)
    path.write_text(text)
    frames = [
        (f.address, f.function, f.offset, f.file, f.line, f.inlined)
        for f in analyze(path, FolderResolver([])).crashed.frames
    ]
    assert len(frames) == len(crashed) + 4
    assert frames[:3] == [(crashed[0]["pc"], *one) for one in INLINED]
    assert frames[-3:] == [(crashed[-1]["pc"], *one) for one in INLINED]
    assert [f[0] for f in frames[3:-3]] == [f["pc"] for f in crashed[1:-1]]


def inlined_text(text: str, real: dict[str, Any], place: int) -> str:
    """Return a text report with functions inlined into one of the crashed thread."""
    counter = f"{real['threads'][real['crashed_thread']]['frames'][place]['pc']:#018x}"
    lines = text.splitlines()
    at = next(n for n, line in enumerate(lines) if f"\t{counter} " in line)
    front = lines[at].partition("\t")[0]
    lines[at : at + 1] = [
        f"{front}\t{counter} {name} + {offset}{' [inlined]' * inlined} ({file}:{line})"
        for name, offset, file, line, inlined in INLINED
    ]
    return "\n".join(lines)


def inlined_json(text: str, real: dict[str, Any], place: int) -> str:
    """Return a JSON report with functions inlined into one of the crashed thread."""
    head, _, rest = text.partition("\n")
    body = json.loads(rest)
    frames = body["threads"][real["crashed_thread"]]["frames"]
    at = place % len(frames)
    frames[at : at + 1] = [
        {key: frames[at][key] for key in ("imageIndex", "imageOffset")}
        | {"symbol": name, "symbolLocation": offset, "sourceFile": file, "sourceLine": line}
        | ({"inline": True} if inlined else {})
        for name, offset, file, line, inlined in INLINED
    ]
    return f"{head}\n{json.dumps(body)}"


@WRITERS
def test_a_frame_at_null_below_the_top(write: Any, system: Any, tmp_path: Path) -> None:
    """As one stands below a signal handler's, and in an exception's backtrace: nothing lies in front of address 0."""
    real = truth("x86_64")
    null = {"pc": 0, "module": "", "function": "", "file": None, "line": None}
    real["modules"] = [*real["modules"]]
    for thread in real["threads"]:
        thread["frames"] = [thread["frames"][0], null, *thread["frames"][1:], null]
    path = tmp_path / "x.txt"
    path.write_text(null_as_apple_writes_it(write, real))
    analysis = analyze(path, ChainResolver([FolderResolver([ASSETS / "app" / "x86_64"]), system]))
    assert [[(f.address, f.function) for f in t.frames] for t in analysis.threads] == [
        [(f["pc"], f["function"]) for f in t["frames"]] for t in real["threads"]
    ]
    assert [f.address for f in analysis.last_exception] == [0, real["threads"][0]["frames"][2]["pc"], 0]
    report = analysis.to_json()
    second = report["threads"][0]["frames"][1]
    assert (second["address"], second["module"], second["module_offset"], second["function"]) == (
        "0x0",
        None,
        None,
        None,
    )
    assert '<td class="quiet">0x0</td>' in to_html([report])


def null_as_apple_writes_it(write: Any, real: dict[str, Any]) -> str:
    """Return a report with frames at null, an exception's among them: zeros in text, image and offset in JSON."""
    frames = [real["threads"][0]["frames"][n] for n in (1, 2, 1)]
    if write is crash:
        text = thrown(crash, real, frames)
        zeros = "0" * 18
        return text.replace(f"{'':<30}\t{0:#018x}", f"{'???':<30}\t{zeros}").replace(f"{zeros}  + 12", f"{zeros} 0 + 0")
    nowhere = "nowhere"
    for frame in (f for t in real["threads"] for f in t["frames"] if not f["pc"]):
        frame["module"] = nowhere
    real["modules"].append([nowhere, "0" * 32, 0])
    text = thrown(ips, real, frames)
    real["modules"].pop()
    head, _, rest = text.partition("\n")
    body = json.loads(rest)
    body["usedImages"][len(real["modules"])] = {"source": "A", "base": 0, "size": 0, "uuid": str(UUID(int=0))}
    return f"{head}\n{json.dumps(body)}"


def test_a_frame_is_in_the_image_that_the_report_says(tmp_path: Path) -> None:
    """Images may lie in others, as libraries in the shared cache that is listed as one."""
    images = [
        {"base": 0x180000000, "size": 0x10000000, "source": "S", "uuid": str(UUID(int=1))},
        {"base": 0x180001000, "size": 0x1000, "source": "C", "uuid": str(UUID(int=2)), "path": "/usr/lib/libz.dylib"},
    ]
    frames = [{"imageIndex": 0, "imageOffset": offset} for offset in (0x40, 0x1800, 0x5000)]
    frames.append({"imageIndex": 1, "imageOffset": 0x800})
    path = tmp_path / "x.ips"
    body = {
        "procPath": "/x/Ledger",
        "usedImages": images,
        "threads": [{"triggered": True, "frames": frames}],
        "cpuType": "ARM-64",
    }
    path.write_text('{"bug_type": "308"}\n' + json.dumps(body))
    report = analyze(path, FolderResolver([])).to_json()
    (thread,) = report["threads"]
    assert [m["path"] for m in report["modules"]] == [None, "/usr/lib/libz.dylib"]  # the first is no executable
    assert [(f["uuid"], f["module_offset"]) for f in thread["frames"]] == [
        *((str(UUID(int=1)), offset) for offset in (0x40, 0x1800, 0x5000)),
        (str(UUID(int=2)), 0x800),
    ]
