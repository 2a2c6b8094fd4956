"""Man pages: one for each program and command, as git and borg have them, in the language of man(7)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from symcache import __version__
from symcache.errors import EXIT_CODES
from tests.reference.command_line import Command, Parameter, commands, every_command, opendump, program
from tests.reference.commands_page import grouped, option_text
from tests.reference.settings_page import SETTINGS_FILES, variables

__all__ = ["man_pages"]

_DOCUMENTATION = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]["urls"][
    "Documentation"
]


def man_pages() -> dict[str, str]:
    """Return the pages by their file names."""
    pages = {"symcache.1": _program(), "opendump.1": _page(opendump(), ["symcache-open"])}
    for command in commands():
        name = "-".join(command.words)
        pages[f"{name}.1"] = _page(command, ["opendump"] if command.words[-1] == "open" else [])
    return pages


def _program() -> str:
    parts = [*_head("symcache", program().summary)]
    parts += [".SH SYNOPSIS", _bold("symcache") + " [OPTIONS] COMMAND \\&..."]
    parts += [".SH DESCRIPTION", _prose(program().help)]
    parts += ["Each command has a page of its own, such as " + _bold("symcache-harvest") + "(1)."]
    for title, some in grouped(commands()):
        parts += [f".SH {_quoted(title.upper())}"]
        parts += [line for c in some for line in (".TP", _bold("-".join(c.words)) + "(1)", _prose(c.summary))]
    parts += [".SH OPTIONS", *_options(program().options)]
    parts += [".SH ENVIRONMENT"]
    for variable in variables():
        parts += [".TP", _bold(variable.variable), _prose(variable.meaning)]
    parts += [".SH FILES"]
    parts += [line for path, text in SETTINGS_FILES for line in (".TP", _italic(path), _prose(text))]
    parts += [".SH EXIT STATUS", *_exit_codes()]
    parts += [".SH SEE ALSO", ", ".join(_bold(n) + "(1)" for n in ("opendump", "lldb", "debuginfod-find")), ".PP"]
    parts += ["Tutorial, how-tos and reference: " + _escaped(_DOCUMENTATION)]
    return "\n".join(parts) + "\n"


def _page(command: Command, others: Sequence[str]) -> str:
    parts = [*_head("-".join(command.words), command.summary), ".SH SYNOPSIS"]
    every = list(every_command([command]))
    for number, one in enumerate(every):
        parts += [*([".br"] if number else []), f"{_bold(one.name)} {_escaped(one.synopsis)}".rstrip()]
    parts += [".SH DESCRIPTION", _prose(command.help)]
    for one in every:
        parts += [f".SH {_quoted(one.name.upper())}", _prose(one.help)] if one is not command else []
        heading = ".SS" if one is not command else ".SH"
        if any(a.help for a in one.arguments):
            parts += [f"{heading} ARGUMENTS"]
            parts += [x for a in one.arguments if a.help for x in (".TP", _italic(a.value), _prose(a.help))]
        if one.options:
            parts += [f'{heading} "OPTIONS"', *_options(one.options)]
        if one.examples:
            parts += [f"{heading} EXAMPLES", *_examples(one.examples)]
    parts += [".SH EXIT STATUS", *_exit_codes()]
    parts += [".SH SEE ALSO", ", ".join(_bold(n) + "(1)" for n in ("symcache", *others))]
    return "\n".join(parts) + "\n"


def _head(name: str, summary: str) -> list[str]:
    title = f'.TH {_quoted(name.upper())} 1 "" {_quoted(f"symcache {__version__}")} "User Commands"'
    first = summary.partition(": ")[0].rstrip(".")
    return [title, ".SH NAME", f"{_escaped(name)} \\- {_prose(first[0].lower() + first[1:])}"]


def _exit_codes() -> Iterator[str]:
    for number, meaning in EXIT_CODES.items():
        yield from (".TP", _bold(str(number)), _prose(meaning))


def _options(options: Sequence[Parameter]) -> Iterator[str]:
    for option in options:
        value = f" {_italic(option.value)}" if option.value else ""
        yield from (".TP", ", ".join(map(_bold, option.names)) + value, _prose(option_text(option)))


def _examples(lines: Sequence[str]) -> Iterator[str]:
    yield from (".nf", *map(_escaped, lines), ".fi")


def _prose(markdown: str) -> str:
    """Return paragraphs of Markdown: code is bold, a link is its text."""
    paragraphs = [" ".join(part.split()) for part in markdown.split("\n\n")]
    paragraphs = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text) for text in paragraphs]
    return "\n.PP\n".join(
        "".join(_bold(p) if number % 2 else _escaped(p) for number, p in enumerate(text.split("`")))
        for text in paragraphs
    )


def _bold(text: str) -> str:
    return f"\\fB{_escaped(text)}\\fR"


def _italic(text: str) -> str:
    return f"\\fI{_escaped(text)}\\fR"


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    """Return a text as roff takes it: a hyphen that can be copied, and no line that is a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...").replace('"', "\\(dq")
    text = text.replace("~", "\\(ti").replace("^", "\\(ha").replace("`", "\\(ga")
    return "\\&" + text if text.startswith((".", "'")) else text
