"""The one way to have hostile files read: by a Python in a process of its own, which can do little else.

What it reads decides what it does, if the reader has a fault. So it gets bounds, no network, nothing to write but what
it is given, no processes of its own; and it ends with this process, and when it is no longer wanted.
"""

from __future__ import annotations

import io
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Self

from symcache.confined import inside
from symcache.confined.conversation import Conversation, NoRequestError
from symcache.confined.machine import is_unconfined, machine_memory, sandbox_command
from symcache.errors import EnvironmentFailure

__all__ = ["Bounds", "Cause", "ConfinedProcess", "ProcessFailure"]

_INSIDE = str(Path(inside.__file__).resolve())
_END_SECONDS = 10.0
"""To exit after its output has ended, however little of its time is left."""
_MAX_ERRORS = 1 << 20
_MAX_MILLISECONDS = (1 << 31) - 1
"""What poll(2) takes."""
_NO_MEMORY = ("MemoryError", "bad_alloc", "out of memory", "Cannot allocate memory")
"""What programs say on standard error when they get none."""


@dataclass(frozen=True)
class Bounds:
    """What a confined process may take."""

    seconds: float = 180
    """Until its output is complete, not counting those that our responses take."""
    memory: int = 8 << 30
    """Bytes that are its own: files that it maps take none. Three quarters of the machine's are the most."""
    output: int = 256 << 20
    """Bytes on standard output."""
    descriptors: int = 2048
    writable: tuple[Path, ...] = ()
    """Folders below which it may write, and must exist; files in them can be larger than a mebibyte."""

    @property
    def granted_memory(self) -> int:
        """`memory`, as far as the machine has it."""
        return min(self.memory, machine_memory() * 3 // 4)

    def to_json(self, *, terminal: bool) -> str:
        """Return what `inside.py` reads."""
        return json.dumps(
            {
                "memory": self.granted_memory,
                "descriptors": self.descriptors,
                "file_bytes": None if terminal or self.writable else _MAX_ERRORS,
                # Where nothing ends it with this process, its own time does.
                "cpu_seconds": None if terminal else int(self.seconds * (os.cpu_count() or 1)) + 60,
                "writable": [str(path.absolute()) for path in self.writable],
                "parent": os.getpid(),
                "unconfined": is_unconfined(),
            }
        )


class Cause(StrEnum):
    """Why a confined process gave no result."""

    TIME = "time"
    MEMORY = "memory"
    OUTPUT = "output"
    REQUEST = "request"
    """It asked for something that it may not, or too often."""
    SIGNAL = "signal"
    FAILED = "failed"
    UNCONFINED = "unconfined"
    """The system refused to confine it, so that it did not begin."""


class ProcessFailure(EnvironmentFailure):
    """A confined process died, failed, or wanted more than it may."""

    def __init__(self, message: str, cause: Cause, code: int | None = None) -> None:
        super().__init__(message)
        self.cause, self.code = cause, code


class ConfinedProcess:
    """A Python that runs a script confined: a context manager, behind which it and all that it started are gone.

    `python`: returns the command that runs a file with arguments, such as `own_python`. `script`: a file, or `-m` and
    the module as first of `arguments`. `folder`: an empty one, where it works. `terminal`: standard input and output
    are ours, for as long as the user likes. `conversation`: with it, if it is told or asks for anything; its
    `child_ends` are for `arguments`. `descriptors`: open files that it gets by the same numbers. To be used by the
    thread that made it: Linux ends it with that.
    """

    def __init__(
        self,
        python: Callable[..., list[str]],
        script: str,
        arguments: Sequence[str],
        bounds: Bounds,
        *,
        environment: Mapping[str, str],
        folder: Path,
        terminal: bool = False,
        conversation: Conversation | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        self._bounds, self._terminal = bounds, terminal
        self._conversation = conversation
        self._errors = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (`__exit__` closes it)
        sandbox = sandbox_command(bounds.writable) if sys.platform == "darwin" else []
        try:
            self._process = subprocess.Popen(
                [*sandbox, *python(_INSIDE, bounds.to_json(terminal=terminal), script, *arguments)],
                stdin=None if terminal else subprocess.DEVNULL,
                stdout=None if terminal else subprocess.PIPE,
                stderr=None if terminal else self._errors,
                cwd=folder,
                env=dict(environment),
                start_new_session=not terminal,  # the terminal belongs to our session
                pass_fds=(*(conversation.child_ends if conversation else ()), *descriptors),
            )
        except BaseException:
            self._errors.close()
            raise
        if conversation:
            conversation.close_child_ends()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._errors.close()

    def kill(self) -> None:
        """End it now, with all that it started, which may have outlived it."""
        if self._terminal:
            self._process.kill()
        else:
            with suppress(ProcessLookupError, PermissionError):  # macOS: of a group whose processes have all ended
                os.killpg(self._process.pid, signal.SIGKILL)

    def read(self, what: str, accepted: Sequence[int] = ()) -> tuple[int, bytes]:
        """Return exit code and standard output, once it has ended with 0 or an `accepted` code. Raises ProcessFailure.

        `what` names it at the beginning of messages.
        """
        received = io.BytesIO()
        return self.copy(what, received, accepted), received.getvalue()

    def copy(self, what: str, out: BinaryIO, accepted: Sequence[int] = ()) -> int:
        """As `read`, but copy standard output to `out`, and return the exit code alone."""
        stream, limit, end = self._process.stdout, self._bounds.output, time.monotonic() + self._bounds.seconds
        if stream is None:
            raise ValueError("its standard output is the terminal")
        received, ended = 0, False
        while not ended:
            ready, took = self._proceed(what, [stream.fileno()], max(0.0, end - time.monotonic()))
            end += took
            if stream.fileno() in ready:
                part = os.read(stream.fileno(), 1 << 20)
                received, ended = received + len(part), not part
                out.write(part)
            if received > limit:
                raise ProcessFailure(f"{what} writes more than {limit >> 20} MiB", Cause.OUTPUT)
        try:
            code = self._process.wait(timeout=max(_END_SECONDS, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise ProcessFailure(f"{what} closed its output, but does not end", Cause.TIME) from None
        self.kill()  # what it has left behind, where it could leave anything
        if code and code not in accepted:
            raise self._failure(what)
        return code

    def _proceed(self, what: str, outputs: list[int], seconds: float | None) -> tuple[list[int], float]:
        """Go on with the conversation, or return which of `outputs` can be read; with the seconds that we responded."""
        talk = self._conversation
        reading, writing = (talk.reading, talk.writing) if talk else ([], [])
        poll = select.poll()  # `select.select` takes no descriptor above 1023, which a busy server has
        for descriptor in (*outputs, *reading):
            poll.register(descriptor, select.POLLIN)
        for descriptor in writing:
            poll.register(descriptor, select.POLLOUT)
        timeout = None if seconds is None else math.ceil(min(seconds * 1000, _MAX_MILLISECONDS))
        ready = [descriptor for descriptor, _ in poll.poll(timeout)]
        if not ready:
            late = "was not done" if outputs else "did not read what it was sent"
            raise ProcessFailure(f"{what} {late} after {self._bounds.seconds:g} seconds and was stopped", Cause.TIME)
        try:
            return ready, talk.proceed(ready) if talk else 0.0
        except NoRequestError as error:
            raise ProcessFailure(f"{what} {error} and was stopped", Cause.REQUEST) from error

    def wait(self, what: str) -> None:
        """Wait until it has ended well, for as long as the user likes. Raises ProcessFailure, KeyboardInterrupt.

        Ctrl-C is for the child; to have it end a response, that sets its handler (`Conversation.begin`).
        """
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            while (talk := self._conversation) and (talk.reading or talk.writing):
                self._proceed(what, [], self._bounds.seconds if talk.writing else None)
            code = self._process.wait()
        finally:
            signal.signal(signal.SIGINT, before)
        if code == -signal.SIGINT:
            raise KeyboardInterrupt
        if code:
            raise self._failure(what)

    def _failure(self, what: str) -> ProcessFailure:
        code = self._process.returncode
        self._errors.seek(0)
        text = self._errors.read(_MAX_ERRORS).decode("utf-8", "replace")
        last = (text.strip().splitlines() or [""])[-1][:300]
        if any(word in text for word in _NO_MEMORY):
            granted = self._bounds.granted_memory / (1 << 30)
            return ProcessFailure(f"{what} needs more memory than it is allowed, {granted:.1f} GiB", Cause.MEMORY, code)
        if code < 0:
            try:
                died = signal.Signals(-code).name
            except ValueError:
                died = f"signal {-code}"
            if code == -signal.SIGKILL:
                last = last or "perhaps for lack of memory on this machine"
            return ProcessFailure(f"{what} died of {died}" + (f" ({last})" if last else ""), Cause.SIGNAL, code)
        if code == inside.FAILED:
            return ProcessFailure(f"{what} cannot be confined: {last}", Cause.UNCONFINED, code)
        return ProcessFailure(f"{what} failed: {last or f'exit code {code}'}", Cause.FAILED, code)
