"""Running the programs that drive virtual machines: never through a shell, never without a time limit.

They run in the C locale; the size of their output is bounded, and messages show it with control characters escaped.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from symcache.errors import EnvironmentFailure
from symcache.text import excerpt
from symcache_provisioning.interrupts import defer_interrupts

__all__ = ["Child", "Output", "Program", "ProgramError", "process_start"]

_MAX_OUTPUT = 4 << 20
_TERMINATE_SECONDS = 3
"""Between SIGTERM and SIGKILL."""
_READ_AFTER_EXIT = 0.5
"""Seconds that pipes are read after the program has ended, since its children may hold them open."""


class ProgramError(EnvironmentFailure):
    """A program failed. `status` is its exit code, or None if it was killed; `output` is what it printed as error."""

    def __init__(self, message: str, *, hint: str = "", status: int | None = None, output: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status, self.output = status, output


@dataclass(frozen=True, slots=True)
class Output:
    """What a program printed, and its exit code."""

    stdout: str
    stderr: str
    status: int


@dataclass(frozen=True, slots=True)
class Child:
    """A process that runs as long as its machine. `started` tells it from a later one with the same pid."""

    pid: int
    started: str
    log: Path

    def alive(self) -> bool:
        """Return whether it still runs, and reap it if it is our child."""
        with contextlib.suppress(ChildProcessError, OSError):
            os.waitpid(self.pid, os.WNOHANG)
        # `started` is empty if it ended before its start time could be read.
        return self.started != "" and process_start(self.pid) == self.started

    def end(self, grace: float = 5) -> None:
        """End its process group, by SIGKILL if SIGTERM does not within `grace` seconds."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self.alive():
                return
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)
            deadline = time.monotonic() + grace
            while self.alive() and time.monotonic() < deadline:
                time.sleep(0.05)

    def last_output(self) -> str:
        """Return the last two lines of its log: the very last is often how to get help."""
        try:
            with self.log.open("rb") as opened:
                opened.seek(max(0, self.log.stat().st_size - 8192))
                lines = [line for line in opened.read(8192).splitlines() if line.strip()]
        except OSError:
            return ""
        return excerpt(b"; ".join(lines[-2:]))


def process_start(pid: int) -> str:
    """Return the start time of a process, as its system writes it; empty if there is none, or it is a zombie.

    Records of runs hold it. Not psutil's `create_time`, which on Linux moves when the clock is set.
    """
    try:
        # Fields 3 (state) and 22 (start time in ticks) of proc(5); the name before them may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in {"Z", "X"} else fields[19]
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return ""
    except (OSError, IndexError):
        return ""
    done = subprocess.run(
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
        env={"LC_ALL": "C"},
    )
    state, _, started = done.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else " ".join(started.split())


