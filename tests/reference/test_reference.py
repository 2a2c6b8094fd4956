"""The reference says what there is: what is committed is what is made, and nothing that users meet is left out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import pytest
import typer
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from symcache import errors
from symcache.catalog import schema
from symcache.cli.settings import SETTINGS, Setting
from symcache.verify import FindingCode
from symcache.verify.findings import NEXT_STEP
from symcache_server.api.openapi import document
from symcache_server.http.auth import requires
from symcache_server.layouts import LAYOUTS, match
from tests.reference import command_line, docstrings, json_output, tables
from tests.reference.command_line import every_command
from tests.reference.errors import UndescribedError
from tests.reference.http_page import Route, routes
from tests.reference.json_output import undescribed_keys
from tests.reference.pages import ROOT, committed, generated

_VARIABLE = re.compile(r"""["']((?:SYMCACHE|AWS)_[A-Z0-9_]+[A-Z0-9]|SSL_CERT_FILE|SSH_AUTH_SOCK|TMPDIR)["']""")
_BETWEEN_PROCESSES = {"SYMCACHE_METRICS_SLOT"}
"""Set by one of our processes for another."""


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return generated()


def test_what_is_committed_is_what_is_made(made: dict[str, str]) -> None:
    there = committed()
    stale = sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))
    assert stale == [], "run `make reference` and commit what it writes"


def test_every_command_and_option_is_there(made: dict[str, str]) -> None:
    """In Markdown, and in the man page of the command."""
    for command in every_command():
        _, sections = made["docs/reference/commands.md"].split(f" {command.name}\n", 1)
        section = re.split(r"\n###? ", sections)[0]
        man = made[f"docs/man/{'-'.join(command.words[:2])}.1"].replace("\\-", "-")
        for name in (name for option in command.options for name in option.names):
            assert re.search(rf"[`, ]{re.escape(name)}\b", section), f"{command.name} {name}"
            assert rf"\fB{name}\fR" in man, f"{command.name} {name}"


def test_every_variable_that_is_read_is_a_setting() -> None:
    listed = " ".join(f"{setting.variable} {setting.meaning}" for setting in SETTINGS)
    known = set(re.findall(r"\w+", listed)) | _BETWEEN_PROCESSES
    paths = [path for top in ("symcache", "server", "vm_provisioning") for path in sorted((ROOT / top).rglob("*.py"))]
    assert [
        f"{path.relative_to(ROOT)}: {name} has no description: write it in SETTINGS of symcache/cli/settings.py"
        for path in paths
        for name in _VARIABLE.findall(path.read_text("utf-8"))
        if name not in known
    ] == []


def test_every_exit_code_of_the_errors_is_explained() -> None:
    classes = [getattr(errors, name) for name in errors.__all__]
    assert {getattr(c, "exit_code", 0) for c in classes} <= errors.EXIT_CODES.keys()


def test_paths_of_layouts_are_looked_up() -> None:
    """The examples that people read are of the pattern that they stand beside."""
    digits = "23516be429be350c91c9f36e7999f0f1"
    tree = re.sub(r"(....)(....)(....)(....)(....)(.*)", r"\1/\2/\3/\4/\5/\6", digits)
    filled = {"{hex}": digits, "{first 2 digits}": digits[:2], "{other 30}": digits[2:], "{name}": "libz.dylib"}
    filled |= {"{section}": "__text", "{path}": "src/main.c", "XXXX/XXXX/XXXX/XXXX/XXXX/XXXXXXXXXXXX": tree}
    for layout in LAYOUTS:
        for example in layout.examples:
            path = re.sub("|".join(map(re.escape, filled)), lambda found: filled[found[0]], example)
            found = match(path)
            assert found is not None, path
            assert found.layout == layout.name, path
            assert found.image.uuid.hex == digits
            assert layout.match(path) is not None


def test_a_key_that_no_page_tells_of_is_found() -> None:
    releases = [{"build": "22G120", "colour": "red"}]
    (told,) = undescribed_keys(["releases", "--json"], releases)
    assert told.startswith("`[].colour` of `symcache releases --json` has no description: write it in tests/reference/")
    assert undescribed_keys(["remove", "22G120", "--json"], {"22G120": {"records": []}}) == []
    assert undescribed_keys(["vm", "up", "--json", "a"], [{"run": "x"}]) == []
    assert undescribed_keys(["analyze", "a.zip", "--json"], {"registers": {"rax": "0x0"}, "nothing": 1}) != []


def test_output_without_a_description_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_output, "_document", lambda: {"common": {}, "commands": {}})
    json_output._output.cache_clear()
    with pytest.raises(UndescribedError, match=r"`symcache add --json` has no description: write it in tests/ref"):
        json_output.json_page()
    json_output._output.cache_clear()


def test_an_option_without_help_is_named() -> None:
    app = typer.Typer()

    @app.command()
    def colour(name: Annotated[str, typer.Option("--name")] = "") -> None:
        """Paint it."""

    with pytest.raises(UndescribedError, match=r"^`symcache colour --name` has no description: write it in the help="):
        command_line._command(typer.main.get_command(app), ("symcache", "colour"))


def test_a_command_without_help_is_named() -> None:
    app = typer.Typer()
    app.command()(lambda: None)
    with pytest.raises(UndescribedError, match=r"^`symcache colour` has no description: write it in the docstring"):
        command_line._command(typer.main.get_command(app), ("symcache", "colour"))


def test_a_metric_without_a_description_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    new = Counter("symcache_new", "", registry=CollectorRegistry())
    monkeypatch.setattr("symcache_server.http.metrics.NEW", new, raising=False)
    with pytest.raises(UndescribedError, match=r"^the metric symcache_new has no description"):
        tables.metrics_page()


def test_a_route_without_a_description_is_named() -> None:
    async def paint(request: web.Request) -> web.Response:
        raise NotImplementedError

    route = web.Application().router.add_get("/colour", requires(None)(paint))
    with pytest.raises(UndescribedError, match=r"^GET /colour has no description: write it in the docstring of .*t"):
        Route(route)


def test_a_finding_without_a_next_step_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(NEXT_STEP, FindingCode.DAMAGED)
    with pytest.raises(UndescribedError, match=r"^the finding damaged has no description"):
        tables.findings_page()


def test_a_table_without_a_description_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "__doc__", "``releases``  a build\n")
    with pytest.raises(UndescribedError, match=r"^the catalog's view caches has no description"):
        tables.catalog_page()


def test_strings_behind_fields_are_read() -> None:
    docs = docstrings.attribute_docs(Setting)
    assert docs["key"] == "In `symcache.toml`."
    assert "option" not in docs


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "man").glob("*.1")), ids=lambda page: page.stem)
def test_man_pages_have_no_line_that_roff_takes_for_something_else(page: Path) -> None:
    known = {".TH", ".SH", ".SS", ".TP", ".PP", ".br", ".nf", ".fi"}
    text = page.read_text("utf-8")
    assert {line.split()[0] for line in text.splitlines() if line.startswith((".", "'"))} <= known
    assert set(re.findall(r"\\(?!f[BIR]|-|e|&|\((?:dq|ti|ha|ga))..", text)) == set()
    assert "" not in text.splitlines()


def test_the_api_is_described_as_it_is() -> None:
    described = {(method.upper(), path) for path, methods in document()["paths"].items() for method in methods}
    assert described == {(r.method, r.path) for r in routes() if r.path.startswith("/api/")}
