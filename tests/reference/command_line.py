"""What commands there are and what they take, as Typer knows it."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import typer

from symcache.cli.app import application
from symcache.cli.command_list import PANELS
from symcache.cli.examples import EXAMPLES
from tests.reference.docstrings import first_sentence, one_line
from tests.reference.errors import UndescribedError

__all__ = ["Command", "Parameter", "commands", "every_command", "opendump", "program"]


@dataclass(frozen=True)
class Parameter:
    """An option, or an argument."""

    names: tuple[str, ...]
    """Of an option, short ones first; of an argument, none."""
    value: str
    """What stands for the value: `FILE`, `raw|util`; empty for a flag."""
    help: str
    default: str


@dataclass(frozen=True)
class Command:
    """A command, or a group of some."""

    words: tuple[str, ...]
    """`symcache`, `vm`, `up`."""
    summary: str
    """One line."""
    help: str
    """Paragraphs in Markdown."""
    examples: tuple[str, ...]
    """Lines that can be run."""
    panel: str
    """What one wants to do with it."""
    arguments: tuple[Parameter, ...]
    options: tuple[Parameter, ...]
    commands: tuple[Command, ...]

    @property
    def name(self) -> str:
        """All words of it."""
        return " ".join(self.words)

    @property
    def synopsis(self) -> str:
        """How it is called, without its name."""
        if self.commands:
            return "COMMAND …"
        return " ".join([*(["[OPTIONS]"] if self.options else []), *(a.value for a in self.arguments)])


@cache
def program() -> Command:
    """Return `symcache`, with all that is not hidden."""
    whole = _command(typer.main.get_command(application()), ("symcache",))
    order = list(_listed())
    inner = sorted(whole.commands, key=lambda c: order.index(c.words[1]))
    return replace(whole, commands=tuple(inner))


def commands() -> tuple[Command, ...]:
    """Return the commands of `symcache`, groups among them."""
    return program().commands


def every_command(within: Sequence[Command] | None = None) -> Iterator[Command]:
    """Yield everything that can be run: commands, and those of groups."""
    for command in commands() if within is None else within:
        if command.commands:
            yield from every_command(command.commands)
        else:
            yield command


def opendump() -> Command:
    """Return the program of that name: the command `open`."""
    (found,) = (c for c in commands() if c.words[-1] == "open")
    examples = tuple(line.replace("symcache open", "opendump", 1) for line in found.examples)
    return replace(found, words=("opendump",), examples=examples)


def _command(found: Any, words: tuple[str, ...]) -> Command:
    where = "the docstring of the function that runs it"
    if not (text := inspect.cleandoc(found.help or "")):
        raise UndescribedError(f"`{' '.join(words)}`", where)
    hints: dict[str, Any] = {}
    if found.callback:
        hints = get_type_hints(inspect.unwrap(found.callback))
    visible = [p for p in found.params if not getattr(p, "hidden", False)]
    options = [_parameter(p, hints, words) for p in visible if p.param_type_name == "option"]
    inner = getattr(found, "commands", None) or {}
    path = " ".join(words[1:])
    summary, panel = _listed().get(path, ("", ""))
    return Command(
        words,
        summary or first_sentence(text),
        text,
        tuple(EXAMPLES.get(path, ())),
        panel,
        tuple(_parameter(p, hints, words) for p in visible if p.param_type_name == "argument"),
        tuple(o for o in options if "--help" not in o.names),
        tuple(_command(c, (*words, name)) for name, c in inner.items() if not c.hidden),
    )


def _listed() -> dict[str, tuple[str, str]]:
    """Return summary and heading of each command in the list of all."""
    return {command.name: (command.summary, title) for title, panel in PANELS.items() for command in panel}


def _parameter(found: Any, hints: dict[str, Any], words: tuple[str, ...]) -> Parameter:
    is_option = found.param_type_name == "option"
    names = (*found.opts, *found.secondary_opts) if is_option else ()
    kind = _value_type(hints.get(found.name, str))
    text = one_line(found.help)
    if is_option and not text:
        raise UndescribedError(f"`{' '.join(words)} {found.opts[0]}`", "the help= of its typer.Option")
    value = "" if is_option and (kind is bool or found.is_flag) else found.metavar or _metavar(kind, found.name)
    if not is_option and not found.metavar:
        value += "…" if found.multiple or found.nargs == -1 else ""
        value = value if found.required else f"[{value}]"
    return Parameter(
        tuple(sorted(names, key=lambda name: name.startswith("--"))) if not found.secondary_opts else names,
        value,
        text,
        _default(found, kind, text),
    )


def _value_type(hint: Any) -> Any:
    """Return the type of one value: of `list[Path] | None`, Path."""
    while (origin := get_origin(hint)) is not None:
        if origin not in {Union, types.UnionType, list, tuple}:
            return str
        hint = next(a for a in get_args(hint) if a is not type(None))
    return hint


def _metavar(kind: Any, name: str) -> str:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(member.value) for member in kind)
    if kind in {int, float}:
        return "N"
    if kind is Path:
        return "PATH"
    return name.rstrip("_").upper().replace("_", "-")


def _default(found: Any, kind: Any, text: str) -> str:
    if isinstance(found.show_default, str):
        return found.show_default
    value = found.default
    if not found.show_default or value is None or value in ((), [], "") or callable(value) or "[default" in text:
        return ""
    if kind is bool:
        return found.opts[0] if value and found.secondary_opts else ""
    return str(value.value if isinstance(value, Enum) else value)
