"""Thousands of crash reports at a time: each has its own verdict, and the same crash is one group."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from symcache.cli.app import application

UUID = "e68de610-908a-4061-9f1d-429bde8842d7"
LINE = '{"app_name": "Ledger", "bug_type": "309", "os_version": "macOS 15.4 (24E248)"}\n'


def ips(base: int, *functions: str, signal: str = "SIGSEGV") -> str:
    frames = [{"imageIndex": 0, "imageOffset": 64 + n, "symbol": name} for n, name in enumerate(functions)]
    body = {
        "cpuType": "ARM-64",
        "faultingThread": 0,
        "exception": {"type": "EXC_BAD_ACCESS", "signal": signal},
        "threads": [{"frames": frames}],
        "usedImages": [{"base": base, "size": 4096, "uuid": UUID, "path": "/x/Ledger"}],
    }
    return LINE + json.dumps(body)


def crash(base: int, *functions: str) -> str:
    lines = [f"{n:<4}{'Ledger':<30}\t{base + 64 + n:#x} {name} + 4" for n, name in enumerate(functions)]
    head = "Process: Ledger [1]\nCode Type: ARM-64 (Native)\nException Type: EXC_BAD_ACCESS (SIGSEGV)\n\n"
    images = f"Binary Images:\n{base:#x} - {base + 4095:#x} Ledger (*) <{UUID}> /x/Ledger\n"
    return "\n".join([head + "Thread 0 Crashed:", *lines, "", images])


@pytest.fixture
def reports(tmp_path: Path) -> list[str]:
    """Three reports of one crash, one of another, and a file that is of none."""
    texts = {
        "b/x.ips": ips(0x3000, "save", "main"),
        "a/x.ips": ips(0x1000, "post", "main"),
        "a/y.ips": ips(0x2000, "post", "main"),
        "a/y.crash": crash(0x5000, "post", "main"),
        "panic.ips": '{"bug_type": "210"}\n{}',
    }
    for name, text in texts.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return [str(tmp_path / name) for name in texts]


def analyze(*options: str) -> Result:
    return CliRunner().invoke(application("analyze"), ["analyze", *options])


def test_signatures_the_most_frequent_first(reports: list[str]) -> None:
    done = analyze("--group", "--json", *reports)
    assert done.exit_code == 1  # for the panic
    told = json.loads(done.stdout)
    assert [(g["count"], g["signature"]["frames"], g["dumps"]) for g in told["groups"]] == [
        (3, ["SIGSEGV", "Ledger`post", "Ledger`main"], reports[1:4]),
        (1, ["SIGSEGV", "Ledger`save", "Ledger`main"], reports[:1]),
    ]
    assert [failed["dump"] for failed in told["failed"]] == reports[4:]
    text = analyze("--group", *reports).stdout
    assert text.index("3 ") < text.index("Ledger`post") < text.index("Ledger`save")
    assert "1  not analyzed" in text


def test_a_file_for_each(reports: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "findings"
    done = analyze("-o", str(folder), *reports)
    assert done.exit_code == 1
    names = ["panic.ips.json", "x.ips.2.json", "x.ips.json", "y.crash.json", "y.ips.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    found = {name: json.loads((folder / name).read_text()) for name in names}
    assert [found[name]["dump"] for name in ("x.ips.json", "x.ips.2.json")] == reports[:2]
    assert "panic" in found["panic.ips.json"]["error"]
    assert found["y.ips.json"]["signature"] == found["y.crash.json"]["signature"]
    lines = done.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == reports[:4]
    assert found["x.ips.json"]["signature"]["id"] in lines[0]


def test_files_and_groups_and_pages(reports: list[str], tmp_path: Path) -> None:
    done = analyze("-o", str(tmp_path / "out"), "--group", "--html", *reports)
    assert "Ledger`post" in done.stdout
    page = (tmp_path / "out" / "x.ips.html").read_text()
    assert "Ledger" in page
    assert "<html" in page
    listed = json.loads(analyze("-o", str(tmp_path / "out"), "--json", *reports).stdout)
    assert [(one["dump"], Path(one["file"]).name) for one in listed[:2]] == [
        (reports[0], "x.ips.json"),
        (reports[1], "x.ips.2.json"),
    ]
    assert "error" in listed[4]


@pytest.mark.parametrize("options", [["--json", "--html"], ["--group", "--html"]])
def test_what_excludes_each_other(options: list[str], reports: list[str]) -> None:
    done = analyze(*options, *reports)
    assert done.exit_code == 2
    assert "exclude each other" in done.stderr


def test_a_list_is_printed_piece_by_piece(reports: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of findings are never in memory at a time."""
    from symcache.cli import analysis_output

    pieces: list[str] = []

    def emitted(document: str) -> None:
        pieces.append(document)

    monkeypatch.setattr(analysis_output, "emit_text", emitted)
    done = analyze("--json", *reports)
    assert done.exit_code == 1
    assert len(pieces) == len(reports) + 1
    whole: list[dict[str, Any]] = json.loads("".join(pieces))
    assert [one["dump"] for one in whole] == reports
    assert "".join(pieces) == json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def test_names_in_files_cannot_drive_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "x.ips"
    path.write_text(ips(0x1000, "\x1b[31mevil\u202e", "main"))
    done = analyze("-o", str(tmp_path / "out"), "--group", str(path))
    assert done.exit_code == 0
    assert "\x1b" not in done.stdout + (tmp_path / "out" / "x.ips.json").read_text()


def test_what_a_name_holds_is_the_same_in_a_list(tmp_path: Path) -> None:
    """U+2028 and U+0085 end lines in some eyes; in a name they are what they are."""
    paths = [tmp_path / "one.ips", tmp_path / "two.ips"]
    for path in paths:
        path.write_text(ips(0x1000, "post\u2028it\u0085now", "main"))
    listed = json.loads(analyze("--json", *map(str, paths)).stdout)
    alone = [json.loads(analyze("--json", str(path)).stdout) for path in paths]
    assert listed == alone


def test_no_file_takes_the_place_of_another(tmp_path: Path) -> None:
    paths = [tmp_path / "a/X.ips", tmp_path / "b/x.ips", tmp_path / "c/x.ips.2"]
    for path in paths:
        path.parent.mkdir()
        path.write_text(ips(0x1000, "post", "main"))
    assert analyze("-o", str(tmp_path / "out"), *map(str, paths)).exit_code == 0
    found = {path.name: json.loads(path.read_text())["dump"] for path in (tmp_path / "out").iterdir()}
    assert found == dict(zip(["X.ips.json", "x.ips.2.json", "x.ips.2.2.json"], map(str, paths), strict=True))


def test_a_folder_of_symbols_that_is_not_there_is_wrong_use(reports: list[str], tmp_path: Path) -> None:
    done = analyze("--symbols", str(tmp_path / "typo"), *reports)
    assert done.exit_code == 2
    assert f"{tmp_path / 'typo'}: no such file or folder" in done.stderr
