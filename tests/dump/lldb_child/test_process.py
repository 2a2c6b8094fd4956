"""A debugger that hangs, dies, lies or wants too much: an error in time, and nothing left running."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from symcache.dump import Limits, analyze
from symcache.dump.lldb_child import process as debugger_module
from symcache.errors import DebuggerError
from symcache.resolve import FolderResolver
from tests.dump.scene import Scene
from tests.support.waiting import until

Scenes = Callable[..., Scene]


def _worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> None:
    script = tmp_path / "worker.py"
    script.write_text(body)
    monkeypatch.setattr(debugger_module, "_WORKER", script)


def test_a_debugger_that_hangs_is_stopped_in_time(
    scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"
    _worker(
        monkeypatch,
        tmp_path,
        f"import os, subprocess, time\nchild = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(pids)!r} + '.part', 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        f"os.rename({str(pids)!r} + '.part', {str(pids)!r})\ntime.sleep(600)\n",
    )
    for seconds in (2, 20, 120):  # a busy machine may not even have started it
        with pytest.raises(DebuggerError, match=rf"crash.zip: LLDB was not done after {seconds} seconds") as error:
            analyze(scenes("x86_64").write(thread=1), FolderResolver([]), limits=Limits(seconds=seconds))
        assert "--timeout" in error.value.hint
        if pids.exists():
            break
    for pid in pids.read_text().split():
        until(lambda pid=int(pid): _ended(pid), "it lives on")


def _ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (f"import os\nos.kill(os.getpid(), {int(signal.SIGSEGV)})\n", "LLDB died of SIGSEGV on it"),
        (f"import os\nos.kill(os.getpid(), {int(signal.SIGKILL)})\n", "LLDB died of SIGKILL on it"),
        ("import sys\nsys.exit('cannot import')\n", "LLDB's process failed: cannot import"),
        ("print('no json')\n", "LLDB's report is not JSON"),
        ("raise MemoryError\n", "more memory than it is allowed"),
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
    with pytest.raises(DebuggerError):
        analyze(scenes("x86_64").write(thread=1), FolderResolver([]), limits=Limits(memory=64 << 20))
