"""Every command line of the documentation is one that this program takes."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from symcache.cli.app import application
from tests.support.recipes import PAGES, ROOT, command_lines

_TREE: Any = typer.main.get_command(application())


def _problem(words: list[str], whole: bool) -> str:
    """Return what is wrong with a command line, or an empty string. Paths need not be there."""
    command, names = _TREE, ["symcache"]
    while hasattr(command, "commands"):
        options = [word for word in words[:1] if word.startswith("-")]
        if options:
            known = {name for parameter in command.params for name in parameter.opts}
            if options[0] not in known | {"--help", "-h"}:
                return f"{' '.join(names)} has no {options[0]}"
            words = words[1:]
            if not words:  # as `symcache --version`
                return ""
            continue
        if not words or words == ["…"]:
            return "" if not whole else f"{' '.join(names)} lacks a command"
        if words[0] not in command.commands:
            return f"{' '.join(names)} has no command {words[0]}"
        names.append(words[0])
        command, words = command.commands[words[0]], words[1:]
    context = command.context_class(command, info_name=names[-1])
    try:
        values, rest, _ = command.make_parser(context).parse_args(list(words))
        for parameter in command.params:
            value = values.get(parameter.name)
            if value is None or (isinstance(value, (tuple, list)) and not value):
                if parameter.required and parameter.default is None and whole:
                    return f"{' '.join(names)} lacks {parameter.name}"
            elif wrong := _unknown(parameter, value):
                return f"{' '.join(names)}: {parameter.name} is never {wrong}"
    except Exception as error:  # of click, or of its copy in typer
        if not whole and str(error).endswith("requires an argument."):
            return ""
        return f"{' '.join(names)}: {getattr(error, 'message', None) or error!r}"
    return f"{' '.join(names)} takes no {rest}" if rest else ""


def _unknown(parameter: Any, value: Any) -> set[str]:
    """Return the values that an option which has a few does not have."""
    annotation = parameter.type_descriptor.annotation
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Enum):
            return {str(v) for v in (value if isinstance(value, (tuple, list)) else [value])} - {m.value for m in kind}
    return set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_shown_is_one(page: Path) -> None:
    found = [(words, _problem(words, whole)) for words, whole in command_lines(page.read_text())]
    assert [f"`symcache {' '.join(words)}`: {problem}" for words, problem in found if problem] == []


def test_wrong_commands_are_recognized() -> None:
    page = "```sh\nX=1 symcache verify 22G1 --levle bytes | tee x\nsymcache gte --x\n```\n"
    page += "`symcache vm upp` `symcache get`\n"
    page += "```sh\nsymcache get -o x  # why\nsymcache verify --level all\nopendump a b\n```\n"
    assert [_problem(*line) != "" for line in command_lines(page)] == [True, True, True, True, True, True, False]