class Program:
    """One program of a driver, on PATH or in a usual location."""

    def __init__(self, name: str, *locations: str, hint: str) -> None:
        self.name, self._locations, self._hint = name, locations, hint

    def find(self) -> str:
        """Return its path. Raises EnvironmentFailure."""
        path = shutil.which(self.name) or next((p for p in self._locations if os.access(p, os.X_OK)), None)
        if path is None:
            raise EnvironmentFailure(f"{self.name} is not installed", hint=self._hint)
        return path

    def run(
        self,
        verb: str,
        *arguments: str,
        machine: str = "",
        before: Sequence[str] = (),
        timeout: float = 60,
        strict_stderr: bool = False,
        accept: Callable[[Output], bool] | None = None,
    ) -> Output:
        """Run `name *before verb *arguments`. `machine` is for messages.

        Exit code 0 is success, unless `strict_stderr` and something is on stderr. Raises ProgramError for a failure,
        unless `accept` returns True for it.
        """
        argv = [self.find(), *before, verb, *arguments]
        output = self._collect(argv, verb, machine, timeout)
        failed = output.status != 0 or (strict_stderr and output.stderr.strip() != "")
        if failed and not (accept and accept(output)):
            raise self.failure(verb, machine, output)
        return output

    def failure(self, verb: str, machine: str, output: Output, hint: str = "") -> ProgramError:
        """Return the error for the output of a failed run."""
        # vmrun prints errors on stdout, the others on stderr.
        lines = [line for line in (output.stderr or output.stdout).splitlines() if line.strip()]
        message = excerpt(lines[0]) if lines else "it said nothing"
        return ProgramError(
            f"{self._command(verb, machine)} ended with {output.status}: {message}",
            hint=hint or f"run it by hand: {excerpt(' '.join(filter(None, [self.name, verb, machine])))}",
            status=output.status,
            output=message,
        )

    def json(self, verb: str, *arguments: str, machine: str = "", timeout: float = 60) -> Any:
        """Run it and return the JSON that it prints. Raises ProgramError."""
        output = self.run(verb, *arguments, machine=machine, timeout=timeout)
        return self.parse(verb, machine, output)

    def parse(self, verb: str, machine: str, output: Output) -> Any:
        """Return an output's JSON. Raises ProgramError."""
        try:
            return json.loads(output.stdout)
        except (ValueError, RecursionError) as error:
            raise ProgramError(
                f"{self._command(verb, machine)} printed {excerpt(output.stdout, 60)!r}, which is no JSON",
                hint=f"is this version of {self.name} supported? (docs/machines.md)",
            ) from error

    def spawn(self, *arguments: str, log: Path, folder: Path | None = None) -> Child:
        """Start it in the background, in a session of its own, with its output in `log`."""
        argv = [self.find(), *arguments]
        log.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env=_environment(),
                cwd=folder,
                start_new_session=True,
            )
        except OSError as error:
            raise EnvironmentFailure(f"{argv[0]}: cannot be started: {error.strerror}", hint=self._hint) from error
        finally:
            os.close(descriptor)
        child = Child(process.pid, process_start(process.pid), log)
        process.returncode = 0  # it outlives us, or Child.alive reaps it: Popen must not warn
        return child

    def _command(self, verb: str, machine: str) -> str:
        return excerpt(" ".join(filter(None, [self.name, verb, machine])))

    def _collect(self, argv: Sequence[str], verb: str, machine: str, timeout: float) -> Output:
        process: subprocess.Popen[bytes] | None = None
        try:
            with defer_interrupts():  # never lose a process that has just been started
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=_environment(),
                    start_new_session=True,  # Ctrl+C is handled here
                )
            stdout, stderr = self._read(process, verb, machine, timeout)
            status = process.wait()
        except OSError as error:
            if process is not None:
                _end(process)
            raise EnvironmentFailure(f"{argv[0]}: cannot be run: {error.strerror}", hint=self._hint) from error
        except BaseException:
            if process is not None:
                _end(process)
            raise
        finally:
            for pipe in (process.stdout, process.stderr) if process else ():
                if pipe:
                    pipe.close()
        return Output(stdout.decode("utf-8", "replace"), stderr.decode("utf-8", "replace"), status)

    def _read(
        self, process: subprocess.Popen[bytes], verb: str, machine: str, timeout: float
    ) -> tuple[bytearray, bytearray]:
        texts = (bytearray(), bytearray())
        deadline = time.monotonic() + timeout
        ended: float | None = None
        with selectors.DefaultSelector() as selector:
            for pipe, text in zip((process.stdout, process.stderr), texts, strict=True):
                if pipe is not None:
                    selector.register(pipe, selectors.EVENT_READ, text)
            while True:
                # A signal inside Popen could leave its lock held.
                with defer_interrupts():
                    over = process.poll() is not None
                    now = time.monotonic()
                    if over and ended is None:
                        ended = now
                    if over and (not selector.get_map() or now > (ended or now) + _READ_AFTER_EXIT):
                        break
                    if now > deadline:
                        raise ProgramError(
                            f"{self._command(verb, machine)} did not finish within {timeout:g} s",
                            hint="see whether it asks for something on the machine's screen, or run it by hand",
                        )
                    if not selector.get_map():
                        time.sleep(0.01)
                        continue
                    for key, _ in selector.select(min(0.1, deadline - now + 0.01)):
                        data = os.read(key.fd, 65536)
                        if not data:
                            selector.unregister(key.fileobj)
                        key.data.extend(data)
                        if len(key.data) > _MAX_OUTPUT:
                            raise ProgramError(
                                f"{self._command(verb, machine)} printed more than {_MAX_OUTPUT} bytes",
                                hint="run it by hand and see what it prints",
                            )
        return texts


def _end(process: subprocess.Popen[bytes]) -> None:
    """Terminate a program and its children, so that they can clean up; then kill them."""
    with defer_interrupts():
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_TERMINATE_SECONDS)
        process.wait()


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", "LANG": "C"}
