"""Runs inside the child process: opens a core in LLDB as a plan says, and reports as JSON, or hands over the prompt.

Started as a script, `python -P worker.py MODE FD LLDB REQUESTS` or with `-I`, by the Python that LLDB was made for:
standard library only, Python 3.9. MODE is `analyze` (one JSON object on standard output), `print` or `prompt`; LLDB is
JSON too and says where the package is. The plan, a line of JSON, is read from the descriptor FD once LLDB is imported;
protocol.py tells its fields, and those of the report.

With `send_sources`, `print` and `prompt` request the source files of the frames that they print: a line
[[UUID, path], …] goes out through the descriptor REQUESTS, and a line [[from, to], …] of folders to map comes back
from FD.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).resolve().parent


def _load(name: str, folder: Path = _FOLDER) -> Any:
    """Import one of our files by its path: no folder of ours may be on Python's, where `html.py` is another."""
    path = folder / (name + ".py")
    spec = importlib.util.spec_from_file_location("symcache_" + name, path)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    sys.modules["symcache_" + name] = module
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


_target = _load("worker_target")
_printable = _load("text", _FOLDER.parents[1]).printable
_SOURCE_FRAMES = 64
"""Frames whose sources are requested."""
_AROUND = 3
"""Source lines before and behind that of the stop."""


def main(mode: str, descriptor: int, package: dict[str, str], requests: int) -> int:
    """Do what the plan says. Return the exit code: 0, or 4 if LLDB does not take the core."""
    # LLDB writes warnings wherever it likes: what the parent reads must be only ours.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    if mode == "analyze":
        os.dup2(2, 1)
    lldb = _load("finder").import_lldb(package["package_folder"], package["library"])
    pipe = os.fdopen(descriptor, encoding="utf-8")
    text = pipe.readline()
    if not text:
        return 0  # the parent has nothing for it to do
    plan = json.loads(text)
    _limit(plan["memory"], mode)
    debugger, target, process, modules = _target.open_target(lldb, plan)
    if target is None:
        channel.write(json.dumps({"error": modules}) + "\n")
        channel.flush()
        return 4
    if mode == "analyze":
        result: dict[str, Any] = {
            "version": lldb.SBDebugger.GetVersionString().split("\n")[0],
            "modules": modules,
            "threads": [
                _target.walked_frames(target, process.GetThreadAtIndex(n)) for n in range(process.GetNumThreads())
            ]
            if process is not None
            else [_target.symbolicated_frames(lldb, target, addresses) for addresses in plan["frames"]],
        }
        if process is None:
            result["backtraces"] = [
                _target.symbolicated_frames(lldb, target, addresses, returns=True) for addresses in plan["backtraces"]
            ]
        json.dump(result, channel)
        channel.flush()
        os._exit(0)  # LLDB's own clearing up takes longer than all of the above, and may crash
    if plan["send_sources"]:
        _request_sources(lldb, debugger, process.GetSelectedThread(), pipe, requests)
    pipe.close()
    _prompt(lldb, debugger, process, interactive=mode == "prompt")
    sys.stdout.flush()
    os._exit(0)


def _limit(memory: int, mode: str) -> None:
    try:
        import resource  # noqa: PLC0415 (not on every system)
    except ImportError:
        return
    limits = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_AS, memory)]
    if mode == "analyze":
        limits.append((resource.RLIMIT_FSIZE, 1 << 20))
    for which, value in limits:
        try:
            resource.setrlimit(which, (value, value))
        except (ValueError, OSError):
            pass  # a harder limit is already there, or the system has none of this kind


def _source_lines(thread: Any) -> Iterator[tuple[int, Any, Any]]:
    """Yield (number, frame, line entry) of the first frames, as far as they have lines."""
    for number in range(min(thread.GetNumFrames(), _SOURCE_FRAMES)):
        frame = thread.GetFrameAtIndex(number)
        line = frame.GetLineEntry()
        if line.IsValid() and line.GetLine():
            yield number, frame, line


def _request_sources(lldb: Any, debugger: Any, thread: Any, pipe: Any, requests: int) -> None:
    wanted = [
        [_target.uuid_of(frame.GetModule()), _target.path_of(line.GetFileSpec())]
        for _, frame, line in _source_lines(thread)
    ]
    with os.fdopen(requests, "w", encoding="utf-8") as request:
        request.write(json.dumps(wanted) + "\n")
    _target.map_sources(lldb, debugger, json.loads(pipe.readline() or "[]"))


def _print_source(lldb: Any, thread: Any) -> None:
    """Print the lines around the first frame whose source is here."""
    for number, _, line in _source_lines(thread):
        stream = lldb.SBStream()
        manager = thread.GetProcess().GetTarget().GetSourceManager()
        manager.DisplaySourceLinesWithLineNumbers(line.GetFileSpec(), line.GetLine(), _AROUND, _AROUND, "->", stream)
        text = stream.GetData()
        if text and text.strip():
            name = _printable(line.GetFileSpec().GetFilename() or "")
            _write(f"\nsource of frame #{number}, {name}:{line.GetLine()}\n{text}")
            return


def _write(text: str) -> None:
    """Print what LLDB says: the names in it are foreign."""
    sys.stdout.write(_printable(text, keep="\t\n"))
    sys.stdout.flush()


def _prompt(lldb: Any, debugger: Any, process: Any, *, interactive: bool) -> None:
    debugger.SetOutputFileHandle(sys.stdout, False)
    debugger.SetErrorFileHandle(sys.stderr, False)
    color = debugger.GetUseColor()
    debugger.SetUseColor(False)  # with it, escape sequences of LLDB's own would be in the text
    result = lldb.SBCommandReturnObject()
    debugger.GetCommandInterpreter().HandleCommand("bt", result)
    _write((result.GetOutput() or "") + (result.GetError() or ""))
    _print_source(lldb, process.GetSelectedThread())
    debugger.SetUseColor(color)
    if not interactive:
        return
    debugger.SetInputFileHandle(sys.stdin, False)

    def run() -> None:
        debugger.RunCommandInterpreter(True, False, lldb.SBCommandInterpreterRunOptions(), 0, False, False)

    # In a thread of its own, so that Python keeps handling Ctrl-C here.
    signal.signal(signal.SIGINT, lambda *_: debugger.DispatchInputInterrupt())
    interpreter = threading.Thread(target=run, daemon=True)
    interpreter.start()
    while interpreter.is_alive():
        interpreter.join(0.1)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4])))
