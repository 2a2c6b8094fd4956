"""`symcache remove` as a person and as a script use it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from symcache.cli.app import application
from symcache.library import Library, ingest
from symcache.model import ReleaseId
from tests.library.images import Image, harvest

app = application("remove")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    with Library.open(tmp_path / "library", create=True) as library:
        ingest(library, harvest(tmp_path / "1", [Image("/usr/lib/a", 1), Image("/usr/lib/b", 2)]))
        ingest(library, harvest(tmp_path / "2", [Image("/usr/lib/a", 1)], build="23A1", version="14.0"))
    return tmp_path / "library"


def _run(library: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["remove", *arguments, "--library", str(library)])


def _builds(library: Path) -> list[str]:
    with Library.open(library) as opened:
        return [r.build for r in opened.releases()]


def test_a_script_is_asked_nothing_and_can_undo(library: Path) -> None:
    done = _run(library, "22G120")
    assert done.exit_code == 0
    assert "1 record taken back" in done.stdout
    assert "symcache remove --undo 22G120" in done.stdout
    assert _builds(library) == ["23A1"]
    (listed,) = json.loads(_run(library, "--undo", "--json").stdout)
    assert (listed["build"], listed["source"]) == ("22G120", "test")
    assert listed["record"][:12] in _run(library, "--undo").stdout
    (back,) = json.loads(_run(library, "--undo", "22G120", "--json").stdout)
    assert (back["build"], back["removed"], back["sealed"], back["lost"]) == ("22G120", listed["record"], True, [])
    assert _builds(library) == ["23A1", "22G120"]
    assert _run(library, "--undo").stdout == "nothing is removed\n"


def test_a_build_of_two_systems_is_named_with_its_product(library: Path, tmp_path: Path) -> None:
    with Library.open(library) as opened:
        ingest(opened, harvest(tmp_path / "3", [Image("/usr/lib/a", 7)], version="18.6", product="iOS"))
    for arguments in (["22G120"], ["22G120", "--dry-run"], ["macOS:22G120", "22G120"]):
        refused = _run(library, *arguments)
        assert refused.exit_code == 2
        assert "22G120: is a build of iOS and of macOS" in refused.stderr
        assert "iOS:22G120, macOS:22G120" in refused.stderr
    assert list(json.loads(_run(library, "ios:22G120", "--dry-run", "--json").stdout)) == ["ios:22G120"]
    assert _run(library, "iOS:22G120", "iOS:22G120").exit_code == 0
    assert _builds(library) == ["23A1", "22G120"]
    assert json.loads(_run(library, "--undo", "--json").stdout)[0]["product"] == "iOS"
    assert _run(library, "--undo", "iOS:22G120").exit_code == 0


def test_a_dry_run_removes_nothing_and_says_what_would_go(library: Path) -> None:
    with Library.open(library) as opened:
        (record,) = opened.catalog.records_of(ReleaseId("macOS", "22G120"))
    plan = json.loads(_run(library, "22G120", "--dry-run", "--json").stdout)["22G120"]
    assert (plan["records"], plan["images"], plan["blobs"]) == ([record.sha256], 2, 1)
    soon = datetime.now(UTC) + timedelta(days=14)
    assert abs(datetime.fromisoformat(plan["expires"]) - soon) < timedelta(minutes=5)
    text = _run(library, "22G120", "--dry-run").stdout
    assert "1 record, 2 images; 1 file" in text
    assert f"{soon:%Y-%m-%d}" in text
    assert _builds(library) == ["23A1", "22G120"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [((), 2), (("--undo", "--dry-run"), 2), (("99Z9",), 1), (("99Z9", "--dry-run"), 1), (("--undo", "99Z9"), 1)],
)
def test_other_ends_have_their_codes(library: Path, arguments: tuple[str, ...], code: int) -> None:
    assert _run(library, *arguments).exit_code == code
    assert _builds(library) == ["23A1", "22G120"]


def test_what_is_lost_ends_with_1(library: Path) -> None:
    with Library.open(library) as opened:
        (only,) = opened.catalog.blobs_of_only([opened.catalog.records_of(ReleaseId("macOS", "22G120"))[0].id])
    _run(library, "22G120")
    next(library.glob(f"blobs/*/{only}*")).unlink()
    done = _run(library, "--undo", "22G120")
    assert done.exit_code == 1
    assert "1 content is served again (partial)" in done.stdout
    assert f"/usr/lib/b: its blob {only} is gone" in done.stderr


@pytest.mark.parametrize(
    ("options", "typed", "code", "left"),
    [
        ((), b"n\n", 1, ["23A1", "22G120"]),
        ((), b"y\n", 0, ["23A1"]),
        (("--yes",), b"", 0, ["23A1"]),
    ],
)
def test_a_person_is_asked(library: Path, options: tuple[str, ...], typed: bytes, code: int, left: list[str]) -> None:
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "symcache", "remove", "22G120", *options, "--library", str(library)]
    with subprocess.Popen(command, stdin=end, stdout=end, stderr=subprocess.PIPE, text=True) as process:
        os.write(terminal, typed)
        _, said = process.communicate(timeout=60)
    os.close(end)
    os.close(terminal)
    assert process.returncode == code
    assert ("1 record, 2 images; 1 file" in said) == (not options)
    assert _builds(library) == left
