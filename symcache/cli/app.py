"""Puts the commands together and runs them.

A command is run dozens of times by scripts and debuggers, and SSH, HTTP and LLDB take their time to import: only the
module of the command that is asked for is loaded, and none for help.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
from typing import Annotated

import typer

from symcache import __version__
from symcache.cli.common import errors_to_exit, out, state

__all__ = ["application", "main", "opendump", "outline", "run_dsymforuuid"]

MODULES: dict[str, dict[str, str]] = {
    "demo": {
        "demo": (
            "Show the whole path: harvest a stand-in Mac over SSH, verify, serve, open crash dumps "
            "with every frame named."
        ),
    },
    "harvest": {
        "harvest": "Store every Mach-O of a macOS system: exit 0 when all of it is there, 1 when something is missing.",
    },
    "machines": {
        "vm": "Look after the machines that are harvested (`machines.toml`).",
    },
    "sync": {
        "sync": (
            "Harvest the builds that came out and that the site wants: exit 0 when none failed or waits, else 1 or 3."
        ),
    },
    "adding": {
        "add": (
            "Add own binaries: files, folders, .app and .dSYM bundles, zips of them; or copies that Apple's tools made."
        ),
    },
    "library": {
        "lookup": "Say what the library has under a UUID, or a name or path (with * and ?).",
        "releases": "List the macOS releases that the library holds, newest first; or those that it lacks.",
        "get": "Fetch one binary by UUID, from the library or from servers, and print where it is.",
    },
    "export": {
        "export": "Write a release as files, over nothing that is there: for LLDB and Xcode, or its raw shared caches.",
    },
    "verify": {
        "verify": "Prove that releases are complete: exit 0 if they are, 1 if anything is wanting.",
        "diff": "List the images that were added, removed or changed between two releases.",
        "missing": "List what clients asked for and nobody had: what to harvest next.",
    },
    "maintenance": {
        "fsck": "Check that everything is there and is what it was: exit 0 if so, 1 if anything is found wrong.",
        "gc": "Delete blobs that no record names any more; safe while others harvest.",
        "prefer": "Decide which of several contents under one UUID is served.",
        "rebuild": "Fold the catalog anew from all records: what is there counts as all there is.",
        "reextract": "Take the images of a release from its kept raw shared caches anew.",
        "stats": "Say how much the library holds, and what it takes on disk.",
    },
    "remove": {
        "remove": "Take back what was harvested of a build: it is no longer served, and `gc` deletes it in time.",
    },
    "prune": {
        "prune": (
            "Take back the builds that the site's policy keeps no longer; "
            "`symcache remove --undo BUILD` brings one back."
        ),
    },
    "caches": {
        "extract": "Extract the images of a dyld shared cache to Mach-O files that debuggers accept.",
        "info": "Say what a file is: a shared cache, a Mach-O file, a dSYM, a crash dump, core, minidump or report.",
    },
    "serve": {
        "serve": "Serve a library over HTTP, in every layout that debuggers ask in, until it is stopped.",
    },
    "push": {
        "push": "Send own binaries and dSYMs to a server: files, folders, .app and .dSYM bundles, zips of them.",
        "token": "Who may read and write over HTTP. Run it on the server's machine, as its user.",
    },
    "dumps": {
        "open": (
            "Open a crash dump in LLDB: crashed thread selected, backtrace printed. Without a terminal it stops there."
        ),
    },
    "analyze": {
        "analyze": (
            "Print what happened: exception, every thread's frames, registers, modules. The crashed thread comes first."
        ),
    },
    "symbolicate": {
        "symbolicate": (
            "Print names for addresses, as `atos` does, or crash reports with the names of their frames filled in."
        ),
    },
    "capture": {
        "dump": "Write a crash dump of a live process, or be the handler that a crashing one asks for it (macOS only).",
    },
    "dsymforuuid": {
        "dsymforuuid": "Reply like dsymForUUID: a property list of where the binary and the dSYM of each UUID are.",
    },
    "setup": {
        "setup": "Set up other programs to use a library or server, and undo it.",
    },
    "lldb_plan": {
        "lldb-plan": "",
    },
}
"""Modules of this package in the order of `--help`, and the commands that each registers, with the first sentence of
what their help says; none for what is for other programs."""
_GROUPS = ("vm", "token", "setup")
"""What has commands of its own; help shows it last."""


def application(command: str | None = None) -> typer.Typer:
    """Return the application with all commands, or with what is needed to run `command` alone."""
    app = _application()
    for module in [m for m, commands in MODULES.items() if command in commands] or MODULES:
        importlib.import_module(f"symcache.cli.{module}").register(app)
    return app


def outline() -> typer.Typer:
    """Return an application that shows the same help as the whole one, but runs nothing."""
    app = _application()
    summaries = {name: text for commands in MODULES.values() for name, text in commands.items() if text}
    for name in sorted(summaries, key=_GROUPS.__contains__):
        app.command(name, help=summaries[name])(lambda: None)
    return app


def _application() -> typer.Typer:
    app = typer.Typer(
        name="symcache",
        help="Harvest, keep and serve the system binaries of macOS by UUID, and open crash dumps with them.",
        no_args_is_help=True,
        rich_markup_mode="markdown",  # brackets in help are text
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
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
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    del version
    state.debug = debug
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal cannot show ends no command
        sys.stdout.reconfigure(errors="backslashreplace")


def main() -> None:
    """Run `symcache`."""
    command = next((a for a in sys.argv[1:] if not a.startswith("-")), None)
    completing = any(name.startswith("_") and name.endswith("_COMPLETE") for name in os.environ)
    _run(application(command) if completing or any(command in c for c in MODULES.values()) else outline())


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
