"""Runs inside the child process: opens a core in LLDB as a plan says, and reports as JSON, or hands over the prompt.

Started as a script, `python -P worker.py MODE FD LLDB REQUESTS` or with `-I`, by the Python that LLDB was made for:
standard library only, Python 3.9. MODE is `analyze` (one JSON object on standard output), `print` or `prompt`; LLDB is
JSON too and says where the package is. The plan, a line of JSON, is read from the descriptor FD once LLDB is imported;
protocol.py tells its fields, and those of the report.

While at work it requests, line by line through the descriptor REQUESTS, what turns out to be needed, and the response
is a line from FD: {"modules": [NUMBER, …], "why": …} of the plan, which gives {"modules": [[NUMBER, its plan], …],
"source_map": …, "problem": …}; with `send_sources` also the source files of the frames that `print` and `prompt` print,
{"sources": [[UUID, path], …]}, which gives folders to map, [[from, to], …].
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).resolve().parent


def _import(name: str, folder: Path = _FOLDER) -> Any:
    """Import one of our files by its path: no folder of ours may be on Python's, where `html.py` is another."""
    package = "symcache_" + folder.name
    if package not in sys.modules:
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__path__ = [str(folder)]
    return importlib.import_module(package + "." + name)


_target = _import("worker_target")
_modules = _import("worker_modules")
_commands = _import("worker_commands")
_printable = _import("text", _FOLDER.parents[1]).printable
_SOURCE_FRAMES = 64
"""Frames whose sources are requested."""
_AROUND = 3
"""Source lines before and behind that of the stop."""


def main(mode: str, descriptor: int, package: dict[str, str], requests: int) -> int:
    """Do what the plan says. Return the exit code, 0; ends the process with 4 if LLDB does not take the core."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it, whatever LLDB is busy with, until there is a prompt
    # LLDB writes warnings wherever it likes: what the parent reads must be only ours.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    if mode == "analyze":
        os.dup2(2, 1)
    lldb = _import("finder").import_lldb(package["package_folder"], package["library"])
    pipe = os.fdopen(descriptor, encoding="utf-8")
    text = pipe.readline()
    if not text:
        return 0  # the parent has nothing for it to do
    plan = json.loads(text)
    debugger, target, process, modules = _target.open_target(lldb, plan)
    if target is None:
        channel.write(json.dumps({"error": modules}) + "\n" if mode != "prompt" else _printable(modules) + "\n")
        channel.flush()
        os._exit(4)  # as below
    modules.request = _Requests(pipe, requests)
    crashed = process.GetSelectedThread()
    modules.complete([crashed] if mode != "analyze" else _threads(process))
    if mode == "analyze":
        result: dict[str, Any] = {
            "version": lldb.SBDebugger.GetVersionString().split("\n")[0],
            "modules": modules.reports,
            "threads": [_target.walked_frames(target, thread) for thread in _threads(process)],
        }
        json.dump(result, channel)
        channel.flush()
        os._exit(0)  # LLDB's own clearing up takes longer than all of the above, and may crash
    if plan["send_sources"]:
        _request_sources(lldb, debugger, crashed, modules.request)
    _prompt(lldb, debugger, process, modules, interactive=mode == "prompt")
    sys.stdout.flush()
    os._exit(0)


class _Requests:
    """Sends a request to the parent, and returns its response."""

    def __init__(self, pipe: Any, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)  # the parent waits for its end
        self._pipe, self._requests = pipe, os.fdopen(descriptor, "w", encoding="utf-8")

    def __call__(self, request: dict[str, Any]) -> Any:
        self._requests.write(json.dumps(request) + "\n")
        self._requests.flush()
        return json.loads(self._pipe.readline() or "null")


def _threads(process: Any) -> list[Any]:
    return [process.GetThreadAtIndex(n) for n in range(process.GetNumThreads())]


def _source_lines(thread: Any) -> Iterator[tuple[int, Any, Any]]:
    """Yield (number, frame, line entry) of the first frames, as far as they have lines."""
    for number in range(min(thread.GetNumFrames(), _SOURCE_FRAMES)):
        frame = thread.GetFrameAtIndex(number)
        line = frame.GetLineEntry()
        if line.IsValid() and line.GetLine():
            yield number, frame, line


def _request_sources(lldb: Any, debugger: Any, thread: Any, request: Any) -> None:
    wanted = [
        [_modules.uuid_of(frame.GetModule()), _modules.path_of(line.GetFileSpec())]
        for _, frame, line in _source_lines(thread)
    ]
    _modules.map_sources(lldb, debugger, request({"sources": wanted}) or [])


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


def _prompt(lldb: Any, debugger: Any, process: Any, modules: Any, *, interactive: bool) -> None:
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
    _write(_commands.Commands(lldb, debugger, process, modules, _write).introduction())

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
