"""Puts the commands together and runs them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from symcache import __version__
from symcache.cli import (
    caches,
    capture,
    demo,
    dsymforuuid,
    dumps,
    harvest,
    library,
    maintenance,
    serve,
    setup,
    verify,
)
from symcache.cli.common import out, state

__all__ = ["app", "main", "opendump", "run_dsymforuuid"]

app = typer.Typer(
    name="symcache",
    help="Harvest, keep and serve the system binaries of macOS by UUID, and open crash dumps with them.",
    no_args_is_help=True,
    rich_markup_mode="markdown",  # brackets in help are text
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (demo, harvest, library, verify, maintenance, caches, serve, dumps, capture, dsymforuuid, setup):
    module.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"symcache {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks instead of sentences.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    del version
    state.debug = debug


def main() -> None:
    """Run `symcache`."""
    app()


def opendump() -> None:
    """Run `opendump DUMP`: the same as `symcache open DUMP`."""
    app(["open", *sys.argv[1:]], prog_name="opendump")


def run_dsymforuuid() -> None:
    """Run `symcache-dsymforuuid UUID`: debuggers want one program and give it the UUID alone."""
    app(["dsymforuuid", *sys.argv[1:]], prog_name="symcache-dsymforuuid")
