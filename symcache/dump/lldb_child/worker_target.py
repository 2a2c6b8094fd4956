"""What the child process has LLDB do: open the core, take the modules, say what their frames are.

Loaded by `worker.py`, and for the command `symcache load` by `session.py`, from its file: standard library only,
Python 3.9.
"""

from __future__ import annotations

from typing import Any

from .worker_modules import Modules, map_sources, path_of, run, uuid_of, without_scripts

__all__ = ["open_core", "open_target", "select_thread", "walked_frames"]

_NONE = (1 << 64) - 1


def open_target(lldb: Any, plan: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """Return debugger, target, process and its modules, or, if it failed: debugger, None, None and why."""
    debugger = lldb.SBDebugger.Create(False)  # False: reads no .lldbinit
    debugger.SetAsync(False)
    debugger.SkipLLDBInitFiles(True)
    debugger.SkipAppInitFiles(True)
    name = debugger.GetInstanceName()
    settings = {
        "symbols.enable-external-lookup": "false",
        "symbols.auto-download": "off",
        "target.preload-symbols": "false",
        "target.load-script-from-symbol-file": "false",
        "target.load-cwd-lldbinit": "false",
        "target.process.python-os-plugin-path": "",
        "target.process.thread.max-backtrace-depth": str(plan["max_frames"]),
    }
    if plan["triple"].startswith("arm64"):
        # Strips the pointer authentication code off return addresses.
        settings["target.process.virtual-addressable-bits"] = "47"
    for key, value in settings.items():
        debugger.SetInternalVariable(key, value, name)  # a version that lacks one needs it not
    # Else the search for run-time checkers (BoundsSafety) reads the symbols of every module, where a backtrace needs
    # those of a few. Older versions have neither plug-in nor command.
    run(lldb, debugger, "plugin disable instrumentation-runtime")
    target, process, why = open_core(lldb, debugger, plan)
    if target is None:
        return debugger, None, None, why
    map_sources(lldb, debugger, plan["source_map"])
    modules = Modules(lldb, target, plan["modules"])
    if "thread" in plan:
        select_thread(process, plan["thread"])
    return debugger, target, process, modules


def open_core(lldb: Any, debugger: Any, plan: dict[str, Any]) -> tuple[Any, Any, str]:
    """Return target, process and nothing, or, if it failed: None, None and why."""
    error = lldb.SBError()
    with without_scripts(lldb, debugger):
        target = debugger.CreateTarget("", plan["triple"] or None, None, False, error)
        if not target.IsValid():
            return None, None, f"LLDB makes no target for {plan['triple']}: {error.GetCString()}"
        process = target.LoadCore(plan["core"], error)
    if not process.IsValid():
        return None, None, error.GetCString() or "LLDB does not take the core"
    return target, process, ""


def select_thread(process: Any, index: int) -> None:
    """Select a thread, by its place among them, and its top frame."""
    thread = process.GetThreadAtIndex(index)
    if thread.IsValid():
        process.SetSelectedThread(thread)
        thread.SetSelectedFrame(0)


def walked_frames(target: Any, thread: Any) -> dict[str, Any]:
    """Return name and frames of a thread, as LLDB walks its stack."""
    frames = []
    for number in range(thread.GetNumFrames()):
        frame = thread.GetFrameAtIndex(number)
        pc = frame.GetPC()
        entry: dict[str, Any] = {"pc": pc, "inlined": frame.IsInlined()}
        module = frame.GetModule()
        if module.IsValid():
            entry["module"] = path_of(module.GetFileSpec())
            entry["uuid"] = uuid_of(module)
        name = frame.GetFunctionName()
        if name:
            entry["function"] = name
            function = frame.GetFunction()
            named = function if function.IsValid() else frame.GetSymbol()
            start = named.GetStartAddress()
            if not entry["inlined"]:
                _add_mangled(entry, named)
            begin = start.GetLoadAddress(target)
            if begin != _NONE and pc >= begin:
                entry["offset"] = pc - begin
        _add_line(entry, frame.GetLineEntry())
        frames.append(entry)
    return {"name": thread.GetName(), "frames": frames}


def _add_mangled(entry: dict[str, Any], named: Any) -> None:
    mangled = named.GetMangledName()
    if mangled and mangled != entry["function"]:
        entry["mangled"] = mangled


def _add_line(entry: dict[str, Any], line: Any) -> None:
    if line.IsValid() and line.GetLine():
        entry["file"] = path_of(line.GetFileSpec())
        entry["line"] = line.GetLine()
        entry["column"] = line.GetColumn() or None
