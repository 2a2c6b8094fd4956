"""Help says how a command is typed: nothing of Python's types, an example each; and it is there at once."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from symcache.cli.app import application, main, outline
from symcache.cli.command_list import COMMANDS, PANELS
from symcache.cli.examples import EXAMPLES
from symcache.cli.help import help_for

ROOT: Any = typer.main.get_command(application())


def _commands(command: Any = ROOT, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command with the words that run it, groups and the program itself among them."""
    if not command.hidden:
        yield path, command
        for name, one in getattr(command, "commands", {}).items():
            yield from _commands(one, f"{path} {name}".strip())


ALL = dict(_commands())


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def _help(path: str) -> str:
    return help_for(ROOT, "symcache", [*path.split(), "--help"])


@pytest.mark.parametrize("path", ALL)
def test_help_fits_80_columns_and_names_no_types(path: str) -> None:
    text = _help(path)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "<" not in text and "…..." not in text and "[[" not in text and "{" not in text


@pytest.mark.parametrize("path", ALL)
def test_whatever_takes_a_value_says_what(path: str) -> None:
    without = [p.opts for p in ALL[path].params if p.metavar is None and not getattr(p, "is_flag", False)]
    assert without == []


def test_an_option_of_one_name_takes_the_same_everywhere() -> None:
    forms: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    values: dict[str, set[str | None]] = defaultdict(set)
    for path, command in ALL.items():
        for option in command.params:
            if option.param_type_name == "option" and path != "symbolicate":  # that has those of atos
                long = next(name for name in option.opts if name.startswith("--"))
                forms[long].add(tuple(sorted(option.opts)))
                values[long].add(option.metavar)
    assert {name: found for name, found in forms.items() if len(found) > 1} == {}
    several = {name: found for name, found in values.items() if len(found) > 1}
    assert set(several) <= {"--output"}  # a file or a folder


def test_options_that_commands_share_mean_the_same() -> None:
    texts: dict[str, set[str]] = defaultdict(set)
    for command in ALL.values():
        for option in command.params:
            texts[option.opts[0]].add(option.help or "" if option.param_type_name == "option" else "")
    same = ["--json", "--library", "--cache", "--releases", "--junit", "--tag", "--trust-new-host", "--machines"]
    assert {name: texts[name] for name in [*same, "--symbols", "--source-map"] if len(texts[name]) > 1} == {}


def test_every_command_has_an_example_that_it_takes() -> None:
    assert set(EXAMPLES) == set(ALL)
    for path, lines in EXAMPLES.items():
        for line in lines:
            words = shlex.split(line, comments=True)
            assert words[0] == "symcache"
            assert line in _help(path)
            command, rest = ROOT, words[1 : words.index(">")] if ">" in words else words[1:]
            while hasattr(command, "commands"):
                command, rest = command.commands[rest[0]], rest[1:]
            ctx = command.context_class(command)
            given, left, _ = command.make_parser(ctx).parse_args(rest)  # raises what it does not know
            assert not left
            assert all(given.get(p.name) is not None for p in command.params if p.required)


def test_commands_stand_under_what_one_wants_to_do() -> None:
    lines = help_for(typer.main.get_command(outline()), "symcache", ["--help"]).splitlines()
    for title, commands in PANELS.items():
        if title:
            start = lines.index(f"{title}:") + 1
            assert [line.split()[0] for line in lines[start : start + len(commands)]] == [c.name for c in commands]
    assert all(COMMANDS[name] for name in ALL if name and " " not in name)


def test_help_is_asked_for_as_click_takes_it() -> None:
    assert _help("vm up").startswith("Usage: symcache vm up [OPTIONS] NAME...\n")
    assert help_for(ROOT, "opendump", ["open", "-h"]).startswith("Usage: opendump [OPTIONS] DUMP\n")
    assert "symcache get" in help_for(ROOT, "symcache", ["get", "UUID", "-h"])
    for words in (["nosuch", "--help"], ["vm", "nosuch", "-h"], ["verify", "--", "--help"], ["verify"]):
        assert help_for(ROOT, "symcache", words) == ""


def test_help_and_completion_load_nothing_that_only_running_needs() -> None:
    heavy = ["aiohttp", "cryptography", "lief", "numpy", "paramiko", "pydantic", "sqlite3", "rich.markdown"]
    code = f"import sys, symcache.cli.app as a; a.application(); print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["lokup"], "no such command 'lokup'. Did you mean 'lookup'"),
        (["lookup", "--foo"], "no such option: --foo"),
        (["lookup"], "missing argument 'UUID|NAME'"),
        (["verify", "--level", "x"], "invalid value for '--level': 'x' is not one of 'catalog', 'blobs', 'bytes'"),
        (["token", "create", "ci", "--scope", "all"], "'all': is no scope"),
        (["symbolicate", "0x104324a30"], "addresses of which image?"),
        (["get", "libz.dylib"], "'libz.dylib': not a UUID"),
        (["push", "Ledger.app"], "no server is named"),
        (["add"], "nothing to add"),
    ],
)
def test_wrong_use_is_said_as_any_other_error(
    typed: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["symcache", *typed])
    with pytest.raises(SystemExit) as ended:
        main()
    error, hint = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert error.startswith("error: ") and said in error
    assert hint.startswith("next: ")


def test_the_help_of_the_command_is_named_where_an_option_lacks_its_value(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["symcache", "--debug", "token", "create", "ci", "--scope"])
    with pytest.raises(SystemExit):
        main()
    assert "`symcache token create --help`" in capsys.readouterr().err


def test_json_is_offered_wherever_something_is_listed() -> None:
    without = {path for path, c in ALL.items() if path and "--json" not in [o for p in c.params for o in p.opts]}
    groups = {path for path, command in ALL.items() if hasattr(command, "commands")}
    # What talks to a person or a program in its own way.
    assert without - groups == {
        "demo", "dsymforuuid", "open", "setup lldb", "token create", "token revoke", "vm create",
    }  # fmt: skip
    assert json.dumps(sorted(groups)) == '["", "setup", "token", "vm"]'
