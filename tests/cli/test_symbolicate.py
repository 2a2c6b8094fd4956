"""`symcache symbolicate`: as atos is used, and for reports."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import Result
from typer.testing import CliRunner

from symcache.cli.app import application
from symcache.macho import identify
from tests.client.lying_server import LyingServer
from tests.dump.systems import ASSETS
from tests.dump.test_corpus import truth
from tests.reports.writers import crash, ips

APP = ASSETS / "app" / "arm64"
DSYM = APP / "LedgerKit.framework.dSYM"
(BINARY,) = (path for path in (APP / "Ledger.app").rglob("LedgerKit") if path.is_file())
UUID = str(identify(BINARY)[0].uuid)
REAL = truth("arm64")
KIT = next((path, base) for path, _, base in REAL["modules"] if path.endswith("/LedgerKit"))
CALLS = [
    (frame["pc"] - 4, frame)
    for thread in REAL["threads"]
    for frame in thread["frames"][1:]
    if frame["module"] == KIT[0]
]
"""Addresses of calls, and what the compiler knows of them."""

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("SYMCACHE_CACHE_DIR", str(tables))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "nobody"))
    monkeypatch.delenv("SYMCACHE_LIBRARY", raising=False)
    monkeypatch.delenv("SYMCACHE_URL", raising=False)

    def invoke(*arguments: object, input: str | bytes | None = None) -> Result:
        return CliRunner().invoke(application("symbolicate"), ["symbolicate", *map(str, arguments)], input=input)

    return invoke


def expected(*, full: bool = False) -> list[str]:
    lines = []
    for _, frame in CALLS:
        file = frame["file"] if full else frame["file"].rpartition("/")[2]
        lines.append(f"{frame['function']} (in LedgerKit) ({file}:{frame['line']})")
    return lines


def unnamed(write: Any) -> str:
    """Return a report whose writer had no symbols."""
    if write is ips:
        return ips(truth("arm64"))
    real = truth("arm64")
    for frame in (frame for thread in real["threads"] for frame in thread["frames"]):
        frame |= {"function": "0x1", "file": None}
    return crash(real)


@pytest.mark.parametrize("of", [DSYM, BINARY, UUID], ids=["dsym", "binary", "uuid"])
def test_addresses_as_atos_takes_them(of: object, run: Run, tmp_path: Path) -> None:
    """A dSYM is found beside the bundle that a binary is in; of a UUID, in folders of own files."""
    if of == BINARY:
        of = shutil.copytree(BINARY.parents[2], tmp_path / "LedgerKit.framework") / "Versions" / "A" / "LedgerKit"
        shutil.copytree(DSYM, tmp_path / DSYM.name)
    folders = ["--symbols", APP] if of == UUID else []
    addresses = [f"{address:#x}" for address, _ in CALLS]
    done = run("-o", of, "-arch", "arm64", "-l", f"{KIT[1]:x}", *folders, *addresses)
    image = UUID if of == UUID else "LedgerKit"
    assert done.stdout.splitlines() == [line.replace("(in LedgerKit)", f"(in {image})") for line in expected()]
    assert done.exit_code == 0


def test_a_binary_near_the_root(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("symcache.cli.addresses._PARENTS", 100)
    done = run("-o", BINARY, "-l", hex(KIT[1]), hex(CALLS[0][0]))
    assert (done.exit_code, done.stderr) == (0, "")


def test_addresses_of_standard_input(run: Run) -> None:
    text = "".join(f"{address:#x}\n" for address, _ in CALLS)
    done = run("-o", DSYM, "-l", hex(KIT[1]), "-fullPath", input=f"{text}0x1 \x1b[31m\n")
    assert done.stdout.splitlines() == [*expected(full=True), "0x1", "\\x1b[31m"]


def test_offsets_and_linked_addresses(run: Run) -> None:
    (address, frame), *_ = CALLS
    offset = address - KIT[1]
    line = f"{frame['function']} (in LedgerKit)"
    assert run("-o", DSYM, "-offset", hex(offset)).stdout.startswith(line)
    assert run("-o", DSYM, str(offset)).stdout.startswith(line)  # it is linked for 0, and digits alone are decimal
    assert run("-o", UUID, hex(offset), "--symbols", APP).stdout.startswith(frame["function"])
    refused = run("-o", UUID, hex(offset))
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "name its address with -l" in refused.stderr


def test_what_a_stripped_binary_does_not_name(run: Run, tmp_path: Path) -> None:
    stripped = tmp_path / "LedgerKit"
    stripped.write_bytes(BINARY.read_bytes())
    done = run("-o", stripped, "-l", hex(KIT[1]), *(hex(address) for address, _ in CALLS))
    names = [line.partition(" (in LedgerKit) + ")[0] for line in done.stdout.splitlines()]
    assert "LKBookSort" in names
    for name, (_, frame) in zip(names, CALLS, strict=True):
        assert name == frame["function"] or re.fullmatch("fun_[0-9a-f]+", name)


def test_addresses_as_json(run: Run) -> None:
    (address, frame), *_ = CALLS
    (row, other) = json.loads(run("-o", DSYM, "-l", hex(KIT[1]), "--json", hex(address), "x").stdout)
    assert (row["function"], row["file"], row["line"], row["source"], row["module_offset"]) == (
        frame["function"],
        frame["file"],
        frame["line"],
        "dwarf",
        address - KIT[1],
    )
    assert (other["address"], other["function"]) == ("x", None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "/nowhere/Ledger", "-l", "1", "0x1"], "/nowhere/Ledger: is no binary, dSYM or UUID"),
        (["-i", "0x1"], "addresses of which image?"),
        (["-o", BINARY, "-arch", "x86_64", "0x1"], "has no such image"),
        (["-o", BINARY, "-l", "start", "0x1"], "'start': is no address"),
        (["-o", ASSETS, "/nowhere/x.ips"], "/nowhere/x.ips: no such file"),
        ([ASSETS], "is a folder where a report was expected"),
    ],
)
def test_what_cannot_be_meant(arguments: list[Any], said: str, run: Run) -> None:
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.split())


@pytest.mark.parametrize("write", [ips, crash])
def test_a_report_from_standard_input_to_standard_output(write: Any, run: Run, tmp_path: Path) -> None:
    text = unnamed(write)
    done = run("--symbols", APP, input=text)
    assert done.exit_code == 0
    assert done.stdout != text
    known = [frame for thread in REAL["threads"] for frame in thread["frames"] if frame["file"]]
    written = tmp_path / "x"
    written.write_text(done.stdout)
    again = json.loads(run("--json", written).stdout)
    assert again["report"] == str(written)
    frames = [frame for thread in again["threads"] for frame in thread["frames"] if frame["line"]]
    assert [(f["function"], f["file"], f["line"], f["source"]) for f in frames] == [
        (f["function"], f["file"].rpartition("/")[2], f["line"], "report") for f in known
    ]
    assert "CoreFoundation" in done.stderr


def test_reports_into_a_folder(run: Run, tmp_path: Path) -> None:
    """What is wrong with one is its own; those of one name have numbers; no report is replaced by itself."""
    reports = [tmp_path / name / "Ledger.ips" for name in ("a", "b", "c")]
    for report in reports:
        report.parent.mkdir()
        report.write_text(unnamed(ips))
    reports[1].write_text("{}")
    out = tmp_path / "out"
    done = run("--symbols", APP, "-o", out, *reports)
    assert done.exit_code == 1
    assert sorted(path.name for path in out.iterdir()) == ["Ledger.2.ips", "Ledger.ips"]
    assert (out / "Ledger.ips").read_bytes() == (out / "Ledger.2.ips").read_bytes() != reports[0].read_bytes()
    assert done.stdout.splitlines() == [f"{reports[n]}: 5 of 16 addresses are named" for n in (0, 2)]
    assert f"{reports[1]}: is no crash report" in " ".join(done.stderr.split())
    done = run("--symbols", APP, "-o", out, "--json", *reports)
    assert json.loads((out / "Ledger.ips.2.json").read_text())["error"]
    done = run("--symbols", APP, "--json", *reports)
    assert ["error" in one for one in json.loads(done.stdout)] == [False, True, False]
    refused = run("--symbols", APP, "-o", tmp_path / "a", reports[0])
    assert "would be replaced by itself" in " ".join(refused.stderr.split())
    assert reports[0].read_text() == unnamed(ips)


def test_no_report_is_written_over_another(run: Run, tmp_path: Path) -> None:
    names = ["1/a.ips", "2/a.ips", "3/a.2.ips", "4/A.IPS"]
    for name in names:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(unnamed(ips))
    done = run("-o", tmp_path / "out", *(tmp_path / name for name in names))
    assert done.exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["A.3.IPS", "a.2.2.ips", "a.2.ips", "a.ips"]


@pytest.mark.parametrize("form", ["own", "text", "json"])
def test_a_report_that_cannot_be_written_ends_no_batch(
    form: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*_: object) -> bytes:
        raise RecursionError("too deep")

    for name in ("rewritten", "report_text", "report_json"):
        monkeypatch.setattr(f"symcache.symbolicate.{name}", faulty)
    reports = [tmp_path / "a.ips", tmp_path / "b.ips"]
    for report in reports:
        report.write_text(unnamed(ips))
    done = run("--format", form, *reports)
    assert done.exit_code == 3
    assert done.stderr.count("too deep") == 2
    if form == "json":
        assert ["error" in one for one in json.loads(done.stdout)] == [True, True]


def test_a_missing_module_is_listed_once(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some reports have only a part of an image's path, or none."""
    monkeypatch.setattr("symcache.cli.dumps._NAMED", 1)
    texts = [unnamed(ips).replace(f'"{KIT[0]}"', f'"{path}"') for path in ("", KIT[0], "/x/Kit")]
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.ips").write_text(text)
    count = len({frame["module"] for thread in REAL["threads"] for frame in thread["frames"]})
    done = run(*(tmp_path / f"{number}.ips" for number in range(3)))
    assert f"missing: {count} modules of 3 reports" in done.stderr
    assert f"and {count - 1} more (`symcache symbolicate --json` lists all)" in done.stderr


