"""Commands of `symcache` in this process: to start a Python for each takes longer than most commands do."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from typer.testing import CliRunner

from symcache.cli.app import application

__all__ = ["run_here"]


def run_here(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command with nothing on standard input; `env` is added to the environment. Raises what it does not catch.

    Not for what is about the process: signals, limits, terminals, the working folder, what is imported.
    """
    command = next(argument for argument in arguments if not argument.startswith("-"))
    done = CliRunner().invoke(application(command), list(arguments), env=env)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)
