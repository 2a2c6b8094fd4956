"""The command line: one Typer application, one module a group of commands."""

from symcache.cli.app import main, opendump, run_dsymforuuid

__all__ = ["main", "opendump", "run_dsymforuuid"]