def test_what_a_server_gives_a_reason_for_is_said_once(run: Run) -> None:
    """That a release should be harvested is no advice where the server says what is wrong with it."""
    kit = UUID.upper()

    async def failing(request: web.Request) -> web.StreamResponse:
        (job,) = json.loads(await request.text())["jobs"]
        keys = [f"{name}/{identity}" for name, identity in job["memoryMap"]]
        errors = {key: [{"name": "Error", "message": "is damaged"}] for key in keys if kit.replace("-", "") in key}
        stacks = [[{} for _ in stack] for stack in job["stacks"]]
        return web.json_response({"results": [{"stacks": stacks, "found_modules": {}, "module_errors": errors}]})

    with LyingServer(failing) as server:
        done = run("--server", server.url, input=unnamed(ips))
    assert "LedgerKit: is damaged" in done.stderr
    missing = done.stderr.partition("missing:")[2]
    assert missing
    assert kit not in missing


def test_text_of_one_layout(run: Run) -> None:
    texts = [run("--symbols", APP, "--format", "text", input=unnamed(write)).stdout for write in (ips, crash)]
    stacks = [text[text.index("Thread 0") : text.index(" crashed with")].splitlines() for text in texts]
    names = [[line.partition("\t")[2] for line in stack if "\t" in line] for stack in stacks]
    assert names[0] == names[1]
    assert sum("main.c:" in name or "LedgerKit.c:" in name for name in names[0]) == 5
