"""Puts the commands together and runs them.

A command is run dozens of times by scripts and debuggers, and SSH, HTTP and LLDB take their time to import: only the
module of the command that is asked for is loaded, all of them for help.
"""

from __future__ import annotations

import importlib
import io
import signal
import sys
from typing import Annotated

import typer

from symcache import __version__
from symcache.cli.common import errors_to_exit, out, state

__all__ = ["application", "main", "opendump", "run_dsymforuuid"]

MODULES = {
    "demo": ("demo",),
    "harvest": ("harvest",),
    "machines": ("vm",),
    "sync": ("sync",),
    "library": ("add", "lookup", "releases", "get"),
    "verify": ("verify", "diff", "missing"),
    "maintenance": ("fsck", "gc", "prefer", "rebuild", "reextract", "stats"),
    "remove": ("remove",),
    "prune": ("prune",),
    "caches": ("extract", "info"),
    "serve": ("serve",),
    "push": ("push", "token"),
    "dumps": ("open",),
    "analyze": ("analyze",),
    "capture": ("dump",),
    "dsymforuuid": ("dsymforuuid",),
    "setup": ("setup",),
    "lldb_plan": ("lldb-plan",),
}
"""Modules of this package in the order of `--help`, and the commands that each registers."""


def application(command: str | None = None) -> typer.Typer:
    """Return the application with all commands, or with what is needed to run `command` alone."""
    app = typer.Typer(
        name="symcache",
        help="Harvest, keep and serve the system binaries of macOS by UUID, and open crash dumps with them.",
        no_args_is_help=True,
        rich_markup_mode="markdown",  # brackets in help are text
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for module in [m for m, commands in MODULES.items() if command in commands] or MODULES:
        importlib.import_module(f"symcache.cli.{module}").register(app)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"symcache {__version__}")
        raise typer.Exit


def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks instead of sentences, and what LLDB cannot be kept from.")
    ] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    del version
    state.debug = debug
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal cannot show ends no command
        sys.stdout.reconfigure(errors="backslashreplace")


def main() -> None:
    """Run `symcache`."""
    _run(application(next((a for a in sys.argv[1:] if not a.startswith("-")), None)))


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
    try:
        with errors_to_exit():
            app(arguments, prog_name=name)
    except typer.Exit as end:
        sys.exit(end.exit_code)
