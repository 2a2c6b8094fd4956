"""Puts the commands together and runs them.

A command is run dozens of times by scripts and debuggers, and SSH, HTTP and LLDB take their time to import: only the
module of the command that is asked for is loaded, and none for help.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from symcache import __version__
from symcache.cli.command_list import COMMANDS
from symcache.cli.common import complain, errors_to_exit, out, state
from symcache.cli.completion import command_being_typed, is_completing
from symcache.cli.help import Application, help_for

__all__ = ["application", "main", "opendump", "outline", "run_dsymforuuid"]

_WRONG_USE = typer.BadParameter.__mro__[1:-3]
"""What the parser raises: versions of Typer have it in different packages."""
_WIDEST_HELP = 100
"""Columns: longer lines are hard to read."""


def application(command: str | None = None) -> typer.Typer:
    """Return the application with all commands, or with what is needed to run `command` alone."""
    app = _application()
    modules = {c.module: None for c in ([COMMANDS[command]] if command in COMMANDS else COMMANDS.values())}
    for module in modules:
        importlib.import_module(f"symcache.cli.{module}").register(app)
    registrations: list[Any] = [*app.registered_commands, *app.registered_groups]
    for registered in registrations:
        if listed := COMMANDS.get(registered.name or getattr(registered.callback, "__name__", "")):
            registered.short_help = listed.summary
    return app


def outline() -> typer.Typer:
    """Return an application that shows the same help as the whole one, but runs nothing."""
    app = _application()
    for command in COMMANDS.values():
        if command.summary:
            app.command(command.name, short_help=command.summary)(lambda: None)
    return app


def _application() -> typer.Typer:
    app = Application(
        name="symcache",
        help="Harvest, keep and serve the system binaries of macOS by UUID, and open crash dumps with them.",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _WIDEST_HELP},
    )
    app.callback()(_options)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"symcache {__version__}")
        raise typer.Exit


def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks instead of sentences, and what LLDB cannot be kept from.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version
    state.debug = debug
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal cannot show ends no command
        sys.stdout.reconfigure(errors="backslashreplace")


def main() -> None:
    """Run `symcache`."""
    if is_completing():
        # Whatever goes wrong, no text of it may come between what is typed.
        with contextlib.suppress(Exception), Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
            command = command_being_typed()
            _run(application(command) if command in COMMANDS else outline())
        return
    command = next((a for a in sys.argv[1:] if not a.startswith("-")), None)
    _run(application(command) if command in COMMANDS else outline())


def opendump() -> None:
    """Run `opendump DUMP`: the same as `symcache open DUMP`."""
    _run(application("open"), ["open", *sys.argv[1:]], "opendump")


def run_dsymforuuid() -> None:
    """Run `symcache-dsymforuuid UUID`: debuggers want one program and give it the UUID alone."""
    _run(application("dsymforuuid"), ["dsymforuuid", *sys.argv[1:]], "symcache-dsymforuuid")


def _run(app: typer.Typer, arguments: list[str] | None = None, name: str | None = None) -> None:
    """Run the application; what no command prints, such as help, may go wrong, too."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # clean up as after Ctrl-C
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    words = sys.argv[1:] if arguments is None else arguments
    try:
        with errors_to_exit():
            command: Any = typer.main.get_command(app)  # once: it looks at every option
            if text := help_for(command, name or "symcache", words):
                out.print(text, markup=False)
                sys.exit()
            code = command(words, prog_name=name, standalone_mode=False)
    except typer.Exit as end:
        code = end.exit_code
    except typer.Abort:
        complain("aborted", "")
        code = 1
    except Exception as error:
        if not isinstance(error, _WRONG_USE):
            raise
        code = _say_wrong_use(error, _command_path(command, words))
    sys.exit(code)


def _command_path(command: Any, words: list[str]) -> str:
    """Return the command that `words` begin with, as the user would write it."""
    path = ["symcache"]
    for word in words:
        if word.startswith("-"):
            continue
        command = getattr(command, "commands", {}).get(word)
        if command is None:
            break
        path.append(word)
    return " ".join(path)


def _say_wrong_use(error: Any, meant: str) -> int:
    """Say what was wrong with the options, as all other errors are said; without any option, what there is."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        text = error.format_message().replace("Value error, ", "")  # which some versions of typer put in front
        shown = error.ctx.command_path if error.ctx else meant
        complain(text[:1].lower() + text[1:].rstrip("."), f"`{shown} --help` says what it takes")
    return int(error.exit_code)
