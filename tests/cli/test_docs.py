"""The documentation keeps up: every command is in the README, every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from symcache.cli.app import application, outline
from tests.reference.markdown import anchor

app = application()

ROOT = Path(__file__).resolve().parents[2]
LINKED = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [ROOT / "README.md", *(p for p in LINKED if p.parent != ROOT and p.parent.name != "reference")]
"""What people wrote: the reference has every command as it is."""


def _commands() -> dict[str, str]:
    """Return every visible command with its help text."""
    group = typer.main.get_command(app)
    assert hasattr(group, "commands")
    return {name: command.help or "" for name, command in group.commands.items() if not command.hidden}


@pytest.mark.parametrize("name", sorted(_commands()))
def test_every_command_is_documented(name: str) -> None:
    assert _commands()[name].strip(), "a command says what it does in its help"
    text = "\n".join(page.read_text() for page in PAGES)
    assert re.search(rf"symcache {name}\b", text), f"`symcache {name}` is in no page of the documentation"


def test_every_command_can_be_run_without_loading_the_others() -> None:
    from symcache.cli.command_list import COMMANDS

    assert sorted(COMMANDS) == sorted(typer.main.get_command(app).commands)
    for name, listed in COMMANDS.items():
        group = typer.main.get_command(application(name))
        assert set(getattr(group, "commands", {})) == {c.name for c in COMMANDS.values() if c.module == listed.module}


def test_the_help_that_loads_no_command_says_what_they_say_themselves() -> None:
    shown = CliRunner().invoke(outline(), ["--help"])
    assert shown.exit_code == 0
    assert shown.stdout == CliRunner().invoke(app, ["--help"]).stdout
    assert "lookup" in shown.stdout


@pytest.mark.parametrize("name", sorted(_commands()))
def test_every_command_explains_itself(name: str) -> None:
    shown = CliRunner().invoke(application(name), [name, "--help"])
    assert shown.exit_code == 0
    assert "--help" in shown.stdout


def _prose(page: Path) -> str:
    return re.sub(r"(?ms)^```.*?^```", "", page.read_text())


def _headings(page: Path) -> set[str]:
    """Return what links to the headings of a page end with."""
    return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)}


@pytest.mark.parametrize("page", LINKED, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, _, heading in re.findall(r"\]\(([^)#\s]*)(#([^)\s]+))?\)", _prose(page)):
        if "://" not in target:
            there = page.parent / target if target else page
            assert there.exists(), f"{page.name} links to {target}"
            assert not heading or heading in _headings(there), f"{page.name} links to {target}#{heading}"


def _installs(text: str) -> list[str]:
    """Return all that the lines of a text have pip and its like get: requirements, folders and URLs."""
    said = re.findall(r"(?:\b(?:pip[x3]?|uv)\b[\w \t-]*? (?:install|download|run|add)|\buvx) +([^`\n)&|;]+)", text)
    return [word.strip("'\",;:.") for line in said for word in line.partition("  #")[0].split()]


def test_what_is_installed_by_name_is_recognized() -> None:
    named = "- run: pip install -U symcache\n`python -m pip install 'symcache[s3]==1'`; uvx symcache; uv add symcache"
    assert [word for word in _installs(named) if re.match("symcache", word)] == [
        "symcache", "symcache[s3]==1", "symcache", "symcache",
    ]  # fmt: skip
    assert _installs("pip install /srv/symcache  # a clone of symcache\n") == ["/srv/symcache"]


@pytest.mark.parametrize("top", ["README.md", "Makefile", "docs", ".ci", "symcache", "server", "vm_provisioning"])
def test_nothing_says_to_install_our_name_from_an_index(top: str) -> None:
    """It is not ours there: whoever has it would be run. Recipes start from a clone, or a file that was made of one."""
    files = [ROOT / top] if (ROOT / top).is_file() else sorted(p for p in (ROOT / top).rglob("*") if p.is_file())
    texts = {file: file.read_text(errors="replace") for file in files if file.suffix in {".md", ".py", ".toml", ""}}
    assert [
        f"{file.relative_to(ROOT)}: {word}"
        for file, text in texts.items()
        for word in _installs(text)
        if re.match(r"symcache(?![\w./-])", word)
    ] == []
