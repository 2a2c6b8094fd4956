"""The command line: one Typer application, one module a group of commands."""

from __future__ import annotations

import signal
import sys

__all__ = ["main", "opendump", "run_dsymforuuid"]


def main() -> None:
    """Run `symcache`."""
    if next((word for word in sys.argv[1:] if not word.startswith("-")), None) == "serve":
        # It means "take up new certificates" to a server, from its first moment on: it waits until there is a handler.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    from symcache.cli.app import main as run

    run()


def opendump() -> None:
    """Run `opendump DUMP`: the same as `symcache open DUMP`."""
    from symcache.cli.app import opendump as run

    run()


def run_dsymforuuid() -> None:
    """Run `symcache-dsymforuuid UUID`: debuggers want one program and give it the UUID alone."""
    from symcache.cli.app import run_dsymforuuid as run

    run()
