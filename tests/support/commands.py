"""Commands of `symcache` in this process: to start a Python for each takes longer than most commands do."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any

from typer.testing import CliRunner

from symcache.cli.app import application

__all__ = ["answer_here", "end_here", "run_here"]


def run_here(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command with nothing on standard input; `env` is added to the environment. Raises what it does not catch.

    Not for what is about the process: signals, limits, terminals, the working folder, what is imported.
    """
    command = next(argument for argument in arguments if not argument.startswith("-"))
    done = CliRunner().invoke(application(command), list(arguments), env=env)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def end_here(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command as `run_here` does, which has to end with this code."""
    ran = run_here(*map(str, arguments))
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran


def answer_here(*arguments: object, code: int = 0) -> Any:
    """Return what a command that has to end with this code prints as JSON."""
    return json.loads(end_here(*arguments, "--json", code=code).stdout)
