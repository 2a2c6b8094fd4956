"""A debugger that hangs, dies, lies or wants too much: an error in time, and nothing left running."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from symcache.dump import Limits, LldbProcess, Mode, analyze, open_in_lldb
from symcache.dump.lldb_child import process as debugger_module
from symcache.dump.lldb_child.protocol import Plan
from symcache.errors import DebuggerError, DumpError
from symcache.images import SourceRequest
from symcache.resolve import ChainResolver, FolderResolver
from tests.dump.scene import Scene

Scenes = Callable[..., Scene]


def _worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> None:
    script = tmp_path / "worker.py"
    script.write_text(body)
    monkeypatch.setattr(debugger_module, "_WORKER", script)


def test_a_debugger_that_hangs_is_stopped_in_time(
    scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _worker(monkeypatch, tmp_path, "import time\ntime.sleep(600)\n")
    with pytest.raises(DebuggerError, match=r"crash.zip: LLDB was not done after 0.5 seconds") as error:
        analyze(scenes("x86_64").write(thread=1), FolderResolver([]), limits=Limits(seconds=0.5))
    assert "--timeout" in error.value.hint


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (f"import os\nos.kill(os.getpid(), {int(signal.SIGSEGV)})\n", "LLDB died of SIGSEGV"),
        (f"import os\nos.kill(os.getpid(), {int(signal.SIGKILL)})\n", "LLDB died of SIGKILL"),
        ("import sys\nsys.exit('cannot import')\n", "LLDB failed: cannot import"),
        ("print('no json')\n", "LLDB's report is not JSON"),
        ("raise MemoryError\n", "more memory than it is allowed"),
        ("import os, signal\nprint('{', flush=True)\nos.kill(os.getpid(), 6)\n", "LLDB died of SIGABRT"),
        ("import os\nos.fork()\n", "LLDB failed: PermissionError: [Errno 1] Operation not permitted"),
        ("import socket\nsocket.socket()\n", "LLDB failed: PermissionError: [Errno 1] Operation not permitted"),
    ],
)
def test_a_debugger_that_dies_is_reported(
    scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, expected: str
) -> None:
    _worker(monkeypatch, tmp_path, body)
    with pytest.raises(DebuggerError) as error:
        analyze(scenes("x86_64").write(thread=1), FolderResolver([]))
    assert expected in str(error.value)
    assert "crash.zip" in str(error.value)


def test_memory_of_the_debugger_is_limited(scenes: Scenes) -> None:
    with pytest.raises(DebuggerError, match="needs more memory than it is allowed"):
        analyze(scenes("x86_64").write(thread=1), FolderResolver([]), limits=Limits(memory=12 << 20))


def test_a_debugger_that_does_not_read_is_stopped_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _worker(monkeypatch, tmp_path, "import time\ntime.sleep(600)\n")
    more_than_a_pipe_holds = (("/recorded", "/" + "x" * (1 << 20)),)
    plan = Plan(None, "x86_64-apple-macosx", 0, more_than_a_pipe_holds, ())
    with (
        LldbProcess(Mode.ANALYZE, Limits(seconds=0.5)) as lldb,
        pytest.raises(DebuggerError, match=r"crash: LLDB was not done after 0.5 seconds"),
    ):
        lldb.report(plan, "crash")


def test_a_core_that_the_debugger_does_not_open_is_no_backtrace(
    scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = 'import os\nprint(\'{"error": "no threads"}\', flush=True)\nos._exit(4)\n'
    _worker(monkeypatch, tmp_path, body)
    dump = scenes("x86_64").write(thread=1)
    with LldbProcess(Mode.PRINT) as lldb, pytest.raises(DumpError, match="does not open the core: no threads"):
        open_in_lldb(dump, FolderResolver([]), lldb)


@pytest.mark.parametrize(
    "value",
    [
        "[" * 100_000,
        "{}",
        "[1]",
        '[["a"]]',
        '{"error": []}',
        '{"version": 1}',
        '{"version": "", "modules": [], "threads": []}',
    ],
)
def test_what_a_hostile_debugger_reports_is_an_error(
    scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    _worker(monkeypatch, tmp_path, f"print({value!r})\n")
    with pytest.raises((DebuggerError, DumpError)):
        analyze(scenes("x86_64").write(thread=1), FolderResolver([]))


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ("'[' * 100_000", "LLDB sends what is no request"),
        ("'{' * 100_000", "LLDB sends what is no request"),
        ("'no json'", "LLDB sends what is no request"),
        ('\'{"modules": [1e999], "why": ""}\'', "LLDB sends what is no request"),
        ('\'{"modules": {"0": 0}}\'', "LLDB sends what is no request"),
        ('\'{"sources": [["x", "/\\\\ud800\\\\u0000"]]}\'', "LLDB requests what it may not"),  # a second time
        ('\'{"modules": [-1, 0, 9999999999], "why": "\\\\u001b[2J"}\'', "LLDB sends more than 64 requests"),
    ],
)
def test_what_a_hostile_debugger_requests_is_an_error(
    scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_: str, expected: str
) -> None:
    body = (
        "import os, sys\npipe, requests = os.fdopen(int(sys.argv[2])), int(sys.argv[4])\n"
        f"pipe.readline()\nwhile True:\n    os.write(requests, ({request_} + '\\n').encode())\n    pipe.readline()\n"
    )
    _worker(monkeypatch, tmp_path, body)
    dump = scenes("x86_64").write(thread=1)
    with LldbProcess(Mode.PRINT) as lldb, pytest.raises(DebuggerError, match=f"crash.zip: {expected}") as error:
        open_in_lldb(dump, FolderResolver([]), lldb, here=ChainResolver([]), sources=_NoSources())
    assert error.value.hint == "the dump may be hostile"


class _NoSources:
    """Has no sources, but may be asked for some."""

    def fetch(self, wanted: Sequence[SourceRequest]) -> dict[SourceRequest, Path]:
        del wanted
        return {}
