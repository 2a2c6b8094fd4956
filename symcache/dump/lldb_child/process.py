"""Runs LLDB in a confined process, with nothing of ours in its environment.

LLDB crashes on some hostile input; what it is given here comes from strangers. So it never runs in this process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from symcache.confined import UNCONFINED, Bounds, Cause, ConfinedProcess, Conversation, ProcessFailure, Respond
from symcache.dump.lldb_child.finder import LldbPython, find_lldb, next_step
from symcache.dump.lldb_child.links import Links
from symcache.dump.lldb_child.protocol import ChildReport, Plan, to_line
from symcache.dump.lldb_child.requests import FetchModules, FindSources, Responder
from symcache.errors import DebuggerError, DumpError
from symcache.own_program import user_site
from symcache.scratch import ScratchFolder

__all__ = ["Limits", "LldbProcess", "Mode", "require_lldb"]

_WORKER = Path(__file__).with_name("worker.py")
_MAX_REQUESTS, _MAX_REQUESTS_AT_PROMPT = 64, 1 << 14
"""Of one LLDB; its stacks lead to other modules in some rounds, and its user may ask for more all day."""
_MAX_OUTPUT = 64 << 20
"""Bytes of JSON: some 200 000 frames. Made into values, it takes many times as much."""
_NOT_TAKEN = 4
"""Exit code of the worker when LLDB refuses the core."""
_HINTS = {
    Cause.TIME: "give it longer with --timeout; if that does not help, the dump may be made to hang it",
    Cause.MEMORY: "allow it more (SYMCACHE_LLDB_MEMORY), or fewer dumps at a time (--jobs); the dump may be hostile",
    Cause.OUTPUT: "the dump may be hostile",
    Cause.REQUEST: "the dump may be hostile",
    Cause.SIGNAL: "the dump may be damaged or hostile; another version of LLDB may open it (docs/lldb.md)",
    Cause.UNCONFINED: f"with {UNCONFINED}=1 it has limits only; do so with dumps that you trust (docs/lldb.md)",
}


@dataclass(frozen=True)
class Limits:
    """What the child may take."""

    seconds: float = 180
    """Until all backtraces are there; the prompt may stay open for ever."""
    memory: int = Bounds.memory
    """Bytes, beside the files that it maps; see `Bounds`."""
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

    A context manager; the child and all that it started are gone behind it. Raises DebuggerError. `writable`: folders
    below which commands at the prompt may write.
    """

    def __init__(self, mode: Mode, limits: Limits | None = None, writable: Sequence[Path] = ()) -> None:
        self.mode, self._limits, self._writable = mode, limits or Limits(), writable

    def __enter__(self) -> Self:
        lldb = require_lldb()
        package = json.dumps({"package_folder": lldb.package_folder, "library": lldb.library})
        terminal = self.mode is Mode.PROMPT
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(ScratchFolder("lldb")))
            empty = self._folder / "empty"
            empty.mkdir()
            most = _MAX_REQUESTS_AT_PROMPT if terminal else _MAX_REQUESTS
            self._conversation = stack.enter_context(Conversation(most))
            reading, requests = map(str, self._conversation.child_ends)
            process = ConfinedProcess(
                lldb.command,
                str(_WORKER),
                [self.mode, reading, package, requests],
                self._bounds(),
                environment=_environment(self._folder, terminal),
                folder=empty,
                terminal=terminal,
                conversation=self._conversation,
            )
            self._process = stack.enter_context(process)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _bounds(self) -> Bounds:
        """Return what LLDB may take. Only commands at its prompt write."""
        writable = (self._folder, *self._writable) if self.mode is Mode.PROMPT else ()
        return Bounds(self._limits.seconds, self._limits.memory, _MAX_OUTPUT, writable=writable)

    def report(self, plan: Plan, name: str, fetch_modules: FetchModules | None = None) -> ChildReport:
        """Return the worker's report on a dump called `name`. Raises DebuggerError, DumpError."""
        self._begin(plan, None, fetch_modules)
        report = ChildReport.parse(self._read(name)[1], name)
        if len(report.modules) != len(plan.modules):
            raise DebuggerError(
                f"{name}: LLDB reports on {len(report.modules)} modules where {len(plan.modules)} were expected",
                hint="run again with --debug",
            )
        return report

    def backtrace(
        self, plan: Plan, name: str, find_sources: FindSources | None = None, fetch_modules: FetchModules | None = None
    ) -> str:
        """Return what LLDB prints for `bt` on the crashed thread, and source lines. Raises DebuggerError, DumpError."""
        self._begin(plan, find_sources, fetch_modules)
        code, raw = self._read(name)
        if code == _NOT_TAKEN:
            ChildReport.parse(raw, name)
        return raw.decode("utf-8", "replace")

    def prompt(
        self, plan: Plan, name: str, find_sources: FindSources | None = None, fetch_modules: FetchModules | None = None
    ) -> None:
        """Leave the terminal to LLDB until the user quits. Raises DebuggerError, DumpError, KeyboardInterrupt.

        Ctrl-C is LLDB's, and ends `fetch_modules` while that is at work.
        """
        self._begin(plan, find_sources, fetch_modules)
        with _explained(name):
            self._process.wait(f"{name}: LLDB")

    def _begin(self, plan: Plan, find_sources: FindSources | None, fetch_modules: FetchModules | None) -> None:
        links = Links(self._folder / "links")
        respond = Responder(find_sources, fetch_modules, links)
        self._conversation.begin(
            to_line(
                links.of_plan(plan).to_json(max_frames=self._limits.max_frames, send_sources=find_sources is not None)
            ),
            _interruptible(respond) if self.mode is Mode.PROMPT else respond,
        )

    def _read(self, name: str) -> tuple[int, bytes]:
        """Return the child's exit code and output once it has ended well."""
        with _explained(name):
            return self._process.read(f"{name}: LLDB", accepted=[_NOT_TAKEN])


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Make what befell the process an error of the dump called `name`."""
    try:
        yield
    except ProcessFailure as error:
        if error.code == _NOT_TAKEN:
            raise DumpError(f"{name}: LLDB does not open the core", hint="the dump may be damaged") from error
        raise DebuggerError(str(error), hint=_HINTS.get(error.cause) or next_step()) from error


def _interruptible(respond: Respond) -> Respond:
    """Have Ctrl-C end a response; else it is ignored while there is a prompt."""

    def interruptible(request: bytes) -> bytes:
        ignoring = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return respond(request)
        finally:
            signal.signal(signal.SIGINT, ignoring)

    return interruptible


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
