"""The documentation of verification is that of this program."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer

from symcache.cli.app import application
from symcache.verify import Expectations, FindingCode, load_waivers

TEXT = (Path(__file__).parents[2] / "docs" / "verify.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)


def test_every_code_is_documented_once() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (?:catalog|blobs|bytes|`--)", TEXT, re.MULTILINE)
    codes = [row for row in rows if row not in {"catalog", "blobs", "bytes"}]
    assert sorted(codes) == sorted(code.value for code in FindingCode)


def test_the_tables_shown_are_accepted(tmp_path: Path) -> None:
    site, waiver = [text for kind, text in BLOCKS if kind == "toml"]
    assert "expect_builds" in tomllib.loads(site)
    (tmp_path / "releases.toml").write_text(site)
    assert Expectations.load(tmp_path / "releases.toml").expected_builds == ("22G830", "23H723")
    (tmp_path / "waivers.toml").write_text(waiver)
    assert len(load_waivers(tmp_path / "waivers.toml")) == 1


def commands() -> list[str]:
    text = "\n".join(text for kind, text in BLOCKS if kind in {"sh", "yaml"})
    return re.findall(r"symcache (?:verify|diff|missing)(?: [^\n#>|]*)?", text)


@pytest.mark.parametrize("line", commands())
def test_every_command_shown_has_the_options_it_is_shown_with(line: str) -> None:
    _, name, *arguments = shlex.split(line)
    command = typer.main.get_command(application(name)).commands[name]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {a for a in arguments if a.startswith("--")} <= known
