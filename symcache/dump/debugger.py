"""Runs LLDB in a child process: bounded in time and memory, with nothing of ours in its environment.

LLDB crashes on some hostile input; what it is given here comes from strangers. So it never runs in this process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from symcache.dump.lldb_python import LldbPython, find_lldb, next_step
from symcache.errors import DebuggerError, DumpError

__all__ = ["Limits", "analyze_in_child", "print_in_child", "prompt_in_child", "require_lldb"]

_WORKER = Path(__file__).with_name("worker.py")
_MAX_OUTPUT = 256 << 20
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


def require_lldb() -> LldbPython:
    """Return the LLDB to use. Raises DebuggerError with the way to get one."""
    if found := find_lldb():
        return found
    raise DebuggerError("no LLDB was found that Python can import", hint=next_step())


def analyze_in_child(plan: dict[str, Any], scratch: Path, limits: Limits, name: str) -> dict[str, Any]:
    """Return the worker's report (see worker.py) on a dump called `name`. Raises DebuggerError, DumpError."""
    with _started("analyze", plan, scratch, limits, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as child:
        raw = _read(child, limits, name)
    try:
        result: dict[str, Any] = json.loads(raw)
    except ValueError as error:
        raise DebuggerError(f"{name}: LLDB's report is not JSON: {error}", hint="run again with --debug") from error
    if "error" in result:
        raise DumpError(f"{name}: LLDB does not open the core: {result['error']}", hint="the dump may be damaged")
    return result


def print_in_child(plan: dict[str, Any], scratch: Path, limits: Limits, name: str) -> str:
    """Return what LLDB prints for `bt` on the crashed thread. Raises DebuggerError, DumpError."""
    with _started("print", plan, scratch, limits, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as child:
        return _read(child, limits, name).decode("utf-8", "replace")


def prompt_in_child(plan: dict[str, Any], scratch: Path, limits: Limits, name: str) -> None:
    """Hand the terminal to LLDB until the user quits. Raises DebuggerError, DumpError."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for LLDB
    try:
        with _started("prompt", plan, scratch, limits, stdin=None, stdout=None) as child:
            child.process.wait()
            if child.process.returncode:
                raise _failure(child, name)
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass(frozen=True, slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    errors: IO[bytes]


@contextmanager
def _started(
    mode: str, plan: dict[str, Any], scratch: Path, limits: Limits, *, stdin: int | None, stdout: int | None
) -> Iterator[_Child]:
    lldb = require_lldb()
    mapped = sum(Path(p).stat().st_size for p in _mapped_files(plan))
    full = {
        **plan,
        "memory": limits.memory + 2 * mapped,
        "max_frames": limits.max_frames,
        "package_folder": lldb.package_folder,
        "library": lldb.library,
    }
    work = Path(tempfile.mkdtemp(prefix="lldb-", dir=scratch))
    plan_path = work / "plan.json"
    plan_path.write_text(json.dumps(full), encoding="utf-8")
    empty = work / "empty"
    empty.mkdir()
    interactive = stdout is None
    with tempfile.TemporaryFile(dir=work) as errors:
        process = subprocess.Popen(
            [lldb.interpreter, "-I", str(_WORKER), mode, str(plan_path)],
            stdin=stdin,
            stdout=stdout,
            stderr=None if interactive else errors,
            cwd=empty,
            env=_environment(work, interactive),
            start_new_session=not interactive,  # the terminal belongs to our session
        )
        try:
            yield _Child(process, errors)
        finally:
            if process.poll() is None:
                if interactive:
                    process.kill()
                else:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdout:
                process.stdout.close()


def _mapped_files(plan: dict[str, Any]) -> Iterator[str]:
    yield plan["core"]
    for module in plan["modules"]:
        yield from (module[key] for key in ("path", "symbols") if module[key])


def _environment(work: Path, interactive: bool) -> dict[str, str]:
    """Return the little that LLDB needs: no PYTHON*, LD_*, LLDB_*, DEBUGINFOD_* of the caller's."""
    home = os.environ.get("HOME") if interactive else None
    keep = {name: os.environ[name] for name in ("TERM", "DEVELOPER_DIR") if name in os.environ}
    return {
        **keep,
        "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": home or str(work),
        "TMPDIR": str(work),
        "LANG": "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8",
    }


def _read(child: _Child, limits: Limits, name: str) -> bytes:
    """Return the child's output once it has ended well."""
    received: list[bytes] = []
    stream = child.process.stdout
    if stream is None:
        raise DebuggerError(f"{name}: LLDB's output cannot be read")
    reader = threading.Thread(target=lambda: received.append(stream.read(_MAX_OUTPUT + 1)), daemon=True)
    reader.start()
    reader.join(limits.seconds)
    if reader.is_alive():
        with suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGKILL)
        reader.join()
        raise DebuggerError(
            f"{name}: LLDB was not done after {limits.seconds:g} seconds and was stopped",
            hint="give it longer with --timeout; if that does not help, the dump may be made to hang it",
        )
    raw = received[0] if received else b""
    if len(raw) > _MAX_OUTPUT:
        raise DebuggerError(f"{name}: LLDB reports more than {_MAX_OUTPUT >> 20} MiB", hint="limit --max-frames")
    try:
        code = child.process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        raise DebuggerError(f"{name}: LLDB closed its output, but does not end") from None
    if code and not (code == _NOT_TAKEN and raw):
        raise _failure(child, name)
    return raw


def _failure(child: _Child, name: str) -> DebuggerError | DumpError:
    code = child.process.returncode
    child.errors.seek(0)
    lines = child.errors.read(64 << 10).decode("utf-8", "replace").strip().splitlines()
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
