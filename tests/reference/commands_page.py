"""The page of commands and options."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.reference.command_line import Command, Parameter, commands, every_command, program
from tests.reference.markdown import anchor, code, page, table

__all__ = ["commands_page", "grouped", "option_text"]

_INTRODUCTION = """\
What `symcache --help` and `symcache COMMAND --help` say, on one page; `man symcache` has it, too. All commands end with
the same [exit codes](exit-codes.md), and take [settings](environment.md) from the environment and from files as well.
What `--json` prints has [a page of its own](json.md)."""


def commands_page() -> str:
    """Return the page."""
    parts = [_INTRODUCTION]
    for title, some in grouped(commands()):
        rows = [[f"[`{c.name}`](#{anchor(c.name)})", c.summary] for c in some]
        parts.append("\n".join([f"**{title}**", "", table(["command", "does"], rows)]))
    parts += ["## For every command", _parameters(program().options)]
    parts += [part for command in commands() for part in _command(command)]
    return page("Commands", *parts)


def grouped(some: Sequence[Command]) -> Iterator[tuple[str, list[Command]]]:
    """Yield commands by what one wants to do, in the order of `--help`."""
    titles = dict.fromkeys(command.panel for command in some)
    for title in titles:
        yield title, [command for command in some if command.panel == title]


def _command(command: Command) -> Iterator[str]:
    yield f"## {command.name}"
    yield command.help
    for inner in every_command([command]):
        if inner is not command:
            yield f"### {inner.name}"
            yield inner.help
        yield f"```sh\n{inner.name} {inner.synopsis}".rstrip() + "\n```"
        if inner.examples:
            yield "\n".join(["For example:", "", "```sh", *inner.examples, "```"])
        if any(a.help for a in inner.arguments):
            yield table(["argument", "is"], [[code(a.value), _cell(a.help)] for a in inner.arguments])
        if inner.options:
            yield _parameters(inner.options)


def _parameters(options: Sequence[Parameter]) -> str:
    rows = [[code(" ".join(filter(None, [", ".join(o.names), o.value]))), option_text(o)] for o in options]
    return table(["option", "does"], [[first, _cell(second)] for first, second in rows])


def option_text(option: Parameter) -> str:
    """Return what an option does, with its default."""
    return option.help + (f" Default: `{option.default}`." if option.default else "")


def _cell(text: str) -> str:
    return text.replace("<", "&lt;")
