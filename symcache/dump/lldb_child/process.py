"""Runs LLDB in a child process: bounded in time and memory, with nothing of ours in its environment.

LLDB crashes on some hostile input; what it is given here comes from strangers. So it never runs in this process.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Self

from symcache.dump.lldb_child.finder import LldbPython, find_lldb, next_step
from symcache.dump.lldb_child.protocol import ChildReport, FetchedModules, Plan, to_line
from symcache.dump.lldb_child.requests import FetchModules, FindSources, read_request
from symcache.errors import DebuggerError, DumpError
from symcache.own_program import user_site
from symcache.scratch import ScratchFolder
from symcache.text import encodable

__all__ = ["Limits", "LldbProcess", "Mode", "require_lldb"]

_WORKER = Path(__file__).with_name("worker.py")
_MAX_OUTPUT = 256 << 20
_END_SECONDS = 10.0
"""For ending once all is said, however little of its time is left."""
_NOT_TAKEN = 4
"""Exit code of the worker when LLDB refuses the core."""


@dataclass(frozen=True)
class Limits:
    """What the child may take."""

    seconds: float = 180
    """Until all backtraces are there; the prompt may stay open for ever."""
    memory: int = 12 << 30
    """Address space in bytes, beside core and modules, which are mapped. LLDB itself maps some gigabytes."""
    max_frames: int = 1024
    """Frames of one thread."""


class Mode(StrEnum):
    """What the child is for; see worker.py."""

    ANALYZE = "analyze"
    PRINT = "print"
    PROMPT = "prompt"


def require_lldb() -> LldbPython:
    """Return the LLDB to use. Raises DebuggerError with the way to get one."""
    if lldb := find_lldb():
        return lldb
    raise DebuggerError("no LLDB was found that Python can import", hint=next_step())


class LldbProcess:
    """A child that imports LLDB at once and waits for its plan: meanwhile the modules can be looked for.

    A context manager; the child and all that it started are gone behind it. Raises DebuggerError.
    """

    def __init__(self, mode: Mode, limits: Limits | None = None) -> None:
        self.mode, self._limits = mode, limits or Limits()

    def __enter__(self) -> Self:
        lldb = require_lldb()
        self._package = {"package_folder": lldb.package_folder, "library": lldb.library}
        self._folder = ScratchFolder("lldb")
        interactive = self.mode is Mode.PROMPT
        try:
            empty = Path(self._folder.name, "empty")
            empty.mkdir()
            self._errors = tempfile.TemporaryFile(dir=self._folder.name)
            reading, self._plan = os.pipe()
            self._requests, requests = os.pipe()
            try:
                self._process = subprocess.Popen(
                    lldb.command(str(_WORKER), self.mode, str(reading), json.dumps(self._package), str(requests)),
                    stdin=None if interactive else subprocess.DEVNULL,
                    stdout=None if interactive else subprocess.PIPE,
                    stderr=None if interactive else self._errors,
                    cwd=empty,
                    env=_environment(Path(self._folder.name), interactive),
                    start_new_session=not interactive,  # the terminal belongs to our session
                    pass_fds=[reading, requests],
                )
            except BaseException:
                os.close(self._plan)
                os.close(self._requests)
                raise
            finally:
                os.close(reading)
                os.close(requests)
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._hang_up()
        os.close(self._requests)
        if self._process.poll() is None:
            self._kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._errors.close()
        self._folder.cleanup()

    def report(self, plan: Plan, name: str, fetch_modules: FetchModules | None = None) -> ChildReport:
        """Return the worker's report on a dump called `name`. Raises DebuggerError, DumpError."""
        return ChildReport.parse(self._read(plan, name, None, fetch_modules), name)

    def backtrace(
        self, plan: Plan, name: str, find_sources: FindSources | None = None, fetch_modules: FetchModules | None = None
    ) -> str:
        """Return what LLDB prints for `bt` on the crashed thread, and source lines. Raises DebuggerError, DumpError."""
        return self._read(plan, name, find_sources, fetch_modules).decode("utf-8", "replace")

    def prompt(
        self, plan: Plan, name: str, find_sources: FindSources | None = None, fetch_modules: FetchModules | None = None
    ) -> None:
        """Leave the terminal to LLDB until the user quits. Raises DebuggerError, DumpError.

        Ctrl-C is LLDB's, and ends `fetch_modules` while that is at work.
        """

        def fetch(numbers: list[int], why: str) -> FetchedModules:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                return fetch_modules(numbers, why) if fetch_modules else FetchedModules()
            finally:
                signal.signal(signal.SIGINT, signal.SIG_IGN)

        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._send(plan, find_sources)
            self._respond(find_sources, fetch, math.inf)
            if self._process.wait():
                raise self._failure(name)
        finally:
            signal.signal(signal.SIGINT, before)

    def _send(self, plan: Plan, find_sources: FindSources | None = None) -> None:
        mapped = sum(path.stat().st_size for path in plan.mapped_files())
        self._write(
            self._with_links(plan).to_line(
                memory=self._limits.memory + 2 * mapped,
                max_frames=self._limits.max_frames,
                send_sources=find_sources is not None,
            )
        )

    def _write(self, line: bytes) -> None:
        with suppress(BrokenPipeError):  # it has died; reading will tell of what
            while line:
                line = line[os.write(self._plan, line) :]

    def _respond(self, find_sources: FindSources | None, fetch_modules: FetchModules | None, end: float) -> float:
        """Respond to the worker until it says that it has no more requests, or until a time has come.

        Return that time, put off by as long as the responses took.
        """
        while request := read_request(self._requests, end):
            start = time.monotonic()
            if "modules" in request and fetch_modules:
                fetched = fetch_modules(request["modules"], request["why"])
                modules = tuple((n, replace(m, symbols=self._link(m.symbols))) for n, m in fetched.modules)
                self._write(
                    to_line(replace(fetched, modules=modules, source_map=_encodable(fetched.source_map)).to_json())
                )
            elif "sources" in request and find_sources:
                self._write(to_line(find_sources(request["sources"])))
            else:
                break
            end += time.monotonic() - start
        return end

    def _with_links(self, plan: Plan) -> Plan:
        """Return the plan with links for files whose paths are no UTF-8: LLDB's Python module takes no others."""
        return replace(
            plan,
            core=self._link(plan.core),
            source_map=_encodable(plan.source_map),
            modules=tuple(replace(module, symbols=self._link(module.symbols)) for module in plan.modules),
        )

    def _link(self, path: Path | None) -> Path | None:
        if path is None or _is_encodable(str(path)):
            return path
        folder = Path(self._folder.name, "links")
        folder.mkdir(exist_ok=True)
        place = folder / str(sum(1 for _ in folder.iterdir()))
        place.symlink_to(path)
        return place

    def _hang_up(self) -> None:
        if self._plan >= 0:
            os.close(self._plan)
            self._plan = -1

    def _kill(self) -> None:
        if self.mode is Mode.PROMPT:
            self._process.kill()
        else:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _read(
        self, plan: Plan, name: str, find_sources: FindSources | None, fetch_modules: FetchModules | None
    ) -> bytes:
        """Return the child's output once it has ended well."""
        self._send(plan, find_sources)
        received: list[bytes] = []
        stream = self._process.stdout
        if stream is None:
            raise DebuggerError(f"{name}: LLDB's output cannot be read")
        reader = threading.Thread(target=lambda: received.append(stream.read(_MAX_OUTPUT + 1)), daemon=True)
        reader.start()
        end = self._respond(find_sources, fetch_modules, time.monotonic() + self._limits.seconds)
        reader.join(max(0.0, end - time.monotonic()))
        if reader.is_alive():
            self._kill()
            reader.join()
            raise DebuggerError(
                f"{name}: LLDB was not done after {self._limits.seconds:g} seconds and was stopped",
                hint="give it longer with --timeout; if that does not help, the dump may be made to hang it",
            )
        raw = received[0] if received else b""
        if len(raw) > _MAX_OUTPUT:
            raise DebuggerError(f"{name}: LLDB reports more than {_MAX_OUTPUT >> 20} MiB")
        try:
            code = self._process.wait(timeout=max(_END_SECONDS, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise DebuggerError(f"{name}: LLDB closed its output, but does not end") from None
        if code and not (code == _NOT_TAKEN and raw):
            raise self._failure(name)
        return raw

    def _failure(self, name: str) -> DebuggerError | DumpError:
        code = self._process.returncode
        self._errors.seek(0)
        lines = self._errors.read(64 << 10).decode("utf-8", "replace").strip().splitlines()
        last = lines[-1][:300] if lines else ""
        if code == _NOT_TAKEN:
            return DumpError(f"{name}: LLDB does not open the core", hint="the dump may be damaged")
        if code < 0:
            try:
                died = signal.Signals(-code).name
            except ValueError:
                died = f"signal {-code}"
            return DebuggerError(
                f"{name}: LLDB died of {died} on it" + (f" ({last})" if last else ""),
                hint="the dump may be damaged or hostile; another version of LLDB may open it (docs/lldb.md)",
            )
        if "MemoryError" in last or "bad_alloc" in last:
            return DebuggerError(f"{name}: LLDB needs more memory than it is allowed", hint="the dump may be hostile")
        return DebuggerError(f"{name}: LLDB's process failed: {last or f'exit code {code}'}", hint=next_step())


def _encodable(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in pairs if all(map(_is_encodable, pair)))


def _is_encodable(text: str) -> bool:
    return encodable(text) == text


def _environment(work: Path, interactive: bool) -> dict[str, str]:
    """Return the little that LLDB needs: no PYTHONPATH, LD_*, LLDB_*, DEBUGINFOD_* of the caller's."""
    home = os.environ.get("HOME") if interactive else None
    keep = {name: os.environ[name] for name in ("TERM", "DEVELOPER_DIR") if name in os.environ}
    return {
        **keep,
        **user_site(),
        "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": home or str(work),
        "TMPDIR": str(work),
        "LANG": "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8",
    }
