"""Running the programs that drive virtual machines: never through a shell, never without a time limit.

What they print is bounded, read in the C locale, and shown only with its control characters made visible.
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
from symcache_provisioning.interrupts import defer_interrupts
from symcache_provisioning.text import shown

__all__ = ["Child", "Output", "Program", "ProgramError", "process_start"]

_MAX_OUTPUT = 4 << 20
_MERCY = 3
"""Seconds between being asked to end and being made to."""
_AFTER_EXIT = 0.5
"""Seconds that pipes are read on after the program's end: a process that it left behind may hold them open."""


class ProgramError(EnvironmentFailure):
    """A program failed, in a word: `status` is its exit code, None where it was ended for taking too long."""

    def __init__(self, message: str, *, hint: str = "", status: int | None = None, said: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status, self.said = status, said


@dataclass(frozen=True, slots=True)
class Output:
    """What a program printed, and its exit code."""

    stdout: str
    stderr: str
    status: int


@dataclass(frozen=True, slots=True)
class Child:
    """A process that lives as long as its machine. `started` tells it from a later one with the same number."""

    pid: int
    started: str
    log: Path

    def alive(self) -> bool:
        """Tell whether it still runs; collects it if it was ours."""
        with contextlib.suppress(ChildProcessError, OSError):
            os.waitpid(self.pid, os.WNOHANG)
        # Without a start, it had ended before anybody could look.
        return self.started != "" and process_start(self.pid) == self.started

    def end(self, grace: float = 5) -> None:
        """Ask its process group to end, then make it."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self.alive():
                return
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)
            deadline = time.monotonic() + grace
            while self.alive() and time.monotonic() < deadline:
                time.sleep(0.05)

    def said(self) -> str:
        """Return the last two lines of its log that say something: many programs end with how to ask for help."""
        try:
            with self.log.open("rb") as opened:
                opened.seek(max(0, self.log.stat().st_size - 8192))
                lines = [line for line in opened.read(8192).splitlines() if line.strip()]
        except OSError:
            return ""
        return shown(b"; ".join(lines[-2:]))


def process_start(pid: int) -> str:
    """Return when a process was started, in words of its system; empty where there is none, or only a zombie."""
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
    """One program of a driver, found on PATH or at the places where its vendor puts it."""

    def __init__(self, name: str, *places: str, hint: str) -> None:
        self.name, self._places, self._hint = name, places, hint

    def find(self) -> str:
        """Return its path. Raises EnvironmentFailure."""
        found = shutil.which(self.name) or next((p for p in self._places if os.access(p, os.X_OK)), None)
        if found is None:
            raise EnvironmentFailure(f"{self.name} is not installed", hint=self._hint)
        return found

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

        Exit code 0 is success, unless `strict_stderr` and something is on stderr; `accept` may forgive a failure.
        Raises ProgramError.
        """
        argv = [self.find(), *before, verb, *arguments]
        output = self._collect(argv, verb, machine, timeout)
        failed = output.status != 0 or (strict_stderr and output.stderr.strip() != "")
        if failed and not (accept and accept(output)):
            raise self.failure(verb, machine, output)
        return output

    def failure(self, verb: str, machine: str, output: Output, hint: str = "") -> ProgramError:
        """Return the error for an output that is none of success."""
        # vmrun complains on stdout; the others keep it for results.
        lines = [line for line in (output.stderr or output.stdout).splitlines() if line.strip()]
        said = shown(lines[0]) if lines else "it said nothing"
        return ProgramError(
            f"{self._what(verb, machine)} ended with {output.status}: {said}",
            hint=hint or f"run it by hand: {shown(' '.join(filter(None, [self.name, verb, machine])))}",
            status=output.status,
            said=said,
        )

    def json(self, verb: str, *arguments: str, machine: str = "", timeout: float = 60) -> Any:
        """Run it and return the JSON that it prints. Raises ProgramError for anything else."""
        output = self.run(verb, *arguments, machine=machine, timeout=timeout)
        return self.parse(verb, machine, output)

    def parse(self, verb: str, machine: str, output: Output) -> Any:
        """Return an output's JSON. Raises ProgramError."""
        try:
            return json.loads(output.stdout)
        except (ValueError, RecursionError) as error:
            raise ProgramError(
                f"{self._what(verb, machine)} printed {shown(output.stdout, 60)!r}, which is no JSON",
                hint=f"is this version of {self.name} supported? (docs/machines.md)",
            ) from error

    def spawn(self, *arguments: str, log: Path, folder: Path | None = None) -> Child:
        """Start it for as long as the machine lives: in a session of its own, its output in `log`."""
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
        process.returncode = 0  # it outlives us, or Child.alive collects it: Popen need not care
        return child

    def _what(self, verb: str, machine: str) -> str:
        return shown(" ".join(filter(None, [self.name, verb, machine])))

    def _collect(self, argv: Sequence[str], verb: str, machine: str, timeout: float) -> Output:
        process: subprocess.Popen[bytes] | None = None
        try:
            with defer_interrupts():  # never start what is not known to have been started
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=_environment(),
                    start_new_session=True,  # the terminal's Ctrl+C is for us to handle
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
                # A signal within Popen's own work could leave its locks behind.
                with defer_interrupts():
                    over = process.poll() is not None
                    now = time.monotonic()
                    if over and ended is None:
                        ended = now
                    if over and (not selector.get_map() or now > (ended or now) + _AFTER_EXIT):
                        break
                    if now > deadline:
                        raise ProgramError(
                            f"{self._what(verb, machine)} did not finish within {timeout:g} s",
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
                                f"{self._what(verb, machine)} printed more than {_MAX_OUTPUT} bytes",
                                hint="run it by hand and see what it prints",
                            )
        return texts


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a program and what it started to end, which lets it remove what is half done; then make them."""
    with defer_interrupts():
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_MERCY)
        process.wait()


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", "LANG": "C"}
