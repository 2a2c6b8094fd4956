"""How help looks: plain text as wide as the terminal, commands under what one wants to do, and examples.

It is text of the library's own formatter, not its drawn boxes: those take four times as long to load as all else that
help needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from symcache.cli.command_list import PANELS
from symcache.cli.examples import EXAMPLES

__all__ = ["Application", "help_for"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_WIDEST = 34
"""Columns of an option with what it takes, beyond which its help begins on a line of its own."""
_HELP = {"-h", "--help"}
_NAMES = {"opendump": "open", "symcache-dsymforuuid": "dsymforuuid"}
"""Programs that are one command."""


class Application(typer.Typer):
    """A group of commands, or all of them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cls=_Group, no_args_is_help=True, rich_markup_mode=None, **options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[_Function], _Function]:
        """Add a command; see `typer.Typer.command`."""
        return super().command(name, cls=_Command, **options)


class _Command(TyperCommand):
    """A command whose help names what it takes as one types it."""

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """Write the usage, with arguments as `BUILD`, `[BUILD]` or `[BUILD]...`."""
        parameters: list[Any] = self.get_params(ctx)
        arguments = [_usage(p) for p in parameters if p.param_type_name == "argument" and not p.hidden]
        formatter.write_usage(_title(ctx), " ".join(["[OPTIONS]", *arguments]))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options."""
        _write_parameters(self.get_params(ctx), formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write examples."""
        _write_examples(ctx, formatter)


class _Group(TyperGroup):
    """A group whose help lists its commands under headings."""

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """Write the usage."""
        formatter.write_usage(_title(ctx), "[OPTIONS] COMMAND ...")

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, then the options."""
        listed = {n: c for n in self.list_commands(ctx) if (c := self.get_command(ctx, n)) and not c.hidden}
        panels: dict[str, list[str]] = {title: [c.name for c in panel] for title, panel in PANELS.items()}
        if ctx.parent is not None:
            panels = {"Commands": list(listed)}
        width = max(map(len, listed), default=0)
        for title, names in panels.items():
            if rows := [(n.ljust(width), _first_sentence(listed[n])) for n in names if n in listed]:
                with formatter.section(title):
                    formatter.write_dl(rows)
        _write_parameters(self.get_params(ctx), formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write examples."""
        _write_examples(ctx, formatter)


def help_for(command: Any, program: str, words: Sequence[str]) -> str:
    """Return the help that the words of a command line ask for, or nothing if they ask for none.

    Typer would parse what stands before it, and to load what it parses with takes longer than all the rest.
    """
    asked = list(takewhile(lambda word: word != "--", words))
    if _HELP.isdisjoint(asked):
        return ""
    ctx = command.context_class(command, info_name=program, **command.context_settings)
    for word in asked:
        commands = getattr(command, "commands", None)
        if commands is None or word in _HELP:
            break
        if word in commands:
            command = commands[word]
            ctx = command.context_class(command, parent=ctx, info_name=word, **command.context_settings)
        elif not word.startswith("-"):
            return ""
    return str(command.get_help(ctx))


def _title(ctx: Any) -> str:
    """Return the words that run a command."""
    program, _, rest = ctx.command_path.partition(" ")
    return str(program if _NAMES.get(program) == rest else ctx.command_path)


def _first_sentence(command: Any) -> str:
    return str(command.short_help or (command.help or "").split("\n\n")[0].replace("\n", " "))


def _usage(argument: Any) -> str:
    name = _name(argument) if argument.required else f"[{_name(argument)}]"
    return name + ("..." if argument.nargs != 1 else "")


def _name(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _write_parameters(parameters: Iterable[Any], formatter: Any) -> None:
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for parameter in parameters:
        if getattr(parameter, "hidden", False):
            continue
        argument = parameter.param_type_name == "argument"
        row = _name(parameter) if argument else _option(parameter), _help(parameter)
        if row[1] or not argument:
            sections["Arguments" if argument else "Options"].append(row)
    for title, rows in sections.items():
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows, col_max=_WIDEST)


def _option(option: Any) -> str:
    names = ", ".join(sorted(option.opts, key=lambda name: name.startswith("--")))
    names += "".join(f" / {name}" for name in option.secondary_opts)
    return names if option.is_flag else f"{names} {option.metavar or option.name.upper()}"


def _help(parameter: Any) -> str:
    """Return what a parameter is for, and what it is where it is not given."""
    notes = []
    if parameter.required and parameter.param_type_name != "argument":
        notes.append("required")
    if default := _default(parameter):
        notes.append(f"default: {default}")
    told = f"[{', '.join(notes)}]" if notes else ""
    return f"{parameter.help or ''} {told}".strip()


def _default(parameter: Any) -> str:
    value, shown = parameter.default, getattr(parameter, "show_default", False)
    if isinstance(shown, str):
        return shown
    if not shown or value is None or isinstance(value, bool) or callable(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(getattr(value, "value", value))


def _write_examples(ctx: Any, formatter: Any) -> None:
    program, _, path = ctx.command_path.partition(" ")
    if lines := EXAMPLES.get(path):
        with formatter.section("Examples" if len(lines) > 1 else "Example"):
            for line in lines:
                shown = line.replace(f"symcache {path}", program, 1) if _NAMES.get(program) == path else line
                formatter.write(f"{'':>{formatter.current_indent}}{shown}\n")
