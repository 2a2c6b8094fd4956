"""A user's shell, for recipes: bash runs every line, but our own commands run in this process, which is quicker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pytest

from tests.support.commands import run_here
from tests.support.waiting import until

__all__ = ["Shell"]

_SHELL_SYNTAX = re.compile(r"[|&;<>`]|\$\(")


class Shell:
    """A context manager: what was started with `&` ends with it. What lines assign and export, later ones see."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.output = folder, ""
        """The working folder, and what has been printed so far."""
        self._patch = monkeypatch
        self._behind: list[subprocess.Popen[bytes]] = []
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = {**os.environ, "PATH": path}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._behind:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)

    def run(self, script: str, *, codes: Sequence[int] = ()) -> str:
        """Run lines and return what they print; each has to end with 0, or the first ones with these codes."""
        printed = ""
        lines = [line for line in script.splitlines() if line.strip() and not line.startswith("#")]
        for number, line in enumerate(lines):
            code, text = self._run(line.strip())
            assert code == (codes[number] if number < len(codes) else 0), f"{line}: {code}\n{text}"
            printed += text
        self.output += printed
        return printed

    def start(self, line: str, ready: Path | None = None) -> None:
        """Run a line as in a terminal of its own, until `ready` is there."""
        command = ["bash", "-c", f"exec {line}"]
        process = subprocess.Popen(command, env=self._environment, cwd=self.folder, start_new_session=True)
        self._behind.append(process)
        if ready:
            until(lambda: ready.exists() or process.poll() is not None)
            assert process.poll() is None, line

    def _run(self, line: str) -> tuple[int, str]:
        if line.endswith(" &"):
            self.start(line.removesuffix(" &"))
            return 0, ""
        if assigned := re.fullmatch(r"(\w+)=\$\((symcache .*)\)", line):
            code, text = self._run(assigned[2])
            self._environment[assigned[1]] = text.strip()
            return code, "" if code == 0 else text
        if line.startswith("symcache ") and not _SHELL_SYNTAX.search(line.partition(" #")[0]):
            # As bash would hand them over.
            arguments = self._bash(f"printf '%s\\0' {line}")[1].split("\0")[1:-1]
            with self._patch.context() as patch:
                patch.chdir(self.folder)
                for name in set(os.environ) - set(self._environment):
                    patch.delenv(name)
                done = run_here(*arguments, env=self._environment)
            return done.returncode, done.stdout + done.stderr
        return self._bash(line)

    def _bash(self, line: str) -> tuple[int, str]:
        noted = self.folder / ".environment"
        script = f"set -a\n{line}\ncode=$?\nenv -0 > {noted}\nexit $code"
        ran = subprocess.run(
            ["bash", "-c", script],
            env=self._environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        pairs = [pair.partition("=") for pair in noted.read_text().split("\0") if pair]
        self._environment = {name: value for name, _, value in pairs if name not in {"code", "_", "SHLVL"}}
        noted.unlink()
        return ran.returncode, ran.stdout
